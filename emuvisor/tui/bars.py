"""Sparklines, bars and short numbers: strings of a known width."""

from collections.abc import Sequence

from emuvisor.units import NS_PER_US

__all__ = ["blocks", "shares_of", "short_count", "short_size", "short_time", "sparkline"]

SPARKS = "▁▂▃▄▅▆▇█"
PARTS = " ▏▎▍▌▋▊▉█"
"""Eighths of a block from the left."""
KILO, KIBI = 1000, 1024
UNITS = ("", "k", "M", "G", "T", "P", "E")


def sparkline(values: Sequence[float], width: int, top: float = 100.0) -> str:
    """The last `width` values as blocks whose height is their part of `top`; blanks where there are not so many."""
    shown = list(values)[-width:]
    last = len(SPARKS) - 1
    marks = (SPARKS[min(last, max(0, round(value / top * last)))] for value in shown)
    return "".join(marks).rjust(width)


def blocks(part: float, width: int) -> str:
    """`part` (0 to 1) of `width` characters as a bar, to an eighth of a character."""
    eighths = round(min(1.0, max(0.0, part)) * width * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (PARTS[rest] if rest else "")).ljust(width)


def shares_of(width: int, sizes: Sequence[int], total: int) -> list[int]:
    """How many of `width` characters each of `sizes` gets of a bar for `total`; what is not nothing gets one as long as
    there are any."""
    left = width
    shares = []
    for size in sizes:
        share = 0 if size <= 0 or total <= 0 else min(left, max(1, round(size / total * width)))
        shares.append(share)
        left -= share
    return shares


def short_count(number: float) -> str:
    """A rate in at most five characters: "0", "7.5", "12k", "3.4M"."""
    return _short(number, KILO)


def short_size(number: float) -> str:
    """Bytes in at most five characters, by powers of 1024: "0", "512", "1.5k", "64M"."""
    return _short(number, KIBI)


def short_time(ns: int) -> str:
    """A time in at most five characters: "0", "120us", "3.1ms", "20s". What is not nothing is at least 1us."""
    number, unit = max(ns, NS_PER_US if ns else 0) / NS_PER_US, "us"
    for larger in ("ms", "s"):
        if round(number) >= KILO:
            number, unit = number / KILO, larger
    return _digits(number) + unit if ns else "0"


def _short(number: float, base: int) -> str:
    power = 0
    while round(number) >= base and power < len(UNITS) - 1:
        number /= base
        power += 1
    return _digits(number) + UNITS[power]


def _digits(number: float) -> str:
    """With one decimal if that makes no more than three characters."""
    return f"{number:.{1 if number < 9.95 else 0}f}".removesuffix(".0")
