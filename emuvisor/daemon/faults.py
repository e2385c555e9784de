"""Errors on their way through HTTP: `{"error": text, "kind": name of the class}`, and back."""

from http import HTTPStatus

from emuvisor import errors
from emuvisor.errors import (
    AdmissionError,
    BusConflict,
    ConfigError,
    EmuvisorError,
    HostError,
    ImageError,
    MigrationError,
    SnapshotError,
    StateError,
    UsageError,
)

__all__ = [
    "Forbidden",
    "NotFound",
    "SlowBody",
    "TooLarge",
    "TooManyRequests",
    "error_of",
    "kind_of",
    "plain",
    "status_of",
]

MAX_TEXT = 4000


class NotFound(UsageError):
    """There is no guest, snapshot, operation or file of this name."""


class Forbidden(UsageError):
    """Who comes over TCP may not do this."""


class TooLarge(UsageError):
    """A body beyond the limit."""


class SlowBody(UsageError):
    """A body that does not come in time."""


class TooManyRequests(HostError):
    """Others have all there is; it can be tried again later."""


_STATUS: tuple[tuple[type[Exception], HTTPStatus], ...] = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (Forbidden, HTTPStatus.FORBIDDEN),
    (TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (SlowBody, HTTPStatus.REQUEST_TIMEOUT),
    (StateError, HTTPStatus.CONFLICT),
    (SnapshotError, HTTPStatus.CONFLICT),
    (AdmissionError, HTTPStatus.CONFLICT),
    (BusConflict, HTTPStatus.CONFLICT),
    (ConfigError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (ImageError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (UsageError, HTTPStatus.BAD_REQUEST),
    (MigrationError, HTTPStatus.CONFLICT),
    (EmuvisorError, HTTPStatus.SERVICE_UNAVAILABLE),
    (MemoryError, HTTPStatus.SERVICE_UNAVAILABLE),
)
"""The first one that fits. What is not here is a bug, and 500."""


def status_of(error: BaseException) -> HTTPStatus:
    """The HTTP status that says the same as `error`."""
    return next((s for kind, s in _STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)


def kind_of(error: BaseException) -> str:
    """The name of the class in `emuvisor.errors` that `error` is of."""
    names = (kind.__name__ for kind in type(error).__mro__)
    return next((name for name in names if name in errors.__all__), "HostError")


def plain(error: BaseException) -> dict[str, str]:
    """The body that says `error`; a bug's text stays in the log."""
    if isinstance(error, EmuvisorError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = "the host has no memory left"
    else:
        text = "something went wrong; the daemon's log says what"
    text = text[:MAX_TEXT].encode(errors="backslashreplace").decode()  # of a file name that is no text
    return {"error": text, "kind": kind_of(error)}


def error_of(body: object) -> EmuvisorError:
    """The exception that `plain` made `body` of; HostError for what is none."""
    if isinstance(body, dict):
        text, kind = body.get("error"), body.get("kind")
        if isinstance(text, str) and isinstance(kind, str) and kind in errors.__all__:
            made: EmuvisorError = getattr(errors, kind)(text)
            return made
    return HostError(f"the daemon's answer is not to be understood: {str(body)[:200]!r}")
