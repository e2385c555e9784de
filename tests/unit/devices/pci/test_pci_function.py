from contextlib import suppress

import pytest
from loading import loaded
from pci_rig import Chip, FakeRegion, PciRig, simple

from emuvisor.devices.pci.bar import Bar
from emuvisor.devices.pci.function import PciFunction
from emuvisor.errors import ImageError, SnapshotError, UsageError

COMMAND, STATUS, BAR0, BAR1, BAR2, ROM, LINE = 0x04, 0x06, 0x10, 0x14, 0x18, 0x30, 0x3C
IO, MEMORY, MASTER, NO_INTX = 1, 2, 4, 0x400
SLOT = 4
ONES = 0xFFFF_FFFF


@pytest.fixture
def rig() -> PciRig:
    return PciRig()


def plugged(rig: PciRig, *bars: Bar) -> PciFunction:
    function = simple()
    index = 0
    for bar in bars:
        function.add_bar(index, bar)
        index += 1 + bar.wide
    rig.bus.plug(function, SLOT)
    return function


# ---- the header ----


def test_header_reads_as_built(rig: PciRig) -> None:
    plugged(rig)
    assert rig.cfg(SLOT, 0x00) == 0x5678_1234
    assert rig.cfg(SLOT, 0x08) == 0x0B1234_07
    assert rig.cfg(SLOT, 0x0C) == 0
    assert rig.cfg(SLOT, 0x2C) == 0x1100_1AF4
    assert rig.cfg(SLOT, 0x3C) == 0x0000_0100
    assert rig.cfg(SLOT, 0x02, 2) == 0x5678
    assert rig.cfg(SLOT, 0x0B, 1) == 0x0B
    assert simple(multifunction=True).config[0x0E] == 0x80
    assert repr(simple()) == "<PciFunction simple 1234:5678>"


def test_only_writable_bits_change(rig: PciRig) -> None:
    plugged(rig)
    for offset in range(0, 256, 4):
        rig.set(SLOT, offset, ONES)
    assert rig.cfg(SLOT, 0x00) == 0x5678_1234
    assert rig.cfg(SLOT, COMMAND) == 0x0557
    assert rig.cfg(SLOT, 0x0C) == 0x0000_FFFF
    assert rig.cfg(SLOT, LINE) == 0x0000_01FF
    assert all(
        rig.cfg(SLOT, offset) == 0 for offset in (*range(0x10, 0x28, 4), 0x30, 0x34, *range(0x40, 256, 4))
    )


def test_bytes_and_words_of_a_register(rig: PciRig) -> None:
    plugged(rig, Bar(size=0x100, space="memory", device=Chip()))
    rig.set(SLOT, BAR0 + 3, 0xE0, 1)
    rig.set(SLOT, BAR0 + 1, 0x1234, 2)
    assert rig.cfg(SLOT, BAR0) == 0xE012_3400


# ---- base address registers ----


def test_io_bar_is_sized_placed_and_moved(rig: PciRig) -> None:
    chip = Chip()
    function = plugged(rig, Bar(size=32, space="io", device=chip))
    rig.set(SLOT, BAR0, ONES)
    assert rig.cfg(SLOT, BAR0) == 0xFFFF_FFE1
    rig.set(SLOT, BAR0, 0xC040)
    assert rig.places(function) == []
    rig.set(SLOT, COMMAND, IO, 2)
    rig.ports.write(0xC044, 0x11223344, 4)
    assert chip.bytes[4:8] == b"\x44\x33\x22\x11"
    rig.set(SLOT, BAR0, 0xC100)
    assert rig.places(function) == [("chip", 0xC100)]
    rig.set(SLOT, COMMAND, MEMORY, 2)
    assert rig.places(function) == []


@pytest.mark.parametrize("address", [0, 0x1_0000, 0xFFFF_FFE0])
def test_io_bar_outside_its_space_is_not_decoded(rig: PciRig, address: int) -> None:
    function = plugged(rig, Bar(size=32, space="io", device=Chip()))
    rig.set(SLOT, COMMAND, IO, 2)
    rig.set(SLOT, BAR0, address)
    assert rig.places(function) == []


