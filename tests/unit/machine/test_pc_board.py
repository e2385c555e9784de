"""The pc board: what sits where, what firmware finds, and what it leaves behind."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_rig import BoardRig, Disk
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.errors import ConfigError, ImageError
from emuvisor.machine.boards.wiring import Drive
from emuvisor.machine.loaders.boot import Piece
from emuvisor.memory import FramePool
from emuvisor.units import MIB

EXAMPLES = Path(__file__).parents[3] / "examples"
FLOPPY_SECTORS = 2880
ROM = b"\x55\xaa\x01".ljust(512, b"r")


@pytest.fixture(scope="module")
def pool() -> FramePool:
    return FramePool(16 * MIB)


@pytest.fixture
def rig(pool: FramePool) -> Iterator[BoardRig]:
    made = BoardRig(pool)
    yield made
    made.close()


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def firmware(size: int) -> list[Piece]:
    rom = bytes(range(256)) * (size // 256)
    return [Piece(0x100000 - size, rom, "low"), Piece(0x1_0000_0000 - size, rom, "high")]


# ---- PCI ----


def test_pci_slots(rig: BoardRig) -> None:
    found = {
        (slot, number): rig.cfg(slot, 0, number=number)
        for slot in range(32)
        for number in range(8)
        if rig.cfg(slot, 0, number=number) != 0xFFFF_FFFF
    }
    assert found == {
        (0, 0): 0x1237_8086,
        (1, 0): 0x7000_8086,
        (1, 1): 0x7010_8086,
        (1, 3): 0x7113_8086,
        (2, 0): 0x1111_1234,
    }
    assert {rig.cfg(slot, 0x2C, number=number) for slot, number in found} == {0x1100_1AF4}


def test_reset_control_is_in_front_of_configuration(rig: BoardRig) -> None:
    rig.outb(0xCF9, 2)
    rig.outb(0xCF9, 6)
    assert rig.log == [("reset", None)]
    assert rig.inb(0xCF9) == 6


def test_attribute_map_turns_rom_into_ram(rig: BoardRig) -> None:
    rig.board.load_roms(firmware(0x20000), programs_chipset=True)
    assert rig.memory.read(0xE0000, 4) == rig.memory.read(0xFFFE0000, 4) == b"\0\1\2\3"
    rig.set(0, 0x5C, 0x3333_3333)
    rig.set(0, 0x59, 0x30, 1)
    assert rig.memory.read(0xE0000, 4) == bytes(4)
    rig.memory.write(0xF0000, b"RAM")
    rig.board.reset()
    assert rig.memory.read(0xF0000, 3) == b"\0\1\2"


# ---- interrupts ----


def program_pic(rig: BoardRig) -> None:
    for port, value in ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0)):
        rig.outb(port, value)
    for port, value in ((0xA0, 0x11), (0xA1, 0x28), (0xA1, 2), (0xA1, 1), (0xA1, 0)):
        rig.outb(port, value)


def redirect(rig: BoardRig, pin: int, entry: int) -> None:
    for half in range(2):
        rig.board.mmio.write(0xFEC00000, 0x10 + 2 * pin + half, 4)
        rig.board.mmio.write(0xFEC00010, entry >> 32 * half & 0xFFFF_FFFF, 4)


def test_interrupts_reach_the_processor_through_the_8259s(rig: BoardRig) -> None:
    rig.board.load_roms([], programs_chipset=False)
    program_pic(rig)
    rig.board.isa.input(5, "test").set(True)
    assert rig.intr
    assert rig.board.acknowledge() == 0x25


def test_interrupts_reach_the_processor_through_the_io_apic(rig: BoardRig) -> None:
    rig.board.load_roms([], programs_chipset=False)
    redirect(rig, 2, 0x31)
    redirect(rig, 5, 0x45)
    rig.board.isa.input(0, "test").set(True)
    assert rig.intr
    assert rig.board.acknowledge() == 0x31, "IRQ 0 is pin 2"
    rig.board.isa.input(5, "test").set(True)
    assert rig.board.acknowledge() == 0x45


def test_the_timer_ticks_through_the_hpet(rig: BoardRig) -> None:
    rig.board.load_roms([], programs_chipset=False)
    program_pic(rig)
    rig.outb(0x43, 0x34)
    rig.outb(0x40, 0)
    rig.outb(0x40, 0x10)
    rig.clock.skip(5_000_000)
    rig.clock.fire_due()
    assert rig.board.acknowledge() == 0x20
    rig.outb(0x20, 0x20)
    rig.board.mmio.write(0xFED00010, 2, 8)  # legacy replacement
    rig.clock.skip(5_000_000)
    rig.clock.fire_due()
    assert not rig.intr


def test_power_button_is_heard_by_a_guest_that_enabled_it(rig: BoardRig) -> None:
    assert not rig.board.press_power_button()
    rig.board.reset()
    rig.board.load_roms([], programs_chipset=False)
    program_pic(rig)
    rig.board.ports.write(0x602, 0x0100, 2)
    assert not rig.board.press_power_button()
    rig.board.ports.write(0xB2, 0xF1, 1)  # ACPI mode
    assert rig.board.press_power_button()
    assert rig.board.acknowledge() == 0x29
    rig.board.ports.write(0x604, 0x2001, 2)
    assert rig.log[-1] == ("off", None)


# ---- what firmware finds ----


def test_cmos(pool: FramePool) -> None:
    floppy, disk = Drive("floppy", Disk(FLOPPY_SECTORS)), Drive("disk", Disk(4096))
    rig = BoardRig(pool, drives=[disk, floppy, Drive("floppy", None)])
    assert rig.cmos(0x10) == 0x44
    assert rig.cmos(0x14) == 0x47
    assert (rig.cmos(0x3D), rig.cmos(0x38)) == (0x12, 0x00)
    assert rig.cmos(0x5F) == 0
    assert rig.cmos(0x39) == 0x55
    assert (rig.cmos(0x15), rig.cmos(0x16)) == (0x80, 0x02)
    assert (rig.cmos(0x17), rig.cmos(0x18)) == (0x00, 0x0C), "3 MiB above the first"
    rig.close()


def test_several_processors(pool: FramePool) -> None:
    rig = BoardRig(pool, processors=3)
    assert rig.cmos(0x5F) == 2, "beyond the first"
    assert rig.board.platform().cpus == 3
    rig.board.mmio.write(0xFEE00300, 0xC4500, 4)  # INIT to all others
    rig.board.mmio.write(0xFEE00300, 0xC4609, 4)
    assert rig.log == [("init", 1), ("init", 2), ("sipi", (1, 9)), ("sipi", (2, 9))]
    rig.board.local_apics.select(2)
    assert rig.board.mmio.read(0xFEE00020, 4) == 2 << 24
    rig.board.mmio.write(0xFEE000F0, 0x1FF, 4)
    rig.board.mmio.write(0xFEE00300, 0x40044, 4)  # to itself
    assert rig.log[4:] == [("intr", (2, True))]
    assert rig.board.acknowledge(2) == 0x44
    rig.close()


def test_cmos_without_drives(rig: BoardRig) -> None:
    assert rig.cmos(0x10) == 0
    assert rig.cmos(0x14) == 0x06
    assert (rig.cmos(0x3D), rig.cmos(0x38)) == (0, 0)


def fw_cfg_file(rig: BoardRig, name: str) -> bytes:
    rig.board.ports.write(0x510, 0x19, 2)

    def take(count: int) -> bytes:
        return bytes(rig.inb(0x511) for _ in range(count))

    for _ in range(int.from_bytes(take(4), "big")):
        size, key = int.from_bytes(take(4), "big"), int.from_bytes(take(2), "big")
        if take(58)[2:].rstrip(b"\0").decode() == name:
            rig.board.ports.write(0x510, key, 2)
            return take(size)
    raise AssertionError(name)


def test_boot_order(pool: FramePool) -> None:
    kinds = ("cdrom", "disk", "floppy", "disk")
    drives = [Drive(kind, Disk(FLOPPY_SECTORS)) for kind in kinds]  # type: ignore[arg-type]
    drives.insert(1, Drive("disk", None))
    rig = BoardRig(pool, drives=drives)
    assert fw_cfg_file(rig, "bootorder").decode().rstrip("\0").splitlines() == [
        "/pci@i0cf8/ide@1,1/drive@0/disk@0",
        "/pci@i0cf8/ide@1,1/drive@0/disk@1",
        "/pci@i0cf8/isa@1/fdc@03f0/floppy@0",
        "/pci@i0cf8/ide@1,1/drive@1/disk@0",
    ]
    assert (rig.cmos(0x3D), rig.cmos(0x38)) == (0x23, 0x10)
    rig.close()


def test_option_roms(pool: FramePool) -> None:
    rig = BoardRig(pool, option_roms=[("net.rom", ROM)], vga_bios=ROM)
    assert fw_cfg_file(rig, "genroms/net.rom") == ROM
    rig.set(2, 0x30, 0xE000_0001)
    rig.set(2, 0x04, 2, 2)
    assert rig.board.mmio.read(0xE000_0000, 4) == int.from_bytes(ROM[:4], "little")
    rig.close()
    with pytest.raises(ImageError) as caught:
        BoardRig(pool, option_roms=[("bad.rom", b"MZ")])
    assert str(caught.value) == "bad.rom: not an option ROM; it does not begin with 55h AAh"


# ---- what firmware leaves behind ----


def test_set_up_for_guests_without_firmware(rig: BoardRig) -> None:
    rig.board.load_roms([], programs_chipset=False)
    assert rig.memory.regions[0].gpa == 0xE000_0000
    assert rig.cfg(2, 0x10) == 0xE000_0008
    assert rig.cfg(1, 0x20, number=1) == 0xC001
    assert rig.cfg(1, 0x60) == 0x0B0B_0A0A
    assert rig.cfg(1, 0x3C, 1, number=3) == 9
    assert (rig.inb(0x4D0), rig.inb(0x4D1)) == (0, 0x0C)
    assert rig.board.ports.read(0x608, 4) == 0
    screen = rig.board.display.screen()
    assert (screen.width, screen.height) == (720, 400)
    pieces = rig.board.tables()
    assert {"RSDP", "SMBIOS anchors"} <= {piece.what for piece in pieces}
    for piece in pieces:
        rig.memory.write(piece.gpa, piece.data)
    assert rig.memory.read(0xE0000, 8) == b"RSD PTR "


def test_a_rom_in_the_f_segment_stays(rig: BoardRig) -> None:
    rig.board.load_roms(firmware(0x10000), programs_chipset=False)
    assert rig.memory.read(0xF0000, 4) == b"\0\1\2\3"
    assert rig.memory.read(0xE0000, 4) == bytes(4)
    assert "SMBIOS anchors" not in {piece.what for piece in rig.board.tables()}


def test_firmware_finds_the_chips_as_after_power_on(rig: BoardRig) -> None:
    fresh = [function.save() for function in rig.functions()]
    rig.board.load_roms([], programs_chipset=False)
    rig.board.reset()
    rig.board.load_roms(firmware(0x40000), programs_chipset=True)
    assert [function.save() for function in rig.functions()] == fresh
    assert rig.memory.regions[0].gpa is None


def test_ports_of_guests_own(rig: BoardRig) -> None:
    rig.outb(0xF4, 3)
    rig.outb(0xE9, ord("x"))
    rig.outb(0x402, ord("y"))
    rig.outb(0x505, 1)
    assert rig.log == [("exit", 7), ("debug", b"x"), ("debug", b"y"), ("panic", None)]


# ---- devices of the user's ----


def test_user_port_device(pool: FramePool, examples: None) -> None:
    rig = BoardRig(pool, devices=("user_device:AddingMachine",))
    rig.board.load_roms([], programs_chipset=False)
    program_pic(rig)
    rig.board.ports.write(0x300, 0xFFFF, 2)
    assert (rig.board.ports.read(0x304, 4), rig.intr) == (0xFFFF, False)
    assert rig.board.ports.read(0x300, 4) == 0
    rig.board.ports.write(0x300, 2, 1)
    rig.board.ports.write(0x304, 2, 1)
    assert (rig.board.ports.read(0x304, 4), rig.board.acknowledge()) == (0x10001, 0x25)
    rig.board.reset()
    assert (rig.board.ports.read(0x304, 4), rig.intr) == (0, False)
    rig.close()


def squarer(pool: FramePool) -> BoardRig:
    rig = BoardRig(pool, devices=("user_pci_device:Squarer",))
    rig.board.load_roms([], programs_chipset=False)
    program_pic(rig)
    assert rig.cfg(3, 0) == 0x5EED_1234
    rig.set(3, 0x04, 6, 2)
    rig.memory.write(0x1000, (12).to_bytes(8, "little"))
    return rig


def test_user_pci_device_by_interrupt_pin(pool: FramePool, examples: None) -> None:
    rig = squarer(pool)
    base = rig.cfg(3, 0x10)
    rig.board.mmio.write(base, 0x1000, 8)
    assert rig.memory.read(0x1000, 8) == (144).to_bytes(8, "little")
    assert rig.cfg(3, 0x3C, 1) == 11
    assert rig.board.acknowledge() == 0x2B
    assert rig.board.mmio.read(base + 8, 4) == 1
    rig.board.mmio.write(base + 8, 1, 4)
    rig.outb(0xA0, 0x20)
    rig.outb(0x20, 0x20)
    assert not rig.intr
    assert rig.board.mmio.read(base, 4) == 0
    rig.close()


def test_user_pci_device_by_message(pool: FramePool, examples: None) -> None:
    rig = squarer(pool)
    capability = rig.cfg(3, 0x34, 1)
    rig.set(3, capability + 4, 0xFEE0_0000)
    rig.set(3, capability + 12, 0x44)
    rig.set(3, capability + 2, 1, 2)
    rig.board.mmio.write(rig.cfg(3, 0x10), 0x1000, 8)
    assert rig.board.acknowledge() == 0x44
    rig.board.reset()
    assert rig.board.user_devices[0].done is False
    rig.close()


def test_a_device_that_the_board_has_no_place_for(pool: FramePool, examples: None) -> None:
    with pytest.raises(ConfigError) as caught:
        BoardRig(pool, devices=("user_device:AddingMachine", "user_device:AddingMachine"))
    assert str(caught.value) == (
        "device user_device:AddingMachine: plug failed: BusConflict: adding machine at 0x300..0x307 "
        "overlaps adding machine at 0x300..0x307 on the port bus"
    )
    assert "user_device" in sys.modules


# ---- hostile guests ----

PLACES = [(0, 0), (1, 0), (1, 1), (1, 3), (2, 0), (3, 0), (1, 2)]
ADDRESSES = [
    0,
    0x1F0,
    0x600,
    0xC000,
    0xCF8,
    0x9F000,
    0xA0000,
    0xC0000,
    0x200000,
    0xE0000000,
    0xFEC00000,
    0xFFFFFFF0,
]


@st.composite
def accesses(draw: st.DrawFn) -> tuple[tuple[int, int], int, int, int]:
    size = draw(st.sampled_from((1, 2, 4)))
    interesting = st.sampled_from((0x04, 0x10, 0x18, 0x20, 0x30, 0x40, 0x58, 0x5C, 0x60, 0x80))
    offset = draw(interesting | st.integers(0, 255)) // size * size
    bits = (1 << 8 * size) - 1
    value = draw(st.sampled_from((bits, 0, 7)) | st.sampled_from(ADDRESSES) | st.integers(0, bits)) & bits
    return draw(st.sampled_from(PLACES)), offset, value, size


@settings(max_examples=40, deadline=None)
@given(st.lists(accesses(), max_size=40), st.lists(st.integers(0, 0xFFFF), max_size=10))
def test_hostile_configuration(writes: list[tuple[tuple[int, int], int, int, int]], ports: list[int]) -> None:
    pool = FramePool(8 * MIB)
    rig, again = BoardRig(pool, vga_bios=ROM), BoardRig(pool, vga_bios=ROM)
    for (slot, number), offset, value, size in writes:
        rig.set(slot, offset, value, size, number)
        rig.cfg(slot, offset, size, number)
    for function, twin in zip(rig.functions(), again.functions(), strict=True):
        twin.load(function.save())
    assert [f.save() for f in again.functions()] == [f.save() for f in rig.functions()]
    assert again.layout() == rig.layout()
    for port in ports:
        rig.board.ports.read(port, 4)
    for address in ADDRESSES:
        rig.board.mmio.write(address, 0x5A5A5A5A, 4)
        rig.board.mmio.read(address, 8)
    fixed = BoardRig(pool, vga_bios=ROM)
    rig.board.reset()
    assert rig.layout() == fixed.layout()
    for made in (rig, again, fixed):
        made.close()
