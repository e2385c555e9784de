"""Pages of equal content get one frame, and nobody can tell."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from emuvisor.memory import FramePool, FrameState, GuestMemory
from emuvisor.memory.compressed import CompressedStore
from emuvisor.memory.hints import HintTable
from emuvisor.memory.pagehash import PageHash, mixed
from emuvisor.memory.sharing import PageSharing, Savings, ScanResult, savings
from emuvisor.memory.slabs import LEAST_LIMIT
from emuvisor.memory.swapfile import SwapFile
from emuvisor.units import GIB, MIB, PAGE_SIZE

PAGE = PAGE_SIZE
PAGES = 32


def page(seed):
    """4096 bytes; those of odd seeds can be compressed."""
    return random.Random(seed).randbytes(PAGE if seed % 2 == 0 else 100).ljust(PAGE, b"\0")


def pages(*seeds):
    return b"".join(page(seed) if seed else bytes(PAGE) for seed in seeds)


def put(memory, first, *seeds):
    """Pages with frames, those of seed 0 too: a guest wrote zeros there."""
    for i, seed in enumerate(seeds):
        memory.write((first + i) * PAGE, b"\1")
        memory.write((first + i) * PAGE, page(seed) if seed else bytes(PAGE))


class Clock:
    """Goes on by a second each time that somebody looks."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


@pytest.fixture
def pool():
    return FramePool(256 * PAGE)


@pytest.fixture
def guests(pool):
    return [GuestMemory(pool, [(0, PAGES * PAGE)]) for _ in range(3)]


@pytest.fixture
def sharing(pool):
    return PageSharing(pool, clock=Clock(), seed=1)


def scans(sharing, *memories, rounds=1):
    """All of each guest, in turn; the frames that became free."""
    return sum(sharing.scan(memory, 1000).freed for _ in range(rounds) for memory in memories)


# ---- pages of zeros ----


def test_pages_of_zeros_are_given_back_at_once(pool, guests, sharing):
    memory = guests[0]
    put(memory, 0, 0, 1, 0, 0, 2)
    assert sharing.scan(memory, 100) == ScanResult(scanned=5, zero=3, shared=0, freed=3)
    assert (pool.used, memory.census()["zero"]) == (2, 3)
    assert memory.read(0, 5 * PAGE) == pages(0, 1, 0, 0, 2)
    assert sharing.scan(memory, 100) == ScanResult(scanned=2, zero=0, shared=0, freed=0), "they are done"
    memory.write(2 * PAGE + 7, b"x")
    assert memory.read(2 * PAGE, PAGE) == bytes(7) + b"x" + bytes(PAGE - 8)
    assert pool.used == 3


@pytest.mark.parametrize("place", [0, 1, 2047, PAGE - 1])
def test_one_bit_is_not_zero(pool, guests, sharing, place):
    content = bytearray(PAGE)
    content[place] = 0x80
    guests[0].write(0, content)
    assert sharing.scan(guests[0], 10).zero == 0
    assert pool.used == 1


def test_zeros_of_clones(pool, guests, sharing):
    put(guests[0], 0, 0)
    twin = guests[0].clone()
    assert sharing.scan(guests[0], 10) == ScanResult(scanned=1, zero=1, shared=0, freed=0)
    assert sharing.scan(twin, 10) == ScanResult(scanned=1, zero=1, shared=0, freed=1)
    assert pool.used == 0


def test_a_page_that_is_written_after_the_look_is_not_zero(pool, guests, sharing):
    memory = guests[0]
    put(memory, 0, 0, 0)
    findings = sharing.find(memory, 10)
    memory.write(0, b"x")
    assert sharing.share(findings) == ScanResult(scanned=2, zero=1, shared=0, freed=1)
    assert memory.read(0, 2) == b"x\0"


# ---- pages of equal content ----


def test_equal_pages_of_two_guests(pool, guests, sharing):
    one, other, _ = guests
    put(one, 0, 1, 2, 3)
    put(other, 10, 3, 4, 1)
    assert scans(sharing, one, other) == 0, "they have to be seen twice"
    assert sharing.scan(one, 100) == ScanResult(scanned=3, zero=0, shared=0, freed=0)
    assert sharing.scan(other, 100) == ScanResult(scanned=3, zero=0, shared=2, freed=2)
    assert pool.used == 4
    assert one.place(0, False) == other.place(12, False)
    assert savings(pool, guests) == Savings(zero_pages=0, shared_pages=4, shared_frames=2)
    other.write(10 * PAGE, b"new")
    assert one.read(2 * PAGE, PAGE) == page(3)
    assert other.read(10 * PAGE, PAGE) == b"new" + page(3)[3:]
    one.write(0, b"own")
    assert other.read(12 * PAGE, PAGE) == page(1)
    assert pool.used == 6