def test_memory_bar(rig: PciRig) -> None:
    function = plugged(rig, Bar(size=0x1000, space="memory", device=Chip(), prefetchable=True))
    rig.set(SLOT, COMMAND, MEMORY, 2)
    rig.set(SLOT, BAR0, ONES)
    assert rig.cfg(SLOT, BAR0) == 0xFFFF_F008
    assert rig.places(function) == [], "all ones is a BAR being sized, not an address"
    rig.set(SLOT, BAR0, 0xE000_0000)
    assert rig.mmio.read(0xE000_0000, 4) == 0
    assert rig.places(function) == [("chip", 0xE000_0000)]


def test_wide_bar_takes_two_registers(rig: PciRig) -> None:
    function = plugged(
        rig,
        Bar(size=0x1_0000_0000, space="memory", device=Chip("big"), wide=True),
        Bar(size=0x10, space="io", device=Chip("small")),
    )
    rig.set(SLOT, BAR0, ONES)
    rig.set(SLOT, BAR1, ONES)
    assert (rig.cfg(SLOT, BAR0), rig.cfg(SLOT, BAR1)) == (0x4, 0xFFFF_FFFF)
    rig.set(SLOT, BAR1, 0x80)
    rig.set(SLOT, BAR2, 0xC000)
    rig.set(SLOT, COMMAND, IO | MEMORY, 2)
    assert rig.places(function) == [("small", 0xC000), ("big", 0x80_0000_0000)]
    rig.set(SLOT, BAR1, 0x100)
    assert rig.places(function) == [("small", 0xC000)], "beyond 40 address bits"


def test_region_is_placed(rig: PciRig) -> None:
    region = FakeRegion(0x10000)
    plugged(rig, Bar(size=0x10000, space="memory", region=region))
    rig.set(SLOT, COMMAND, MEMORY, 2)
    rig.set(SLOT, BAR0, 0xF000_0000)
    assert region.gpa == 0xF000_0000
    rig.set(SLOT, BAR0, 0xF100_0000)
    assert region.gpa == 0xF100_0000
    rig.set(SLOT, COMMAND, 0, 2)
    assert region.gpa is None


def test_bars_at_the_same_address(rig: PciRig) -> None:
    a, b = simple("a"), simple("b")
    for name, function in (("a", a), ("b", b)):
        function.add_bar(0, Bar(size=0x1000, space="memory", device=Chip(name)))
    rig.bus.plug(b, 6)
    rig.bus.plug(a, 5)
    for slot in (6, 5):
        rig.set(slot, BAR0, 0xE000_0000)
        rig.set(slot, COMMAND, MEMORY, 2)
    assert (rig.places(a), rig.places(b)) == ([("a", 0xE000_0000)], []), "the lower slot wins"
    rig.set(5, BAR0, 0xE000_1000)
    assert rig.places(b) == [("b", 0xE000_0000)]


def test_windows_of_many_functions_move_once(rig: PciRig) -> None:
    a, b = simple("a"), simple("b")
    for slot, (name, function) in enumerate((("a", a), ("b", b)), 5):
        function.add_bar(0, Bar(size=0x1000, space="memory", device=Chip(name)))
        rig.bus.plug(function, slot)
        rig.set(slot, COMMAND, MEMORY, 2)
    rig.set(5, BAR0, 0xE000_0000)
    rig.set(6, BAR0, 0xE000_1000)
    first, second = (rig.places(a), rig.places(b)), ([("a", 0xE000_1000)], [("b", 0xE000_0000)])
    with rig.bus.gathered():
        rig.set(5, BAR0, 0xE000_1000)
        rig.set(6, BAR0, 0xE000_0000)
        assert (rig.places(a), rig.places(b)) == first
    assert (rig.places(a), rig.places(b)) == second
    with suppress(SnapshotError), rig.bus.gathered():
        rig.set(5, BAR0, 0xE000_0000)
        rig.set(6, BAR0, 0xE000_1000)
        a.load(b.save())
    assert (rig.places(a), rig.places(b)) == first
    rig.set(6, BAR0, 0xE000_3000)
    assert rig.places(b) == [("b", 0xE000_3000)], "and at once again"


