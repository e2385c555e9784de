"""Files with tables in them whose pointers and checksums are filled in once their addresses are known.

A `TableFiles` does that itself (`place`) for a guest without firmware, or writes the script from which firmware does
it: "etc/table-loader" of fw_cfg, as SeaBIOS and OVMF read it (QEMU's documentation, bios-linker-loader).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from emuvisor.errors import UsageError

__all__ = ["TableFiles", "Zone", "checksum"]

# Commands of the script: 128 bytes each, names of 56.
COMMAND_SIZE = 128
MAX_NAME = 55
ALLOCATE = struct.Struct("<I56sIB")
ADD_POINTER = struct.Struct("<I56s56sIB")
ADD_CHECKSUM = struct.Struct("<I56sIII")
COMMAND_ALLOCATE = 1
COMMAND_ADD_POINTER = 2
COMMAND_ADD_CHECKSUM = 3


class Zone:
    """Where firmware shall put a file."""

    HIGH = 1
    """Anywhere in RAM."""
    F_SEGMENT = 2
    """Where the operating system looks for anchors, F0000h to FFFFFh."""


def checksum(data: bytes | bytearray) -> int:
    """The byte that makes the sum of `data`'s bytes 0."""
    return -sum(data) & 0xFF


@dataclass(slots=True)
class _File:
    align: int
    zone: int
    data: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class _Pointer:
    file: str
    offset: int
    size: int
    target: str
    value: int


@dataclass(frozen=True, slots=True)
class _Checksum:
    file: str
    offset: int
    start: int
    length: int


class TableFiles:
    """Named files; each `append` grows one, `point` and `seal` say what is to be filled in, in that order."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._steps: list[_Pointer | _Checksum] = []

    def create(self, name: str, align: int, zone: int) -> None:
        """A new, empty file that begins at a multiple of `align`. Raises UsageError for a name beyond 55 characters."""
        if len(name) > MAX_NAME:
            raise UsageError(
                f"table loader: file name {name!r} has {len(name)} characters; the limit is {MAX_NAME}"
            )
        self._files[name] = _File(align, zone)

    def append(self, name: str, data: bytes, align: int = 1) -> int:
        """Put `data` at the end of file `name`, at a multiple of `align`; returns its offset."""
        content = self._files[name].data
        content += bytes(-len(content) % align)
        offset = len(content)
        content += data
        return offset

    def point(self, name: str, offset: int, size: int, target: str, value: int) -> None:
        """The `size` bytes at `offset` of file `name` become the address of offset `value` of file `target`."""
        self._files[name].data[offset : offset + size] = value.to_bytes(size, "little")
        self._steps.append(_Pointer(name, offset, size, target, value))

    def seal(self, name: str, offset: int, start: int, length: int) -> None:
        """The byte at `offset` of file `name` becomes the checksum over `length` bytes from `start`."""
        self._files[name].data[offset] = 0
        self._steps.append(_Checksum(name, offset, start, length))

    def size(self, name: str) -> int:
        """How many bytes file `name` has."""
        return len(self._files[name].data)

    def place(self, addresses: Mapping[str, int]) -> dict[str, bytes]:
        """The files' contents when they lie at `addresses`."""
        placed = {name: bytearray(f.data) for name, f in self._files.items()}
        for step in self._steps:
            data = placed[step.file]
            if isinstance(step, _Pointer):
                address = addresses[step.target] + step.value
                data[step.offset : step.offset + step.size] = address.to_bytes(step.size, "little")
            else:
                data[step.offset] = checksum(data[step.start : step.start + step.length])
        return {name: bytes(data) for name, data in placed.items()}

    def files(self) -> dict[str, bytes]:
        """The files' contents for firmware, which fills them in by the script."""
        return {name: bytes(f.data) for name, f in self._files.items()}

    def script(self) -> bytes:
        """The commands for firmware."""
        commands = [
            ALLOCATE.pack(COMMAND_ALLOCATE, name.encode(), f.align, f.zone) for name, f in self._files.items()
        ]
        for step in self._steps:
            file = step.file.encode()
            if isinstance(step, _Pointer):
                target = step.target.encode()
                commands.append(ADD_POINTER.pack(COMMAND_ADD_POINTER, file, target, step.offset, step.size))
            else:
                commands.append(
                    ADD_CHECKSUM.pack(COMMAND_ADD_CHECKSUM, file, step.offset, step.start, step.length)
                )
        return b"".join(command.ljust(COMMAND_SIZE, b"\0") for command in commands)