def test_equal_pages_of_one_guest(pool, guests, sharing):
    memory = guests[0]
    put(memory, 0, 7, 7, 8, 7, 7)
    scans(sharing, memory)
    assert sharing.scan(memory, 100) == ScanResult(scanned=5, zero=0, shared=3, freed=3)
    assert pool.used == 2
    assert memory.read(0, 5 * PAGE) == pages(7, 7, 8, 7, 7)


def test_a_third_guest_joins(pool, guests, sharing):
    for memory in guests:
        put(memory, 3, 5)
    scans(sharing, *guests[:2], rounds=2)
    assert scans(sharing, guests[2], rounds=2) == 1
    assert pool.used == 1
    assert pool.references.max() == 3


def test_a_guest_that_has_changed_its_page_does_not_hide_the_others(pool, guests, sharing):
    """The hint shows to a page that is another one now; two guests still have the old content in one frame."""
    one, two, three = guests
    for memory in (one, two):
        put(memory, 0, 5)
    scans(sharing, one, two, rounds=2)
    twin = two.clone()
    one.write(0, b"changed")
    put(three, 0, 5)
    scans(sharing, one, two, twin, three, rounds=3)
    assert pool.used == 2
    assert three.place(0, False) == two.place(0, False) == twin.place(0, False)


def test_a_page_that_changes_between_looks_is_left_alone(pool, guests, sharing):
    one, other, _ = guests
    for turn in range(1, 6):
        put(one, 0, turn)
        put(other, 0, turn)
        assert scans(sharing, one, other) == 0
    assert pool.used == 2
    assert scans(sharing, one, other) == 1, "now it did not"


def test_a_page_that_changes_between_find_and_share(pool, guests, sharing):
    one, other, _ = guests
    for memory in (one, other):
        put(memory, 0, 5, 6, 7)
    scans(sharing, one, other)
    sharing.find(one, 10)
    findings = sharing.find(other, 10)
    assert findings.guests == (other, one)
    one.write(0, b"1")
    other.write(PAGE, b"2")
    assert sharing.share(findings) == ScanResult(scanned=3, zero=0, shared=1, freed=1)
    assert sharing.statistics.mismatched == 2
    assert one.read(0, 3 * PAGE) == b"1" + page(5)[1:] + pages(6, 7)
    assert other.read(0, 3 * PAGE) == page(5) + b"2" + page(6)[1:] + page(7)


def test_a_hint_that_is_known_to_be_old_stops_nobody(pool, guests, sharing):
    one, other, _ = guests
    for memory in (one, other):
        put(memory, 0, 5)
    scans(sharing, one, other)
    sharing.find(one, 10)
    one.write(0, b"new")
    sharing.find(one, 10)
    assert sharing.find(other, 10).guests == ()


def test_a_hint_that_proved_wrong_gives_way(pool, guests, sharing):
    one, other, third = guests
    for memory in guests:
        put(memory, 0, 5)
    scans(sharing, *guests)
    sharing.find(one, 10)
    one.write(0, b"new")
    assert sharing.scan(other, 10).shared == 0
    assert sharing.scan(third, 10).shared == 1, (
        "with the other one, although nobody has looked at the first again"
    )


def test_a_page_that_loses_its_frame_between_find_and_share(pool, guests, sharing):
    one, other, _ = guests
    for memory in (one, other):
        put(memory, 0, 5, 6, 7)
    scans(sharing, one, other)
    sharing.find(one, 10)
    findings = sharing.find(other, 10)
    one.discard(0, PAGE)
    other.discard(PAGE, PAGE)
    assert sharing.share(findings).shared == 1
    assert one.read(0, 3 * PAGE) == pages(0, 6, 7)
    assert other.read(0, 3 * PAGE) == pages(5, 0, 7)


def test_hashes_that_lie(pool, guests, sharing, monkeypatch):
    """All pages have the same hash: bytes decide."""
    monkeypatch.setattr(sharing, "_hash", lambda frames: np.full(len(frames), 5, np.uint64))
    put(guests[0], 0, 1, 2, 0, 1)
    put(guests[1], 0, 2, 1, 0, 3)
    scans(sharing, *guests, rounds=6)
    assert guests[0].read(0, 4 * PAGE) == pages(1, 2, 0, 1)
    assert guests[1].read(0, 4 * PAGE) == pages(2, 1, 0, 3)
    assert sharing.statistics.mismatched > 0
    monkeypatch.setattr(sharing, "_hash", lambda frames: np.zeros(len(frames), np.uint64))
    scans(sharing, *guests)
    assert guests[0].read(0, 4 * PAGE) == pages(1, 2, 0, 1)
    assert guests[0].census()["zero"] == guests[1].census()["zero"] == 1


