"""A running vCPU whose frames are taken away: stores, sharing, the balloon, and what the core notes about accesses."""

import re
from itertools import count

import numpy as np
import pytest
from cpu_guest import TABLES, identity_map, long, protected, tables
from run_rig import CODE, DATA, PAGE, Rig, asm

from emuvisor.cpu import _core
from emuvisor.cpu.exits import ExitReason
from emuvisor.cpu.vcpu import engine_frames
from emuvisor.errors import PageLost
from emuvisor.memory import FramePool, FrameState
from emuvisor.memory.reclaim import PageRef, merge


class Store:
    """Keeps pages in a dictionary."""

    def __init__(self):
        self.contents = {}
        self.lost = False
        self._numbers = count()

    def store(self, pages):
        numbers = [next(self._numbers) for _ in pages]
        self.contents.update(zip(numbers, map(bytes, pages), strict=True))
        return numbers

    def load(self, slot, into):
        if self.lost:
            raise PageLost("the store burnt down")
        into[:] = self.contents[slot]

    def free(self, slots):
        for slot in slots:
            del self.contents[slot]


@pytest.fixture
def rig():
    return Rig(pcpus=2)


@pytest.fixture
def store():
    return Store()


def paged(rig, store, source):
    """A guest in long mode over page tables, with its code, data and stack pages apart."""
    guest = rig.guest(long(rsp=DATA), asm(source), identity_map(tables()))
    guest.memory.stores[FrameState.SWAPPED] = store
    return guest


def send_all_away(guest):
    pages = guest.memory.evictable(1000)
    assert guest.memory.send_away(FrameState.SWAPPED, pages) == len(pages) > 0
    assert guest.memory.census()["resident"] == 0


def test_everything_comes_back(rig, store):
    """Code, page tables, descriptor tables, stack and data."""
    guest = paged(
        rig, store, "mov rsi, 0x5000; a: push 7; inc qword ptr [rsi]; pop rax; mov rbx, [rsi]; hlt; jmp a"
    )
    for turn in range(1, 4):
        send_all_away(guest)
        guest.vcpu.halted = False
        state = guest.run_to_halt(pcpu=turn % 2)
        assert (state.rax, state.rbx) == (7, turn)
    assert rig.pool.used == guest.memory.census()["resident"]


