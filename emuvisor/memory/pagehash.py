"""A hash of what a frame holds: quick, and not to be guessed by guests."""

import numpy as np
from numpy.typing import NDArray

from emuvisor.memory.pool import FramePool
from emuvisor.units import PAGE_SIZE

__all__ = ["PageHash"]

_WORDS = PAGE_SIZE // 8
_BLOCK = 64
"""Frames hashed in one step: what fits a second-level cache."""


class PageHash:
    """Multilinear hashing of frames of `pool`, as 512 words of 64 bits times secret odd multipliers, modulo 2^64.

    Carter and Wegman, "Universal classes of hash functions" (1979), for the family; it is one pass of multiply and
    add, which numpy does at memory speed. A page of zeros has hash 0. Equal pages have equal hashes; that different
    ones differ is likely, not certain. `seed` is for tests: without it the multipliers differ from run to run.
    """

    def __init__(self, pool: FramePool, seed: int | None = None) -> None:
        self._words = pool.words
        random = np.random.default_rng(seed)
        self._multipliers = random.integers(0, 1 << 64, _WORDS, dtype=np.uint64) | np.uint64(1)
        self._block: NDArray[np.uint64] = np.empty((_BLOCK, _WORDS), np.uint64)

    def __call__(self, frames: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """The hash of each of `frames`."""
        hashes = np.empty(len(frames), np.uint64)
        for start in range(0, len(frames), _BLOCK):
            some = frames[start : start + _BLOCK]
            block = self._block[: len(some)]
            np.take(
                self._words, some, axis=0, out=block, mode="clip"
            )  # "clip" because "raise" copies once more
            np.einsum("ij,j->i", block, self._multipliers, out=hashes[start : start + _BLOCK])
        return hashes


def mixed(hashes: NDArray[np.uint64], salt: int) -> NDArray[np.uint64]:
    """`hashes` with a `salt` (64 bits), and with good low bits too: those of a product know nothing of high ones."""
    mixed = hashes ^ np.uint64(salt)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(
        0x9E37_79B9_7F4A_7C15
    )  # 2^64 divided by the golden ratio: Knuth's multiplicative hashing
    mixed ^= mixed >> np.uint64(29)
    return mixed
