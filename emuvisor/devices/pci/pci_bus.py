"""A PCI bus: 32 slots of 8 functions, and which of their windows answers at which address.

Windows never overlap on our buses. Which of two wins is a function of the registers alone, not of the order in which
the guest set them: a fixed chip of the board before any PCI function, the lower slot and BAR before the
higher. The loser does not decode while the conflict lasts.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from emuvisor.bus.bus import Bus
from emuvisor.devices.pci.bar import Bar
from emuvisor.devices.pci.function import PciFunction, Window
from emuvisor.devices.pci.registers import HEADER_TYPE, INTERRUPT_PIN
from emuvisor.errors import UsageError
from emuvisor.memory import PhysicalMemory
from emuvisor.units import GIB

__all__ = ["PciBus"]

SLOTS = 32
FUNCTIONS = 8
NOBODY = 0xFFFF_FFFF
TOP_32 = 4 * GIB
"""A window that ends here is a register in the course of being sized: all its bits are ones."""

Place = tuple[int, int]
"""Slot and function number."""


class PciBus:
    """The bus and what is plugged into it.

    BARs appear on `ports` and `mmio`; DMA goes to `memory`, messages to `msi(address, data)`. `intx(slot, pin,
    level)` hears changes of the level on an interrupt pin (1 to 4) of a slot, whose functions share it.
    """

    def __init__(
        self,
        *,
        ports: Bus,
        mmio: Bus,
        memory: PhysicalMemory,
        msi: Callable[[int, int], None],
        intx: Callable[[int, int, bool], None],
    ) -> None:
        self.memory = memory
        self._ports = ports
        self._mmio = mmio
        self._msi = msi
        self._intx = intx
        self._functions: dict[Place, PciFunction] = {}
        self._places: dict[PciFunction, Place] = {}
        self._high: dict[tuple[int, int], set[int]] = {}
        """Slot and pin to the numbers of the functions that hold it."""
        self._shown: dict[Bar, int] = {}
        """What decodes now, and where."""
        self._gathering = self._gathered = False

    def plug(self, function: PciFunction, slot: int, number: int = 0) -> None:
        """Put `function` into `slot` as function `number`.

        Raises UsageError where there is no such place or it is taken, and for a function that nobody would find,
        because function 0 of its slot is missing or does not say that there are several.
        """
        if not (0 <= slot < SLOTS and 0 <= number < FUNCTIONS):
            raise UsageError(f"{function.name}: no PCI slot {slot}.{number}; there are 0.0 to 31.7")
        taken = self._functions.get((slot, number))
        if taken is not None:
            raise UsageError(f"{function.name}: PCI slot {slot}.{number} is taken by {taken.name}")
        first = self._functions.get((slot, 0))
        if number and (first is None or not first.config[HEADER_TYPE]):
            raise UsageError(f"{function.name}: PCI slot {slot} has no multifunction device as function 0")
        self._functions[slot, number] = function
        self._functions = dict(sorted(self._functions.items()))
        self._places[function] = (slot, number)
        function.connect(self)
        if next(function.windows(), None) is not None:
            self.remap()

    def __iter__(self) -> Iterator[PciFunction]:
        """What is plugged in, by slot and function number."""
        return iter(self._functions.values())

    def place_of(self, function: PciFunction) -> Place:
        """Slot and function number of a plugged `function`."""
        return self._places[function]

    def free_slot(self, first: int = 0) -> int:
        """The lowest empty slot from `first` on. Raises UsageError when all are taken."""
        used = {slot for slot, _ in self._functions}
        for slot in range(first, SLOTS):
            if slot not in used:
                return slot
        raise UsageError(f"all PCI slots from {first} to {SLOTS - 1} are taken")

    # ---- configuration space ----

    def config_read(self, slot: int, number: int, offset: int, size: int) -> int:
        """1, 2 or 4 bytes inside one double word of a function's configuration space; ones where there is none."""
        function = self._functions.get((slot, number))
        return NOBODY >> 8 * (4 - size) if function is None else function.config_read(offset, size)

    def config_write(self, slot: int, number: int, offset: int, value: int, size: int) -> None:
        """Write 1, 2 or 4 bytes inside one double word of a function's configuration space."""
        function = self._functions.get((slot, number))
        if function is not None:
            function.config_write(offset, value, size)

    # ---- what functions ask of the bus ----

    def send_msi(self, address: int, data: int) -> None:
        """Pass a message on."""
        self._msi(address, data)

    def set_pin(self, function: PciFunction, level: bool) -> None:
        """A function's interrupt pin has this level."""
        slot, number = self._places[function]
        pin = function.config[INTERRUPT_PIN]
        high = self._high.setdefault((slot, pin), set())
        before = bool(high)
        (high.add if level else high.discard)(number)
        if bool(high) != before:
            self._intx(slot, pin, bool(high))

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Many functions get new registers: what `remap` is told meanwhile is done once, in the end."""
        self._gathering, self._gathered = True, False
        try:
            yield
        finally:
            self._gathering = False
            if self._gathered:
                self.remap()

    def remap(self) -> None:
        """Let every window answer where the registers say."""
        if self._gathering:
            self._gathered = True
            return
        windows = dict(self._windows())
        if windows == self._shown:  # they were free, and are
            return
        wanted: dict[Bar, int] = {}
        for bar, address in windows.items():
            if self._is_free(bar, address, wanted):
                wanted[bar] = address
        if wanted == self._shown:
            return
        before, self._shown = self._shown, wanted
        for bar, address in before.items():
            if wanted.get(bar) != address:
                self._hide(bar, address)
        for bar, address in wanted.items():
            if before.get(bar) != address:
                self._show(bar, address)

    def _windows(self) -> Iterator[Window]:
        for function in self._functions.values():
            yield from function.windows()

    def _bus(self, bar: Bar) -> Bus:
        return self._ports if bar.space == "io" else self._mmio

    def _is_free(self, bar: Bar, address: int, placed: dict[Bar, int]) -> bool:
        bus, end = self._bus(bar), address + bar.size
        if end > bus.size or end == TOP_32:
            return False
        if any(b.space == bar.space and a < end and address < a + b.size for b, a in placed.items()):
            return False
        others = bus.overlapping(address, end)
        if not others:
            return True
        ours = {a for b, a in self._shown.items() if b.space == bar.space}
        return all(r.start in ours for r in others)

    def _show(self, bar: Bar, address: int) -> None:
        if bar.region is not None:
            bar.region.place(address)
        elif bar.device is not None:
            self._bus(bar).attach(address, bar.size, bar.device, bar.width)

    def _hide(self, bar: Bar, address: int) -> None:
        if bar.region is not None:
            bar.region.place(None)
        elif bar.device is not None:
            self._bus(bar).detach(bar.device, address)

    def reset(self) -> None:
        """RST#: every function."""
        for function in self._functions.values():
            function.reset()
