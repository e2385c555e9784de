"""Objects of odd sizes packed into one arena: slabs of equal places, as in Linux's zsmalloc.

Bonwick, "The Slab Allocator" (USENIX Summer 1994), for the idea; the size classes are whole fractions of a slab, so
that no slab has a useless tail, and a class that has two slabs' worth of free places gives a slab back.
"""

import mmap
from array import array

from emuvisor.errors import HostError, UsageError
from emuvisor.units import KIB, PAGE_SIZE, format_size

__all__ = ["CLASS_SIZES", "LARGEST_OBJECT", "LEAST_LIMIT", "MAX_HANDLES", "SLAB_SIZE", "SlabArena"]

SLAB_SIZE = 32 * KIB
LARGEST_OBJECT = PAGE_SIZE * 3 // 4
MAX_HANDLES = 1 << 24
"""Numbers that a stage-2 entry can hold."""
LEAST_LIMIT = 2 * SLAB_SIZE
"""Bytes: one slab and the index."""
_MAP_NORESERVE = 0x4000
"""Linux's value; the mmap module has the name from Python 3.13 on only."""
_PLACES = (*range(10, 24), *range(24, 48, 2), *range(48, 96, 8), 128, 256, 512)
"""Places per slab of each class: at most a tenth of a place is wasted down to 683 bytes, at most half below."""
CLASS_SIZES = tuple(sorted(SLAB_SIZE // places & ~7 for places in _PLACES))
"""Bytes of the places, ascending; multiples of 8."""
_HANDLE_BYTES = 12
"""What the index holds per handle: position and length, and its place in the list of free ones."""
_PLACE_BYTES = 4
"""What the index holds per place: whose it is."""
_SLAB_BYTES = 256
"""What Python's objects for a slab take besides."""
_FREE = -1
_LENGTH_BITS = 12
_LENGTH_MASK = (1 << _LENGTH_BITS) - 1


class _Slab:
    """`SLAB_SIZE` bytes from `base` of the arena, in places of `size` bytes."""

    __slots__ = ("base", "free", "owners")

    def __init__(self, base: int, places: int) -> None:
        self.base = base
        self.owners = array("i", [_FREE]) * places
        self.free = list(range(places))


class _SizeClass:
    """Slabs with places of `size` bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.places = SLAB_SIZE // size
        self.index_bytes = self.places * _PLACE_BYTES + _SLAB_BYTES
        """What the index holds per slab."""
        self.roomy: dict[int, _Slab] = {}
        """Those with free places, by base."""
        self.slabs = 0
        self.free = 0
        """Free places in all of them."""


def _class_of_length() -> list[int]:
    """For each length in bytes, the number of the smallest class that holds it."""
    table: list[int] = []
    for number, size in enumerate(CLASS_SIZES):
        table += [number] * (size + 1 - len(table))
    return table


_CLASS_OF = _class_of_length()


class SlabArena:
    """Up to `limit` bytes, index included, of objects of at most `LARGEST_OBJECT` bytes, each known by a handle.

    Memory is taken from the host as slabs are needed and given back slab by slab. Fragmentation is bounded: in each
    class fewer places are free than two slabs have, because the emptiest slab's objects move away before that, and
    none when it is empty; a free costs at most one move on average. Not for several threads at once.

    Raises UsageError for a limit below `LEAST_LIMIT`, HostError when the host refuses the address space.
    """

    def __init__(self, limit: int) -> None:
        if limit < LEAST_LIMIT:
            raise UsageError(
                f"a pool of compressed pages of {limit} bytes is impossible; "
                f"it has at least {format_size(LEAST_LIMIT)}"
            )
        self.limit = limit
        size = limit // SLAB_SIZE * SLAB_SIZE
        try:
            self._arena = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        except (OSError, ValueError, OverflowError) as error:
            raise HostError(f"the host does not give {format_size(size)} of address space: {error}") from None
        self._view = memoryview(self._arena)
        self._classes = [_SizeClass(size) for size in CLASS_SIZES]
        self._slabs: list[_Slab | None] = []
        """By base; None where the memory is with the host."""
        self._unused: list[int] = []
        """Numbers of slabs that are None."""
        self._where = array("Q")
        """Per handle: position in the arena and length, 0 when it is free."""
        self._free_handles = array("I")
        self._index_bytes = 0

    # ---- what it holds ----

    @property
    def used_bytes(self) -> int:
        """Memory taken from the host: slabs, used or not, and the index. Never above `limit`."""
        return (len(self._slabs) - len(self._unused)) * SLAB_SIZE + self._index_bytes

    @property
    def objects(self) -> int:
        """Objects that it holds."""
        return len(self._where) - len(self._free_handles)

    @property
    def free_places(self) -> dict[int, int]:
        """Free places by their size, of the classes that have some."""
        return {kind.size: kind.free for kind in self._classes if kind.free}

    # ---- put, get, free ----

    def put(self, data: bytes) -> int | None:
        """Keep a copy of `data`, 1 to `LARGEST_OBJECT` bytes; returns its handle, or None when there is no room.

        Raises MemoryError when the host has none for the index; then nothing has changed."""
        kind = self._classes[_CLASS_OF[len(data)]]
        if not self._make_room(kind):
            return None
        if not self._free_handles:
            self._add_handle()
        self._place(kind, self._free_handles[-1], data)
        return self._free_handles.pop()

    def get(self, handle: int) -> memoryview:
        """What `handle` stands for, valid until the next `free`. Raises KeyError for a handle that is free."""
        value = self._where[handle] if 0 <= handle < len(self._where) else 0
        if not value:
            raise KeyError(handle)
        position = value >> _LENGTH_BITS
        return self._view[position : position + (value & _LENGTH_MASK)]

    def free(self, handle: int) -> None:
        """Forget an object. Raises KeyError for a handle that is free."""
        value = self._where[handle] if 0 <= handle < len(self._where) else 0
        if not value:
            raise KeyError(handle)
        self._free_handles.append(handle)
        self._where[handle] = 0
        kind = self._classes[_CLASS_OF[value & _LENGTH_MASK]]
        number, inside = divmod(value >> _LENGTH_BITS, SLAB_SIZE)
        slab = self._slabs[number]
        assert slab is not None
        place = inside // kind.size
        slab.owners[place] = _FREE
        slab.free.append(place)
        kind.free += 1
        kind.roomy[slab.base] = slab
        while kind.slabs and kind.free >= min(2, kind.slabs) * kind.places:
            self._shrink(kind)

    def close(self) -> None:
        """Forget all objects and give the memory back."""
        self._view.release()
        self._arena.close()
        self._where, self._free_handles, self._slabs, self._unused = array("Q"), array("I"), [], []
        self._index_bytes = 0

    def _add_handle(self) -> None:
        self._free_handles.append(len(self._where))
        try:
            self._where.append(0)
        except MemoryError:
            self._free_handles.pop()
            raise
        self._index_bytes += _HANDLE_BYTES

    # ---- slabs ----

    def _make_room(self, kind: _SizeClass) -> bool:
        """See to a free place in `kind` and a free handle; False when the limit forbids it."""
        handle = 0 if self._free_handles else _HANDLE_BYTES
        if handle and len(self._where) == MAX_HANDLES:
            return False
        if kind.free:
            return self.used_bytes + handle <= self.limit
        slab = SLAB_SIZE + kind.index_bytes
        if self.used_bytes + handle + slab > self.limit:
            return False
        number = self._unused[-1] if self._unused else len(self._slabs)
        made = _Slab(number * SLAB_SIZE, kind.places)
        kind.roomy[made.base] = made
        if self._unused:
            self._slabs[self._unused.pop()] = made
        else:
            self._slabs.append(made)
        kind.free += kind.places
        kind.slabs += 1
        self._index_bytes += kind.index_bytes
        return True

    def _place(self, kind: _SizeClass, handle: int, data: bytes | memoryview) -> None:
        """Put `data` into a free place of `kind`."""
        base, slab = next(iter(kind.roomy.items()))
        place = slab.free[-1]
        position = base + place * kind.size
        self._view[position : position + len(data)] = data
        self._where[handle] = position << _LENGTH_BITS | len(data)
        slab.owners[place] = handle
        slab.free.pop()
        if not slab.free:
            del kind.roomy[base]
        kind.free -= 1

    def _shrink(self, kind: _SizeClass) -> None:
        """Move the objects of the emptiest slab to the free places of others, and give its memory back."""
        slab = max(kind.roomy.values(), key=lambda slab: (len(slab.free), slab.base))
        del kind.roomy[slab.base]
        kind.free -= len(slab.free)
        kind.slabs -= 1
        for handle in slab.owners:
            if handle != _FREE:
                self._place(kind, handle, self.get(handle))
        number = slab.base // SLAB_SIZE
        self._slabs[number] = None
        self._unused.append(number)
        self._index_bytes -= kind.index_bytes
        self._arena.madvise(mmap.MADV_DONTNEED, slab.base, SLAB_SIZE)
