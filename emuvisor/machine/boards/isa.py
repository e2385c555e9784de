"""The ISA board: the smallest PC that boots Linux. No PCI, no APIC, no ACPI.

Its I/O map is that of `legacy.py` and what is added here.
"""

from collections.abc import Sequence

from emuvisor.bus.bus import Bus
from emuvisor.bus.device import SavedState
from emuvisor.bus.irq import InterruptLine
from emuvisor.devices.pic import PicPair
from emuvisor.devices.shutdown import PowerManagementControl
from emuvisor.machine.boards.legacy import (
    IRQ_RTC,
    IRQ_TIMER,
    MMIO_SPACE,
    PORT_SPACE,
    IsaLines,
    LegacyChips,
    reset_chips,
)
from emuvisor.machine.boards.parts import Parts, load_parts, save_parts, user_parts
from emuvisor.machine.boards.plugins import plug_devices
from emuvisor.machine.boards.wiring import Wiring
from emuvisor.machine.loaders.boot import Piece

__all__ = ["IsaBoard"]

_NAME = "isa board"

POWER = (0x604, 2)
CASCADE = 2
"""The interrupt line that the second 8259 drives itself."""


class IsaBoard:
    """Which chip sits where, and which wire goes to which pin."""

    local_apics = None
    display = None
    generation_id = None
    mouse = None
    pci = None

    def __init__(self, wiring: Wiring) -> None:
        w = wiring
        self.clock = w.clock
        self.memory = w.memory
        self.ports = Bus("port", PORT_SPACE)
        self.mmio = Bus("memory", MMIO_SPACE)
        self.pic = PicPair(InterruptLine(w.processors[0].on_intr, "INTR"))
        self.isa = IsaLines([[pin] if irq != CASCADE else [] for irq, pin in enumerate(self.pic.lines)])
        self.legacy = LegacyChips(
            w,
            self.ports,
            pic=self.pic,
            isa=self.isa,
            timer=self.isa.input(IRQ_TIMER, "i8254"),
            clock=self.isa.input(IRQ_RTC, "mc146818"),
        )
        self.uarts = self.legacy.uarts
        self.keyboard = self.legacy.keyboard
        self.power = PowerManagementControl(on_shutdown=w.on_shutdown)
        self.ports.attach(*POWER, self.power, width=2)
        self.user_devices = plug_devices(self, w.devices)
        own = self.legacy.parts()
        self._parts: Parts = {
            **own,
            **dict(user_parts(w.devices, self.user_devices, own)),
            "interrupt controllers": self.pic,
        }

    def load_roms(self, roms: Sequence[Piece], _programs_chipset: bool, /) -> None:
        """ROMs take the place of RAM."""
        for rom in roms:
            self.memory.add_rom(rom.gpa, rom.data)

    def tables(self) -> Sequence[Piece]:
        """None: a PC of 1990."""
        return ()

    def press_power_button(self) -> bool:
        """There is none."""
        return False

    def acknowledge(self, _processor: int = 0, /) -> int:
        """The interrupt controller's answer to the processor's acknowledge cycle: a vector."""
        return self.pic.acknowledge()

    def reset(self) -> None:
        """The reset line: every chip back to its power-on state."""
        reset_chips(self.ports, self.mmio)
        self.legacy.reset()

    def save(self) -> SavedState:
        """The state of every chip. Raises SnapshotError."""
        return save_parts(_NAME, self._parts)

    def load(self, state: SavedState, /) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_parts(_NAME, self._parts, state)
