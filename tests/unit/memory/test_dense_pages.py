"""Pages that do not compress are not tried again and again."""

import random
from collections.abc import Iterator

import pytest

from emuvisor.memory import FramePool, FrameState, GuestMemory
from emuvisor.memory.compressed import CompressedStore
from emuvisor.memory.slot import DENSE_SAMPLES
from emuvisor.units import MIB, PAGE_SIZE

COMPRESSED, SWAPPED = FrameState.COMPRESSED, FrameState.SWAPPED
NOISE = random.Random(5).randbytes(PAGE_SIZE)
PLAIN = b"\1" * PAGE_SIZE
DENSE_PAGES = [(0, 0), (0, 2)]
PLAIN_PAGES = [(0, 1), (0, 3)]


@pytest.fixture
def store() -> Iterator[CompressedStore]:
    store = CompressedStore(MIB)
    yield store
    store.close()


@pytest.fixture
def memory(store: CompressedStore) -> GuestMemory:
    """Four pages: noise, plain, noise, plain."""
    memory = GuestMemory(FramePool(MIB), [(0, 4 * PAGE_SIZE)])
    memory.stores[COMPRESSED] = store
    memory.write(0, NOISE + PLAIN + NOISE + PLAIN)
    return memory


def compress(memory: GuestMemory) -> int:
    return memory.send_away(COMPRESSED, memory.evictable(10, COMPRESSED))


def refused(store: CompressedStore) -> int:
    return store.statistics["not_compressible"]


def test_each_is_tried_once(memory: GuestMemory, store: CompressedStore) -> None:
    memory.start_sampling()
    assert (compress(memory), refused(store)) == (2, 2)
    assert memory.evictable(10, COMPRESSED) == []
    assert sorted(memory.evictable(10)) == DENSE_PAGES, "swap takes them"
    memory.collect_accessed()
    memory.collect_accessed()
    assert (compress(memory), refused(store)) == (0, 2)


def test_a_page_that_was_used_since_is_tried_again(memory: GuestMemory, store: CompressedStore) -> None:
    memory.start_sampling()
    compress(memory)
    memory.collect_accessed()
    memory.write(0, PLAIN)
    assert memory.evictable(10, COMPRESSED) == [], "nobody has looked yet"
    memory.collect_accessed()
    assert memory.evictable(10, COMPRESSED) == [(0, 0)]
    assert (compress(memory), refused(store)) == (1, 2)


def test_all_are_tried_again_after_some_time(memory: GuestMemory, store: CompressedStore) -> None:
    memory.start_sampling()
    compress(memory)
    memory.collect_accessed()
    for _ in range(DENSE_SAMPLES - 2):
        assert memory.evictable(10, COMPRESSED) == []
        memory.collect_accessed()
    memory.collect_accessed()
    assert memory.evictable(10, COMPRESSED) == DENSE_PAGES
    assert (compress(memory), refused(store)) == (0, 4)


def test_nothing_is_remembered_while_nobody_samples(memory: GuestMemory, store: CompressedStore) -> None:
    assert compress(memory) == 2
    assert sorted(memory.evictable(10, COMPRESSED)) == DENSE_PAGES
    memory.start_sampling()
    compress(memory)
    memory.stop_sampling()
    assert (compress(memory), refused(store)) == (0, 6)


def test_what_swap_cannot_take_is_tried_again(memory: GuestMemory) -> None:
    memory.stores[SWAPPED] = full = CompressedStore(64 * 1024)
    while full.store([PLAIN])[0] is not None:
        pass
    memory.start_sampling()
    assert memory.send_away(SWAPPED, memory.evictable(10)) == 0
    assert sorted(memory.evictable(10)) == sorted([*DENSE_PAGES, *PLAIN_PAGES])
    full.close()
