"""Shadow RAM: RAM and ROM at the same addresses, between which a chipset's registers choose (PAM on the i440FX)."""

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import GuestAddressError
from emuvisor.memory.backing import Backing
from emuvisor.memory.pool import ZERO_FRAME
from emuvisor.memory.slot import Piece, Slot, pieces
from emuvisor.memory.stage2 import FRAME_MASK, Entries, FrameState, entry
from emuvisor.units import PAGE_SHIFT, PAGE_SIZE

__all__ = ["Shadow"]

_HOLE = entry(FrameState.HOLE)
_ROM = entry(FrameState.ROM)
_SHARED = entry(FrameState.SHARED)


class Shadow:
    """RAM under ROM, made by `GuestMemory.add_shadow`: two sets of pages, of which the guest reads one.

    For each page, reads go to RAM or to ROM, and writes go to RAM or nowhere (82441FX datasheet, 3.2.18, PAM). What
    is read lies in the guest's memory slot; the other set is kept here. RAM that must not be written looks like ROM
    there; for it the set here says which it is. Stores to ROM pages come to `write`, so attach it at `base` of
    the memory bus.
    """

    name = "shadow RAM"

    def __init__(self, backing: Backing, slot: Slot, index: int, count: int) -> None:
        """Over `count` pages from page `index` of `slot`."""
        self._init(backing, slot, index, Slot(slot.first + index, slot.entries[index : index + count].copy()))
        self._visible[:] = _HOLE
        backing.revoke()

    def _init(self, backing: Backing, slot: Slot, index: int, hidden: Slot) -> None:
        count = len(hidden.entries)
        self._backing = backing
        self._slot = slot
        self._index = index
        self._hidden = hidden
        self._visible: Entries = slot.entries[index : index + count]
        self._read_ram: NDArray[np.bool_] = np.zeros(count, np.bool_)
        self._write_ram: NDArray[np.bool_] = np.zeros(count, np.bool_)

    @property
    def base(self) -> int:
        """The first guest physical address."""
        return self._hidden.first << PAGE_SHIFT

    @property
    def length(self) -> int:
        """Bytes."""
        return len(self._visible) << PAGE_SHIFT

    def overlaps(self, gpa: int, length: int) -> bool:
        """Whether one of its pages is in [gpa, gpa + length)."""
        return gpa < self.base + self.length and self.base < gpa + length

    def _pages(self, gpa: int, length: int) -> range:
        """Its pages in [gpa, gpa + length). Raises GuestAddressError when that is not inside it."""
        if gpa % PAGE_SIZE or gpa < self.base or gpa + length > self.base + self.length:
            raise GuestAddressError(
                f"{gpa:#x}..{gpa + length - 1:#x} is not pages of the shadow RAM at "
                f"{self.base:#x}..{self.base + self.length - 1:#x}"
            )
        first = (gpa - self.base) >> PAGE_SHIFT
        return range(first, first + -(-length // PAGE_SIZE))

    def load_rom(self, gpa: int, data: bytes | memoryview) -> None:
        """Put `data` into the ROM from `gpa` (page-aligned, padded to whole pages), in place of what was there.

        Raises GuestAddressError outside, OutOfFrames when it does not fit the pool.
        """
        source = np.frombuffer(data, np.uint8)
        pages = self._pages(gpa, len(source))
        frames = self._backing.pool.take_many(len(pages)).tolist()
        self._backing.frames_taken += len(pages)
        for number, (page, frame) in enumerate(zip(pages, frames, strict=True)):
            part = source[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]
            self._backing.pool.frames[frame, : len(part)] = part
            rom = (self._hidden.entries if self._read_ram[page] else self._visible)[page : page + 1]
            self._backing.release(rom, FrameState.HOLE)
            rom[0] = _ROM | frame
            self._slot.mark(self._index + page)
        self._backing.revoke()

    def set(self, gpa: int, length: int, *, read_ram: bool, write_ram: bool) -> None:
        """Let reads of the pages in [gpa, gpa + length) go to RAM or to ROM, and writes to RAM or nowhere.

        Raises GuestAddressError outside.
        """
        pages = self._pages(gpa, length)
        part = slice(pages.start, pages.stop)
        differs = (self._read_ram[part] != read_ram) | (self._write_ram[part] != write_ram)
        if not differs.any():
            return
        for page in (np.flatnonzero(differs) + pages.start).tolist():
            self._set_page(page, read_ram, write_ram)
            self._slot.mark(self._index + page)
        self._backing.revoke()

    def _set_page(self, page: int, read_ram: bool, write_ram: bool) -> None:
        visible, hidden = self._visible, self._hidden.entries
        if self._read_ram[page] and not self._write_ram[page]:
            visible[page] = self._unlocked(int(visible[page]))
        if self._read_ram[page] != read_ram:
            visible[page], hidden[page] = hidden[page], visible[page]
        self._read_ram[page], self._write_ram[page] = read_ram, write_ram
        if read_ram and not write_ram:
            visible[page] = self._locked(page)

    def _locked(self, page: int) -> int:
        """The visible RAM page as memory that the guest can only read."""
        return _ROM | (self._backing.readable(self._slot, self._index + page) or ZERO_FRAME)

    def _unlocked(self, locked: int) -> int:
        """The entry of a RAM page again. A frame that others have too is copied when it is written; the last owner
        keeps it."""
        return _SHARED | locked & FRAME_MASK

    def reset(self) -> None:
        """As after power-on: ROM is read and writes go nowhere. What RAM holds stays."""
        self.set(self.base, self.length, read_ram=False, write_ram=False)

    # ---- as a device on the memory bus ----

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002 - the device protocol's
        """A load from a page where nothing is: no ROM was loaded."""
        return (1 << 8 * size) - 1

    def write(self, offset: int, value: int, size: int) -> None:
        """A store to a page that shows ROM: it goes to the RAM beneath where the registers say so."""
        data = np.frombuffer(value.to_bytes(size, "little"), np.uint8)
        for piece in pieces(offset, size):
            self._store(piece, data)

    def _store(self, piece: Piece, data: NDArray[np.uint8]) -> None:
        if self._write_ram[piece.page] and not self._read_ram[piece.page]:
            self._backing.put(self._hidden, piece.page, piece.offset, data[piece.start : piece.end])
            self._slot.mark(self._index + piece.page)

    # ---- for GuestMemory ----

    @property
    def hidden(self) -> Slot:
        """The pages that the guest does not see."""
        return self._hidden

    def forget(self) -> None:
        """RAM is empty and ROM is read, as after power-off."""
        self.reset()
        self._backing.release(self._hidden.entries, FrameState.ABSENT)
        for page in range(len(self._visible)):
            self._slot.mark(self._index + page)

    def close(self) -> int:
        """Give the frames back that the guest does not see; returns how many became free."""
        return self._backing.release(self._hidden.entries, FrameState.HOLE)

    def take_over(self, other: "Shadow") -> int:
        """Show what `other` shows, which is made alike, and hold beneath what it holds there; what is visible is
        the slot's. Returns how many pages were other ones."""
        differs = self._hidden.entries != other._hidden.entries
        differs |= (self._read_ram != other._read_ram) | (self._write_ram != other._write_ram)
        for page in np.flatnonzero(differs).tolist():
            self._slot.mark(self._index + page)
        self._read_ram[:] = other._read_ram
        self._write_ram[:] = other._write_ram
        return self._backing.adopt(self._hidden, other._hidden.entries)

    def clone(self, backing: Backing, slot: Slot) -> "Shadow":
        """The same over `slot`, which is a clone's."""
        twin = Shadow.__new__(Shadow)
        hidden = Slot(self._hidden.first, self._backing.share(self._hidden.entries))
        twin._init(backing, slot, self._index, hidden)
        twin._read_ram[:] = self._read_ram
        twin._write_ram[:] = self._write_ram
        return twin
