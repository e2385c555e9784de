"""The RFB protocol, version 3.8: its numbers, and what viewers send. Source: RFC 6143.

A viewer is not to be trusted: what it sends is bounded here, and what breaks the protocol raises ProtocolError, which
ends its session and nothing else.
"""

import asyncio
import re
import struct
from dataclasses import dataclass
from typing import Self

__all__ = [
    "DESKTOP_SIZE",
    "RAW",
    "ZRLE",
    "CutText",
    "KeyEvent",
    "Message",
    "PixelFormat",
    "PointerEvent",
    "ProtocolError",
    "SetEncodings",
    "SetPixelFormat",
    "UpdateRequest",
    "parse_version",
    "read_message",
    "reason",
    "rectangle_header",
    "server_init",
    "update_header",
]

OFFERED_VERSION = b"RFB 003.008\n"
_VERSION = re.compile(rb"RFB (\d{3})\.(\d{3})\n")

# Security types and results.
SECURITY_INVALID = 0
SECURITY_NONE = 1
SECURITY_VNC = 2
SECURITY_OK = 0
SECURITY_FAILED = 1
CHALLENGE_LENGTH = 16

# Messages from a viewer.
SET_PIXEL_FORMAT = 0
SET_ENCODINGS = 2
FRAMEBUFFER_UPDATE_REQUEST = 3
KEY_EVENT = 4
POINTER_EVENT = 5
CLIENT_CUT_TEXT = 6

# Messages to a viewer.
FRAMEBUFFER_UPDATE = 0

# Encodings.
RAW = 0
ZRLE = 16
DESKTOP_SIZE = -223

MAX_ENCODINGS = 1024
MAX_CUT_TEXT = 1 << 20
"""Bytes of a viewer's clipboard, which is read and thrown away."""
CUT_TEXT_STEP = 1 << 16


class ProtocolError(Exception):
    """A viewer sent what the protocol does not allow, or more of it than this server takes."""


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How a viewer wants a pixel: where its channels are in a number of 8, 16 or 32 bits."""

    bits: int = 32
    depth: int = 24
    big_endian: bool = False
    red_max: int = 255
    green_max: int = 255
    blue_max: int = 255
    red_shift: int = 16
    green_shift: int = 8
    blue_shift: int = 0

    _LAYOUT = struct.Struct(">BBBBHHHBBB3x")

    def pack(self) -> bytes:
        """The format's 16 bytes."""
        maxima = self.red_max, self.green_max, self.blue_max
        shifts = self.red_shift, self.green_shift, self.blue_shift
        return self._LAYOUT.pack(self.bits, self.depth, self.big_endian, True, *maxima, *shifts)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The format in 16 bytes. Raises ProtocolError for one that is not true colour or does not fit its bits."""
        bits, depth, big_endian, true_colour, *channels = cls._LAYOUT.unpack(data)
        if not true_colour:
            raise ProtocolError("the viewer wants a colour map; this server has true colour only")
        if bits not in (8, 16, 32):
            raise ProtocolError(f"the viewer wants {bits} bits per pixel; there are 8, 16 and 32")
        for maximum, shift in zip(channels[:3], channels[3:], strict=True):
            if shift >= bits or maximum << shift >= 1 << bits:
                raise ProtocolError(
                    f"a channel of 0 to {maximum}, shifted by {shift}, does not fit {bits} bits"
                )
        return cls(bits, depth, bool(big_endian), *channels)

    @property
    def compact_bytes(self) -> slice | None:
        """Which three bytes of a pixel ZRLE sends (RFC 6143, section 7.7.5); None: the whole pixel."""
        used = (
            self.red_max << self.red_shift
            | self.green_max << self.green_shift
            | self.blue_max << self.blue_shift
        )
        if self.bits != 32 or self.depth > 24:
            return None
        if used < 1 << 24:
            return slice(1, 4) if self.big_endian else slice(0, 3)
        if not used & 0xFF:
            return slice(0, 3) if self.big_endian else slice(1, 4)
        return None


@dataclass(frozen=True, slots=True)
class SetPixelFormat:
    """From now on, pixels in this format."""

    format: PixelFormat


@dataclass(frozen=True, slots=True)
class SetEncodings:
    """What the viewer understands, what it likes best first."""

    encodings: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """The viewer wants to see a rectangle: what has changed of it, or all."""

    incremental: bool
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """A key by its X11 keysym."""

    pressed: bool
    keysym: int


@dataclass(frozen=True, slots=True)
class PointerEvent:
    """Where the pointer is; a bit for each button that is down, the left one lowest, then middle, right, wheel up and
    wheel down."""

    buttons: int
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class CutText:
    """The viewer's clipboard, of which only the length is kept."""

    length: int