def test_bar_over_a_fixed_chip_is_not_decoded(rig: PciRig) -> None:
    fixed = Chip("fixed")
    rig.ports.attach(0x3F8, 8, fixed)
    function = plugged(rig, Bar(size=16, space="io", device=fixed))
    rig.set(SLOT, COMMAND, IO, 2)
    rig.set(SLOT, BAR0, 0x3F0)
    assert rig.places(function) == [("fixed", 0x3F8)]
    rig.set(SLOT, BAR0, 0x400)
    assert rig.places(function) == [("fixed", 0x3F8), ("fixed", 0x400)]
    rig.set(SLOT, BAR0, 0x500)
    assert rig.places(function) == [("fixed", 0x3F8), ("fixed", 0x500)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 24, "space": "io"}, "BAR: 24 bytes of io space; it has a power of two from 4 to 256"),
        ({"size": 512, "space": "io"}, "BAR: 512 bytes of io space; it has a power of two from 4 to 256"),
        (
            {"size": 8, "space": "memory"},
            "BAR: 8 bytes of memory space; it has a power of two from 16 to 2147483648",
        ),
        (
            {"size": 16, "space": "io", "wide": True},
            "BAR: I/O space is neither 64-bit nor prefetchable, and holds a device, no region",
        ),
        (
            {"size": 0x1000, "space": "memory", "region": FakeRegion(0x1000)},
            "BAR: it shows either a device or a region",
        ),
        (
            {"size": 0x1000, "space": "memory", "device": None, "region": FakeRegion(0x2000)},
            "BAR: 4096 bytes for a region of 8192; both are the same whole pages",
        ),
    ],
)
def test_impossible_bars(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Bar(**{"device": Chip(), **arguments})  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_bar_places() -> None:
    function = simple()
    function.add_bar(0, Bar(size=16, space="memory", device=Chip(), wide=True))
    for index in (0, 1, 6):
        with pytest.raises(UsageError) as caught:
            function.add_bar(index, Bar(size=16, space="memory", device=Chip()))
        assert str(caught.value) == f"simple: BAR {index} is taken, or not one of 0 to 5"
    with pytest.raises(UsageError):
        function.add_bar(5, Bar(size=16, space="memory", device=Chip(), wide=True))


# ---- option ROMs ----


def test_option_rom_shows_while_enabled(rig: PciRig) -> None:
    function = simple()
    rom = bytes([0x55, 0xAA, 6]) + bytes(range(200)) * 20
    function.add_rom(rom)
    rig.bus.plug(function, SLOT)
    rig.set(SLOT, ROM, 0xFFFF_FFFE)
    assert rig.cfg(SLOT, ROM) == 0xFFFF_F000
    rig.set(SLOT, ROM, 0xE000_0000)
    rig.set(SLOT, COMMAND, MEMORY, 2)
    assert rig.mmio.read(0xE000_0000, 2) == 0xFFFF
    rig.set(SLOT, ROM, 0xE000_0001)
    assert rig.mmio.read(0xE000_0000, 4) == 0x0006_AA55
    rig.mmio.write(0xE000_0000, 0, 4)
    assert rig.mmio.read(0xE000_0000, 2) == 0xAA55
    assert rig.mmio.read(0xE000_0000 + len(rom), 2) == 0xFFFF
    rig.bus.reset()
    assert rig.places(function) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "vga.rom: not an option ROM; it does not begin with 55h AAh"),
        (b"\x55\xaa", "vga.rom: not an option ROM; it does not begin with 55h AAh"),
        (b"MZ\x01".ljust(512), "vga.rom: not an option ROM; it does not begin with 55h AAh"),
        (b"\x55\xaa\x02".ljust(512), "vga.rom: 512 bytes, but its header says 1024"),
        (b"\x55\xaa\x00".ljust(512), "vga.rom: 512 bytes, but its header says 0"),
        (
            b"\x55\xaa\x01".ljust(1 << 24 | 1),
            "vga.rom: 16777217 bytes; an option ROM has at most 16777216",
        ),
    ],
)
def test_bad_option_rom(data: bytes, message: str) -> None:
    with pytest.raises(ImageError) as caught:
        simple().add_rom(data, "vga.rom")
    assert str(caught.value) == message


