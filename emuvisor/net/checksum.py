"""The Internet checksum (RFC 1071): the ones' complement of the ones' complement sum of all 16-bit words.

That sum is the sum modulo FFFFh, because 2^16 is 1 modulo FFFFh. So it does not matter how wide the words are that are
added: Python's long integers take a short frame as one word, numpy takes a long one as 32-bit words.
"""

import sys

import numpy as np

__all__ = ["checksum", "word_sum"]

_MODULUS = 0xFFFF
_NUMPY_FROM = 1024
"""Bytes from which on numpy is the quicker one."""
_WORD = 4


def word_sum(data: bytes | bytearray | memoryview) -> int:
    """A number that is congruent modulo FFFFh to the sum of the big-endian 16-bit words of `data`.

    It is 0 only if `data` is all zero. A last odd byte is a word's upper half.
    """
    length = len(data)
    if length < _NUMPY_FROM:
        return int.from_bytes(data, "big") << (8 if length & 1 else 0)
    whole = length & -_WORD
    total = int(np.add.reduce(np.frombuffer(data, np.uint32, whole // _WORD), dtype=np.uint64))
    if sys.byteorder == "little":
        # Byte by byte the sum is the same, swapped (RFC 1071, section 2 (B)).
        folded = total % _MODULUS or (_MODULUS if total else 0)
        total = (folded & 0xFF) << 8 | folded >> 8
    tail = data[whole:]
    return total + (int.from_bytes(tail, "big") << (8 if length & 1 else 0))


def checksum(total: int) -> int:
    """The checksum of what `word_sum` made, or of several such sums added up."""
    remainder = total % _MODULUS
    if remainder == 0 and total:
        remainder = _MODULUS  # ones' complement has two zeros, and only a sum of zeros gives the positive one
    return remainder ^ _MODULUS
