"""Pages kept compressed, and the slabs that they are packed into."""

import itertools
import random
import re
import threading
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from emuvisor.errors import HostError, PageLost, UsageError
from emuvisor.memory.compressed import ALGORITHMS, CompressedStore
from emuvisor.memory.slabs import CLASS_SIZES, LARGEST_OBJECT, LEAST_LIMIT, SLAB_SIZE, SlabArena
from emuvisor.units import KIB, MIB, PAGE_SIZE


def exactly(text):
    return f"^{re.escape(text)}$"


def page(seed, noise=1000):
    """4096 bytes, of which `noise` do not compress."""
    return random.Random(seed).randbytes(noise).ljust(PAGE_SIZE, b"\0")


def stored(store, *contents):
    return store.store([memoryview(content) for content in contents])


def loaded(store, slot):
    into = bytearray(b"\xee" * PAGE_SIZE)
    store.load(slot, memoryview(into))
    return bytes(into)


@pytest.fixture(params=ALGORITHMS)
def store(request):
    return CompressedStore(MIB, request.param)


def test_what_goes_in_comes_out(store):
    contents = [page(i, 1 + 300 * i) for i in range(10)] + [bytes(PAGE_SIZE)]
    slots = stored(store, *contents)
    assert len(set(slots)) == 11
    assert [loaded(store, slot) for slot in reversed(slots)] == contents[::-1]
    assert [loaded(store, slot) for slot in slots] == contents, "a load forgets nothing"
    assert store.pages == 11
    assert store.statistics["loaded"] == 22


def test_a_page_that_does_not_shrink_is_refused(store):
    assert stored(store, page(1, PAGE_SIZE), page(2, 3200)) == [None, None]
    assert (store.pages, store.statistics["not_compressible"]) == (0, 2)
    slots = stored(store, page(3, 2900), page(4, PAGE_SIZE), page(5))
    assert slots[1] is None
    assert [loaded(store, slots[0]), loaded(store, slots[2])] == [page(3, 2900), page(5)]


def test_the_limit_is_hard():
    store = CompressedStore(256 * KIB)
    slots = stored(store, *(page(i) for i in range(400)))
    kept = [slot for slot in slots if slot is not None]
    assert 150 < len(kept) < 240, "of 1 KiB each"
    assert slots[: len(kept)] == kept, "the rest found no room"
    assert store.statistics["no_room"] == 400 - len(kept)
    assert store.limit_bytes - SLAB_SIZE - KIB < store.used_bytes <= store.limit_bytes
    assert [loaded(store, slot) for slot in kept] == [page(i) for i in range(len(kept))]
    store.free(kept)
    assert store.pages == 0
    assert stored(store, page(1, 2000))[0] is not None, "room for another size"


def test_memory_goes_back():
    store = CompressedStore(4 * MIB)
    slots = stored(store, *(page(i, 100 + i) for i in range(1000)))
    full = store.used_bytes
    assert store.statistics["compressed_bytes"] < full
    store.free(slots)
    assert store.statistics["compressed_bytes"] == 0
    assert store.used_bytes == 12 * 1000, "for the free numbers"
    assert len(stored(store, *(page(i, 100 + i) for i in range(1000)))) == 1000
    assert store.used_bytes <= full, "numbers and slabs are used again"


def test_owners(store):
    (slot,) = stored(store, page(1))
    store.share([slot, slot])
    store.free([slot])
    store.free([slot])
    assert loaded(store, slot) == page(1)
    store.free([slot])
    assert store.pages == 0
    with pytest.raises(PageLost, match=exactly(f"the compression pool has no page {slot}")):
        loaded(store, slot)
    with pytest.raises(KeyError):
        store.free([slot])


