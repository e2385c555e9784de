"""The chips of every board with an ISA bus, at their ports and interrupt lines since the PC AT, and our own ports."""

from collections.abc import Iterable, Mapping, Sequence

from emuvisor.bus.bus import Bus
from emuvisor.bus.device import Stateful
from emuvisor.bus.irq import InterruptLine, SharedLine
from emuvisor.devices.a20 import A20Gate
from emuvisor.devices.debug_exit import DebugExit
from emuvisor.devices.debugcon import DebugConsole
from emuvisor.devices.i8042 import I8042
from emuvisor.devices.keyboard import Keyboard
from emuvisor.devices.mouse import Mouse
from emuvisor.devices.pic import PicPair
from emuvisor.devices.pit import I8254
from emuvisor.devices.port92 import Port92
from emuvisor.devices.post import PostPort
from emuvisor.devices.rtc import MC146818
from emuvisor.devices.shutdown import ShutdownPort
from emuvisor.devices.speaker import SpeakerPort
from emuvisor.devices.storage.biosdisk import PORT_COUNT as BIOS_DISK_PORTS
from emuvisor.devices.uart import NS16550A
from emuvisor.devices.vm_generation import ID_LENGTH
from emuvisor.machine.boards.wiring import Wiring, bios_disk
from emuvisor.machine.memory_map import MemoryMap
from emuvisor.units import GIB, KIB, MIB

__all__ = [
    "COM",
    "GENERATION_ID",
    "IRQ_COM",
    "IRQ_EVENTS",
    "IRQ_KEYBOARD",
    "IRQ_MOUSE",
    "IRQ_RTC",
    "IRQ_TIMER",
    "ISA_IRQS",
    "MMIO_SPACE",
    "PORT_SPACE",
    "IsaLines",
    "LegacyChips",
    "reset_chips",
]

PORT_SPACE = 1 << 16
MMIO_SPACE = 1 << 40
ISA_IRQS = 16

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
BIOS_DISK = (0x5100, BIOS_DISK_PORTS)
SHUTDOWN = (0x8900, 1)

GENERATION_ID = (0xFED5_0000, ID_LENGTH)
"""In the memory map of the boards that have ACPI."""

# Interrupt lines
IRQ_TIMER = 0
IRQ_KEYBOARD = 1
IRQ_COM = (4, 3, 4, 3)
IRQ_EVENTS = 7
"""The first printer port's on old PCs; here the ACPI event device's, on the boards that have ACPI."""
IRQ_RTC = 8
IRQ_MOUSE = 12

# CMOS bytes that firmware reads the memory size from (Ralf Brown's list; QEMU and SeaBIOS use them alike)
CMOS_BASE_MEMORY = 0x15  # KiB below 640 KiB, 2 bytes
CMOS_EXTENDED_MEMORY = (0x17, 0x30)  # KiB above 1 MiB, at most 63 MiB, 2 bytes
CMOS_MEMORY_ABOVE_16M = 0x34  # 64 KiB units above 16 MiB, 2 bytes
CMOS_MEMORY_ABOVE_4G = 0x5B  # 64 KiB units above 4 GiB, 3 bytes


class IsaLines:
    """ISA interrupt lines, each shared by any number of devices. `pins[n]` are the inputs that line n drives."""

    def __init__(self, pins: Sequence[Iterable[InterruptLine]]) -> None:
        self._lines = [SharedLine(self._fan_out(tuple(p), f"ISA IRQ {n}")) for n, p in enumerate(pins)]

    @staticmethod
    def _fan_out(pins: tuple[InterruptLine, ...], name: str) -> InterruptLine:
        def sink(level: bool) -> None:
            for pin in pins:
                pin.set(level)

        return InterruptLine(sink, name)

    def input(self, irq: int, name: str) -> InterruptLine:
        """A wire for one more output that drives line `irq`."""
        return self._lines[irq].input(name)


