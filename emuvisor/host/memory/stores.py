"""The stores of a host: compressed pages and the swap file, by the names that plans use."""

from importlib import import_module
from typing import TYPE_CHECKING

from emuvisor.host.memory.policy import MIN_COMPRESSION, MemoryPolicy
from emuvisor.memory import FrameState
from emuvisor.memory.store import PageStore
from emuvisor.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from emuvisor.memory.compressed import CompressedStore
    from emuvisor.memory.swapfile import SwapFile
    from emuvisor.store.lazy import LazyPages

__all__ = ["Stores"]

COMPRESSION_PART = 5
SWAP_FACTOR = 4
"""What stores may take when the policy does not say: this part of the pool, so many times the pool."""
_COMPRESSED, _SWAP = "compressed", "swap"


class Stores:
    """What `policy` gives a host of `frames`. Raises UsageError and HostError for a swap file that cannot be made."""

    def __init__(self, policy: MemoryPolicy, frames: int) -> None:
        self.by_state: dict[FrameState, PageStore] = {}
        """Those that are in use; all guests have this same dictionary."""
        limit = policy.compression_limit
        if limit is None:
            limit = frames * PAGE_SIZE // COMPRESSION_PART
            limit = limit if limit >= MIN_COMPRESSION else 0
        self._compression_limit = limit
        self._algorithm = policy.compression
        self._compressed: CompressedStore | None = None
        self._swap: SwapFile | None = None
        self._saved: LazyPages | None = None
        if policy.swap is not None:
            size = policy.swap_limit or SWAP_FACTOR * frames * PAGE_SIZE
            self._swap = import_module("emuvisor.memory.swapfile").SwapFile(policy.swap, size)
            self.by_state[FrameState.SWAPPED] = self._swap

    def room(self) -> dict[str, int]:
        """Pages that each store can surely take, by name."""
        room = {}
        if self._compression_limit:
            room[_COMPRESSED] = (self._compression_limit - self.used(_COMPRESSED)) // PAGE_SIZE
        if self._swap is not None:
            room[_SWAP] = (self._swap.limit_bytes - self._swap.used_bytes) // PAGE_SIZE
        return {name: max(0, pages) for name, pages in room.items()}

    def troubles(self) -> tuple[str, ...]:
        """What people can do something about: why stores take no more pages."""
        if self._swap is None:
            return ()
        if self._swap.used_bytes == self._swap.limit_bytes:
            return (f"swap file {self._swap.path}: its {format_size(self._swap.limit_bytes)} are full",)
        return (self._swap.trouble,) if self._swap.trouble else ()

    def used(self, name: str) -> int:
        """Bytes that store `name` takes; 0 when there is none."""
        store = self._compressed if name == _COMPRESSED else self._swap
        return 0 if store is None else store.used_bytes

    def state(self, name: str) -> FrameState | None:
        """The state of pages in store `name`; None when the host has no such store. The one for compressed pages is
        made here, so that a host that never compresses does without its modules."""
        if name == _SWAP and self._swap is not None:
            return FrameState.SWAPPED
        if name != _COMPRESSED or not self._compression_limit:
            return None
        if self._compressed is None:
            made = import_module("emuvisor.memory.compressed").CompressedStore
            self._compressed = made(self._compression_limit, self._algorithm)
            self.by_state[FrameState.COMPRESSED] = self._compressed
        return FrameState.COMPRESSED

    def saved_pages(self) -> "LazyPages":
        """The pages of snapshots from which guests were restored."""
        if self._saved is None:
            self._saved = import_module("emuvisor.store.lazy").LazyPages()
            self.by_state[FrameState.SAVED] = self._saved
        return self._saved

    def close(self) -> None:
        """Give their memory back, delete the swap file and let go of snapshots."""
        for store in (self._compressed, self._swap, self._saved):
            if store is not None:
                store.close()
