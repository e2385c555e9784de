"""The record of stolen time in a guest's memory, wherever the guest says that it is; and the time by which siblings
wait for each other."""

import re
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.errors import OutOfFrames
from emuvisor.machine.steal_time import BusyClock, StealTime
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import MIB, PAGE_SIZE

RAM = 16 * PAGE_SIZE
HOLE, ROM, NOWHERE = 4 * PAGE_SIZE, 8 * PAGE_SIZE, 0xFFFF0000
ENABLED = 1
RECORD = 0x1040
RECORD_SIZE = 64
LARGEST = 2**64 - 1


@dataclass
class FakeVcpu:
    """As much of it as is looked at: what the guest wrote to MSR_KVM_STEAL_TIME."""

    steal_time: int


def ram(frames: int = 64) -> GuestMemory:
    """With a hole, and with ROM inside and outside of RAM."""
    memory = GuestMemory(FramePool(frames * PAGE_SIZE), [(0, RAM)])
    memory.add_hole(HOLE, PAGE_SIZE)
    memory.add_rom(ROM, b"ROM")
    memory.add_rom(NOWHERE, b"ROM")
    return memory


def steal_time(memory: GuestMemory, register: int = RECORD | ENABLED) -> StealTime:
    return StealTime(cast("Any", FakeVcpu(register)), memory)


def tell(steal: StealTime, ns: int) -> None:
    steal.pending_ns += ns
    steal.tell()


def record(memory: GuestMemory) -> tuple[int, int]:
    """Stolen time and version."""
    data = memory.read(RECORD, 12)
    return int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little")


# ---- the record ----


def test_it_sums_up_and_each_version_is_another_even_one() -> None:
    memory = ram()
    steal = steal_time(memory)
    found = []
    for ns in (5, 1000, 1):
        tell(steal, ns)
        found.append(record(memory))
    assert found == [(5, 2), (1005, 4), (1006, 6)]
    assert steal.pending_ns == 0


def test_it_goes_on_from_what_the_guest_has_there() -> None:
    """As KVM does: Linux switches a processor off and on again, and expects it to be no less than before."""
    memory = ram()
    memory.write(RECORD, (700).to_bytes(8, "little") + (7).to_bytes(4, "little"))
    tell(steal_time(memory), 30)
    assert record(memory) == (730, 8)


def test_the_rest_of_it_is_the_guests() -> None:
    memory = ram()
    memory.write(RECORD - 8, bytes(range(8 + RECORD_SIZE + 8)))
    tell(steal_time(memory), 1)
    data = memory.read(RECORD - 8, 8 + RECORD_SIZE + 8)
    assert data[:8] + data[20:] == bytes(range(8)) + bytes(range(20, 80))


def test_numbers_begin_again_at_their_end() -> None:
    memory = ram()
    memory.write(RECORD, b"\xff" * RECORD_SIZE)
    tell(steal_time(memory), 3)
    assert record(memory) == (2, 0)


def test_what_was_stolen_without_a_record_is_forgotten() -> None:
    memory = ram()
    vcpu = FakeVcpu(RECORD)
    steal = StealTime(cast("Any", vcpu), memory)
    tell(steal, 10**9)
    assert memory.read(RECORD, RECORD_SIZE) == bytes(RECORD_SIZE)
    vcpu.steal_time |= ENABLED
    tell(steal, 8)
    assert record(memory) == (8, 2)


# ---- any page ----


def test_a_page_that_it_shares_with_a_clone_becomes_its_own() -> None:
    memory = ram()
    memory.write(RECORD, b"\x01")
    twin = memory.clone()
    tell(steal_time(twin), 9)
    assert (record(memory), record(twin)) == ((1, 0), (10, 2))


