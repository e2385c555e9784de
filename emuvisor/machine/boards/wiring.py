"""What a board is connected to, and what it offers to the machine that it is the board of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from emuvisor.bus.bus import Bus
from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState
from emuvisor.devices.keyboard import Keyboard
from emuvisor.devices.storage.biosdisk import BiosDisk
from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.devices.storage.meter import DiskMeter
from emuvisor.devices.uart import NS16550A
from emuvisor.devices.vm_generation import ID_LENGTH, VmGenerationId
from emuvisor.machine.choices import DiskBus, DiskKind
from emuvisor.machine.loaders.boot import Piece
from emuvisor.machine.memory_map import MemoryMap
from emuvisor.memory import GuestMemory

if TYPE_CHECKING:
    from emuvisor.devices.apic.local_apics import LocalApics
    from emuvisor.devices.display.vga import Vga
    from emuvisor.devices.mouse import Mouse
    from emuvisor.devices.virtio.device import VirtioDevice

__all__ = ["Board", "Drive", "ProcessorPins", "Wiring", "bios_disk"]

FIRST_FLOPPY = 0x00
FIRST_HARD_DISK = 0x80
"""BIOS drive numbers."""


@dataclass(frozen=True, slots=True)
class Drive:
    """A drive with `image` in it; None is a drive without a medium."""

    kind: DiskKind
    image: BlockDevice | None
    bus: DiskBus = "ide"
    meter: DiskMeter = field(default_factory=DiskMeter, compare=False)
    """Its limits and numbers; the same for every controller that reaches it."""


@dataclass(frozen=True, slots=True)
class ProcessorPins:
    """A processor as its interrupt controller sees it."""

    on_intr: Callable[[bool], None]
    """The level of INTR; hears changes only."""
    on_nmi: Callable[[], None]
    on_init: Callable[[], None]
    on_sipi: Callable[[int], None]
    """A start-up IPI with its vector, to a processor that waits for it."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a board's devices are connected to."""

    clock: Clock
    memory: GuestMemory
    memory_map: MemoryMap
    epoch: datetime
    serial: Sequence[Callable[[bytes], None]]
    """A sink for each serial port that the board has, at most four."""
    drives: Sequence[Drive]
    """In the order in which the firmware should try them."""
    processors: Sequence[ProcessorPins]
    """The bootstrap processor's first; a board without local APICs has this one only."""
    on_a20: Callable[[bool], None]
    on_reset: Callable[[], None]
    on_shutdown: Callable[[], None]
    on_exit: Callable[[int], None]
    on_debug: Callable[[bytes], None]
    on_panic: Callable[[], None]
    """The guest's kernel says by pvpanic that it has crashed."""
    on_suspend: Callable[[str], None]
    """A device cannot go on, for the reason given: the host pauses the guest."""
    generation_id: bytes = bytes(ID_LENGTH)
    vga_bios: bytes | None = None
    """The display's expansion ROM; without one the display comes up in text mode 3."""
    option_roms: Sequence[tuple[str, bytes]] = ()
    """Further ROMs for the firmware to run, by name."""
    firmware_variables: Path | None = None
    """The file for UEFI variables; without one they live as long as the machine."""
    virtio: "Sequence[VirtioDevice]" = ()
    """The drives at virtio come first, in their order."""
    devices: Sequence[str] = field(default_factory=tuple)
    """Devices of the user's, as "module:Class" or by the name of an entry point."""


def bios_disk(wiring: Wiring) -> BiosDisk:
    """The way to the disks for the BIOS, by its numbers: floppy disks from 00h, hard disks from 80h."""
    images: dict[int, BlockDevice] = {}
    meters: dict[int, DiskMeter] = {}
    number = {"floppy": FIRST_FLOPPY, "disk": FIRST_HARD_DISK}
    for drive in wiring.drives:
        if drive.kind in number and drive.image is not None:
            images[number[drive.kind]] = drive.image
            meters[number[drive.kind]] = drive.meter
            number[drive.kind] += 1
    return BiosDisk(wiring.memory, images, clock=wiring.clock, on_suspend=wiring.on_suspend, meters=meters)


class Board(Protocol):
    """Which chip sits where. The machine reads and writes through it and asks it for interrupts."""

    ports: Bus
    mmio: Bus
    uarts: list[NS16550A]
    display: "Vga | None"
    keyboard: Keyboard | None
    mouse: "Mouse | None"
    local_apics: "LocalApics | None"
    """The processors'; a board without has one processor."""
    generation_id: VmGenerationId | None
    """None on a board without ACPI, where nobody would find it."""

    def acknowledge(self, processor: int = 0, /) -> int | None:
        """The interrupt controller's vector for the interrupt that the processor now takes."""
        ...

    def load_roms(self, roms: Sequence[Piece], programs_chipset: bool, /) -> None:
        """Put firmware where this board has it. Unless it programs the chipset itself, leave the board as firmware
        leaves it: RAM in the ROM area where no ROM is, PCI devices at their addresses, the APIC in virtual wire mode.
        """
        ...

    def tables(self) -> Sequence[Piece]:
        """What a guest finds in memory from firmware that does not program the chipset: ACPI, MP, SMBIOS tables."""
        ...

    def press_power_button(self) -> bool:
        """Ask the guest to shut down; False when nothing in it listens."""
        ...

    def reset(self) -> None:
        """The reset line: every chip back to its power-on state."""
        ...

    def save(self) -> SavedState:
        """The state of every chip as plain data, by the parts' names. What lies in the guest's memory, ROMs and
        regions (video memory) too, is the memory's. Raises SnapshotError for a device that cannot be saved.
        """
        ...

    def load(self, state: SavedState, /) -> None:
        """Take over what `save` gave, on a board that was made alike, whose memory and clock are loaded already.

        Raises SnapshotError; the board is to be reset then.
        """
        ...
