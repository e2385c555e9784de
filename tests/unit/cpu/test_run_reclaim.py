"""A running vCPU whose frames are taken away: stores, sharing, the balloon, and what the core notes about accesses."""

import re
from itertools import count

import numpy as np
import pytest
from cpu_guest import TABLES, identity_map, long, protected, tables
from page_merging import PageRef, merge
from run_rig import CODE, DATA, PAGE, Rig, asm

from emuvisor.cpu import _core
from emuvisor.cpu.exits import ExitReason
from emuvisor.cpu.vcpu import engine_frames
from emuvisor.errors import PageLost
from emuvisor.memory import FramePool, FrameState
from emuvisor.memory.sharing import PageSharing


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
    everything = sorted([5, 6, CODE // PAGE, *levels])
    assert accessed(guest) == everything
    assert twin.memory.slots[0].accessed is None
    assert guest.memory.collect_accessed() == len(everything)
    guest.vcpu.state = long(rsp=DATA)
    guest.run_to_halt()
    assert accessed(guest) == everything, "page tables too, whose A and D bits are set already"


# ---- code on pages that others have too ----

LOOP = """
    lea rbx, [rip + c]
    mov ecx, 30
l:  cmp ecx, 20
    jne m
    inc qword ptr [rip + count]
m:  cmp ecx, 5
    jne d
    mov word ptr [rbx], 0x9090
    jmp d
    nop
d:  nop
    jmp c
    nop
c:  inc eax
    dec ecx
    jnz l
    hlt
count: .quad 0
"""
"""Counts EAX to 25: five turns before the end `inc eax` becomes two NOPs. In the tenth turn its page is written first,
when all its blocks have run."""


def looping(rig, source=LOOP):
    return rig.guest(long(rsp=DATA), asm(source), identity_map(tables()))


def test_code_that_changes_its_own_page_in_clones(rig):
    """No clone ends up in the changed code of another, on whichever pCPU they take turns."""
    family = [looping(rig)]
    family += [rig.clone(family[0]) for _ in range(3)]
    for number, guest in enumerate(family):
        assert guest.run_to_halt(pcpu=number // 2).rax == 25


@pytest.mark.parametrize("budget", [7, 50])
def test_clones_that_take_turns_within_their_code(rig, budget):
    family = [looping(rig)]
    family += [rig.clone(family[0]) for _ in range(2)]
    running = list(family)
    for turn in count():
        guest = running[turn % len(running)]
        if guest.run(budget, pcpu=turn // 5 % 2).reason is ExitReason.HALT:
            running.remove(guest)
        if not running:
            break
    assert [guest.vcpu.state.rax for guest in family] == [25] * 3
    assert len({guest.vcpu.work for guest in family}) == 1


def test_a_store_behind_which_the_code_changes_at_once(rig):
    # the INC after the store becomes NOPs before it runs
    source = "lea rbx, [rip + c]; mov word ptr [rbx], 0x9090; c: inc eax; inc edx; hlt"
    guest = looping(rig, source)
    for one in (rig.clone(guest), guest):  # the first copies the page, the second is the last to have it
        state = one.run_to_halt()
        assert (state.rax, state.rdx) == (0, 1)


def test_code_whose_page_table_entry_changes_while_it_runs(rig):
    """Without INVLPG: some translations are still the old ones. Another guest runs the old frame later."""
    source = """
        mov ecx, 10
    l:  cmp ecx, 5
        jne c
        mov rax, [r13]
        mov [r12], rax
        call r14
    c:  inc edi
        jmp d
        nop
    d:  dec ecx
        jnz l
        hlt
    """
    leaf = TABLES + 0x3000 + 8 * (CODE // PAGE)
    other = 0xE000
    data = identity_map(tables())
    data[0x6000:0x6008] = (other | 7).to_bytes(8, "little")
    data[0x9000:0x9001] = asm("ret")
    code = asm(source)
    guest = rig.guest(long(rsp=DATA, r12=leaf, r13=0x6000, r14=0x9000), code, data)
    guest.memory.write(other, code.replace(asm("inc edi"), asm("inc esi")))
    twin = rig.clone(guest)
    twin.vcpu.state = long(rsp=DATA, r12=0x5000, r13=0x6000, r14=0x9000)  # never changes its page tables
    guest.run_to_halt()
    state = twin.run_to_halt()
    assert (state.rdi, state.rsi) == (10, 0)


@pytest.mark.parametrize("first", [1, 26])
def test_a_device_writes_into_the_page_that_runs(rig, first):
    """From the first OUT on, or when all blocks have run and know each other."""
    source = """
        mov ecx, 30
    l:  out 0x10, al
        jmp d
        nop
    d:  nop
        jmp c
        nop
    c:  inc eax
        dec ecx
        jnz l
        hlt
    """
    place = CODE + asm(source).index(asm("inc eax"))
    guest = looping(rig, source)
    twin = rig.clone(guest)

    def write():
        if len(twin.devices.log) == first:
            twin.memory.write(place, b"\x90\x90")

    twin.devices.on_access = write
    assert twin.run_to_halt().rax == first - 1
    assert guest.run_to_halt().rax == 30, "nobody wrote into its page"


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


def test_a_breakpoint_on_a_store_that_copies_its_page_is_met_once(rig):
    source = "mov rbx, 0x5000; b: mov [rbx], rbx; inc eax; hlt"
    guest = looping(rig, source)
    guest.memory.write(0x5000, b"\1")
    twin = rig.clone(guest)
    place = CODE + asm(source).index(asm("mov [rbx], rbx"))
    twin.vcpu.set_breakpoints([place])
    assert (twin.run().reason, twin.vcpu.state.rip) == (ExitReason.DEBUG, place)
    assert twin.run_to_halt().rax == 1
    twin.vcpu.state = long(rsp=DATA)
    twin.memory.discard(0x5000, PAGE)
    assert (twin.run().reason, twin.vcpu.state.rip) == (ExitReason.DEBUG, place)
    twin.memory.take_limit = twin.memory.frames_taken
    assert twin.run().reason is ExitReason.MEMORY
    twin.memory.take_limit = None
    assert twin.run_to_halt().rax == 1


# ---- what a TLB knows ----


def test_a_page_whose_frame_another_guest_is_given(rig):
    """The one whose page was there first may no longer write where it did."""
    source = "mov ebx, 1; a: mov rdx, [0x5000]; mov [0x5000], rbx; hlt; inc ebx; jmp a"
    one, other = looping(rig, source), looping(rig, source)
    one.run_to_halt()
    other.memory.write(0x5000, one.memory.read(0x5000, PAGE))
    sharing = PageSharing(rig.pool, seed=1)
    for guest in (one, other) * 2:
        sharing.scan(guest.memory, 100)
    assert one.memory.place(5, False) == other.memory.place(5, False)
    before = other.at(0x5000)
    for _ in range(2):
        one.vcpu.halted = False
        one.run_to_halt()
        assert other.at(0x5000) == before
    assert one.at(0x5000) == before + 2


def test_a_page_that_a_device_has_copied(rig):
    guest = looping(rig, "a: mov rax, [0x5000]; hlt; jmp a")
    guest.memory.write(0x5000, b"\1")
    twin = rig.clone(guest)
    for number in (1, 2, 3):
        guest.memory.write(0x5000, bytes([number]))
        guest.vcpu.halted = False
        assert guest.run_to_halt().rax == number
    assert twin.run_to_halt().rax == 1


def test_a_frame_that_a_device_fills_for_its_next_owner(rig):
    """It was somebody else's code; no fault of the new owner's tells the CPU so."""
    for number in range(1, 6):
        guest = looping(rig, f"mov eax, {number}; hlt")
        assert guest.run_to_halt().rax == number
        frame = guest.memory.place(CODE // PAGE, False)
        guest.memory.discard(CODE, PAGE)
        guest.memory.write(CODE, asm("mov eax, 9; hlt").ljust(PAGE, b"\0"))
        assert guest.memory.place(CODE // PAGE, False) == frame
        guest.vcpu.state = long(rsp=DATA)
        assert guest.run_to_halt().rax == 9
        guest.memory.close()
