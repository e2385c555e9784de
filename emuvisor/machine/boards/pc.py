"""The pc board: an i440FX PC with PCI, APICs, HPET, IDE, floppy, VGA and ACPI. What people mean by a PC.

Its I/O map is that of `legacy.py` and what is added here. PCI devices beyond these come from the user.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from emuvisor.bus.bus import Bus
from emuvisor.bus.device import SavedState, Stateful
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import saved_part
from emuvisor.devices.acpi_pm import PowerManagement, SmiCommandPort
from emuvisor.devices.apic.apic_bus import ApicBus
from emuvisor.devices.apic.io_apic import IoApic
from emuvisor.devices.display.vga import PORTS_LENGTH as VGA_PORTS_LENGTH
from emuvisor.devices.display.vga import Vga
from emuvisor.devices.display.vga_pci import VgaFunction
from emuvisor.devices.dma import DmaController
from emuvisor.devices.flash import Flash
from emuvisor.devices.flash_file import FlashFile
from emuvisor.devices.floppy.controller import FloppyController
from emuvisor.devices.fw_cfg import PORT_COUNT as FW_CFG_PORTS
from emuvisor.devices.fw_cfg import FwCfg
from emuvisor.devices.hpet import BLOCK_LENGTH as HPET_LENGTH
from emuvisor.devices.hpet import Hpet
from emuvisor.devices.imcr import Imcr
from emuvisor.devices.mouse import Mouse
from emuvisor.devices.pci.bar import OptionRom
from emuvisor.devices.pci.config_mechanism import ConfigAddress, ConfigData
from emuvisor.devices.pci.i440fx import I440FX
from emuvisor.devices.pci.pci_bus import PciBus
from emuvisor.devices.pci.piix3 import PIIX3
from emuvisor.devices.pci.piix4_pm import PIIX4PowerManagement
from emuvisor.devices.pic import PicPair
from emuvisor.devices.pvpanic import PvPanic
from emuvisor.devices.reset_control import ResetControl
from emuvisor.devices.storage.ide.cdrom import CdRom
from emuvisor.devices.storage.ide.disk import AtaDisk
from emuvisor.devices.storage.ide.piix_ide import PiixIde
from emuvisor.devices.virtio.pci import VirtioPci
from emuvisor.devices.vm_generation import VmGenerationId
from emuvisor.errors import GuestAddressError, SnapshotError, UsageError
from emuvisor.machine.boards import pci_setup
from emuvisor.machine.boards.legacy import (
    COM,
    GENERATION_ID,
    IRQ_COM,
    IRQ_EVENTS,
    IRQ_KEYBOARD,
    IRQ_MOUSE,
    IRQ_RTC,
    IRQ_TIMER,
    ISA_IRQS,
    MMIO_SPACE,
    PORT_SPACE,
    IsaLines,
    LegacyChips,
    reset_chips,
)
from emuvisor.machine.boards.parts import Parts, load_parts, save_parts, user_parts
from emuvisor.machine.boards.plugins import plug_devices
from emuvisor.machine.boards.processors import make_local_apics
from emuvisor.machine.boards.wiring import Drive, Wiring
from emuvisor.machine.loaders.boot import Piece
from emuvisor.machine.loaders.uefi import variable_store_size
from emuvisor.machine.memory_map import BIOS_END
from emuvisor.machine.tables.install import boot_order, offer_tables, table_pieces
from emuvisor.machine.tables.platform import GenerationId, IsaDevice, Pci, Platform, PowerBlock
from emuvisor.units import KIB, MIB, PAGE_SIZE

__all__ = ["PcBoard"]

_NAME = "pc board"

# The I/O map beyond legacy.py: (first port, number of ports)
DMA_FIRST = (0x00, 16)
IMCR = (0x22, 2)
DMA_PAGES = (0x81, 15)
SMI_COMMAND = (0xB2, 2)
DMA_SECOND = (0xC0, 32)
VBE = (0x1CE, 4)
VGA = (0x3B0, VGA_PORTS_LENGTH)
FLOPPY = (0x3F0, 6)
FLOPPY_RATE_AND_CHANGE = (0x3F7, 1)
PVPANIC = (0x505, 1)
FW_CFG = (0x510, FW_CFG_PORTS)
PCI_CONFIG_ADDRESS = (0xCF8, 4)
PCI_CONFIG_DATA = (0xCFC, 4)

# The memory map beyond RAM and PCI windows: (address, length)
VGA_WINDOW = (0xA0000, 128 * KIB)
VIDEO_MEMORY = 16 * MIB
SHADOW = (0xC0000, 256 * KIB)
F_SEGMENT = 0xF0000
IO_APIC = (0xFEC0_0000, 4 * KIB)
HPET = (0xFED0_0000, HPET_LENGTH)
LOCAL_APIC = (0xFEE0_0000, 4 * KIB)

# PCI: (slot, function)
HOST_BRIDGE = (0, 0)
ISA_BRIDGE = (1, 0)
IDE = (1, 1)
POWER_MANAGEMENT = (1, 3)
DISPLAY = (2, 0)
FIRST_VIRTIO_SLOT = 3

# Interrupt lines
IRQ_FLOPPY = 6
IRQ_SCI = 9
IRQ_IDE = (14, 15)
PIN_TIMER = 2
"""I/O APIC pin of IRQ 0."""
HPET_PINS = range(16, 24)
"""I/O APIC pins that no ISA line drives: the HPET's timers may."""
PIRQ_LINES = (10, 10, 11, 11)
"""Where firmware routes PIRQA to PIRQD; level-triggered then."""
ELCR_SLAVE = 1
ELCR_LEVEL = 0x0C
"""ELCR2 with lines 10 and 11 level-triggered."""
DMA_FLOPPY = 2

