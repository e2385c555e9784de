"""Addresses for BARs, as firmware gives them."""

from typing import Any

from emuvisor.bus.bus import Bus
from emuvisor.devices.pci.bar import Bar, OptionRom
from emuvisor.devices.pci.function import PciFunction
from emuvisor.devices.pci.pci_bus import PciBus
from emuvisor.machine.boards.pci_setup import assign_addresses
from emuvisor.units import GIB, MIB

CHIP = OptionRom(b"\x55\xaa\x01".ljust(512))


def bus_with(*bars: Bar) -> list[PciFunction]:
    memory: Any = None
    bus = PciBus(
        ports=Bus("port", 1 << 16),
        mmio=Bus("memory", 1 << 40),
        memory=memory,
        msi=lambda address, data: None,
        intx=lambda slot, pin, level: None,
    )
    for slot, bar in enumerate(bars):
        function = PciFunction(name="f", vendor=1, device=1, class_code=0)
        function.add_bar(0, bar)
        bus.plug(function, slot)
    assign_addresses(bus)
    return list(bus)


def addresses(*bars: Bar) -> list[int | None]:
    return [next((address for _, address in function.windows()), None) for function in bus_with(*bars)]


def memory(size: int, wide: bool = False) -> Bar:
    return Bar(size=size, space="memory", device=CHIP, wide=wide)


def test_largest_first() -> None:
    assert addresses(memory(0x1000), memory(MIB), memory(0x100)) == [0xE010_0000, 0xE000_0000, 0xE010_1000]


def test_io() -> None:
    assert addresses(Bar(size=8, space="io", device=CHIP), Bar(size=256, space="io", device=CHIP)) == [
        0xC100,
        0xC000,
    ]


def test_wide_bars_go_above_what_is_full() -> None:
    assert addresses(memory(256 * MIB), memory(256 * MIB, wide=True), memory(2 * GIB, wide=True)) == [
        0xE000_0000,
        0xC0_8000_0000,
        0xC0_0000_0000,
    ]


def test_no_room() -> None:
    assert addresses(memory(256 * MIB), memory(256 * MIB), memory(0x1000)) == [0xE000_0000, None, 0xF000_0000]