# ---- interrupts and DMA ----


def test_interrupt_pin(rig: PciRig) -> None:
    function = plugged(rig)
    function.set_intx(True)
    assert rig.cfg(SLOT, STATUS, 2) == 0x0008
    rig.set(SLOT, COMMAND, NO_INTX, 2)
    assert rig.cfg(SLOT, STATUS, 2) == 0x0008
    rig.set(SLOT, COMMAND, 0, 2)
    function.set_intx(False)
    assert rig.cfg(SLOT, STATUS, 2) == 0
    assert rig.pins == [(SLOT, 1, True), (SLOT, 1, False), (SLOT, 1, True), (SLOT, 1, False)]


def test_functions_of_a_slot_share_a_pin(rig: PciRig) -> None:
    first, second = simple("first", multifunction=True), simple("second")
    rig.bus.plug(first, SLOT)
    rig.bus.plug(second, SLOT, 1)
    first.set_intx(True)
    second.set_intx(True)
    first.set_intx(False)
    assert rig.pins == [(SLOT, 1, True)]
    second.set_intx(False)
    assert rig.pins == [(SLOT, 1, True), (SLOT, 1, False)]


def test_function_without_a_pin_drives_none(rig: PciRig) -> None:
    function = simple(pin=0)
    rig.bus.plug(function, SLOT)
    function.set_intx(True)
    assert rig.pins == []


def test_dma_needs_bus_mastering(rig: PciRig) -> None:
    function = plugged(rig)
    rig.memory.ram[0x100:0x104] = b"data"
    function.dma_write(0x100, b"lost")
    assert function.dma_read(0x100, 4) == b"\xff" * 4
    rig.set(SLOT, COMMAND, MASTER, 2)
    assert function.dma_read(0x100, 4) == b"data"
    function.dma_write(0x200, b"seen")
    assert rig.memory.ram[0x200:0x204] == b"seen"
    assert rig.cfg(SLOT, STATUS, 2) == 0


def test_dma_to_nowhere_is_a_master_abort(rig: PciRig) -> None:
    function = plugged(rig)
    rig.set(SLOT, COMMAND, MASTER, 2)
    assert function.dma_read(1 << 32, 2) == b"\xff\xff"
    assert rig.cfg(SLOT, STATUS, 2) == 0x2000
    rig.set(SLOT, STATUS, 0x2000, 2)
    assert rig.cfg(SLOT, STATUS, 2) == 0
    function.dma_write(1 << 32, b"x")
    assert rig.cfg(SLOT, STATUS, 2) == 0x2000
    rig.set(SLOT, STATUS, 0x0800, 2)
    assert rig.cfg(SLOT, STATUS, 2) == 0x2000, "ones clear only their own bits"


def test_an_unplugged_function_is_silent() -> None:
    function = simple()
    function.config_write(COMMAND, MASTER | MEMORY, 2)
    function.set_intx(True)
    function.dma_write(0, b"x")
    assert function.dma_read(0, 1) == b"\xff"
    function.reset()
    assert function.config_read(COMMAND, 2) == 0


# ---- the capability list, power ----