def test_what_is_shared_already_stays(pool, guests, sharing):
    put(guests[0], 0, 1, 2)
    twin = guests[0].clone()
    for _ in range(4):
        for memory in (guests[0], twin):
            assert sharing.scan(memory, 10).shared == 0
    assert pool.used == 2


def test_two_groups_that_share_become_one(pool, guests, sharing):
    put(guests[0], 0, 1)
    put(guests[1], 0, 1)
    twins = [guests[0].clone(), guests[1].clone()]
    assert pool.used == 2
    scans(sharing, *guests[:2], *twins, rounds=3)
    assert pool.used == 1
    assert pool.references.max() == 4


# ---- what can be shared ----


def test_rom_is_shared_and_stays_rom(pool, guests, sharing):
    for memory in guests[:2]:
        memory.add_rom(0, page(9))
    scans(sharing, *guests[:2], rounds=2)
    assert pool.used == 1
    assert guests[0].census()["rom"] == guests[1].census()["rom"] == 1
    guests[0].change_rom(0, b"new")
    assert guests[1].read(0, PAGE) == page(9)


def test_memory_of_devices_is_shared(pool, guests, sharing):
    regions = [memory.add_region(2 * PAGE) for memory in guests[:2]]
    for region in regions:
        region.write(0, page(4) + page(5))
    scans(sharing, *guests[:2], rounds=2)
    assert pool.used == 2
    regions[0].write(0, b"x")
    assert regions[1].read(0, 2 * PAGE) == page(4) + page(5)
    assert regions[0].read(0, 2) == b"x" + page(4)[1:2]


def test_tenants_do_not_share(pool, guests, sharing):
    sharing.join(guests[0], "red")
    sharing.join(guests[1], "blue")
    sharing.join(guests[2], "blue")
    for memory in guests:
        put(memory, 0, 1, 2, 0)
    scans(sharing, *guests, rounds=4)
    assert pool.used == 4
    assert guests[1].place(0, False) == guests[2].place(0, False) != guests[0].place(0, False)


def test_tenants_do_not_share_even_when_their_hashes_meet(pool, guests, sharing, monkeypatch):
    monkeypatch.setattr("emuvisor.memory.sharing.mixed", lambda hashes, salt: hashes)
    sharing.join(guests[0], "red")
    sharing.join(guests[1], "blue")
    for memory in guests[:2]:
        put(memory, 0, 1, 2)
    scans(sharing, *guests[:2], rounds=4)
    assert pool.used == 4


def test_a_guest_that_is_gone(pool, guests, sharing):
    one, other, _ = guests
    for memory in (one, other):
        put(memory, 0, 1)
    scans(sharing, one, other)
    sharing.find(one, 10)
    findings = sharing.find(other, 10)
    sharing.forget(one)
    one.close()
    assert sharing.share(findings).shared == 0
    assert other.read(0, PAGE) == page(1)
    scans(sharing, other, guests[2], rounds=2)
    put(guests[2], 0, 1)
    assert scans(sharing, other, guests[2], rounds=2) == 1
    sharing.forget(one)


def test_a_scan_of_a_guest_that_is_forgotten_before_it_is_shared(pool, guests, sharing):
    for memory in guests[:2]:
        put(memory, 0, 1)
    scans(sharing, *guests[:2])
    sharing.find(guests[0], 10)
    findings = sharing.find(guests[1], 10)
    sharing.forget(guests[1])
    guests[1].close()
    assert sharing.share(findings) == ScanResult(scanned=1, zero=0, shared=0, freed=0)


# ---- budgets and numbers ----


def test_a_budget_is_kept_and_the_next_scan_goes_on(guests, sharing):
    memory = GuestMemory(guests[0].pool, [(0, 20 * PAGE), (MIB, 20 * PAGE)])
    for i in range(0, 20, 2):
        memory.write(i * PAGE, page(1 + i))
        memory.write(MIB + i * PAGE, page(101 + i))
    seen = []
    sharing._hash = lambda frames: seen.extend(frames.tolist()) or PageHash(memory.pool, 1)(frames)
    assert [sharing.scan(memory, 6).scanned for _ in range(10)] == [6] * 10
    assert seen[:20] == seen[20:40] == seen[40:60]
    assert len(set(seen)) == 20
    assert sharing.scan(memory, 1000).scanned == 20, "once round, from wherever it begins"
    assert sharing.scan(memory, 0).scanned == 0


