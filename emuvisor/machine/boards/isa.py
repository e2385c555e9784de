"""The ISA board: the smallest PC that boots Linux. No PCI, no APIC, no ACPI.

This file is the machine's I/O map; no other knows an address.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from emuvisor.bus.bus import Bus
from emuvisor.bus.clock import Clock
from emuvisor.bus.irq import InterruptLine, SharedLine
from emuvisor.devices.a20 import A20Gate
from emuvisor.devices.biosdisk import PORT_COUNT as BIOS_DISK_PORTS
from emuvisor.devices.biosdisk import BiosDisk
from emuvisor.devices.blockdevice import BlockDevice
from emuvisor.devices.debug_exit import DebugExit
from emuvisor.devices.debugcon import DebugConsole
from emuvisor.devices.i8042 import I8042
from emuvisor.devices.keyboard import Keyboard
from emuvisor.devices.pic import PicPair
from emuvisor.devices.pit import I8254
from emuvisor.devices.port92 import Port92
from emuvisor.devices.post import PostPort
from emuvisor.devices.rtc import MC146818
from emuvisor.devices.shutdown import PowerManagementControl, ShutdownPort
from emuvisor.devices.speaker import SpeakerPort
from emuvisor.devices.uart import NS16550A
from emuvisor.machine.memory_map import MemoryMap
from emuvisor.memory import PhysicalMemory
from emuvisor.units import GIB, KIB, MIB

__all__ = ["IsaBoard", "Wiring"]

# The I/O map: (first port, number of ports)
PIC_MASTER = (0x20, 2)
PIT = (0x40, 4)
I8042_DATA = (0x60, 1)
SPEAKER = (0x61, 1)
I8042_COMMAND = (0x64, 1)
RTC = (0x70, 2)
POST = (0x80, 1)
PORT92 = (0x92, 1)
PIC_SLAVE = (0xA0, 2)
DEBUG_CONSOLE = (0xE9, 1)
DEBUG_EXIT = (0xF4, 4)
COM = ((0x3F8, 8), (0x2F8, 8), (0x3E8, 8), (0x2E8, 8))
FIRMWARE_CONSOLE = (0x402, 1)
ELCR = (0x4D0, 2)
POWER = (0x604, 2)
BIOS_DISK = (0x5100, BIOS_DISK_PORTS)
SHUTDOWN = (0x8900, 1)

# Interrupt lines
IRQ_TIMER = 0
IRQ_KEYBOARD = 1
IRQ_COM = (4, 3, 4, 3)
IRQ_RTC = 8

# CMOS bytes that firmware reads the memory size from (Ralf Brown's list; QEMU and SeaBIOS use them alike)
CMOS_BASE_MEMORY = 0x15  # KiB below 640 KiB, 2 bytes
CMOS_EXTENDED_MEMORY = (0x17, 0x30)  # KiB above 1 MiB, at most 63 MiB, 2 bytes
CMOS_MEMORY_ABOVE_16M = 0x34  # 64 KiB units above 16 MiB, 2 bytes
CMOS_MEMORY_ABOVE_4G = 0x5B  # 64 KiB units above 4 GiB, 3 bytes

PORT_SPACE = 1 << 16
MMIO_SPACE = 1 << 40


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a board's devices are connected to."""

    clock: Clock
    memory: PhysicalMemory
    memory_map: MemoryMap
    epoch: datetime
    serial: Sequence[Callable[[bytes], None]]
    """A sink for each serial port that the board has, at most four."""
    drives: Mapping[int, BlockDevice]
    """Disks by BIOS drive number."""
    on_intr: Callable[[bool], None]
    on_a20: Callable[[bool], None]
    on_reset: Callable[[], None]
    on_shutdown: Callable[[], None]
    on_exit: Callable[[int], None]
    on_debug: Callable[[bytes], None]