def test_capabilities_are_chained(rig: PciRig) -> None:
    function = simple()
    first = function.add_capability(0x09, b"\x05\x11\x22", b"\x00\xf0\x00")
    second = function.add_capability(0x0B, b"", b"")
    rig.bus.plug(function, SLOT)
    assert (first, second) == (0x40, 0x48)
    assert rig.cfg(SLOT, STATUS, 2) == 0x0010
    assert rig.cfg(SLOT, 0x34, 1) == second
    assert rig.cfg(SLOT, second, 2) == 0x400B
    assert rig.cfg(SLOT, first) == 0x1105_0009
    rig.set(SLOT, first, ONES)
    assert rig.cfg(SLOT, first) == 0xF105_0009


def test_a_capability_that_does_not_fit() -> None:
    function = simple()
    function.add_capability(0x09, bytes(180), bytes(180))
    with pytest.raises(UsageError) as caught:
        function.add_capability(0x09, bytes(8), bytes(8))
    assert str(caught.value) == "simple: capability 0x9 of 10 bytes does not fit at 0xf8"


def test_nothing_decodes_in_d3(rig: PciRig) -> None:
    function = simple()
    function.add_bar(0, Bar(size=16, space="io", device=Chip()))
    function.add_power_management()
    rig.bus.plug(function, SLOT)
    rig.set(SLOT, BAR0, 0xC000)
    rig.set(SLOT, COMMAND, IO, 2)
    assert rig.cfg(SLOT, 0x40) == 0x0003_0001
    rig.set(SLOT, 0x44, 3)
    assert rig.cfg(SLOT, 0x44) == 0x000B
    assert rig.places(function) == []
    rig.set(SLOT, 0x44, 0)
    assert rig.places(function) == [("chip", 0xC000)]


# ---- reset and saved state ----


def build() -> PciFunction:
    function = simple()
    function.add_bar(0, Bar(size=16, space="io", device=Chip()))
    function.add_msi(4)
    function.add_msix(2, 3)
    return function


def test_a_state_is_loaded_in_place(rig: PciRig) -> None:
    function, other = build(), simple("other")
    rig.bus.plug(function, SLOT)
    rig.bus.plug(other, SLOT + 1)
    at_first = function.save()
    rig.set(SLOT, BAR0, 0xC000)
    rig.set(SLOT, COMMAND, IO | MEMORY, 2)
    function.set_intx(True)
    moved, places = function.save(), rig.places(function)
    function.load(at_first)
    assert (rig.places(function), rig.pins) == ([], [(SLOT, 1, True), (SLOT, 1, False)])
    function.load(moved)
    assert (rig.places(function), rig.pins[2:]) == (places, [(SLOT, 1, True)])
    assert function.save() == moved


def test_the_state_of_another_function_is_refused(rig: PciRig) -> None:
    function = build()
    before = function.save()
    config = bytearray(before["config"])
    config[0] ^= 1
    with pytest.raises(SnapshotError) as error:
        function.load({**before, "config": bytes(config)})
    assert str(error.value) == "simple: the saved configuration space is that of another function"
    assert function.save() == before


def test_reset(rig: PciRig) -> None:
    function = build()
    rig.bus.plug(function, SLOT)
    before = function.save()
    for offset in range(4, 256, 4):
        rig.set(SLOT, offset, 0xE0E0_E0E3)
    function.set_intx(True)
    rig.bus.reset()
    assert function.save() == before
    assert rig.places(function) == []
    chip = function.bars[0].device
    assert isinstance(chip, Chip)
    assert chip.resets == 1


def test_saved_and_restored(rig: PciRig) -> None:
    function = build()
    rig.bus.plug(function, SLOT)
    rig.set(SLOT, BAR0, 0xC000)
    rig.set(SLOT, BAR2, 0xE000_0000)
    rig.set(SLOT, COMMAND, IO | MEMORY, 2)
    rig.mmio.write(0xE000_0000, 0x1234, 4)
    function.set_intx(True)

    class Again(PciFunction):
        def __init__(self, *, chip: Chip) -> None:
            super().__init__(
                name="simple", vendor=0x1234, device=0x5678, class_code=0x0B1234, revision=7, interrupt_pin=1
            )
            self.add_bar(0, Bar(size=16, space="io", device=chip))
            self.add_msi(4)
            self.add_msix(2, 3)

    other = PciRig()
    again = loaded(Again(chip=Chip()), function.save())
    other.bus.plug(again, SLOT)
    assert again.save() == function.save()
    assert other.places(again) == rig.places(function)
    assert other.mmio.read(0xE000_0000, 4) == 0x1234
    assert other.pins == [(SLOT, 1, True)]
    other.bus.reset()
    assert again.config_read(COMMAND, 2) == 0


