"""PNG images: 8-bit RGB, as small as zlib makes them. Source: PNG specification (ISO/IEC 15948)."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["encode_png"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
BIT_DEPTH = 8
TRUECOLOUR = 2
FILTER_UP = 2
"""Each byte is the difference to the one above: screens repeat themselves from line to line."""
COMPRESSION = 0
FILTER = 0
INTERLACE = 0


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """The PNG file of `pixels`, (height, width, 3) red, green, blue."""
    height, width, _ = pixels.shape
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = FILTER_UP
    rows[:, 1:] = pixels.reshape(height, 3 * width)
    rows[1:, 1:] -= pixels.reshape(height, 3 * width)[:-1]
    header = struct.pack(">IIBBBBB", width, height, BIT_DEPTH, TRUECOLOUR, COMPRESSION, FILTER, INTERLACE)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