@pytest.mark.parametrize("slot", [-1, 0, 5, 1 << 24])
def test_numbers_that_were_never_given_out(store, slot):
    with pytest.raises(PageLost, match=exactly(f"the compression pool has no page {slot}")):
        loaded(store, slot)
    with pytest.raises(KeyError):
        store.free([slot])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_damaged_memory_is_a_lost_page(algorithm):
    store = CompressedStore(MIB, algorithm)
    (slot,) = stored(store, page(1))
    data = store._arena.get(slot)
    data[len(data) // 2] ^= 4
    text = f"^page {slot} of the compression pool is damaged: its checksum is 0x[0-9a-f]{{8}}, not 0x[0-9a-f]{{8}}$"
    with pytest.raises(PageLost, match=text):
        loaded(store, slot)
    assert store.statistics["lost"] == 1
    data[len(data) // 2] ^= 4
    assert loaded(store, slot) == page(1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_any_bit_that_flips_is_noticed(algorithm):
    store = CompressedStore(MIB, algorithm)
    (slot,) = stored(store, page(1, 20))
    data = store._arena.get(slot)
    for bit in range(len(data) * 8):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PageLost):
            loaded(store, slot)
        data[bit // 8] ^= 1 << bit % 8


def test_no_memory_to_compress(store, monkeypatch):
    (slot,) = stored(store, page(1))

    def refuse(_):
        raise MemoryError

    compress, expand = store._compress, store._expand
    store._compress = store._expand = refuse
    assert stored(store, page(2), page(3)) == [None, None]
    assert (store.pages, store.statistics["no_room"]) == (1, 2)
    with pytest.raises(MemoryError):
        loaded(store, slot)
    store._compress, store._expand = compress, expand
    assert loaded(store, slot) == page(1), "it was not lost"
    assert store.statistics["lost"] == 0


def test_a_page_that_expands_to_less():
    import lz4.block

    store = CompressedStore(MIB)
    data = lz4.block.compress(bytes(100), store_size=False)
    slot = store._arena.put(data + zlib.crc32(data).to_bytes(4, "little"))
    with pytest.raises(PageLost, match=f"^page {slot} of the compression pool is damaged: "):
        loaded(store, slot)


def test_impossible_pools():
    with pytest.raises(UsageError, match=exactly("compression 'rar' is unknown; there are lz4 and zstd")):
        CompressedStore(MIB, "rar")
    with pytest.raises(UsageError) as error:
        CompressedStore(LEAST_LIMIT - 1)
    assert (
        str(error.value) == "a pool of compressed pages of 65535 bytes is impossible; it has at least 64 KiB"
    )
    assert stored(CompressedStore(LEAST_LIMIT), page(1)) == [0]
    with pytest.raises(HostError, match=r"^the host does not give 1073741824 TiB of address space: "):
        CompressedStore(1 << 70)


def test_close():
    store = CompressedStore(MIB)
    stored(store, page(1))
    store.close()
    assert (store.pages, store.used_bytes) == (0, 0)


def test_several_threads():
    store = CompressedStore(2 * MIB, "zstd")
    wrong = []

    def work(number):
        rng = random.Random(number)
        held = {}
        for turn in range(150):
            if held and rng.random() < 0.4:
                slot, content = held.popitem()
                if loaded(store, slot) != content:
                    wrong.append(slot)
                store.free([slot])
            else:
                content = page(number * 1000 + turn, rng.randrange(1, 2500))
                (slot,) = stored(store, content)
                held[slot] = content
        wrong.extend(slot for slot, content in held.items() if loaded(store, slot) != content)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ---- slabs ----


def test_size_classes():
    assert all(size % 8 == 0 for size in CLASS_SIZES)
    assert CLASS_SIZES[-1] >= LARGEST_OBJECT
    for small, large in itertools.pairwise(CLASS_SIZES):
        assert small < large <= 2 * small
        if small >= 683:
            assert large <= small * 1.11
    for size in CLASS_SIZES:
        assert SLAB_SIZE % size < 8 * (SLAB_SIZE // size), "no tail beyond the rounding"


def test_fragmentation_is_bounded():
    """Of objects of one size all but each tenth go: what stays moves together."""
    arena = SlabArena(8 * MIB)
    handles = [arena.put(bytes([i % 251]) * 1000) for i in range(3200)]
    places = SLAB_SIZE // 1024
    assert arena.used_bytes > 3200 * 1000
    for i, handle in enumerate(handles):
        if i % 10:
            arena.free(handle)
            assert sum(arena.free_places.values()) < 2 * places
    assert arena.objects == 320
    assert arena.used_bytes < 320 * 1024 + 2 * SLAB_SIZE + 16 * 3200 + MIB // 16
    assert all(arena.get(handles[i]) == bytes([i % 251]) * 1000 for i in range(0, 3200, 10))


def test_no_more_handles(monkeypatch):
    monkeypatch.setattr("emuvisor.memory.slabs.MAX_HANDLES", 3)
    arena = SlabArena(MIB)
    assert [arena.put(b"x") for _ in range(4)] == [0, 1, 2, None]
    arena.free(1)
    with pytest.raises(KeyError):
        arena.free(1)
    assert arena.put(b"y") == 1


def test_numbers_count_too():
    index = 256 + 512 * 4
    arena = SlabArena(2 * (SLAB_SIZE + index) + 3 * 12)
    assert [arena.put(b"x" * 64), arena.put(b"x" * 1000), arena.put(b"x")] == [0, 1, 2]
    assert [arena.put(b"y") for _ in range(400)][-1] is None
    assert arena.used_bytes + 12 > arena.limit >= arena.used_bytes
    assert sum(arena.free_places.values()) > 0
    arena.free(0)
    assert arena.put(b"z") == 0


class Arena(RuleBasedStateMachine):
    """Random objects against a dictionary."""

    def __init__(self):
        super().__init__()
        self.arena = SlabArena(160 * KIB)
        self.model = {}

    @rule(length=st.integers(1, LARGEST_OBJECT), fill=st.integers(0, 255), count=st.integers(1, 40))
    def put(self, length, fill, count):
        for i in range(count):
            data = bytes([(fill + i) % 256]) * length
            handle = self.arena.put(data)
            if handle is None:
                assert self.arena.used_bytes + SLAB_SIZE + 8 * KIB > self.arena.limit
                break
            assert handle not in self.model
            self.model[handle] = data

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def free(self, data):
        for handle in data.draw(st.sets(st.sampled_from(sorted(self.model)))):
            self.arena.free(handle)
            del self.model[handle]

    @invariant()
    def as_the_model(self):
        assert self.arena.objects == len(self.model)
        assert self.arena.used_bytes <= self.arena.limit
        assert {h: bytes(self.arena.get(h)) for h in self.model} == self.model
        for size, free in self.arena.free_places.items():
            assert free < 2 * (SLAB_SIZE // size)


TestArena = Arena.TestCase
TestArena.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, PAGE_SIZE), st.integers(0, 9)), max_size=20),
    st.sampled_from([*ALGORITHMS]),
)
def test_any_pages_as_plain_copies(kinds, algorithm):
    store = CompressedStore(128 * KIB, algorithm)
    contents = [page(seed, noise) for noise, seed in kinds]
    slots = stored(store, *contents)
    for slot, content in zip(slots, contents, strict=True):
        assert slot is None or loaded(store, slot) == content
    store.free([slot for slot in slots if slot is not None])
    assert store.pages == 0
