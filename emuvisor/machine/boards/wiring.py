"""What a board is connected to, and what it offers to the machine that it is the board of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from emuvisor.bus.bus import Bus
from emuvisor.bus.clock import Clock
from emuvisor.devices.keyboard import Keyboard
from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.devices.uart import NS16550A
from emuvisor.machine.choices import DiskBus, DiskKind
from emuvisor.machine.loaders.boot import Piece
from emuvisor.machine.memory_map import MemoryMap
from emuvisor.memory import GuestMemory

if TYPE_CHECKING:
    from emuvisor.devices.apic.local_apic import LocalApic
    from emuvisor.devices.display.vga import Vga
    from emuvisor.devices.mouse import Mouse
    from emuvisor.devices.virtio.device import VirtioDevice

__all__ = ["Board", "Drive", "Wiring", "bios_drives"]

FIRST_FLOPPY = 0x00
FIRST_HARD_DISK = 0x80
"""BIOS drive numbers."""


@dataclass(frozen=True, slots=True)
class Drive:
    """A drive with `image` in it; None is a drive without a medium."""

    kind: DiskKind
    image: BlockDevice | None
    bus: DiskBus = "ide"


def bios_drives(drives: Sequence[Drive]) -> dict[int, BlockDevice]:
    """The disks by BIOS drive number: floppy disks from 00h, hard disks from 80h."""
    numbered: dict[int, BlockDevice] = {}
    for kind, first in (("floppy", FIRST_FLOPPY), ("disk", FIRST_HARD_DISK)):
        images = [drive.image for drive in drives if drive.kind == kind and drive.image is not None]
        numbered.update(enumerate(images, first))
    return numbered


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
    on_intr: Callable[[bool], None]
    on_a20: Callable[[bool], None]
    on_reset: Callable[[], None]
    on_shutdown: Callable[[], None]
    on_exit: Callable[[int], None]
    on_debug: Callable[[bytes], None]
    on_nmi: Callable[[], None]
    on_init: Callable[[], None]
    """INIT to the processor, from the local APIC."""
    on_panic: Callable[[], None]
    """The guest's kernel says by pvpanic that it has crashed."""
    on_suspend: Callable[[str], None]
    """A device cannot go on, for the reason given: the host pauses the guest."""
    vcpus: int = 1
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


class Board(Protocol):
    """Which chip sits where. The machine reads and writes through it and asks it for interrupts."""

    ports: Bus
    mmio: Bus
    uarts: list[NS16550A]
    display: "Vga | None"
    keyboard: Keyboard | None
    mouse: "Mouse | None"
    local_apic: "LocalApic | None"
    """The boot processor's; without one the processor has none."""

    def acknowledge(self) -> int | None:
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
