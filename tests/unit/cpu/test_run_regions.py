"""Memory that moves or changes while a guest runs: regions, shadow RAM, ROM."""

import pytest
from cpu_guest import protected
from hypothesis import given, settings
from hypothesis import strategies as st
from run_rig import PAGE, Rig, asm

from emuvisor.cpu import _core
from emuvisor.cpu.vcpu import engine_frames
from emuvisor.memory import FramePool
from emuvisor.units import GIB, MIB

MOVE, SWITCH = 0x10, 0x20
"""Ports of the chips below."""
NOWHERE_MOVED = 0xFFFF


@pytest.fixture
def rig():
    return Rig(pcpus=2)


def guest_with_regions(rig, source, count=1, **state):
    """2 MiB of RAM; OUT to MOVE puts region AL to page EAX >> 8 (FFFFh: nowhere)."""
    guest = rig.guest(protected(**state), asm(source, 32), blocks=((0, 2 * MIB),))
    for _ in range(count):
        guest.memory.add_region(4 * PAGE)

    def move():
        access = guest.devices.log[-1]
        if access[0] == "out" and access[1] == MOVE:
            page = access[2] >> 8
            guest.memory.regions[access[2] & 0xFF].place(None if page == NOWHERE_MOVED else page * PAGE)

    guest.devices.on_access = move
    return guest


def place(page, region=0):
    return f"mov eax, {page << 8 | region}; out 0x10, eax;"


def test_a_guest_writes_into_a_region_at_full_speed(rig):
    guest = guest_with_regions(rig, "mov edi, 0x40000000; mov ecx, 0x1000; mov eax, 7; rep stosd; hlt")
    guest.memory.regions[0].place(GIB)
    guest.run_to_halt()
    assert guest.devices.log == []
    assert guest.memory.regions[0].snapshot().tobytes() == b"\7\0\0\0" * 0x1000


def test_what_was_seen_at_the_old_place_is_gone_in_the_same_block(rig):
    guest = guest_with_regions(
        rig,
        place(0x300)
        + "mov ebx, [0x300000]; mov dword ptr [0x300004], 1;"
        # the same block: no jump until the end
        + place(0x400)
        + "mov ecx, [0x300000]; mov dword ptr [0x300004], 2; mov edx, [0x400004]; mov esi, [0x400000]; hlt",
    )
    guest.memory.regions[0].write(0, b"\x11")
    guest.devices.answers = {0x300000: 0x99}
    state = guest.run_to_halt()
    assert (state.rbx, state.rcx, state.rdx, state.rsi) == (0x11, 0x99, 1, 0x11)
    assert [a for a in guest.devices.log if a[0] in ("load", "store")] == [
        ("load", 0x300000, 4),
        ("store", 0x300004, 2, 4),
    ]


def test_device_memory_that_was_a_window_before(rig):
    """The other way round: an MMIO translation must go when memory comes there."""
    guest = guest_with_regions(rig, "mov ebx, [0x300000];" + place(0x300) + "mov ecx, [0x300000]; hlt")
    guest.memory.regions[0].write(0, b"\x22")
    guest.devices.answers = {0x300000: 0x77}
    state = guest.run_to_halt()
    assert (state.rbx, state.rcx) == (0x77, 0x22)


def test_code_runs_in_a_region_and_follows_it(rig):
    """Two regions change places under the program counter's feet, again and again."""
    routine = "mov ebx, {}; ret"
    calls = "mov esi, 0x300000; mov edi, 0x301000; call esi; mov [0x7000 + ebp], bl; inc ebp;"
    source = "".join(
        place(0x300, turn % 2) + place(0xFFFF, 1 - turn % 2) + f"jmp a{turn}; a{turn}:" + calls
        for turn in range(6)
    )
    guest = guest_with_regions(rig, source + "hlt", count=2, rbp=0)
    for number, region in enumerate(guest.memory.regions):
        region.write(0, asm(routine.format(number + 5), 32))
    guest.run_to_halt()
    assert guest.memory.read(0x7000, 6) == bytes([5, 6, 5, 6, 5, 6])


def test_code_that_a_device_changes_in_a_region(rig):
    guest = guest_with_regions(rig, "mov esi, 0x300000; call esi; out 0x20, al; jmp a; a: call esi; hlt")
    region = guest.memory.regions[0]
    region.place(3 * MIB)
    region.write(0, asm("add ebx, 1; ret", 32))

    def rewrite():
        region.write(0, asm("add ebx, 4; ret", 32))

    guest.devices.on_access = rewrite
    assert guest.run_to_halt().rbx == 5


