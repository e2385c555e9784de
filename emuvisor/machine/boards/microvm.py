"""The microvm board: APICs, hardware-reduced ACPI, serial ports, and virtio by memory-mapped I/O; the 8259s, the timer
and the clock for kernels that want them. No PCI, no display, no keyboard. A kernel finds nothing here to look for or
wait for, so it boots fastest.

This file is the machine's I/O map; the addresses of what all PCs have are in legacy.py.
"""

from collections.abc import Sequence

from emuvisor.bus.bus import Bus
from emuvisor.bus.device import SavedState, Stateful
from emuvisor.bus.irq import InterruptLine, SharedLine
from emuvisor.devices import sleep_control
from emuvisor.devices.apic.apic_bus import ApicBus
from emuvisor.devices.apic.io_apic import IoApic
from emuvisor.devices.debug_exit import DebugExit
from emuvisor.devices.debugcon import DebugConsole
from emuvisor.devices.pic import PicPair
from emuvisor.devices.pit import I8254
from emuvisor.devices.post import PostPort
from emuvisor.devices.rtc import MC146818
from emuvisor.devices.shutdown import PowerManagementControl, ShutdownPort
from emuvisor.devices.speaker import SpeakerPort
from emuvisor.devices.uart import NS16550A
from emuvisor.devices.virtio.mmio import MMIO_SIZE, VirtioMmio
from emuvisor.devices.vm_generation import VmGenerationId
from emuvisor.machine.boards import legacy
from emuvisor.machine.boards.parts import Parts, load_parts, save_parts, user_parts
from emuvisor.machine.boards.plugins import plug_devices
from emuvisor.machine.boards.processors import make_local_apics
from emuvisor.machine.boards.wiring import Wiring, bios_disk
from emuvisor.machine.loaders.boot import Piece
from emuvisor.machine.memory_map import BIOS_END
from emuvisor.machine.tables.install import table_pieces
from emuvisor.machine.tables.platform import (
    GenerationId,
    IsaDevice,
    Platform,
    SleepRegisters,
    VirtioMmioPlace,
)

__all__ = ["MicrovmBoard"]

_NAME = "microvm board"

# The I/O map beyond legacy.py: (first port, number of ports), (address, length)
PM1A_CONTROL = (0x604, 2)
"""Not in the ACPI tables: for guests without ACPI."""
SLEEP_CONTROL = (0x608, sleep_control.PORT_COUNT)
IO_APIC = (0xFEC00000, 0x1000)
LOCAL_APIC = (0xFEE00000, 0x1000)
VIRTIO = (0xFEB00000, MMIO_SIZE)
"""The first virtio device; the others follow."""

VIRTIO_PINS = range(16, 24)
"""I/O APIC pins that no ISA line drives; more devices than pins share them."""
PIN_TIMER = 2
"""The I/O APIC's pin for IRQ 0."""
IRQ_CASCADE = 2
F_SEGMENT = 0xF0000