def test_the_next_owner_of_a_frame_runs_its_own_code(rig, store):
    guest = paged(rig, store, "mov eax, 1; hlt")
    guest.run_to_halt()
    frame = guest.memory.place(CODE // PAGE, False)
    guest.memory.send_away(FrameState.SWAPPED, [(0, CODE // PAGE)])
    other = paged(rig, store, "mov eax, 2; hlt")
    assert other.memory.place(CODE // PAGE, False) != frame
    guest.vcpu.state = long()
    guest.memory.send_away(FrameState.SWAPPED, guest.memory.evictable(1000))
    third = paged(rig, store, "mov eax, 3; hlt")
    assert [g.run_to_halt().rax for g in (third, guest, other)] == [3, 1, 2]


def test_a_page_that_is_lost_stops_its_guest_alone(rig, store):
    guest = paged(rig, store, "mov rsi, 0x5000; mov rbx, [rsi]; hlt")
    other = paged(rig, store, "mov rsi, 0x5000; mov rbx, [rsi]; hlt")
    guest.memory.write(0x5000, b"\5")
    guest.memory.send_away(FrameState.SWAPPED, [(0, 5)])
    store.lost = True
    message = "guest physical address 0x5000 is lost: the store burnt down"
    for _ in range(2):
        with pytest.raises(PageLost, match=f"^{re.escape(message)}$"):
            guest.run()
    assert other.run_to_halt().rbx == 0
    store.lost = False
    assert guest.run_to_halt().rbx == 5, "it stopped at the instruction, with nothing changed"


def test_a_page_table_that_is_lost(rig, store):
    guest = paged(rig, store, "mov rsi, 0x5000; mov rbx, [rsi]; hlt")
    guest.memory.send_away(FrameState.SWAPPED, [(0, TABLES // PAGE)])
    store.lost = True
    with pytest.raises(PageLost, match=f"^guest physical address {TABLES:#x} is lost: the store burnt down$"):
        guest.run()
    store.lost = False
    guest.run_to_halt()


def test_at_its_bound_a_guest_waits(rig):
    guest = rig.guest(protected(), asm("mov eax, [0x5000]; hlt", 32))
    guest.memory.take_limit = guest.memory.frames_taken
    assert guest.run().reason is ExitReason.MEMORY
    assert guest.memory.at_limit
    guest.memory.take_limit += 1
    guest.run_to_halt()


def test_shared_pages_are_copied_by_a_store(rig):
    source = "a: inc dword ptr [0x5000]; mov eax, [0x6000]; hlt; jmp a"
    guest = rig.guest(protected(), asm(source, 32))
    guest.memory.write(0x6000, b"\1")
    guest.run_to_halt()
    assert merge(PageRef(guest.memory, 0, 5), PageRef(guest.memory, 0, 6))
    for turn in (2, 3):
        guest.vcpu.halted = False
        assert guest.run_to_halt().rax == 1
        assert guest.at(0x5000) == turn


def test_zeros_that_were_found_and_pages_in_the_balloon(rig):
    guest = rig.guest(protected(), asm("a: mov eax, [0x5000]; add eax, [0x6000]; hlt; jmp b; b: "
                                       "inc dword ptr [0x5000]; inc dword ptr [0x6000]; jmp a", 32))  # fmt: skip
    guest.run_to_halt()
    assert guest.memory.share_zero(0, np.array([5])) == 1
    assert guest.memory.inflate(np.array([6])) == 1
    guest.vcpu.halted = False
    assert guest.run_to_halt().rax == 2
    assert (guest.at(0x5000), guest.at(0x6000)) == (1, 1)
    assert not rig.pool.frames[rig.pool.zero_frame].any()


# ---- accesses ----


def accessed(guest):
    """Pages noted since the last time."""
    return guest.memory.slots[0].accessed.nonzero()[0].tolist()


def test_accesses_are_noted_until_nobody_samples(rig):
    source = "a: mov eax, [0x5000]; mov [0x6000], eax; hlt; jmp a"
    guest = rig.guest(protected(), asm(source, 32))
    guest.memory.add_rom(0x4000, b"rom")
    guest.memory.start_sampling()
    for _ in range(3):
        guest.vcpu.halted = False
        guest.run_to_halt()
        assert accessed(guest) == [5, 6, CODE // PAGE]
        assert guest.memory.collect_accessed() == 3, "what the TLB knew is asked for again"
    guest.memory.stop_sampling()
    guest.run_to_halt()
    assert guest.memory.collect_accessed() == 0


def test_page_tables_rom_and_shared_pages_are_noted(rig, store):
    guest = paged(rig, store, "mov rsi, 0x5000; mov rax, [rsi]; mov rbx, [rsi + 0x1000]; hlt")
    guest.memory.add_rom(0x5000, b"rom")
    guest.memory.write(0x6000, bytes([1]))
    twin = rig.clone(guest)
    guest.memory.start_sampling()
    guest.run_to_halt()
    levels = [TABLES // PAGE + level for level in range(4)]
    assert accessed(guest) == sorted([5, 6, CODE // PAGE, *levels])
    assert twin.memory.slots[0].accessed is None


@pytest.mark.parametrize(("method", "what"), [("set_log", "dirty log"), ("set_sampling", "access sample")])
def test_the_bytes_that_the_core_writes(method, what):
    stage2 = _core.Stage2(engine_frames(FramePool(PAGE)), lambda gfn, write: False)
    stage2.add_slot(0, bytearray(8))
    keep = getattr(stage2, method)
    with pytest.raises(ValueError, match=r"^no such memory slot$"):
        keep(1, bytearray(2))
    with pytest.raises(ValueError, match=f"^the {what} needs one byte per frame of the slot$"):
        keep(0, bytearray(3))
    with pytest.raises(BufferError):
        keep(0, bytes(2))
    first, second = bytearray(2), bytearray(2)
    keep(0, first)
    with pytest.raises(BufferError):
        first.append(0)
    keep(0, second)
    first.append(0)
    keep(0, None)
    second.append(0)
    keep(0, bytearray(2))
    del stage2, keep