def parse_version(line: bytes) -> int:
    """The protocol to be spoken, 3.3, 3.7 or 3.8 by its second number, with a viewer that sends `line`.

    What is newer speaks 3.8; 3.5 and others that were never published mean 3.3. Raises ProtocolError.
    """
    match = _VERSION.fullmatch(line)
    if match is None or int(match[1]) < 3:
        raise ProtocolError(f"the viewer does not speak RFB 3: it says {line!r}")
    version = int(match[1]), int(match[2])
    if version >= (3, 8):
        return 8
    return 7 if version == (3, 7) else 3


Message = SetPixelFormat | SetEncodings | UpdateRequest | KeyEvent | PointerEvent | CutText


async def read_message(reader: asyncio.StreamReader) -> Message:
    """The next message of a viewer.

    Raises ProtocolError; IncompleteReadError where the viewer hangs up.
    """
    (kind,) = await reader.readexactly(1)
    if kind == SET_PIXEL_FORMAT:
        return SetPixelFormat(PixelFormat.unpack((await reader.readexactly(19))[3:]))
    if kind == SET_ENCODINGS:
        (count,) = struct.unpack(">xH", await reader.readexactly(3))
        if count > MAX_ENCODINGS:
            raise ProtocolError(f"the viewer names {count} encodings; at most {MAX_ENCODINGS} are read")
        return SetEncodings(struct.unpack(f">{count}i", await reader.readexactly(4 * count)))
    if kind == FRAMEBUFFER_UPDATE_REQUEST:
        incremental, *rectangle = struct.unpack(">B4H", await reader.readexactly(9))
        return UpdateRequest(bool(incremental), *rectangle)
    if kind == KEY_EVENT:
        pressed, keysym = struct.unpack(">B2xI", await reader.readexactly(7))
        return KeyEvent(bool(pressed), keysym)
    if kind == POINTER_EVENT:
        return PointerEvent(*struct.unpack(">BHH", await reader.readexactly(5)))
    if kind == CLIENT_CUT_TEXT:
        (length,) = struct.unpack(">3xI", await reader.readexactly(7))
        if length > MAX_CUT_TEXT:
            raise ProtocolError(f"the viewer's clipboard has {length} bytes; at most {MAX_CUT_TEXT} are read")
        for start in range(0, length, CUT_TEXT_STEP):
            await reader.readexactly(min(CUT_TEXT_STEP, length - start))
        return CutText(length)
    raise ProtocolError(f"the viewer sends a message of the unknown type {kind}")


def update_header(rectangles: int) -> bytes:
    """The beginning of an update with so many rectangles."""
    return struct.pack(">BxH", FRAMEBUFFER_UPDATE, rectangles)


def rectangle_header(x: int, y: int, width: int, height: int, encoding: int) -> bytes:
    """What stands before a rectangle's data."""
    return struct.pack(">4Hi", x, y, width, height, encoding)


def server_init(width: int, height: int, name: str) -> bytes:
    """The last message of the handshake: size, format and name of the screen."""
    text = name.encode()
    return struct.pack(">HH", width, height) + PixelFormat().pack() + struct.pack(">I", len(text)) + text


def reason(text: str) -> bytes:
    """A text with its length before it."""
    data = text.encode()
    return struct.pack(">I", len(data)) + data
