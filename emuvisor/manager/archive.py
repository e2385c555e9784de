"""Tar files of a few regular files with plain names: all that an export is (POSIX.1-1988 "ustar"; sizes from 8 GiB on
in GNU's base 256).

Written here and not by the standard library's `tarfile`, as what comes in is anybody's: links, devices, sparse files,
extended headers of any length and names with folders in them are not read at all, but refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from emuvisor.errors import UsageError

__all__ = ["BLOCK", "Member", "members", "write_end", "write_header"]

BLOCK = 512
MAX_SIZE = 1 << 62
_MAGIC = slice(257, 262)
_NAME, _SIZE, _SUM, _TYPE, _PREFIX = slice(0, 100), slice(124, 136), slice(148, 156), 156, slice(345, 500)
_OCTAL_SIZE = 8**11
_REGULAR = (b"0", b"\0")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,98}")


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive; its content begins at byte `start` of it."""

    name: str
    size: int
    start: int


def write_header(file: BinaryIO, name: str, size: int) -> None:
    """Begin a member; `size` bytes follow, and zeros up to a multiple of 512. Raises OSError."""
    header = bytearray(BLOCK)
    header[: len(name)] = name.encode("ascii")
    for field, text in (
        (slice(100, 108), b"0000600\0"),
        (slice(108, 116), b"0000000\0"),
        (slice(116, 124), b"0000000\0"),
    ):
        header[field] = text
    header[_SIZE] = b"%011o\0" % size if size < _OCTAL_SIZE else b"\x80" + size.to_bytes(11, "big")
    header[136:148] = b"%011o\0" % 0
    header[_TYPE] = ord("0")
    header[257:265] = b"ustar\00000"
    header[_SUM] = b"%06o\0 " % _checksum(header)
    file.write(header)


def write_end(file: BinaryIO) -> None:
    """End the archive. Raises OSError."""
    file.write(bytes(2 * BLOCK))


def _checksum(header: bytes | bytearray) -> int:
    return sum(header) - sum(header[_SUM]) + 8 * ord(" ")


def members(file: BinaryIO, size: int, most: int) -> Iterator[Member]:
    """The members of an archive of `size` bytes, at most `most` of them, none of them twice. Raises UsageError for
    anything else, OSError."""
    at = 0
    seen: set[str] = set()
    while True:
        file.seek(at)
        header = file.read(BLOCK)
        if len(header) < BLOCK:
            raise UsageError("it is cut off")
        if not any(header):
            return
        member = _member(header, at + BLOCK)
        if member.name in seen:
            raise UsageError(f"{member.name!r} is in it twice")
        if len(seen) == most:
            raise UsageError(f"there are more than {most} files in it")
        seen.add(member.name)
        at = member.start + (member.size + BLOCK - 1) // BLOCK * BLOCK
        if at > size:
            raise UsageError(f"it is cut off: {member.name!r} should have {member.size} bytes")
        yield member


def _member(header: bytes, start: int) -> Member:
    name = header[_NAME].split(b"\0", 1)[0].decode("latin-1")
    if header[_MAGIC] != b"ustar" or _number(header[_SUM]) != _checksum(header):
        raise UsageError("it is no tar file")
    if header[_TYPE : _TYPE + 1] not in _REGULAR:
        raise UsageError(f"{name!r} is no regular file")
    prefix = header[_PREFIX].strip(b"\0")
    if prefix or _PLAIN.fullmatch(name) is None:
        raise UsageError(f"{name!r} is not a name that an export has")
    raw = header[_SIZE]
    size = int.from_bytes(raw[1:], "big") if raw[0] == 0x80 else _number(raw)
    if not 0 <= size <= MAX_SIZE:
        raise UsageError(f"{name!r} has no size")
    return Member(name, size, start)


def _number(field: bytes) -> int:
    """In octal digits; -1 for anything else."""
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else -1