def test_a_region_under_ram_stays_unseen(rig):
    guest = guest_with_regions(
        rig,
        place(0x1FE) + "mov dword ptr [0x1ff000], 5; mov dword ptr [0x200000], 6; mov ebx, [0x1ff000]; hlt",
    )
    state = guest.run_to_halt()
    assert state.rbx == 5
    assert guest.memory.read(0x1FF000, 1) == b"\5"
    snapshot = guest.memory.regions[0].snapshot()
    assert snapshot[2 * PAGE] == 6
    assert not snapshot[: 2 * PAGE].any()


def test_a_region_fills_a_hole_in_ram(rig):
    guest = guest_with_regions(rig, "mov dword ptr [0xa0000], 5; mov dword ptr [0xa4000], 6; hlt")
    guest.memory.add_hole(0xA0000, 8 * PAGE)
    guest.memory.regions[0].place(0xA0000)
    guest.run_to_halt()
    assert guest.memory.regions[0].read(0, 1) == b"\5"
    assert guest.devices.log == [("store", 0xA4000, 6, 4)]


def test_the_dirty_log_of_a_region(rig):
    source = "mov dword ptr [0x301000], 1; hlt; mov dword ptr [0x301000], 2; mov dword ptr [0x303000], 2; hlt"
    guest = guest_with_regions(rig, source)
    region = guest.memory.regions[0]
    region.place(3 * MIB)
    guest.memory.start_log()
    guest.run_to_halt()
    assert region.collect_log().tolist() == [1]
    guest.vcpu.halted = False
    guest.run_to_halt()
    assert region.collect_log().tolist() == [1, 3]
    assert guest.memory.collect_log().tolist() == []


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["move", "store", "load"]),
            st.integers(0, 1),
            st.integers(0, 9),
            st.integers(1, 255),
        ),
        max_size=20,
    )
)
def test_moves_against_a_model(steps):
    """Two guests with the same program, one after the other on two pCPUs; no one sees the other's pages."""
    rig = Rig(pcpus=2)
    guests = [
        guest_with_regions(rig, "a: hlt; mov [edi], bl; hlt; mov bl, [edi]; hlt", count=2) for _ in range(2)
    ]
    starts = {"store": 1, "load": 4}
    models = [{"places": [None, None], "bytes": [[0] * 4, [0] * 4]} for _ in range(2)]
    first = 0x300
    for turn, (act, who, page, value) in enumerate(steps):
        guest, model = guests[who], models[who]
        if act == "move":
            where = None if page == 9 else first + page
            model["places"][value & 1] = where
            guest.memory.regions[value & 1].place(where and where * PAGE)
            continue
        seen = None
        for place_, content in zip(model["places"], model["bytes"], strict=True):
            if seen is None and place_ is not None and 0 <= first + page - place_ < 4:
                seen = content, first + page - place_
        state = guest.vcpu.state
        state.rip, state.rdi, state.rbx, state.halted = (
            0x8000 + starts[act],
            (first + page) * PAGE,
            value,
            False,
        )
        guest.vcpu.state = state
        result = guest.run_to_halt(pcpu=turn % 2)
        if act == "store" and seen:
            seen[0][seen[1]] = value
        elif act == "load":
            assert result.rbx & 0xFF == (seen[0][seen[1]] if seen else 0xFF)
    for guest, model in zip(guests, models, strict=True):
        for region, content in zip(guest.memory.regions, model["bytes"], strict=True):
            assert region.snapshot()[::PAGE].tolist() == content


def test_frames_of_a_region_go_back(rig):
    guest = guest_with_regions(rig, "mov dword ptr [0x300000], 5; hlt")
    guest.memory.regions[0].place(3 * MIB)
    guest.run_to_halt()
    guest.memory.close()
    assert rig.pool.used == 0


# ---- the core's own checks ----


def test_a_move_of_what_does_not_move():
    pool = FramePool(PAGE)
    stage2 = _core.Stage2(engine_frames(pool), lambda gfn, write: False)
    stage2.add_slot(0, bytearray(4))
    for slot in (0, 1):
        with pytest.raises(ValueError, match=r"^no such movable memory slot$"):
            stage2.move_slot(slot, 5)