def test_it_is_in_the_dirty_log() -> None:
    memory = ram()
    steal = steal_time(memory)
    tell(steal, 1)
    memory.start_log()
    for _ in range(2):
        assert memory.collect_log().tolist() == []
        tell(steal, 1)
        assert memory.collect_log().tolist() == [RECORD // PAGE_SIZE]


def test_code_there_is_translated_anew() -> None:
    class Users:
        def __init__(self) -> None:
            self.changes: list[tuple[int, int]] = []

        def changed(self, frame: int, offset: int, length: int) -> None:
            self.changes.append((offset, length))

    memory = ram()
    steal = steal_time(memory)
    tell(steal, 1)
    memory.pool.users = users = Users()
    memory.pool.fetched.data[memory.place(RECORD // PAGE_SIZE, write=False) // PAGE_SIZE] = 1
    tell(steal, 1)
    assert users.changes == [(RECORD % PAGE_SIZE, 12)]


def test_without_a_frame_it_is_told_later() -> None:
    memory = ram(frames=6)
    pool = memory.pool
    taken = pool.take_many(pool.free)
    steal = steal_time(memory)
    steal.pending_ns = 77
    message = "no frame for guest physical address 0x1000: the pool's 6 are taken"
    with pytest.raises(OutOfFrames, match=f"^{re.escape(message)}$"):
        steal.tell()
    assert steal.pending_ns == 77
    for frame in taken:
        pool.release_one(int(frame))
    steal.tell()
    assert record(memory) == (77, 2)


@pytest.mark.parametrize("address", [HOLE, ROM, NOWHERE, RAM, 0xFEE00000, 1 << 52, LARGEST & ~63])
def test_where_no_ram_is_nothing_happens(address: int) -> None:
    memory = ram()
    before = memory.census()
    steal = steal_time(memory, address | ENABLED)
    tell(steal, 5)
    assert steal.pending_ns == 0
    assert memory.census() == before
    assert memory.read(ROM, 3) == memory.read(NOWHERE, 3) == b"ROM"


@given(
    registers=st.lists(st.one_of(st.integers(0, LARGEST), st.integers(0, RAM - 1)), min_size=1, max_size=5),
    content=st.binary(min_size=RAM // 64, max_size=RAM // 64),
    ns=st.integers(1, LARGEST),
)
def test_whatever_the_guest_says_only_its_record_changes(
    registers: list[int], content: bytes, ns: int
) -> None:
    memory = GuestMemory(FramePool(MIB), [(0, RAM)])
    memory.write(0, content * 64)
    expected = bytearray(content * 64)
    for register in registers:
        tell(steal_time(memory, register), ns)
        at = register & ~63
        if register & ENABLED and at < RAM:
            steal = int.from_bytes(expected[at : at + 8], "little") + ns
            version = int.from_bytes(expected[at + 8 : at + 12], "little")
            expected[at : at + 8] = (steal & LARGEST).to_bytes(8, "little")
            expected[at + 8 : at + 12] = ((version & ~1) + 2 & 0xFFFFFFFF).to_bytes(4, "little")
    assert memory.read(0, RAM) == expected


# ---- the clock ----


class FakeTime:
    def __init__(self) -> None:
        self.ns = 10**12

    def __call__(self) -> int:
        return self.ns


def test_it_stands_still_while_the_guest_wants_no_pcpu() -> None:
    time = FakeTime()
    clock = BusyClock(time)
    assert clock.now_ns() == 0
    clock.start()
    time.ns += 30
    assert clock.now_ns() == 30
    clock.stop()
    time.ns += 10**9
    assert clock.now_ns() == 30
    clock.start()
    assert clock.now_ns() == 30
    clock.wait(400)
    assert clock.now_ns() == 430
    time.ns += 5
    assert clock.now_ns() == 435


@given(slices=st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 1))))
def test_it_shows_what_the_guest_ran_and_waited(slices: list[tuple[int, int, float]]) -> None:
    time = FakeTime()
    clock = BusyClock(time)
    shown = 0
    for gap, ran, share in slices:
        time.ns += gap
        clock.start()
        clock.wait(int(gap * share))
        time.ns += ran
        shown += int(gap * share) + ran
        assert clock.now_ns() == shown
        clock.stop()
