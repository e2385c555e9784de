"""Pluggable RAM: memory that comes and goes in blocks while the guest runs."""

import numpy as np
from numpy.typing import NDArray

from emuvisor.memory.backing import Backing
from emuvisor.memory.slot import Slot
from emuvisor.memory.stage2 import FrameState, entry
from emuvisor.units import PAGE_SHIFT

__all__ = ["PluggableRam"]

_ABSENT = entry(FrameState.ABSENT)


class PluggableRam:
    """Blocks of `block_size` bytes at fixed addresses, made by `GuestMemory.add_pluggable`; at first all are unplugged.

    Where a block is unplugged there is no memory. A plugged one is RAM that was never touched: it takes frames page by
    page. Blocks are named by the first one's number and how many they are. The guest is on no pCPU meanwhile.
    """

    def __init__(self, backing: Backing, slot: Slot, block_size: int) -> None:
        self.block_size = block_size
        """Bytes."""
        self._backing = backing
        self._slot = slot
        self._pages = block_size >> PAGE_SHIFT
        self._plugged: NDArray[np.bool_] = np.zeros(len(slot.entries) // self._pages, np.bool_)

    @property
    def gpa(self) -> int:
        """The first block's guest physical address."""
        return self._slot.first << PAGE_SHIFT

    @property
    def blocks(self) -> int:
        """How many there are, plugged or not."""
        return len(self._plugged)

    @property
    def length(self) -> int:
        """Bytes of all blocks."""
        return self.blocks * self.block_size

    @property
    def plugged_size(self) -> int:
        """Bytes of those that are plugged."""
        return int(np.count_nonzero(self._plugged)) * self.block_size

    def plugged(self, first: int, count: int) -> NDArray[np.bool_]:
        """Which of the blocks are plugged."""
        return self._plugged[first : first + count].copy()

    def plug(self, first: int, count: int) -> None:
        """Make RAM of unplugged blocks. The dirty log notes it: they read as zeros, whatever they were before."""
        pages = self._of(first, count)
        self._slot.entries[pages] = _ABSENT
        if self._slot.dirty is not None:
            self._slot.dirty[pages] = 1
        self._plugged[first : first + count] = True
        self._backing.revoke()  # the CPU may know the pages as nobody's

    def unplug(self, first: int, count: int) -> int:
        """Take plugged blocks away with all that they hold; returns how many host frames became free."""
        pages = self._of(first, count)
        slot = self._slot
        for noted in (slot.dirty, slot.accessed, slot.age):
            if noted is not None:
                noted[pages] = 0
        self._plugged[first : first + count] = False
        return self._backing.release(slot.entries[pages], FrameState.HOLE)

    def unplug_all(self) -> int:
        """Take away what is plugged; returns how many host frames became free."""
        return self.unplug(0, self.blocks) if self._plugged.any() else 0

    def _of(self, first: int, count: int) -> slice:
        """The pages of blocks, as places in the slot."""
        return slice(first * self._pages, (first + count) * self._pages)

    def take_over(self, other: "PluggableRam") -> None:
        """The blocks of `other`, which is made alike, are plugged; what they hold is for the caller."""
        self._plugged[:] = other._plugged

    def clone(self, backing: Backing, slot: Slot) -> "PluggableRam":
        """The same blocks plugged, in the twin's `slot`."""
        twin = PluggableRam(backing, slot, self.block_size)
        twin._plugged[:] = self._plugged
        return twin
