"""Regions: memory of a device that moves about in the guest's physical address space."""

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import GuestAddressError, UsageError
from emuvisor.memory.backing import Backing
from emuvisor.memory.slot import NOWHERE, Slot, backed_frames, pieces
from emuvisor.memory.stage2 import FRAMED, in_states
from emuvisor.units import PAGE_SHIFT, PAGE_SIZE

__all__ = ["Region"]

_ADDRESS_END = 1 << 64


class Region:
    """RAM of a device (video memory, a BAR), made by `GuestMemory.add_region`: frames are taken page by page.

    `place` puts it where the guest sees it; at first it is nowhere. RAM and ROM win where they overlap, and of two
    regions the one that was added first. The device reads and writes it by offset, wherever it is placed.
    """

    def __init__(self, backing: Backing, slot: Slot, number: int) -> None:
        self._backing = backing
        self._slot = slot
        self._number = number

    @property
    def length(self) -> int:
        """Bytes."""
        return len(self._slot.entries) << PAGE_SHIFT

    @property
    def gpa(self) -> int | None:
        """The guest physical address at which it is placed."""
        return None if self._slot.first == NOWHERE else self._slot.first << PAGE_SHIFT

    def place(self, gpa: int | None) -> None:
        """Move it to `gpa`, or out of the guest's sight. What it holds stays.

        Raises UsageError unless `gpa` is a multiple of 4 KiB below 2^64.
        """
        if gpa is not None and (gpa % PAGE_SIZE or not 0 <= gpa < _ADDRESS_END):
            raise UsageError(f"a region cannot be placed at {gpa:#x}: that is not a page's address")
        first = NOWHERE if gpa is None else gpa >> PAGE_SHIFT
        if first == self._slot.first:
            return
        self._slot.first = first
        if self._backing.on_move is not None:
            self._backing.on_move(self._number, first)

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.length:
            raise GuestAddressError(
                f"{length} bytes at offset {offset:#x} are not inside a region of {self.length:#x}"
            )

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; what was never written is zero. Raises GuestAddressError outside."""
        self._check(offset, length)
        out = bytearray(length)
        for piece in pieces(offset, length):
            frame = self._backing.readable(self._slot, piece.page)
            if frame:
                end = piece.offset + piece.end - piece.start
                out[piece.start : piece.end] = self._backing.pool.frames[frame, piece.offset : end].tobytes()
        return bytes(out)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put `data` at `offset`. Raises GuestAddressError outside, OutOfFrames when the pool is empty."""
        source = np.frombuffer(data, np.uint8)
        self._check(offset, len(source))
        for piece in pieces(offset, len(source)):
            self._backing.put(self._slot, piece.page, piece.offset, source[piece.start : piece.end])

    def snapshot(self) -> NDArray[np.uint8]:
        """A copy of all bytes."""
        entries = self._slot.entries
        content = np.zeros((len(entries), PAGE_SIZE), np.uint8)
        content[in_states(entries, FRAMED)] = self._backing.pool.frames[backed_frames(entries)]
        return content.reshape(-1)

    def collect_log(self) -> NDArray[np.int64]:
        """Pages written since the dirty log was started or this was last called, ascending; page 0 is at offset 0."""
        if self._slot.dirty is None:
            return np.zeros(0, np.int64)
        pages = np.flatnonzero(self._slot.dirty)
        self._slot.dirty[pages] = 0
        self._backing.revoke()
        return pages
