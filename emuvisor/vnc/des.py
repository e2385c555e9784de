"""DES of one block, as VNC's password check needs it, and nothing else does. Source: FIPS 46-3.

DES has been broken for decades, and a VNC password protects against the accidental visitor at most: it is why the
server listens on loopback. Tables are those of the standard, with bits counted from 1 at the left.
"""

from collections.abc import Sequence

__all__ = ["encrypt_block", "vnc_response"]

BLOCK = 8
KEY = 8

_INITIAL = [column + 8 * row for column in (58, 60, 62, 64, 57, 59, 61, 63) for row in range(0, -8, -1)]
_FINAL = [8 * (byte + 1) - bit for bit in range(8) for byte in (4, 0, 5, 1, 6, 2, 7, 3)]
_EXPANSION = [(4 * group + bit - 1) % 32 + 1 for group in range(8) for bit in range(6)]
_ROUND_PERMUTATION = [
    16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10,
    2, 8, 24, 14, 32, 27, 3, 9, 19, 13, 30, 6, 22, 11, 4, 25,
]  # fmt: skip
_KEY_CHOICE_1 = [
    57, 49, 41, 33, 25, 17, 9, 1, 58, 50, 42, 34, 26, 18, 10, 2, 59, 51, 43, 35, 27, 19, 11, 3, 60, 52, 44, 36,
    63, 55, 47, 39, 31, 23, 15, 7, 62, 54, 46, 38, 30, 22, 14, 6, 61, 53, 45, 37, 29, 21, 13, 5, 28, 20, 12, 4,
]  # fmt: skip
_KEY_CHOICE_2 = [
    14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10, 23, 19, 12, 4, 26, 8, 16, 7, 27, 20, 13, 2,
    41, 52, 31, 37, 47, 55, 30, 40, 51, 45, 33, 48, 44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32,
]  # fmt: skip
_KEY_SHIFTS = (1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1)
_S_BOXES = [
    bytes(int(digit, 16) for digit in box)
    for box in (
        "e4d12fb83a6c5907" "0f74e2d1a6cb9538" "41e8d62bfc973a50" "fc8249175b3ea06d",
        "f18e6b34972dc05a" "3d47f28ec01a69b5" "0e7ba4d158c6932f" "d8a13f42b67c05e9",
        "a09e63f51dc7b428" "d709346a285ecbf1" "d6498f30b12c5ae7" "1ad069874fe3b52c",
        "7de3069a1285bc4f" "d8b56f03472c1ae9" "a690cb7df13e5284" "3f06a1d8945bc72e",
        "2c417ab6853fd0e9" "eb2c47d150fa3986" "421bad78f9c5630e" "b8c71e2d6f09a453",
        "c1af92680d34e75b" "af427c9561de0b38" "9ef528c3704a1db6" "432c95fabe17608d",
        "4b2ef08d3c975a61" "d0b7491ae35c2f86" "14bdc37eaf680592" "6bd814a7950fe23c",
        "d2846fb1a93e50c7" "1fd8a374c56b0e92" "7b419ce206adf358" "21e74a8dfc90356b",
    )
]  # fmt: skip


def _permute(bits: Sequence[int], table: Sequence[int]) -> list[int]:
    return [bits[place - 1] for place in table]


def _bits(data: bytes) -> list[int]:
    return [byte >> shift & 1 for byte in data for shift in range(7, -1, -1)]


def _number(bits: Sequence[int]) -> int:
    number = 0
    for bit in bits:
        number = number << 1 | bit
    return number


def _round_keys(key: bytes) -> list[list[int]]:
    chosen = _permute(_bits(key), _KEY_CHOICE_1)
    left, right = chosen[:28], chosen[28:]
    keys = []
    for shift in _KEY_SHIFTS:
        left, right = left[shift:] + left[:shift], right[shift:] + right[:shift]
        keys.append(_permute(left + right, _KEY_CHOICE_2))
    return keys


def _substitute(right: list[int], key: list[int]) -> list[int]:
    """The cipher function f of the standard."""
    mixed = [a ^ b for a, b in zip(_permute(right, _EXPANSION), key, strict=True)]
    found: list[int] = []
    for box, start in zip(_S_BOXES, range(0, 48, 6), strict=True):
        six = mixed[start : start + 6]
        row, column = _number((six[0], six[5])), _number(six[1:5])
        found += _bits(bytes((box[16 * row + column],)))[4:]
    return _permute(found, _ROUND_PERMUTATION)


def encrypt_block(key: bytes, block: bytes) -> bytes:
    """`block` (8 bytes) encrypted with `key` (8 bytes, whose lowest bits DES ignores)."""
    bits = _permute(_bits(block), _INITIAL)
    left, right = bits[:32], bits[32:]
    for round_key in _round_keys(key):
        left, right = right, [a ^ b for a, b in zip(left, _substitute(right, round_key), strict=True)]
    return _number(_permute(right + left, _FINAL)).to_bytes(BLOCK, "big")


def vnc_response(password: bytes, challenge: bytes) -> bytes:
    """What a viewer that knows `password` (at most 8 bytes) answers to `challenge` (16 bytes).

    The key is the password with the bits of each byte in reverse order (RFC 6143, section 7.2.2).
    """
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password.ljust(KEY, b"\0"))
    return b"".join(encrypt_block(key, challenge[i : i + BLOCK]) for i in range(0, len(challenge), BLOCK))
