"""Pages kept compressed in the host's memory: quicker to bring back than from any disk."""

import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import lz4.block  # type: ignore[import-untyped]  # it has no stubs
import zstandard

from emuvisor.errors import PageLost, UsageError
from emuvisor.memory.slabs import LARGEST_OBJECT, SlabArena
from emuvisor.memory.store import SlotOwners
from emuvisor.units import PAGE_SIZE

__all__ = ["ALGORITHMS", "CompressedStore"]

Codec = tuple[Callable[[memoryview], bytes], Callable[[memoryview], bytes]]
"""Compresses one page, and gives it back. Not for several threads at once."""


def _lz4() -> Codec:
    def compress(page: memoryview) -> bytes:
        return bytes(lz4.block.compress(page, store_size=False))

    def expand(data: memoryview) -> bytes:
        return bytes(lz4.block.decompress(data, uncompressed_size=PAGE_SIZE))

    return compress, expand


def _zstd() -> Codec:
    compressor = zstandard.ZstdCompressor(level=1, write_content_size=False)
    decompressor = zstandard.ZstdDecompressor()

    def expand(data: memoryview) -> bytes:
        return decompressor.decompress(data, max_output_size=PAGE_SIZE)

    return compressor.compress, expand


ALGORITHMS: dict[str, Callable[[], Codec]] = {"lz4": _lz4, "zstd": _zstd}
"""lz4 is the quicker one, zstd packs more pages into the pool."""
_DAMAGED = (lz4.block.LZ4BlockError, zstandard.ZstdError)
CHECKSUM_SIZE = 4
LARGEST_DATA = LARGEST_OBJECT - CHECKSUM_SIZE


@dataclass(slots=True)
class _Statistics:
    stored: int = 0
    loaded: int = 0
    not_compressible: int = 0
    no_room: int = 0
    lost: int = 0
    compressed_bytes: int = 0


class CompressedStore:
    """A `PageStore` of at most `limit` bytes of host memory, index and fragmentation included.

    A page that does not shrink to three quarters is refused: it would cost time and gain little. Behind each page lies
    the CRC-32 of its compressed form: neither algorithm notices that a bit has changed. `algorithm` is one
    of `ALGORITHMS`. Raises UsageError for another one and for a limit that is no pool (`SlabArena`), HostError when
    the host refuses the address space.
    """

    name = "compressed"

    def __init__(self, limit: int, algorithm: str = "lz4") -> None:
        if algorithm not in ALGORITHMS:
            raise UsageError(f"compression {algorithm!r} is unknown; there are {' and '.join(ALGORITHMS)}")
        self.limit_bytes = limit
        self.algorithm = algorithm
        self._compress, self._expand = ALGORITHMS[algorithm]()
        self._arena = SlabArena(limit)
        self._owners = SlotOwners()
        self._counts = _Statistics()
        self._lock = threading.Lock()

    @property
    def pages(self) -> int:
        """Pages that it keeps."""
        return self._arena.objects

    @property
    def used_bytes(self) -> int:
        """Memory taken from the host for them: free places and the index count too."""
        return self._arena.used_bytes

    @property
    def statistics(self) -> dict[str, int]:
        """Pages `stored`, `loaded`, `lost`, refused as `not_compressible` or for `no_room`, which includes that the
        host had no memory for the work, since it was made; and the `compressed_bytes` that it keeps now, without
        fragmentation."""
        with self._lock:
            return asdict(self._counts)

    def store(self, pages: Sequence[memoryview]) -> list[int | None]:
        """Keep what compresses well and finds room; see `PageStore`."""
        return [self._store(page) for page in pages]

    def _store(self, page: memoryview) -> int | None:
        with (
            self._lock
        ):  # for each page, so that a guest that waits for one of its own waits no longer than that
            try:
                data = self._compress(page)
                if len(data) > LARGEST_DATA:
                    self._counts.not_compressible += 1
                    return None
                data += zlib.crc32(data).to_bytes(CHECKSUM_SIZE, "little")
                slot = self._arena.put(data)
            except MemoryError:
                slot = None
            if slot is None:
                self._counts.no_room += 1
                return None
            self._counts.stored += 1
            self._counts.compressed_bytes += len(data)
            return slot

    def load(self, slot: int, into: memoryview) -> None:
        """Expand a page; see `PageStore`."""
        with self._lock:
            try:
                self._load(slot, into)
            except PageLost:
                self._counts.lost += 1
                raise
            self._counts.loaded += 1

    def _load(self, slot: int, into: memoryview) -> None:
        try:
            kept = self._arena.get(slot)
        except KeyError:
            raise PageLost(f"the compression pool has no page {slot}") from None
        data = kept[:-CHECKSUM_SIZE]
        found, wanted = zlib.crc32(data), int.from_bytes(kept[-CHECKSUM_SIZE:], "little")
        if found != wanted:
            why = f"its checksum is {found:#010x}, not {wanted:#010x}"
            raise PageLost(f"page {slot} of the compression pool is damaged: {why}")
        try:
            into[:] = self._expand(data)
        except (*_DAMAGED, ValueError) as error:
            raise PageLost(f"page {slot} of the compression pool is damaged: {error}") from None

    def share(self, slots: Sequence[int]) -> None:
        """See `PageStore`."""
        with self._lock:
            self._owners.share(slots)

    def free(self, slots: Sequence[int]) -> None:
        """See `PageStore`. Raises KeyError for a slot without an owner."""
        with self._lock:
            for slot in self._owners.free(slots):
                self._counts.compressed_bytes -= len(self._arena.get(slot))
                self._arena.free(slot)

    def close(self) -> None:
        """Give the memory back at once, not only when the last reference to this is gone."""
        with self._lock:
            self._arena.close()
