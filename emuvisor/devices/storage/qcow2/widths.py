"""Refcount blocks: reference counts of 1 to 64 bits, packed and unpacked.

Source: "qcow2 image file format", section "Host cluster management": counts of 8 bits and more are big-endian; of
narrower ones, the first lies in the least significant bits of its byte.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Counts", "pack", "unpack"]

Counts = npt.NDArray[Any]
"""Reference counts as unsigned integers of the host."""

BYTE_ORDER = 3
"""Refcount order of counts that are a byte wide."""


def unpack(data: bytes, order: int) -> Counts:
    """The counts in `data`, each `1 << order` bits wide."""
    if order >= BYTE_ORDER:
        size = 1 << order - BYTE_ORDER
        return np.frombuffer(data, f">u{size}").astype(f"=u{size}")
    width = 1 << order
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").reshape(-1, width)
    return bits @ (1 << np.arange(width, dtype=np.uint8))


def pack(counts: Counts, order: int) -> bytes:
    """The bytes of a refcount block; no count may need more than `1 << order` bits."""
    if order >= BYTE_ORDER:
        return counts.astype(f">u{1 << order - BYTE_ORDER}").tobytes()
    width = 1 << order
    bits = counts[:, np.newaxis] >> np.arange(width, dtype=np.uint8) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little").tobytes()