def test_restore_refuses_strange_states() -> None:
    state = simple("other").save()
    with pytest.raises(SnapshotError) as caught:
        simple().load(state)
    assert str(caught.value) == "the saved state is of device 'other', not 'simple'"
    with pytest.raises(SnapshotError) as caught:
        build().load(simple().save())
    assert str(caught.value) == "simple: saved field '0' is None; expected a saved state"


# ---- the bus and the configuration mechanism ----


def test_nobody_home_reads_ones(rig: PciRig) -> None:
    assert rig.cfg(9, 0) == ONES
    assert rig.cfg(9, 2, 2) == 0xFFFF
    rig.set(9, 0, 5)
    rig.ports.write(0xCF8, 0x8001_0000, 4)
    assert rig.ports.read(0xCFC, 4) == ONES, "bus 1"


def test_config_address(rig: PciRig) -> None:
    plugged(rig)
    rig.ports.write(0xCF8, ONES, 4)
    assert rig.ports.read(0xCF8, 4) == 0x80FF_FFFC
    assert (rig.ports.read(0xCFA, 1), rig.ports.read(0xCFA, 2)) == (0xFF, 0x80FF)
    rig.ports.write(0xCF8, 0x1234, 2)
    rig.ports.write(0xCFB, 0, 1)
    assert rig.ports.read(0xCF8, 4) == 0x80FF_FFFC
    rig.ports.write(0xCF8, SLOT << 11, 4)
    assert rig.ports.read(0xCFC, 4) == ONES, "access is disabled"
    rig.ports.write(0xCFC, 0, 4)


def test_reset_control_shows_through(rig: PciRig) -> None:
    rig.ports.write(0xCF9, 0x06, 1)
    assert rig.reset_control.bytes == b"\x06"
    assert rig.ports.read(0xCF9, 1) == 6
    assert rig.ports.read(0xCF8, 4) == 0
    rig.address.address = 0x8000_0000
    rig.address.reset()
    assert (rig.address.address, rig.reset_control.resets) == (0, 1)


def test_config_address_is_saved(rig: PciRig) -> None:
    rig.select(SLOT, 0x10)
    again = loaded(type(rig.address)(reset_control=rig.reset_control), rig.address.save())
    assert again.address == rig.address.address == 1 << 31 | SLOT << 11 | 0x10


def test_slots(rig: PciRig) -> None:
    plugged(rig)
    for slot, number, message in [
        (32, 0, "x: no PCI slot 32.0; there are 0.0 to 31.7"),
        (0, 8, "x: no PCI slot 0.8; there are 0.0 to 31.7"),
        (SLOT, 0, "x: PCI slot 4.0 is taken by simple"),
        (SLOT, 1, "x: PCI slot 4 has no multifunction device as function 0"),
        (5, 1, "x: PCI slot 5 has no multifunction device as function 0"),
    ]:
        with pytest.raises(UsageError) as caught:
            rig.bus.plug(simple("x"), slot, number)
        assert str(caught.value) == message
    assert rig.bus.free_slot(SLOT) == 5
    for slot in range(5, 32):
        rig.bus.plug(simple(), slot)
    with pytest.raises(UsageError) as caught:
        rig.bus.free_slot(SLOT)
    assert str(caught.value) == "all PCI slots from 4 to 31 are taken"
    assert [rig.bus.place_of(function) for function in rig.bus] == [(slot, 0) for slot in range(4, 32)]
