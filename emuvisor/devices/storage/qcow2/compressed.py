"""Compressed clusters: raw deflate, or Zstandard.

Source: "qcow2 image file format", section "Compressed Clusters Descriptor" and header field compression_type. QEMU
reads
deflate with a window of 4 KiB, so more must not be written.
"""

import zlib

import zstandard

from emuvisor.units import MIB

__all__ = ["compress", "decompress"]

DEFLATE_WRITE_WINDOW = -12
DEFLATE_READ_WINDOW = -15
ZSTD_LARGEST_WINDOW = 8 * MIB
"""What every decoder should have (RFC 8878, section 3.1.1.1.2), and more than any cluster."""


def compress(data: bytes, compression: str) -> bytes:
    """`data` packed by "zlib" or "zstd"."""
    if compression == "zstd":
        return zstandard.ZstdCompressor().compress(data)
    packer = zlib.compressobj(wbits=DEFLATE_WRITE_WINDOW)
    return packer.compress(data) + packer.flush()


def decompress(data: bytes, length: int, compression: str) -> bytes | None:
    """The first `length` bytes that `data` unpacks to; None when there are fewer, or `data` is something else. What
    follows them in `data` is not looked at, and no more is ever unpacked."""
    try:
        if compression == "zstd":
            unpacker = zstandard.ZstdDecompressor(max_window_size=ZSTD_LARGEST_WINDOW)
            plain = unpacker.stream_reader(data, read_across_frames=True).read(length)
        else:
            plain = zlib.decompressobj(DEFLATE_READ_WINDOW).decompress(data, length)
    except (zlib.error, zstandard.ZstdError):
        return None
    return plain if len(plain) == length else None
