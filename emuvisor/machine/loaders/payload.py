"""Unpacks the compressed kernel inside a bzImage on the host, which is many times faster than in the guest.

The kernel's build compresses `vmlinux` and appends its size in 4 little-endian bytes (gzip's own last field
is the same number). The size bounds what any decompressor here may produce.
"""

import bz2
import io
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Protocol

from emuvisor.errors import ImageError
from emuvisor.units import MIB, format_size

__all__ = ["MAX_KERNEL_SIZE", "compression_of", "unpack"]

MAX_KERNEL_SIZE = 512 * MIB
"""No kernel unpacks to more, whatever its header says."""

SIZE_FIELD = 4
INPUT_CHUNK = 1 * MIB
DICTIONARY_LIMIT = 192 * MIB
"""Memory that LZMA and zstd may use for their window; the kernel's build uses 128 MiB at most."""

LZ4_LEGACY_MAGIC = b"\x02\x21\x4c\x18"
LZ4_LEGACY_BLOCK = 8 * MIB


class _Stream(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the interface of bz2's and lzma's."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _unpack_stream(stream: _Stream, packed: bytes, limit: int) -> bytes:
    """The stream's output, at most `limit` bytes of it."""
    chunks = []
    position = produced = 0
    while not stream.eof and produced < limit:
        data = b""
        if stream.needs_input:
            data = packed[position : position + INPUT_CHUNK]
            position += len(data)
            if not data:
                break
        chunk = stream.decompress(data, limit - produced)
        produced += len(chunk)
        chunks.append(chunk)
    return b"".join(chunks)


def _unpack_gzip(packed: bytes, limit: int) -> bytes:
    return _unpack_stream(_Gzip(), packed, limit)


def _unpack_bzip2(packed: bytes, limit: int) -> bytes:
    return _unpack_stream(bz2.BZ2Decompressor(), packed, limit)


def _unpack_lzma(packed: bytes, limit: int) -> bytes:
    return _unpack_stream(lzma.LZMADecompressor(memlimit=DICTIONARY_LIMIT), packed, limit)


def _unpack_zstd(packed: bytes, limit: int) -> bytes:
    import zstandard  # noqa: PLC0415 - only kernels packed this way need the library loaded

    try:
        decompressor = zstandard.ZstdDecompressor(max_window_size=DICTIONARY_LIMIT)
        with decompressor.stream_reader(io.BytesIO(packed)) as reader:
            return reader.read(limit)
    except zstandard.ZstdError as error:
        raise ValueError(error) from None


def _unpack_lz4(packed: bytes, limit: int) -> bytes:
    """Legacy frame: magic number, then blocks of (packed size, data); all but the last unpack to 8 MiB."""
    import lz4.block  # type: ignore[import-untyped]  # noqa: PLC0415 - as above

    chunks = []
    position, produced = len(LZ4_LEGACY_MAGIC), 0
    while produced < limit and position + 4 <= len(packed):
        (size,) = struct.unpack_from("<I", packed, position)
        position += 4
        block = packed[position : position + size]
        if not size or len(block) < size:
            raise ValueError(f"block of {size} bytes at {position:#x}, {len(packed) - position} are left")
        position += size
        try:
            chunk = lz4.block.decompress(block, uncompressed_size=min(LZ4_LEGACY_BLOCK, limit - produced))
        except lz4.block.LZ4BlockError as error:
            raise ValueError(error) from None
        produced += len(chunk)
        chunks.append(chunk)
        if len(chunk) < LZ4_LEGACY_BLOCK:
            break
    return b"".join(chunks)


_FORMATS: tuple[tuple[bytes, str, Callable[[bytes, int], bytes] | None], ...] = (
    (b"\x1f\x8b", "gzip", _unpack_gzip),
    (b"BZh", "bzip2", _unpack_bzip2),
    (b"\x5d\x00\x00", "lzma", _unpack_lzma),
    (b"\xfd7zXZ\x00", "xz", _unpack_lzma),
    (b"\x89LZO", "lzo", None),
    (LZ4_LEGACY_MAGIC, "lz4", _unpack_lz4),
    (b"\x28\xb5\x2f\xfd", "zstd", _unpack_zstd),
)


def compression_of(payload: bytes) -> str | None:
    """The name of the format that `payload` begins with, or None."""
    return next((name for magic, name, _ in _FORMATS if payload.startswith(magic)), None)


def unpack(name: str, payload: bytes, limit: int = MAX_KERNEL_SIZE) -> bytes:
    """The vmlinux inside `payload` of image `name`.

    An unpacked ELF is returned as it is. Raises ImageError for an unknown or damaged format, and for one that
    unpacks to more than `limit` bytes or to another size than it declares.
    """
    if payload.startswith(b"\x7fELF"):
        return payload
    for magic, compression, unpacker in _FORMATS:
        if not payload.startswith(magic):
            continue
        if unpacker is None:
            raise ImageError(
                f"{name}: the kernel is packed with {compression}, which is not unpacked on the host; "
                f'use decompressor = "guest"'
            )
        return _unpack_checked(name, compression, unpacker, payload, limit)
    raise ImageError(
        f"{name}: the kernel payload begins with {payload[:6].hex(' ')}, which is none of "
        f"{', '.join(f for _, f, u in _FORMATS if u is not None)}"
    )


def _unpack_checked(
    name: str, compression: str, unpacker: Callable[[bytes, int], bytes], payload: bytes, limit: int
) -> bytes:
    declared = int.from_bytes(payload[-SIZE_FIELD:], "little")
    if declared > limit:
        raise ImageError(
            f"{name}: the {compression} payload declares {declared} bytes unpacked; "
            f"the limit is {limit} ({format_size(limit)})"
        )
    packed = payload if compression == "gzip" else payload[:-SIZE_FIELD]
    try:
        # One byte more than declared, so that a payload with more in it shows.
        unpacked = unpacker(packed, declared + 1)
    except (ValueError, OSError, EOFError, MemoryError, lzma.LZMAError, zlib.error) as error:
        raise ImageError(f"{name}: damaged {compression} payload: {error}") from None
    if len(unpacked) != declared:
        found = "more" if len(unpacked) > declared else str(len(unpacked))
        raise ImageError(
            f"{name}: damaged {compression} payload: it declares {declared} bytes unpacked, it has {found}"
        )
    return unpacked
