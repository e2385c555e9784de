"""The host's own memory ends in the middle of the work: nothing is lost, nothing leaks that matters."""

from array import array

import numpy as np
import pytest

from emuvisor.errors import HostError, OutOfFrames
from emuvisor.memory import FramePool, FrameState, GuestMemory
from emuvisor.memory.compressed import CompressedStore
from emuvisor.memory.slabs import SlabArena
from emuvisor.units import MIB, PAGE_SIZE


def page(number):
    return bytes([number % 251 + 1]) * 100 + bytes(PAGE_SIZE - 100)


@pytest.fixture
def memory():
    memory = GuestMemory(FramePool(MIB), [(0, MIB)])
    memory.stores[FrameState.COMPRESSED] = CompressedStore(MIB)
    for number in range(8):
        memory.write(number * PAGE_SIZE, page(number))
    return memory


def test_an_index_of_frames_that_finds_no_memory(monkeypatch):
    def refuse(count, kind):
        raise MemoryError

    monkeypatch.setattr(np, "zeros", refuse)
    with pytest.raises(HostError, match=r"^the host does not give 2 KiB for the index of a frame pool$"):
        FramePool(MIB)


def test_an_arena_whose_index_finds_no_memory():
    class Full(array):
        def append(self, value):
            raise MemoryError

    arena = SlabArena(MIB)
    first = arena.put(b"x" * 100)
    where = arena._where
    arena._where = Full("Q", where)
    with pytest.raises(MemoryError):
        arena.put(b"y" * 100)
    assert arena.objects == 1
    arena._where = where
    second = arena.put(b"z" * 100)
    assert [bytes(arena.get(handle)) for handle in (first, second)] == [b"x" * 100, b"z" * 100]


def test_a_page_that_cannot_be_expanded_now(memory, monkeypatch):
    """It is as if the pool were empty: tried again, it comes back."""
    assert memory.send_away(FrameState.COMPRESSED, [(0, 3)]) == 1
    store = memory.stores[FrameState.COMPRESSED]
    used = memory.pool.used

    def refuse(data):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(store, "_expand", refuse)
        assert not memory.fault(3, False)
        assert memory.starved
        text = "^no frame for guest physical address 0x3000: the host has no memory to bring it back$"
        with pytest.raises(OutOfFrames, match=text):
            memory.read(3 * PAGE_SIZE, 1)
        assert (memory.pool.used, store.pages, memory.census()["compressed"]) == (used, 1, 1)
    assert memory.read(3 * PAGE_SIZE, PAGE_SIZE) == page(3)
    assert store.pages == 0


def test_no_memory_to_note_what_a_store_took(memory, monkeypatch):
    def refuse(state, number):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("emuvisor.memory.reclaim.entry", refuse)
        with pytest.raises(MemoryError):
            memory.send_away(FrameState.COMPRESSED, [(0, 1), (0, 2)])
    assert memory.stores[FrameState.COMPRESSED].pages == 0
    assert [memory.read(number * PAGE_SIZE, PAGE_SIZE) for number in range(8)] == [page(n) for n in range(8)]


@pytest.mark.parametrize("content", [page(99), bytes(PAGE_SIZE)])
def test_a_page_that_is_written_as_a_whole_need_not_come_back(memory, monkeypatch, content):
    assert memory.send_away(FrameState.COMPRESSED, [(0, 3), (0, 4)]) == 2
    store = memory.stores[FrameState.COMPRESSED]
    monkeypatch.setattr(store, "load", None)
    memory.write(3 * PAGE_SIZE, content)
    assert memory.read(3 * PAGE_SIZE, PAGE_SIZE) == content
    assert store.pages == 1
    memory.pool.take_many(memory.pool.free)
    with pytest.raises(OutOfFrames):
        memory.write(4 * PAGE_SIZE, content)
    assert (store.pages, memory.census()["compressed"]) == (1, 1), "it is there until there is a frame"
