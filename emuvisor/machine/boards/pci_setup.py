"""What a PC's firmware does to PCI, for guests that boot without such firmware.

Base address registers get addresses, interrupt pins get lines, and the chip set's own registers are set as SeaBIOS
sets them, so that an operating system that trusts the firmware finds a machine that works.
"""

from emuvisor.devices.pci.bar import Bar
from emuvisor.devices.pci.function import PciFunction
from emuvisor.devices.pci.pci_bus import PciBus
from emuvisor.devices.pci.piix3 import PIRQ_COUNT, PIRQRC, pirq_of
from emuvisor.devices.pci.piix4_pm import PMBASE, PMIOSE, PMREGMISC
from emuvisor.devices.pci.registers import (
    BASE_ADDRESS,
    COMMAND,
    COMMAND_IO,
    COMMAND_MEMORY,
    INTERRUPT_LINE,
    INTERRUPT_PIN,
)

__all__ = [
    "IO_WINDOW",
    "MEMORY_WINDOW",
    "WIDE_WINDOW",
    "assign_addresses",
    "route_interrupts",
    "set_power_base",
]

IO_WINDOW = (0xC000, 0xFFFF)
MEMORY_WINDOW = (0xE000_0000, 0xFEBF_FFFF)
WIDE_WINDOW = (0xC0_0000_0000, 0xFF_FFFF_FFFF)
"""Where BARs get addresses: I/O, 32-bit memory, and what does not fit there."""


class _Window:
    """Addresses from `first` to `last`, given out in steps."""

    def __init__(self, first: int, last: int) -> None:
        self._next = first
        self._end = last + 1

    def take(self, size: int) -> int | None:
        """`size` bytes at a multiple of `size`; None when they do not fit."""
        start = (self._next + size - 1) & ~(size - 1)
        if start + size > self._end:
            return None
        self._next = start + size
        return start


def assign_addresses(bus: PciBus) -> None:
    """Give every BAR an address, the largest first so that no space is lost, and let the functions decode.

    A BAR for which there is no room stays without one, as with any firmware.
    """
    io, memory, wide = _Window(*IO_WINDOW), _Window(*MEMORY_WINDOW), _Window(*WIDE_WINDOW)
    bars = [(function, index, bar) for function in bus for index, bar in function.bars.items()]
    for function, index, bar in sorted(bars, key=lambda entry: -entry[2].size):
        address = (io if bar.space == "io" else memory).take(bar.size)
        if address is None and bar.wide:
            address = wide.take(bar.size)
        if address is not None:
            _set_bar(function, index, bar, address)
    for function in bus:
        command = function.config_read(COMMAND, 2)
        function.config_write(COMMAND, command | COMMAND_IO | COMMAND_MEMORY, 2)


def _set_bar(function: PciFunction, index: int, bar: Bar, address: int) -> None:
    for part in range(1 + bar.wide):
        register = BASE_ADDRESS + 4 * (index + part)
        function.config_write(register, address >> 32 * part & 0xFFFF_FFFF, 4)


def route_interrupts(bus: PciBus, isa_bridge: PciFunction, irqs: tuple[int, ...]) -> None:
    """Route PIRQA to PIRQD to the ISA lines `irqs`, and note in each function which line its pin drives."""
    for pirq in range(PIRQ_COUNT):
        isa_bridge.config_write(PIRQRC + pirq, irqs[pirq], 1)
    for function in bus:
        pin = function.config[INTERRUPT_PIN]
        if pin:
            slot, _ = bus.place_of(function)
            function.config_write(INTERRUPT_LINE, irqs[pirq_of(slot, pin)], 1)


def set_power_base(power: PciFunction, base: int, sci: int) -> None:
    """Show the ACPI registers at port `base`; their interrupt is `sci`."""
    power.config_write(PMBASE, base, 4)
    power.config_write(PMREGMISC, PMIOSE, 1)
    power.config_write(INTERRUPT_LINE, sci, 1)