def test_a_guest_without_pages(guests, sharing):
    findings = sharing.find(guests[0], 10)
    assert findings.guests == ()
    assert sharing.share(findings) == ScanResult(0, 0, 0, 0)
    assert sharing.scan(GuestMemory(guests[0].pool, []), 10).scanned == 0


def test_a_large_guest_is_mostly_empty(sharing):
    memory = GuestMemory(FramePool(MIB), [(0, 4 * GIB)])
    memory.write(3 * GIB, b"x")
    assert PageSharing(memory.pool).scan(memory, 10).scanned == 1


def test_slots_that_are_added_later(pool, guests, sharing):
    put(guests[0], 0, 1)
    scans(sharing, guests[0])
    guests[0].add_region(PAGE).write(0, page(1))
    scans(sharing, guests[0], rounds=2)
    assert pool.used == 1


def test_statistics(guests, sharing):
    put(guests[0], 0, 1, 2, 0)
    put(guests[1], 0, 1, 3, 0)
    scans(sharing, *guests[:2], rounds=2)
    numbers = sharing.statistics
    assert (numbers.scanned, numbers.zero, numbers.shared, numbers.freed) == (10, 2, 1, 3)
    assert numbers.mismatched == 0
    assert numbers.seconds == 8, "four times find and share, a second each"
    saved = savings(guests[0].pool, guests)
    assert (saved.frames, saved.frames_without_zero) == (3, 1)


def test_the_same_scans_do_the_same(pool):
    def run():
        pool = FramePool(256 * PAGE)
        sharing = PageSharing(pool, seed=3)
        guests = [GuestMemory(pool, [(0, PAGES * PAGE)]) for _ in range(3)]
        rng = random.Random(5)
        results = []
        for _ in range(12):
            for memory in guests:
                put(memory, rng.randrange(PAGES), rng.randrange(4))
                results.append(sharing.scan(memory, rng.randrange(1, 40)))
        return results, [slot.entries.tolist() for memory in guests for slot in memory.slots]

    assert run() == run()


# ---- hashes and hints ----


def test_hashes_of_pages():
    pool = FramePool(200 * PAGE)
    frames = pool.take_many(150)
    pool.frames[frames] = np.random.default_rng(1).integers(0, 256, (150, PAGE))
    pool.frames[frames[7]] = pool.frames[frames[99]]
    pool.frames[frames[3]] = 0
    hashes = PageHash(pool, 1)(frames)
    assert hashes[3] == 0
    assert hashes[7] == hashes[99]
    assert len(set(hashes.tolist())) == 149
    assert (PageHash(pool, 1)(frames[::-1]) == hashes[::-1]).all()
    assert (PageHash(pool, 2)(frames) != hashes).sum() == 149
    assert (PageHash(pool)(frames) != PageHash(pool)(frames)).sum() == 149, "secret"
    assert len(PageHash(pool, 1)(frames[:0])) == 0


def test_keys_differ_in_their_low_bits():
    """Pages that differ only in high bits of a word have hashes that do."""
    keys = mixed(np.arange(1, 1000, dtype=np.uint64) << np.uint64(48), 0)
    assert len(set((keys & np.uint64(0xFFFF)).tolist())) > 950
    assert len(set(keys.tolist())) == 999
    assert (mixed(keys, 1) != mixed(keys, 2)).all()


def test_the_memory_of_hints_is_bounded():
    for count in (1, 2, 3, 100, 65535, 65536, 65537, 1 << 20):
        table = HintTable(count)
        assert 32 * count <= table.bytes <= max(64 * count, 64)


def test_a_full_bucket_forgets():
    table = HintTable(1)
    keys = (np.arange(8, dtype=np.uint64) << np.uint64(61)) + np.uint64(1)
    for i in range(8):
        table.put(keys[i : i + 1], np.array([100 + i], np.uint64))
        assert table.find(keys[i : i + 1]).tolist() == [100 + i], "the newest is known"
    assert np.count_nonzero(table.find(keys)) == 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 1000)), max_size=8), max_size=12))
def test_hints_as_a_dictionary_that_forgets(lots):
    table = HintTable(16)
    model = {}
    for lot in lots:
        keys, hints = [key for key, _ in lot], [hint for _, hint in lot]
        table.put(np.array(keys, np.uint64), np.array(hints, np.uint64))
        model.update(lot)
        asked = np.arange(41, dtype=np.uint64)
        for key, hint in enumerate(table.find(asked).tolist()):
            assert hint in (0, model.get(key))


# ---- anything at all ----


