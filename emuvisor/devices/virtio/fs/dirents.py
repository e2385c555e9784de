"""Reading a host directory in portions, with the host's own cookies as positions.

The host's file system keeps its cookies valid while names come and go, and nothing of a directory of a million
names is held here but the portion that was read last.
"""

import os
from struct import Struct
from typing import NamedTuple

from emuvisor.devices.virtio.fs.syscalls import getdents

__all__ = ["DirectoryReader", "Entry"]

PORTION = 16 * 1024
"""Bytes of entries read at a time."""

_DIRENT64 = Struct("<QqHB")
"""struct linux_dirent64 of getdents64(2): inode, offset of the next, length of the record, type; the name follows."""


class Entry(NamedTuple):
    """One name in a directory. `cookie` is the position behind it; `kind` is a DT_ value of dirent.h."""

    inode: int
    cookie: int
    kind: int
    name: bytes


class DirectoryReader:
    """Reads the directory open at `fd`, which it moves but does not own.

    Going on where the last reading ended does not seek: some file systems count positions only then, and would skip
    names when earlier ones were removed meanwhile.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._position = 0
        self._entries: list[Entry] = []
        """What was read from the host and not yet taken, last first."""

    def seek(self, position: int) -> None:
        """Go to a cookie, or to 0 for the beginning. Raises OSError when the host does not know it."""
        if position != self._position or position == 0:
            self._entries.clear()
            os.lseek(self._fd, position, os.SEEK_SET)
            self._position = position

    def peek(self) -> Entry | None:
        """The entry at the present position; None at the end."""
        if not self._entries:
            self._entries = _parse(getdents(self._fd, PORTION))
            self._entries.reverse()
        return self._entries[-1] if self._entries else None

    def take(self) -> None:
        """Go behind the entry that `peek` showed."""
        self._position = self._entries.pop().cookie


def _parse(data: bytes) -> list[Entry]:
    entries = []
    start = 0
    while start < len(data):
        inode, cookie, length, kind = _DIRENT64.unpack_from(data, start)
        name = data[start + _DIRENT64.size : start + length].partition(b"\0")[0]
        entries.append(Entry(inode, cookie, kind, name))
        start += length
    return entries