POWER_BASE = 0x600
"""Where firmware puts the ACPI registers."""

# CMOS (SeaBIOS's rtc.h; Ralf Brown's list)
CMOS_FLOPPY_TYPES = 0x10
CMOS_EQUIPMENT = 0x14
CMOS_BOOT_FLAGS_1 = 0x38  # third boot device in the upper half; bit 0: do not check a floppy's signature
CMOS_DISK_TRANSLATION = 0x39  # two bits for each IDE drive
CMOS_BOOT_FLAGS_2 = 0x3D  # first boot device in the lower half, second in the upper
CMOS_PROCESSORS = 0x5F  # how many beyond the first
EQUIPMENT_FLOPPIES = 0x01
EQUIPMENT_FPU = 0x02
EQUIPMENT_MOUSE = 0x04
EQUIPMENT_DRIVES_SHIFT = 6
TRANSLATION_LBA = 0b01_01_01_01
BOOT_DEVICE = {"floppy": 1, "disk": 2, "cdrom": 3}
BOOT_CHOICES = 3

# Files of fw_cfg (SeaBIOS's documentation, "Runtime configuration")
OPTION_ROM_FOLDER = "genroms/"
BOOT_ORDER_FILE = "bootorder"
BOOT_FAIL_FILE = "etc/boot-fail-wait"
STAY = b"\xff\xff\xff\xff"
"""When nothing boots, SeaBIOS stops; without the file it tries again after a minute, which idle guests skip."""
IDE_PATH = "/pci@i0cf8/ide@1,1/drive@{channel}/disk@{unit}"
VIRTIO_DISK_PATH = "/pci@i0cf8/scsi@{slot:x}/disk@0,0"
FLOPPY_PATH = "/pci@i0cf8/isa@1/fdc@03f0/floppy@{unit}"

IDE_SERIAL = "EMUVISOR{}"
"""Serial numbers by which guests tell their drives apart."""


def _is_at_ide(drive: Drive) -> bool:
    """Whether it hangs at the IDE controller; there is no hard disk without its medium."""
    if drive.bus != "ide":
        return False
    return drive.kind == "cdrom" or (drive.kind == "disk" and drive.image is not None)