class FileInMemory:
    """A paging file without a disk."""

    def __init__(self, path):
        self.path = path
        self.content = bytearray(64 * PAGE)

    def read(self, buffers, offset):
        for buffer in buffers:
            buffer[:] = self.content[offset : offset + PAGE]
            offset += PAGE
        return len(buffers) * PAGE

    def write(self, pages, offset):
        self.content[offset : offset + len(pages) * PAGE] = b"".join(pages)
        return len(pages) * PAGE

    def punch(self, offset, length):
        self.content[offset : offset + length] = bytes(length)

    def close(self):
        self.content.clear()


class Guests(RuleBasedStateMachine):
    """Guests that write, give back and clone while scans go on and pages are sent away, against plain copies of each
    page."""

    def __init__(self):
        super().__init__()
        self.pool = FramePool(128 * PAGE)
        self.sharing = PageSharing(self.pool, seed=1)
        self.memories = [GuestMemory(self.pool, [(0, 8 * PAGE)]) for _ in range(3)]
        self.stores = {
            FrameState.COMPRESSED: CompressedStore(LEAST_LIMIT),
            FrameState.SWAPPED: SwapFile("/swap", 20 * PAGE, FileInMemory),
        }
        for memory in self.memories:
            memory.stores.update(self.stores)
        self.copies = [bytearray(8 * PAGE) for _ in range(3)]
        self.findings = None

    @rule(guest=st.integers(0, 2), first=st.integers(0, 7), seed=st.integers(0, 5), count=st.integers(1, 4))
    def fill(self, guest, first, seed, count):
        count = min(count, 8 - first)
        put(self.memories[guest], first, *[seed] * count)
        self.copies[guest][first * PAGE : (first + count) * PAGE] = pages(*[seed] * count)

    @rule(guest=st.integers(0, 2), gpa=st.integers(0, 8 * PAGE - 3), data=st.binary(min_size=1, max_size=3))
    def write(self, guest, gpa, data):
        self.memories[guest].write(gpa, data)
        self.copies[guest][gpa : gpa + len(data)] = data

    @rule(guest=st.integers(0, 2), place=st.integers(0, 7))
    def discard(self, guest, place):
        self.memories[guest].discard(place * PAGE, PAGE)
        self.copies[guest][place * PAGE : (place + 1) * PAGE] = bytes(PAGE)

    @rule(guest=st.integers(0, 2), twin=st.integers(0, 2))
    def clone(self, guest, twin):
        if guest != twin:
            self.sharing.forget(self.memories[twin])
            self.memories[twin].close()
            self.memories[twin] = self.memories[guest].clone()
            self.copies[twin] = bytearray(self.copies[guest])

    @rule(guest=st.integers(0, 2), budget=st.integers(1, 20))
    def scan(self, guest, budget):
        self.sharing.scan(self.memories[guest], budget)

    @rule(guest=st.integers(0, 2))
    def find(self, guest):
        self.findings = self.sharing.find(self.memories[guest], 20)

    @rule()
    def share(self):
        """What was found may be old by now."""
        if self.findings is not None:
            self.sharing.share(self.findings)

    @rule(
        guest=st.integers(0, 2),
        state=st.sampled_from([FrameState.COMPRESSED, FrameState.SWAPPED]),
        count=st.integers(1, 8),
    )
    def send_away(self, guest, state, count):
        memory = self.memories[guest]
        memory.send_away(state, memory.evictable(count))

    @rule(guest=st.integers(0, 2), first=st.integers(0, 7), count=st.integers(1, 8))
    def read(self, guest, first, count):
        count = min(count, 8 - first)
        expected = self.copies[guest][first * PAGE : (first + count) * PAGE]
        assert self.memories[guest].read(first * PAGE, count * PAGE) == expected

    @rule()
    def read_all(self):
        for memory, copy in zip(self.memories, self.copies, strict=True):
            assert memory.read(0, 8 * PAGE) == copy

    @invariant()
    def no_frame_is_lost(self):
        assert self.pool.used == np.count_nonzero(self.pool.references)

    def teardown(self):
        self.read_all()
        assert [store.pages for store in self.stores.values()] == [0, 0], "all came back"
        for _ in range(3):
            for memory in self.memories:
                self.sharing.scan(memory, 20)
        self.read_all()
        different = {bytes(copy[i : i + PAGE]) for copy in self.copies for i in range(0, 8 * PAGE, PAGE)}
        assert self.pool.used == len(different - {bytes(PAGE)}), "all that can be shared is"
        for memory in self.memories:
            memory.close()
        assert self.pool.used == 0


TestGuests = Guests.TestCase
TestGuests.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