class MicrovmBoard:
    """Which chip sits where, and which wire goes to which pin."""

    display = None
    keyboard = None
    mouse = None
    pci = None

    def __init__(self, wiring: Wiring) -> None:
        w = wiring
        self.clock = w.clock
        self.memory = w.memory
        self.ports = Bus("port", legacy.PORT_SPACE)
        self.mmio = Bus("memory", legacy.MMIO_SPACE)
        self._rom_in_f_segment = False

        apic_bus = ApicBus()
        self.local_apics = make_local_apics(w, apic_bus, self._acknowledge_pic)
        self.io_apic = IoApic(bus=apic_bus)
        self.pic = PicPair(self.local_apics[0].lint0)
        self.isa = legacy.IsaLines([self._pins(irq) for irq in range(legacy.ISA_IRQS)])

        self.pit = I8254(clock=w.clock, irq=self.isa.input(legacy.IRQ_TIMER, "timer"))
        self.speaker = SpeakerPort(pit=self.pit)
        self.rtc = MC146818(clock=w.clock, irq=self.isa.input(legacy.IRQ_RTC, "RTC"), epoch=w.epoch)
        self.post = PostPort()
        self.debug_console = DebugConsole(sink=w.on_debug)
        self.firmware_console = DebugConsole(sink=w.on_debug)
        self.debug_exit = DebugExit(on_exit=w.on_exit)
        self.power = PowerManagementControl(on_shutdown=w.on_shutdown)
        self.sleep_control = sleep_control.SleepControl(on_shutdown=w.on_shutdown, on_reset=w.on_reset)
        self.shutdown = ShutdownPort(on_shutdown=w.on_shutdown)
        self.bios_disk = bios_disk(w)
        events = self.isa.input(legacy.IRQ_EVENTS, "events")
        self.generation_id = VmGenerationId(identifier=w.generation_id, irq=events)
        self.uarts = [
            NS16550A(
                name=f"COM{n + 1}",
                clock=w.clock,
                irq=self.isa.input(legacy.IRQ_COM[n], f"COM{n + 1}"),
                sink=sink,
            )
            for n, sink in enumerate(w.serial)
        ]

        attach = self.ports.attach
        attach(*legacy.PIC_MASTER, self.pic.master, width=1)
        attach(*legacy.PIC_SLAVE, self.pic.slave, width=1)
        attach(*legacy.ELCR, self.pic.elcr, width=1)
        attach(*legacy.PIT, self.pit, width=1)
        attach(*legacy.SPEAKER, self.speaker, width=1)
        attach(*legacy.RTC, self.rtc, width=1)
        attach(*legacy.POST, self.post, width=1)
        attach(*legacy.DEBUG_CONSOLE, self.debug_console, width=1)
        attach(*legacy.FIRMWARE_CONSOLE, self.firmware_console, width=1)
        attach(*legacy.DEBUG_EXIT, self.debug_exit, width=4)
        attach(*PM1A_CONTROL, self.power, width=2)
        attach(*SLEEP_CONTROL, self.sleep_control, width=1)
        attach(*legacy.BIOS_DISK, self.bios_disk, width=4)
        attach(*legacy.SHUTDOWN, self.shutdown, width=1)
        for uart, place in zip(self.uarts, legacy.COM, strict=False):
            attach(*place, uart, width=1)
        self.mmio.attach(*IO_APIC, self.io_apic, width=4)
        self.mmio.attach(*LOCAL_APIC, self.local_apics, width=4)
        self.mmio.attach(*legacy.GENERATION_ID, self.generation_id)
        for address, (value, size) in legacy.memory_sizes(w.memory_map).items():
            for i in range(size):
                self.rtc.set_cmos(address + i, value >> 8 * i & 0xFF)
        self._transports: list[VirtioMmio] = []
        self.virtio = self._add_virtio(w)
        self.user_devices = plug_devices(self, w.devices)
        self.platform = self._platform(w)
        self._parts = self._name_parts(w)

    def _name_parts(self, w: Wiring) -> Parts:
        own: dict[str, Stateful] = {
            "interval timer": self.pit,
            "speaker": self.speaker,
            "clock": self.rtc,
            "POST": self.post,
            "shutdown": self.shutdown,
            "BIOS disk": self.bios_disk,
            "generation ID": self.generation_id,
            **{uart.name: uart for uart in self.uarts},
            **{f"virtio {number}": transport for number, transport in enumerate(self._transports)},
        }
        return {
            **own,
            **dict(user_parts(w.devices, self.user_devices, own)),
            "interrupt controllers": self.pic,
            "I/O APIC": self.io_apic,
            **self.local_apics.parts(),
        }

    def _add_virtio(self, w: Wiring) -> tuple[VirtioMmioPlace, ...]:
        """Plug the virtio devices in; returns where they are."""
        lines = [SharedLine(self.io_apic.lines[pin]) for pin in VIRTIO_PINS]
        first, length = VIRTIO
        places = []
        for number, device in enumerate(w.virtio):
            which = number % len(lines)
            transport = VirtioMmio(
                device=device,
                memory=w.memory,
                clock=w.clock,
                irq=lines[which].input(device.name),
                on_suspend=w.on_suspend,
            )
            place = VirtioMmioPlace(first + number * length, length, VIRTIO_PINS[which])
            self.mmio.attach(place.address, place.length, transport, width=4)
            self._transports.append(transport)
            places.append(place)
        return tuple(places)

    def _acknowledge_pic(self) -> int:
        return self.pic.acknowledge()

    def _pins(self, irq: int) -> tuple[InterruptLine, ...]:
        """The inputs of both interrupt controllers that ISA interrupt `irq` drives."""
        if irq == IRQ_CASCADE:
            return ()
        pin = PIN_TIMER if irq == legacy.IRQ_TIMER else irq
        return self.pic.lines[irq], self.io_apic.lines[pin]

    def _platform(self, w: Wiring) -> Platform:
        """The board as its tables describe it."""
        serial = tuple(
            IsaDevice(uart.name, "PNP0501", (legacy.COM[n],), legacy.IRQ_COM[n], uid=n + 1)
            for n, uart in enumerate(self.uarts)
        )
        clock = IsaDevice("RTC", "PNP0B00", (legacy.RTC,), legacy.IRQ_RTC)
        first = SLEEP_CONTROL[0]
        return Platform(
            memory_map=w.memory_map,
            power=SleepRegisters(
                control=first + sleep_control.SLEEP_CONTROL,
                status=first + sleep_control.SLEEP_STATUS,
                s5=sleep_control.SLP_TYP_S5,
                reset_port=first + sleep_control.RESET,
                reset_value=sleep_control.RESET_VALUE,
            ),
            cpus=len(w.processors),
            local_apic=LOCAL_APIC[0],
            io_apic=IO_APIC[0],
            isa=(*serial, clock),
            virtio=self.virtio,
            generation_id=GenerationId(legacy.GENERATION_ID[0], legacy.IRQ_EVENTS),
            devices=b"".join(device.acpi() for device in self.user_devices if hasattr(device, "acpi")),
        )

    def acknowledge(self, processor: int = 0) -> int | None:
        """The interrupt controller's vector for the interrupt that the processor now takes."""
        return self.local_apics[processor].acknowledge()

    def load_roms(self, roms: Sequence[Piece], programs_chipset: bool) -> None:
        """ROMs take the place of RAM; the APIC is in virtual wire mode unless firmware cares for it."""
        for rom in roms:
            self.memory.add_rom(rom.gpa, rom.data)
        self._rom_in_f_segment = any(rom.gpa < BIOS_END and rom.end > F_SEGMENT for rom in roms)
        if not programs_chipset:
            self.local_apics[0].set_virtual_wire()

    def tables(self) -> list[Piece]:
        """ACPI, MP and SMBIOS tables."""
        return table_pieces(self.platform, self._rom_in_f_segment)

    def press_power_button(self) -> bool:
        """There is none."""
        return False

    def reset(self) -> None:
        """The reset line: every chip back to its power-on state."""
        legacy.reset_chips(self.ports, self.mmio)
        self.pic.reset()

    def save(self) -> SavedState:
        """The state of every chip. Raises SnapshotError."""
        return save_parts(_NAME, self._parts)

    def load(self, state: SavedState, /) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_parts(_NAME, self._parts, state)