def _boot_paths(drives: Sequence[Drive]) -> list[str]:
    """The Open Firmware device paths of `drives`, whose places on their controllers follow from their order."""
    floppies, ide, virtio = count(), count(), count(FIRST_VIRTIO_SLOT)
    paths = []
    for drive in drives:
        if drive.kind == "floppy":
            paths.append(FLOPPY_PATH.format(unit=next(floppies)))
        elif _is_at_ide(drive):
            channel, unit = divmod(next(ide), 2)
            paths.append(IDE_PATH.format(channel=channel, unit=unit))
        elif drive.bus == "virtio":
            paths.append(VIRTIO_DISK_PATH.format(slot=next(virtio)))
    return paths


class PcBoard:
    """Which chip sits where, and which wire goes to which pin."""

    def __init__(self, wiring: Wiring) -> None:
        w = wiring
        self.clock = w.clock
        self.memory = w.memory
        self.ports = Bus("port", PORT_SPACE)
        self.mmio = Bus("memory", MMIO_SPACE)
        self._rom_in_f_segment = False
        self._firmware_variables = w.firmware_variables
        self.flash: Flash | None = None
        """UEFI's variables, once firmware that has such has been loaded."""
        self._flash_gpa = 0

        self._add_interrupt_controllers(w)
        self._add_legacy_chips(w)
        self._add_pci(w)
        self._add_power(w)
        self._add_ide(w)
        self._add_display(w)
        self._add_virtio(w)
        self._add_firmware_interfaces(w)
        self.user_devices = plug_devices(self, w.devices)
        self._parts = self._name_parts(w)
        self._platform = self._describe(w)
        offer_tables(self.platform, self.fw_cfg)

    # ---- what sits where ----

    def _add_interrupt_controllers(self, w: Wiring) -> None:
        self.apic_bus = ApicBus()
        self.local_apics = make_local_apics(w, self.apic_bus, self._acknowledge_pic)
        bootstrap = self.local_apics[0]
        self.io_apic = IoApic(bus=self.apic_bus)
        self.imcr = Imcr(direct=bootstrap.bypass, lint0=bootstrap.lint0, through_apic_at_reset=True)
        self.pic = PicPair(self.imcr.pic_intr)
        self.isa = IsaLines([self._pins(irq) for irq in range(ISA_IRQS)])
        self.ports.attach(*IMCR, self.imcr, width=1)
        self.mmio.attach(*IO_APIC, self.io_apic, width=4)
        self.mmio.attach(*LOCAL_APIC, self.local_apics, width=4)

    def _acknowledge_pic(self) -> int:
        return self.pic.acknowledge()

    def _pins(self, irq: int) -> list[InterruptLine]:
        """The interrupt controllers' inputs that ISA line `irq` drives; line 2 is the 8259s' own."""
        if irq == PIN_TIMER:
            return []
        return [self.pic.lines[irq], self.io_apic.lines[PIN_TIMER if irq == IRQ_TIMER else irq]]

    def _add_legacy_chips(self, w: Wiring) -> None:
        self.hpet = Hpet(
            clock=w.clock,
            irq0=self.isa.input(IRQ_TIMER, "timer"),
            irq8=self.isa.input(IRQ_RTC, "clock"),
            routes={pin: self.io_apic.lines[pin] for pin in HPET_PINS},
            msi=self.apic_bus.send_msi,
        )
        self.mmio.attach(*HPET, self.hpet)
        self.mouse = Mouse()
        self.legacy = LegacyChips(
            w,
            self.ports,
            pic=self.pic,
            isa=self.isa,
            timer=self.hpet.pit,
            clock=self.hpet.rtc,
            mouse=self.mouse,
        )
        self.uarts = self.legacy.uarts
        self.keyboard = self.legacy.keyboard
        self.dma = DmaController(memory=w.memory)
        self.floppy = FloppyController(
            clock=w.clock,
            irq=self.isa.input(IRQ_FLOPPY, "floppy"),
            dma=self.dma.channels[DMA_FLOPPY],
            disks=[drive.image for drive in w.drives if drive.kind == "floppy"],
        )
        attach = self.ports.attach
        attach(*DMA_FIRST, self.dma.first, width=1)
        attach(*DMA_PAGES, self.dma.pages, width=1)
        attach(*DMA_SECOND, self.dma.second, width=1)
        attach(*FLOPPY, self.floppy, width=1)
        attach(*FLOPPY_RATE_AND_CHANGE, self.floppy.rate_and_change, width=1)

    def _add_pci(self, w: Wiring) -> None:
        self.isa_bridge = PIIX3(irqs=[self.isa.input(irq, "PIRQ") for irq in range(ISA_IRQS)])
        self.pci = PciBus(
            ports=self.ports,
            mmio=self.mmio,
            memory=w.memory,
            msi=self.apic_bus.send_msi,
            intx=self.isa_bridge.set_pin,
        )
        self.reset_control = ResetControl(on_reset=w.on_reset)
        self.config_address = ConfigAddress(reset_control=self.reset_control)
        self.config_data = ConfigData(bus=self.pci, address=self.config_address)
        self.ports.attach(*PCI_CONFIG_ADDRESS, self.config_address, width=4)
        self.ports.attach(*PCI_CONFIG_DATA, self.config_data, width=4)

        self.shadow = w.memory.add_shadow(*SHADOW)
        self.mmio.attach(*SHADOW, self.shadow)
        self.host_bridge = I440FX(shadow=self.shadow)
        self.pci.plug(self.host_bridge, *HOST_BRIDGE)
        self.pci.plug(self.isa_bridge, *ISA_BRIDGE)

    def _add_power(self, w: Wiring) -> None:
        self.power = PowerManagement(
            clock=w.clock,
            sci=self.isa.input(IRQ_SCI, "SCI"),
            on_shutdown=w.on_shutdown,
            timer_bits=32,
        )
        self.smi_command = SmiCommandPort(on_acpi_mode=self.power.set_acpi_mode)
        self.ports.attach(*SMI_COMMAND, self.smi_command, width=1)
        self.power_function = PIIX4PowerManagement(registers=self.power)
        self.pci.plug(self.power_function, *POWER_MANAGEMENT)

    def _add_ide(self, w: Wiring) -> None:
        drives: list[AtaDisk | CdRom] = []
        for number, drive in enumerate(filter(_is_at_ide, w.drives)):
            serial = IDE_SERIAL.format(number)
            if drive.kind == "disk" and drive.image is not None:
                drives.append(
                    AtaDisk(
                        disk=drive.image,
                        serial=serial,
                        clock=w.clock,
                        on_suspend=w.on_suspend,
                        meter=drive.meter,
                    )
                )
            else:
                drives.append(CdRom(disc=drive.image, serial=serial))
        primary, secondary = (self.isa.input(irq, f"IDE {n}") for n, irq in enumerate(IRQ_IDE))
        self.ide = PiixIde(irqs=(primary, secondary), drives=drives)
        self.pci.plug(self.ide, *IDE)

    def _add_display(self, w: Wiring) -> None:
        vram = w.memory.add_region(VIDEO_MEMORY)
        self.display = Vga(clock=w.clock, vram=vram)
        w.memory.add_hole(*VGA_WINDOW)
        self.ports.attach(*VGA, self.display, width=1)
        self.ports.attach(*VBE, self.display.vbe, width=2)
        self.mmio.attach(*VGA_WINDOW, self.display.window)
        self.pci.plug(VgaFunction(vga=self.display, vram=vram, rom=w.vga_bios), *DISPLAY)

    def _add_virtio(self, w: Wiring) -> None:
        for slot, device in enumerate(w.virtio, FIRST_VIRTIO_SLOT):
            function = VirtioPci(device=device, memory=w.memory, clock=w.clock, on_suspend=w.on_suspend)
            self.pci.plug(function, slot)

    def _add_firmware_interfaces(self, w: Wiring) -> None:
        irq = self.isa.input(IRQ_EVENTS, "events")
        self.generation_id = VmGenerationId(identifier=w.generation_id, irq=irq)
        self.mmio.attach(*GENERATION_ID, self.generation_id)
        self.pvpanic = PvPanic(on_panic=lambda _event: w.on_panic())
        self.fw_cfg = FwCfg(memory=w.memory)
        self.ports.attach(*PVPANIC, self.pvpanic, width=1)
        self.ports.attach(*FW_CFG, self.fw_cfg, width=4)
        for name, rom in w.option_roms:
            self.fw_cfg.add_file(OPTION_ROM_FOLDER + name, OptionRom(rom, name).data)
        self.fw_cfg.add_file(BOOT_ORDER_FILE, boot_order(_boot_paths(w.drives)))
        self.fw_cfg.add_file(BOOT_FAIL_FILE, STAY)
        self.legacy.put_cmos(self._cmos(w))

    def _cmos(self, w: Wiring) -> dict[int, tuple[int, int]]:
        """The CMOS bytes that tell firmware about drives, boot order and processors."""
        first, second = (drive.drive_type for drive in self.floppy.drives[:2])
        floppies = sum(drive.present for drive in self.floppy.drives)
        equipment = EQUIPMENT_FPU | EQUIPMENT_MOUSE
        if floppies:
            equipment |= EQUIPMENT_FLOPPIES | (floppies - 1) << EQUIPMENT_DRIVES_SHIFT
        order = [BOOT_DEVICE[kind] for kind in dict.fromkeys(drive.kind for drive in w.drives)]
        order += [0] * (BOOT_CHOICES - len(order))
        return {
            CMOS_FLOPPY_TYPES: (first << 4 | second, 1),
            CMOS_EQUIPMENT: (equipment, 1),
            CMOS_BOOT_FLAGS_1: (order[2] << 4, 1),
            CMOS_BOOT_FLAGS_2: (order[1] << 4 | order[0], 1),
            CMOS_DISK_TRANSLATION: (TRANSLATION_LBA, 1),
            CMOS_PROCESSORS: (len(w.processors) - 1, 1),
        }

    def _name_parts(self, w: Wiring) -> Parts:
        functions = {
            "PCI {}.{}".format(*self.pci.place_of(function)): function
            for function in self.pci
            if function is not self.isa_bridge
        }
        own: dict[str, Stateful] = {
            **self.legacy.parts(),
            "DMA": self.dma,
            "floppy": self.floppy,
            "reset control": self.reset_control,
            "generation ID": self.generation_id,
            "PCI address": self.config_address,
            "power management": self.power,
            "SMI command": self.smi_command,
            "display": self.display,
            "fw_cfg": self.fw_cfg,
            **functions,
        }
        return {
            **own,
            **dict(user_parts(w.devices, self.user_devices, own)),
            "ISA bridge": self.isa_bridge,
            "HPET": self.hpet,
            "interrupt controllers": self.pic,
            "IMCR": self.imcr,
            "I/O APIC": self.io_apic,
            **self.local_apics.parts(),
        }

    def platform(self) -> Platform:
        """The board as its tables describe it, with the ACPI registers where they are now."""
        power = PowerBlock(base=self.power_function.base, sci=IRQ_SCI)
        return replace(self._platform, power=power)

    def _describe(self, w: Wiring) -> Platform:
        serial = [
            IsaDevice(uart.name, "PNP0501", (COM[n],), IRQ_COM[n], uid=n + 1)
            for n, uart in enumerate(self.uarts)
        ]
        return Platform(
            memory_map=w.memory_map,
            power=PowerBlock(sci=IRQ_SCI),
            cpus=len(w.processors),
            local_apic=LOCAL_APIC[0],
            io_apic=IO_APIC[0],
            hpet=HPET[0],
            pci=Pci(pirq=PIRQ_LINES),
            i8042=True,
            vga=True,
            generation_id=GenerationId(GENERATION_ID[0], IRQ_EVENTS),
            isa=(
                IsaDevice("RTC", "PNP0B00", ((0x70, 2),), IRQ_RTC),
                IsaDevice("KBD", "PNP0303", ((0x60, 1), (0x64, 1)), IRQ_KEYBOARD),
                IsaDevice("MOU", "PNP0F13", (), IRQ_MOUSE),
                IsaDevice("FDC0", "PNP0700", ((0x3F2, 4), FLOPPY_RATE_AND_CHANGE), IRQ_FLOPPY, DMA_FLOPPY),
                *serial,
                IsaDevice("PEVT", "QEMU0001", (PVPANIC,)),
                IsaDevice("FWCF", "QEMU0002", (FW_CFG,)),
            ),
            devices=b"".join(device.acpi() for device in self.user_devices if hasattr(device, "acpi")),
        )

    # ---- what the machine asks ----

    def acknowledge(self, processor: int = 0) -> int | None:
        """The interrupt controllers' vector for the interrupt that the processor now takes."""
        return self.local_apics[processor].acknowledge()

    def load_roms(self, roms: Sequence[Piece], programs_chipset: bool) -> None:
        """Below 1 MiB a ROM shares its addresses with RAM; the attribute map says which of the two is seen."""
        for rom in roms:
            if self.shadow.overlaps(rom.gpa, len(rom.data)):
                self.shadow.load_rom(rom.gpa, rom.data)
            else:
                variables = variable_store_size(rom.data)
                if variables and self.flash is None:
                    self._add_flash(rom.gpa, bytes(rom.data[:variables]))
                self.memory.add_rom(rom.gpa + variables, rom.data[variables:])
        self._rom_in_f_segment = any(rom.gpa < BIOS_END and rom.end > F_SEGMENT for rom in roms)
        if not programs_chipset:
            self._set_up_as_firmware()

    def _add_flash(self, gpa: int, initial: bytes) -> None:
        """The chip with UEFI's variables. It has a battery's task: it outlives every reset."""

        def show(content: bytes | None) -> None:
            if content is None:
                self.memory.add_hole(gpa, len(initial))
            else:
                self.memory.add_rom(gpa, content)

        if self._firmware_variables is None:
            flash = Flash(initial, show=show)
        else:
            file = FlashFile(self._firmware_variables, initial)
            flash = Flash(file.data, show=show, store=file.write)
        self.mmio.attach(gpa, len(initial), flash, width=1)
        self.flash = flash
        self._flash_gpa = gpa

    def _set_up_as_firmware(self) -> None:
        """As firmware leaves the board, for guests that boot without one that programs it."""
        start, length = SHADOW
        self.host_bridge.show_ram(start, (F_SEGMENT if self._rom_in_f_segment else start + length) - start)
        pci_setup.assign_addresses(self.pci)
        pci_setup.route_interrupts(self.pci, self.isa_bridge, PIRQ_LINES)
        pci_setup.set_power_base(self.power_function, POWER_BASE, IRQ_SCI)
        self.ide.enable()
        self.pic.elcr.write(ELCR_SLAVE, ELCR_LEVEL, 1)
        self.local_apics[0].set_virtual_wire()
        self.display.set_text_mode()

    def tables(self) -> Sequence[Piece]:
        """ACPI, MP and SMBIOS tables."""
        return table_pieces(self.platform(), self._rom_in_f_segment)

    def press_power_button(self) -> bool:
        """Ask the guest to shut down; whether it listens."""
        return self.power.press_power_button()

    def reset(self) -> None:
        """The reset line: every chip back to its power-on state."""
        reset_chips(self.ports, self.mmio)
        self.pci.reset()
        self.power.reset()
        self.dma.reset()
        self.legacy.reset()

    def save(self) -> SavedState:
        """The state of every chip. Raises SnapshotError."""
        flash = None if self.flash is None else {"gpa": self._flash_gpa, "chip": self.flash.save()}
        return save_parts(_NAME, self._parts) | {"flash": flash}

    def load(self, state: SavedState, /) -> None:
        """Take over what `save` gave, also on a board whose firmware has not been loaded. Raises SnapshotError."""
        with self.pci.gathered():
            load_parts(_NAME, self._parts, state)
        if state.get("flash") is None:
            if self.flash is not None:
                raise SnapshotError(f"{_NAME}: this guest has a flash chip, the saved state has none")
            return
        flash = saved_part(state, _NAME, "flash")
        chip = saved_part(flash, _NAME, "chip")
        if self.flash is None:
            gpa, data = flash.get("gpa"), chip.get("data")
            if not isinstance(gpa, int) or gpa % PAGE_SIZE or not isinstance(data, bytes):
                raise SnapshotError(f"{_NAME}: the saved flash chip has no address or no content")
            try:
                self._add_flash(gpa, data)
            except (UsageError, GuestAddressError) as error:
                raise SnapshotError(f"{_NAME}: the saved flash chip at {gpa:#x}: {error}") from None
        assert self.flash is not None
        self.flash.load(chip)
