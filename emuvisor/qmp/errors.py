"""A command that fails, as QMP says it: a class for programs and a text for people."""

from enum import StrEnum

__all__ = ["ErrorClass", "QmpError"]


class ErrorClass(StrEnum):
    """QAPI's QapiErrorClass."""

    GENERIC = "GenericError"
    COMMAND_NOT_FOUND = "CommandNotFound"
    DEVICE_NOT_ACTIVE = "DeviceNotActive"
    DEVICE_NOT_FOUND = "DeviceNotFound"


class QmpError(Exception):
    """What the client hears in place of an answer; it never leaves this package."""

    def __init__(self, text: str, error_class: ErrorClass = ErrorClass.GENERIC) -> None:
        super().__init__(text)
        self.error_class = error_class