def test_too_many_slots():
    stage2 = _core.Stage2(engine_frames(FramePool(PAGE)), lambda gfn, write: False)
    for number in range(32):
        stage2.add_slot(number, bytearray(4))
    with pytest.raises(ValueError, match=r"^a guest has at most 32 memory slots$"):
        stage2.add_slot(32, bytearray(4))


# ---- ROM and shadow RAM ----


def shadowed(rig, source):
    """ROM at F0000h over RAM; OUT to SWITCH sets reads to RAM by bit 0 of AL, writes by bit 1. Stores that reach no
    memory go to the shadow, as on a board."""
    guest = rig.guest(protected(), asm(source, 32), blocks=((0, 2 * MIB),))
    shadow = guest.memory.add_shadow(0xF0000, 16 * PAGE)
    shadow.load_rom(0xF0000, asm("mov ebx, 1; ret", 32).ljust(16, b"\0") + b"rom data")

    def on_access():
        access = guest.devices.log[-1]
        if access[:2] == ("out", SWITCH):
            shadow.set(0xF0000, 16 * PAGE, read_ram=bool(access[2] & 1), write_ram=bool(access[2] & 2))
        elif access[0] == "store":
            shadow.write(access[1] - 0xF0000, access[2], access[3])

    guest.devices.on_access = on_access
    return guest


def test_firmware_copies_itself_into_shadow_ram(rig):
    """Read ROM, write RAM: a copy to itself, executed from the very pages; then it patches the copy."""
    guest = shadowed(
        rig,
        "mov al, 2; out 0x20, al; mov esi, 0xf0000; mov edi, esi; mov ecx, 64; rep movsb;"
        "mov al, 3; out 0x20, al; mov eax, 0xf0000; call eax; mov edx, ebx; mov byte ptr [0xf0001], 9;"
        "mov al, 1; out 0x20, al; mov eax, 0xf0000; call eax; mov byte ptr [0xf0001], 8; call eax; mov ebp, ebx;"
        "mov al, 0; out 0x20, al; mov eax, 0xf0000; call eax; hlt",
    )
    state = guest.run_to_halt()
    assert (state.rdx, state.rbp, state.rbx) == (1, 9, 1)


def test_shadow_ram_that_is_locked_reads_as_zeros_where_it_was_never_written(rig):
    guest = shadowed(
        rig,
        "mov al, 1; out 0x20, al; mov ebx, [0xf4000]; mov dword ptr [0xf4000], 5; mov ecx, [0xf4000]; hlt",
    )
    state = guest.run_to_halt()
    assert (state.rbx, state.rcx) == (0, 0)


def test_stores_to_rom_reach_the_bus(rig):
    source = (
        "mov byte ptr [0x40000003], 0x55; mov word ptr [0x40000ffe], 0xaa99; inc dword ptr [0x40000008]; hlt"
    )
    guest = rig.guest(protected(), asm(source, 32), blocks=((0, 2 * MIB),))
    guest.memory.add_rom(GIB, bytes([7] * PAGE))
    guest.run_to_halt()
    assert guest.devices.log == [
        ("store", GIB + 3, 0x55, 1),
        ("store", GIB + 0xFFE, 0xAA99, 2),
        ("store", GIB + 8, 0x07070708, 4),
    ]
    assert guest.memory.read(GIB, PAGE) == bytes([7] * PAGE)


def test_a_flash_chip_changes_the_code_that_runs_from_it(rig):
    source = "mov esi, 0x40000000; call esi; mov byte ptr [esi + 1], 4; jmp a; a: call esi; hlt"
    guest = rig.guest(protected(), asm(source, 32), blocks=((0, 2 * MIB),))
    guest.memory.add_rom(GIB, asm("mov ebx, 1; add ecx, ebx; ret", 32))

    def program():
        _, gpa, value, size = guest.devices.log[-1]
        guest.memory.change_rom(gpa, value.to_bytes(size, "little"))

    guest.devices.on_access = program
    assert guest.run_to_halt().rcx == 5


def test_a_clones_flash_is_its_own(rig):
    source = "a: mov ebx, [0x40000000]; hlt; jmp a"
    guest = rig.guest(protected(), asm(source, 32), blocks=((0, 2 * MIB),))
    guest.memory.add_rom(GIB, b"\1")
    guest.run_to_halt()
    twin = rig.clone(guest)
    guest.memory.change_rom(GIB, b"\2")
    for one, expected in ((guest, 2), (twin, 1)):
        one.vcpu.halted = False
        assert one.run_to_halt().rbx == expected
