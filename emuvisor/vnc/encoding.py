"""Pixels to bytes, as a viewer wants them: its pixel format, and the encodings Raw and ZRLE (RFC 6143, section 7.7)."""

import zlib

import numpy as np
from numpy.typing import NDArray

from emuvisor.vnc.damage import TILE
from emuvisor.vnc.rfb import RAW, ZRLE, PixelFormat

__all__ = ["Encoder"]

COMPRESSION_LEVEL = 1
"""Most of the gain, a fraction of the time."""

# ZRLE's subencodings of a tile.
RAW_TILE = 0
SOLID_TILE = 1

_VALUES = np.arange(256)


class Encoder:
    """Turns rectangles of the screen into bytes for one viewer.

    ZRLE is one zlib stream for a whole session, so what was encoded must be sent, in that order.
    """

    def __init__(self) -> None:
        self.encoding = RAW
        self._stream = zlib.compressobj(COMPRESSION_LEVEL)
        self._tables: list[NDArray[np.uint32]] = []
        self.set_format(PixelFormat())

    def set_format(self, format: PixelFormat) -> None:
        """From now on pixels in `format`."""
        self._format = format
        channels = (
            (format.red_max, format.red_shift),
            (format.green_max, format.green_shift),
            (format.blue_max, format.blue_shift),
        )
        self._tables = [
            ((_VALUES * maximum + 127) // 255 << shift).astype(np.uint32) for maximum, shift in channels
        ]
        self._type = np.dtype(f"{'>' if format.big_endian else '<'}u{format.bits // 8}")

    def set_encodings(self, encodings: tuple[int, ...]) -> None:
        """The first of `encodings` that this server has; Raw without one."""
        self.encoding = next((known for known in encodings if known in (RAW, ZRLE)), RAW)

    def encode(self, pixels: NDArray[np.uint8]) -> bytes:
        """The data of a rectangle with `pixels` (height, width, 3)."""
        red, green, blue = (
            np.take(table, pixels[..., channel], mode="clip") for channel, table in enumerate(self._tables)
        )
        packed = (red | green | blue).astype(self._type)
        return packed.tobytes() if self.encoding == RAW else self._zrle(packed)

    def _zrle(self, packed: NDArray[np.generic]) -> bytes:
        height, width = packed.shape
        compact = self._format.compact_bytes
        data = bytearray()
        for y in range(0, height, TILE):
            for x in range(0, width, TILE):
                tile = packed[y : y + TILE, x : x + TILE]
                solid = bool((tile == tile[0, 0]).all())
                data.append(SOLID_TILE if solid else RAW_TILE)
                data += _compact_pixels(tile[:1, :1] if solid else tile, compact)
        compressed = self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)
        return len(compressed).to_bytes(4, "big") + compressed


def _compact_pixels(tile: NDArray[np.generic], compact: slice | None) -> bytes:
    if compact is None:
        return tile.tobytes()
    pixels = np.ascontiguousarray(tile).view(np.uint8).reshape(-1, tile.dtype.itemsize)
    return pixels[:, compact].tobytes()
