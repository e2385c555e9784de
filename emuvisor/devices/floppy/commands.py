"""The commands of the 82077AA: how they are told apart, and how many bytes they have.

Source: Intel 82077AA data sheet, "Command Set/Descriptions". READ TRACK and the SCAN commands are left out:
no driver uses them. To the chip they are invalid commands, as PART ID is, by which drivers know an 82077AA.
"""

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["COMMAND_LENGTH", "Command", "Op", "find_command"]


class Op(IntEnum):
    """Commands by their code, without the bits that are parameters; INVALID is any other."""

    INVALID = 0x00
    SPECIFY = 0x03
    SENSE_DRIVE_STATUS = 0x04
    WRITE_DATA = 0x05
    READ_DATA = 0x06
    RECALIBRATE = 0x07
    SENSE_INTERRUPT_STATUS = 0x08
    WRITE_DELETED_DATA = 0x09
    READ_ID = 0x0A
    READ_DELETED_DATA = 0x0C
    FORMAT_TRACK = 0x0D
    DUMPREG = 0x0E
    SEEK = 0x0F
    VERSION = 0x10
    PERPENDICULAR_MODE = 0x12
    CONFIGURE = 0x13
    LOCK = 0x14
    VERIFY = 0x16
    RELATIVE_SEEK = 0x8F


@dataclass(frozen=True, slots=True)
class Command:
    """The command `op`: `parameters` are the bits of its first byte that vary, `length` counts its bytes."""

    op: Op
    parameters: int
    length: int


_INVALID = Command(Op.INVALID, 0, 1)
_COMMANDS = (
    Command(Op.READ_DATA, 0xE0, 9),
    Command(Op.READ_DELETED_DATA, 0xE0, 9),
    Command(Op.WRITE_DATA, 0xC0, 9),
    Command(Op.WRITE_DELETED_DATA, 0xC0, 9),
    Command(Op.VERIFY, 0xE0, 9),
    Command(Op.FORMAT_TRACK, 0x40, 6),
    Command(Op.READ_ID, 0x40, 2),
    Command(Op.SEEK, 0x00, 3),
    Command(Op.RELATIVE_SEEK, 0x40, 3),
    Command(Op.RECALIBRATE, 0x00, 2),
    Command(Op.SENSE_INTERRUPT_STATUS, 0x00, 1),
    Command(Op.SENSE_DRIVE_STATUS, 0x00, 2),
    Command(Op.SPECIFY, 0x00, 3),
    Command(Op.CONFIGURE, 0x00, 4),
    Command(Op.DUMPREG, 0x00, 1),
    Command(Op.VERSION, 0x00, 1),
    Command(Op.PERPENDICULAR_MODE, 0x00, 2),
    Command(Op.LOCK, 0x80, 1),
)
COMMAND_LENGTH = max(command.length for command in _COMMANDS)


def find_command(first_byte: int) -> Command:
    """The command that begins with `first_byte`."""
    for command in _COMMANDS:
        if first_byte & ~command.parameters == command.op:
            return command
    return _INVALID
