"""Writing the pcapng capture file format (draft-ietf-opsawg-pcapng): section header, interfaces, packets."""

import struct
from pathlib import Path
from typing import BinaryIO

from emuvisor.errors import HostError

__all__ = ["INBOUND", "OUTBOUND", "PcapngWriter"]

SECTION_HEADER_BLOCK = 0x0A0D0D0A
INTERFACE_DESCRIPTION_BLOCK = 1
ENHANCED_PACKET_BLOCK = 6
BYTE_ORDER_MAGIC = 0x1A2B3C4D
VERSION = (1, 0)
UNKNOWN_LENGTH = -1
LINKTYPE_ETHERNET = 1
NO_LIMIT = 0
"""A snapshot length: packets are never cut."""

OPT_END = 0
SHB_USERAPPL = 4
IF_NAME = 2
IF_TSRESOL = 9
EPB_FLAGS = 2
NANOSECONDS = 9
"""if_tsresol: a negative power of ten."""

INBOUND = 1
OUTBOUND = 2
"""Directions of epb_flags, as the interface sees them."""

_SECTION = struct.Struct("<IHHq")
_INTERFACE = struct.Struct("<HHI")
_PACKET = struct.Struct("<IIIII")
_OPTION = struct.Struct("<HH")
_LENGTH = struct.Struct("<I")
_BLOCK = struct.Struct("<II")
_PACKET_TAIL = struct.Struct("<HHIHHI")
_PACKET_FIXED = _BLOCK.size + _PACKET.size + _PACKET_TAIL.size


def _padding(length: int) -> bytes:
    return bytes(-length % 4)


def _option(code: int, value: bytes) -> bytes:
    return _OPTION.pack(code, len(value)) + value + _padding(len(value))


def _block(kind: int, body: bytes) -> bytes:
    length = _LENGTH.pack(_BLOCK.size + len(body) + _LENGTH.size)
    return _LENGTH.pack(kind) + length + body + length


class PcapngWriter:
    """A file of at most `max_bytes` bytes; what does not fit any more is counted in `missed`, as is all after an error.

    Raises HostError naming the file if it cannot be made. Writing never raises: `error` says why it ended.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.missed = 0
        self.error = ""
        self._max_bytes = max_bytes
        self._written = 0
        self._interfaces = 0
        try:
            self._file: BinaryIO = path.open("wb")
        except OSError as error:
            raise HostError(f"capture {path}: {error.strerror}") from None
        body = _SECTION.pack(BYTE_ORDER_MAGIC, *VERSION, UNKNOWN_LENGTH)
        self._write(
            _block(SECTION_HEADER_BLOCK, body + _option(SHB_USERAPPL, b"emuvisor") + _option(OPT_END, b""))
        )

    def interface(self, name: str) -> int | None:
        """Describe one more interface; returns its number, or None if the file is full."""
        body = _INTERFACE.pack(LINKTYPE_ETHERNET, 0, NO_LIMIT) + _option(IF_NAME, name.encode())
        body += _option(IF_TSRESOL, bytes((NANOSECONDS,))) + _option(OPT_END, b"")
        if not self._write(_block(INTERFACE_DESCRIPTION_BLOCK, body)):
            return None
        self._interfaces += 1
        return self._interfaces - 1

    def packet(self, interface: int, time_ns: int, frame: bytes, direction: int) -> None:
        """Append a packet; `time_ns` counts from 1970."""
        length = len(frame)
        padding = _padding(length)
        total = _PACKET_FIXED + length + len(padding)
        written = self._write(
            b"".join(
                (
                    _BLOCK.pack(ENHANCED_PACKET_BLOCK, total),
                    _PACKET.pack(interface, time_ns >> 32, time_ns & 0xFFFF_FFFF, length, length),
                    frame,
                    padding,
                    _PACKET_TAIL.pack(EPB_FLAGS, 4, direction, OPT_END, 0, total),
                )
            )
        )
        if not written:
            self.missed += 1

    def close(self) -> None:
        """Everything is in the file, and the file is closed."""
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or str(error.strerror)

    def _write(self, block: bytes) -> bool:
        if self.error or self._written + len(block) > self._max_bytes:
            return False
        try:
            self._file.write(block)
        except OSError as error:
            self.error = str(error.strerror)
            return False
        self._written += len(block)
        return True
