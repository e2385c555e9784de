"""What a machine consists of, as its tables need to know it. A board fills this in; defaults are those of a PC."""

from dataclasses import dataclass

from emuvisor.devices.acpi_pm import ACPI_DISABLE, ACPI_ENABLE
from emuvisor.machine.memory_map import MMIO_HOLE_START, MemoryMap

__all__ = ["GenerationId", "IsaDevice", "Pci", "Platform", "PowerBlock", "SleepRegisters", "VirtioMmioPlace"]

ISA_VIDEO_MEMORY = (0xA0000, 0xBFFFF)
PCI_HOLE_32 = (MMIO_HOLE_START, 0xFEBFFFFF)
"""Up to the I/O APIC."""
PCI_HOLE_64 = (0xC0_0000_0000, 0xFF_FFFF_FFFF)
"""Above all RAM that a guest can have, below the end of 40 address bits."""


@dataclass(frozen=True, slots=True)
class IsaDevice:
    """A device that cannot be found by looking for it.

    `hid` is its EISA ID ("PNP0501") or another ACPI name ("QEMU0002"); `ports` are (first, number).
    """

    name: str
    hid: str
    ports: tuple[tuple[int, int], ...] = ()
    irq: int | None = None
    dma: int | None = None
    uid: int = 0


@dataclass(frozen=True, slots=True)
class VirtioMmioPlace:
    """Where a virtio device's registers are, and the I/O APIC pin that it drives."""

    address: int
    length: int
    pin: int


@dataclass(frozen=True, slots=True)
class GenerationId:
    """Where the VM generation ID lies, and the interrupt that says that it has changed."""

    address: int
    irq: int


@dataclass(frozen=True, slots=True)
class Pci:
    """PCI bus 0 with a PIIX3 as its ISA bridge, at slot 1, function 0.

    `pirq` says which ISA interrupts PIRQA to PIRQD go to when nobody has changed it; `choices`, which are possible.
    `memory` are the windows for BARs, (first, last).
    """

    pirq: tuple[int, int, int, int] = (10, 10, 11, 11)
    choices: tuple[int, ...] = (5, 10, 11)
    memory: tuple[tuple[int, int], ...] = (ISA_VIDEO_MEMORY, PCI_HOLE_32, PCI_HOLE_64)

    @staticmethod
    def pirq_of(slot: int, pin: int) -> int:
        """The PIRQ, 0 to 3 for A to D, that interrupt pin `pin` (1 is INTA) of `slot` is wired to."""
        return (pin - 1 + slot - 1) & 3


@dataclass(frozen=True, slots=True)
class PowerBlock:
    """ACPI fixed hardware at port `base`, laid out as in a PIIX4: PM1 event, PM1 control, PM timer; and the SCI."""

    base: int = 0x600
    sci: int = 9
    s5: int = 0
    """The sleep type that switches off."""
    reset_port: int = 0xCF9
    reset_value: int = 6
    smi_command: int = 0xB2
    """The port to which the values beside it are written to begin and to end ACPI mode."""
    acpi_enable: int = ACPI_ENABLE
    acpi_disable: int = ACPI_DISABLE

    @property
    def pm1_event(self) -> int:
        """The first port of the PM1 status and enable registers."""
        return self.base

    @property
    def pm1_control(self) -> int:
        """The port of the PM1 control register."""
        return self.base + 4

    @property
    def timer(self) -> int:
        """The port of the PM timer."""
        return self.base + 8


@dataclass(frozen=True, slots=True)
class SleepRegisters:
    """What hardware-reduced ACPI has in the place of a `PowerBlock`: three ports of eight bits."""

    control: int = 0x608
    status: int = 0x609
    s5: int = 5
    reset_port: int = 0x60A
    reset_value: int = 1


@dataclass(frozen=True, slots=True)
class Platform:
    """A machine with `cpus` processors (local APIC IDs from 0 on) and an I/O APIC of 24 pins at `io_apic`.

    ISA interrupts go to the pins of their numbers, but IRQ 0 to pin 2. `imcr`: the PIC's output goes past the APIC
    until the IMCR is set. `isa` lists devices for the DSDT; `devices` is AML of further ones, for its \\_SB scope.
    """

    memory_map: MemoryMap
    power: PowerBlock | SleepRegisters
    cpus: int = 1
    local_apic: int = 0xFEE00000
    io_apic: int = 0xFEC00000
    hpet: int | None = None
    """The HPET's address."""
    pci: Pci | None = None
    pic: bool = True
    """There are two 8259s beside the APICs."""
    imcr: bool = False
    i8042: bool = False
    vga: bool = False
    rtc: bool = True
    isa: tuple[IsaDevice, ...] = ()
    virtio: tuple[VirtioMmioPlace, ...] = ()
    generation_id: GenerationId | None = None
    devices: bytes = b""

    @property
    def io_apic_id(self) -> int:
        """The I/O APIC's ID, behind those of the local APICs."""
        return self.cpus

    @property
    def level_irqs(self) -> tuple[int, ...]:
        """ISA interrupts that are level-triggered: those that PCI devices and the SCI share."""
        sci = {self.power.sci} if isinstance(self.power, PowerBlock) else set()
        return tuple(sorted(sci | set(self.pci.choices if self.pci is not None else ())))
