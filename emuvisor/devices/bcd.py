"""Binary-coded decimal, as timers and clocks of the PC count. Digits above 9 are taken at their weight."""

__all__ = ["from_bcd", "to_bcd"]


def from_bcd(value: int) -> int:
    """The number that the decimal digits in `value`'s nibbles stand for."""
    number, weight = 0, 1
    while value:
        number += (value & 0xF) * weight
        value >>= 4
        weight *= 10
    return number


def to_bcd(number: int) -> int:
    """`number`, not negative, with one decimal digit per nibble."""
    return int(str(number), 16)