class LegacyChips:
    """Interrupt controllers, timer, clock, keyboard controller, serial ports, debug ports and BIOS disk, on `ports`.

    `timer` and `clock` are the wires from the interval timer and the real-time clock; every other chip drives a line
    of `isa`. Without a `mouse` the keyboard controller has no second port.
    """

    def __init__(
        self,
        w: Wiring,
        ports: Bus,
        *,
        pic: PicPair,
        isa: IsaLines,
        timer: InterruptLine,
        clock: InterruptLine,
        mouse: Mouse | None = None,
    ) -> None:
        self.pic = pic
        self.pit = I8254(clock=w.clock, irq=timer)
        self.speaker = SpeakerPort(pit=self.pit)
        self.rtc = MC146818(clock=w.clock, irq=clock, epoch=w.epoch)
        self.a20 = A20Gate(w.on_a20)
        self.keyboard = Keyboard()
        self.mouse = mouse
        self.i8042 = I8042(
            keyboard=self.keyboard,
            irq=isa.input(IRQ_KEYBOARD, "keyboard"),
            a20=self.a20,
            on_reset=w.on_reset,
            mouse=mouse,
            aux_irq=isa.input(IRQ_MOUSE, "mouse"),
        )
        self.port92 = Port92(a20=self.a20, on_reset=w.on_reset)
        self.post = PostPort()
        self.debug_console = DebugConsole(sink=w.on_debug)
        self.firmware_console = DebugConsole(sink=w.on_debug)
        self.debug_exit = DebugExit(on_exit=w.on_exit)
        self.shutdown = ShutdownPort(on_shutdown=w.on_shutdown)
        self.bios_disk = bios_disk(w)
        self.uarts = [
            NS16550A(name=f"COM{n + 1}", clock=w.clock, irq=isa.input(IRQ_COM[n], f"COM{n + 1}"), sink=sink)
            for n, sink in enumerate(w.serial)
        ]

        attach = ports.attach
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
        attach(*FIRMWARE_CONSOLE, self.firmware_console, width=1)
        attach(*DEBUG_EXIT, self.debug_exit, width=4)
        attach(*SHUTDOWN, self.shutdown, width=1)
        attach(*BIOS_DISK, self.bios_disk, width=4)
        for uart, place in zip(self.uarts, COM, strict=False):
            attach(*place, uart, width=1)
        self.put_cmos(memory_sizes(w.memory_map))

    def put_cmos(self, content: Mapping[int, tuple[int, int]]) -> None:
        """Set CMOS bytes: address to (value, number of bytes)."""
        for address, (value, size) in content.items():
            for i in range(size):
                self.rtc.set_cmos(address + i, value >> 8 * i & 0xFF)

    def parts(self) -> dict[str, Stateful]:
        """What is to be saved, but the interrupt controllers."""
        mouse = {} if self.mouse is None else {"mouse": self.mouse}
        return {
            "A20 gate": self.a20,
            "keyboard": self.keyboard,
            **mouse,
            "keyboard controller": self.i8042,
            "port 92h": self.port92,
            "interval timer": self.pit,
            "speaker": self.speaker,
            "clock": self.rtc,
            "POST": self.post,
            "shutdown": self.shutdown,
            "BIOS disk": self.bios_disk,
            **{uart.name: uart for uart in self.uarts},
        }

    def reset(self) -> None:
        """What is behind the chips on the bus."""
        self.pic.reset()
        self.keyboard.reset()
        if self.mouse is not None:
            self.mouse.reset()
        self.a20.reset()


def memory_sizes(memory_map: MemoryMap) -> dict[int, tuple[int, int]]:
    """The CMOS bytes that tell how much memory there is."""
    low = memory_map.low_end
    high = sum(length for base, length in memory_map.blocks if base >= 4 * GIB)
    extended = (min((low - MIB) // KIB, 63 * KIB), 2)
    return {
        CMOS_BASE_MEMORY: (640, 2),
        **dict.fromkeys(CMOS_EXTENDED_MEMORY, extended),
        CMOS_MEMORY_ABOVE_16M: (min(max(0, low - 16 * MIB) // (64 * KIB), 0xFFFF), 2),
        CMOS_MEMORY_ABOVE_4G: (high // (64 * KIB), 3),
    }


def reset_chips(*buses: Bus) -> None:
    """Reset every chip on `buses`, each once."""
    chips = {id(attached.device): attached.device for bus in buses for attached in bus}
    for chip in chips.values():
        chip.reset()
