"""Why a SCSI command fails: sense keys, additional sense codes, sense data.

Source: SPC-3 (T10/1416D), section 4.5; MMC-5 (T10/1675D), annex F.
"""

from dataclasses import dataclass

__all__ = ["SENSE_LENGTH", "CheckCondition", "Sense"]

# Sense keys
NO_SENSE = 0x0
NOT_READY = 0x2
MEDIUM_ERROR = 0x3
ILLEGAL_REQUEST = 0x5
UNIT_ATTENTION = 0x6

SENSE_LENGTH = 18
CURRENT_FIXED = 0x70
INFORMATION_VALID = 0x80


@dataclass(frozen=True, slots=True)
class Sense:
    """Sense key, additional sense code and its qualifier."""

    key: int
    asc: int = 0
    ascq: int = 0

    def encode(self, information: int | None = None) -> bytes:
        """Fixed format sense data; `information` is the block in question."""
        data = bytearray(SENSE_LENGTH)
        data[0] = CURRENT_FIXED
        if information is not None:
            data[0] |= INFORMATION_VALID
            data[3:7] = information.to_bytes(4, "big")
        data[2] = self.key
        data[7] = SENSE_LENGTH - 8
        data[12], data[13] = self.asc, self.ascq
        return bytes(data)


NO_ERROR = Sense(NO_SENSE)
UNRECOVERED_READ_ERROR = Sense(MEDIUM_ERROR, 0x11)
INVALID_OPERATION_CODE = Sense(ILLEGAL_REQUEST, 0x20)
BLOCK_OUT_OF_RANGE = Sense(ILLEGAL_REQUEST, 0x21)
INVALID_FIELD = Sense(ILLEGAL_REQUEST, 0x24)
SAVING_NOT_SUPPORTED = Sense(ILLEGAL_REQUEST, 0x39)
INCOMPATIBLE_FORMAT = Sense(ILLEGAL_REQUEST, 0x30, 0x02)
REMOVAL_PREVENTED = Sense(ILLEGAL_REQUEST, 0x53, 0x02)
MEDIUM_CHANGED = Sense(UNIT_ATTENTION, 0x28)
POWER_ON = Sense(UNIT_ATTENTION, 0x29)
NO_MEDIUM_TRAY_CLOSED = Sense(NOT_READY, 0x3A, 0x01)
NO_MEDIUM_TRAY_OPEN = Sense(NOT_READY, 0x3A, 0x02)


class CheckCondition(Exception):
    """A command ends with `sense`; never leaves the drive."""

    def __init__(self, sense: Sense, information: int | None = None) -> None:
        super().__init__(sense)
        self.sense = sense
        self.information = information