class IsaBoard:
    """Which chip sits where, and which wire goes to which pin."""

    def __init__(self, wiring: Wiring) -> None:
        w = wiring
        self.ports = Bus("port", PORT_SPACE)
        self.mmio = Bus("memory", MMIO_SPACE)

        self.pic = PicPair(InterruptLine(w.on_intr, "INTR"))
        irq = self.pic.lines
        self.pit = I8254(clock=w.clock, irq=irq[IRQ_TIMER])
        self.speaker = SpeakerPort(pit=self.pit)
        self.rtc = MC146818(clock=w.clock, irq=irq[IRQ_RTC], epoch=w.epoch)
        self.a20 = A20Gate(w.on_a20)
        self.keyboard = Keyboard()
        self.i8042 = I8042(keyboard=self.keyboard, irq=irq[IRQ_KEYBOARD], a20=self.a20, on_reset=w.on_reset)
        self.port92 = Port92(a20=self.a20, on_reset=w.on_reset)
        self.post = PostPort()
        self.debug_console = DebugConsole(sink=w.on_debug)
        self.debug_exit = DebugExit(on_exit=w.on_exit)
        self.power = PowerManagementControl(on_shutdown=w.on_shutdown)
        self.shutdown = ShutdownPort(on_shutdown=w.on_shutdown)
        self.bios_disk = BiosDisk(w.memory, w.drives)
        self.uarts = self._serial_ports(w)

        attach = self.ports.attach
        attach(*PIC_MASTER, self.pic.master, width=1)
        attach(*PIC_SLAVE, self.pic.slave, width=1)
        attach(*ELCR, self.pic.elcr, width=1)
        attach(*PIT, self.pit, width=1)
        attach(*SPEAKER, self.speaker, width=1)
        attach(*RTC, self.rtc, width=1)
        attach(*I8042_DATA, self.i8042.data, width=1)
        attach(*I8042_COMMAND, self.i8042.command, width=1)
        attach(*PORT92, self.port92, width=1)
        attach(*POST, self.post, width=1)
        attach(*DEBUG_CONSOLE, self.debug_console, width=1)
        attach(*DEBUG_EXIT, self.debug_exit, width=4)
        attach(*POWER, self.power, width=2)
        attach(*SHUTDOWN, self.shutdown, width=1)
        attach(*BIOS_DISK, self.bios_disk, width=4)
        for uart, place in zip(self.uarts, COM, strict=False):
            attach(*place, uart, width=1)
        self._set_cmos(w.memory_map)

    def _serial_ports(self, w: Wiring) -> list[NS16550A]:
        shared = {irq: SharedLine(self.pic.lines[irq]) for irq in set(IRQ_COM)}
        return [
            NS16550A(
                name=f"COM{n + 1}", clock=w.clock, irq=shared[IRQ_COM[n]].input(f"COM{n + 1}"), sink=sink
            )
            for n, sink in enumerate(w.serial)
        ]

    def _set_cmos(self, memory_map: MemoryMap) -> None:
        def put(address: int, value: int, size: int) -> None:
            for i in range(size):
                self.rtc.set_cmos(address + i, value >> 8 * i & 0xFF)

        low = memory_map.low_end
        high = sum(length for base, length in memory_map.blocks if base >= 4 * GIB)
        put(CMOS_BASE_MEMORY, 640, 2)
        for address in CMOS_EXTENDED_MEMORY:
            put(address, min((low - MIB) // KIB, 63 * KIB), 2)
        put(CMOS_MEMORY_ABOVE_16M, min(max(0, low - 16 * MIB) // (64 * KIB), 0xFFFF), 2)
        put(CMOS_MEMORY_ABOVE_4G, high // (64 * KIB), 3)

    def acknowledge(self) -> int:
        """The interrupt controller's answer to the processor's acknowledge cycle: a vector."""
        return self.pic.acknowledge()

    def reset(self) -> None:
        """The reset line: every chip back to its power-on state."""
        seen: set[int] = set()
        for bus in (self.ports, self.mmio):
            for r in bus:
                if id(r.device) not in seen:
                    seen.add(id(r.device))
                    r.device.reset()
        self.pic.reset()
        self.keyboard.reset()
        self.a20.reset()
