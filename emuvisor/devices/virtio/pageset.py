"""A set of guest pages, one bit each."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_SET_BYTES", "PageSet"]

MAX_SET_BYTES = 4 << 20
"""Bytes of a set of pages in 128 GiB, more than any guest's addresses."""
_GROWTH = 4096
"""Bytes by which a set grows."""


class PageSet:
    """Guest frame numbers, kept in as many bits as the highest one needs; `bits` is what another set had."""

    def __init__(self, bits: bytes = b"") -> None:
        self.bits: NDArray[np.uint8] = np.frombuffer(bits, np.uint8).copy()
        self.count = int(np.unpackbits(self.bits).sum())
        """How many there are."""

    def add(self, pages: NDArray[np.int64]) -> int:
        """Put `pages` in, each named once; returns how many were not there before."""
        if not len(pages):
            return 0
        if (missing := int(pages.max()) // 8 + 1 - len(self.bits)) > 0:
            more = -(-missing // _GROWTH) * _GROWTH
            self.bits = np.concatenate([self.bits, np.zeros(more, np.uint8)])
        new = pages[~self._holds(pages)]
        np.bitwise_or.at(self.bits, new >> 3, _mask(new))
        self.count += len(new)
        return len(new)

    def remove(self, pages: NDArray[np.int64]) -> int:
        """Take `pages` out, each named once; returns how many were there."""
        pages = pages[pages < 8 * len(self.bits)]
        old = pages[self._holds(pages)]
        np.bitwise_and.at(self.bits, old >> 3, ~_mask(old))
        self.count -= len(old)
        return len(old)

    def _holds(self, pages: NDArray[np.int64]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.bits[pages >> 3] & _mask(pages) != 0
        return found


def _mask(pages: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Each page's bit in its byte."""
    return np.uint8(1) << (pages & 7).astype(np.uint8)
