"""Sizes and times: constants, and the text forms that people write and read."""

import re

from emuvisor.errors import UsageError

__all__ = [
    "GIB",
    "KIB",
    "MIB",
    "NS_PER_MS",
    "NS_PER_S",
    "NS_PER_US",
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "TIB",
    "format_size",
    "parse_size",
]

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

_SUFFIXES = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}
_SIZE = re.compile(r"([0-9]{1,18})\s*(?:([KMGT])(?:iB|B)?|B)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes meant by `text`: "256M", "4 GiB", "4096".

    Raises UsageError for anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a size; write a whole number with K, M, G or T, such as 256M")
    return int(match[1]) * _SUFFIXES[(match[2] or "").upper()]


def format_size(size: int) -> str:
    """`size` bytes in the largest unit that keeps it exact or to one decimal: "256 MiB", "1.5 GiB"."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            text = f"{size / unit:.1f}".removesuffix(".0")
            return f"{text} {name}"
    return f"{size} B"
