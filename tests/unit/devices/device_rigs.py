"""Every chip on a bench: a virtual clock, lines and sinks that keep a log, save and load."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from floppy_fakes import FakeFloppy, FlatRam
from storage_fakes import TrimmingDisk

from emuvisor.bus.clock import VirtualClock
from emuvisor.bus.device import Device, SavedState
from emuvisor.bus.irq import InterruptLine
from emuvisor.devices.a20 import A20Gate
from emuvisor.devices.acpi_pm import PowerManagement, SmiCommandPort
from emuvisor.devices.apic.apic_bus import ApicBus
from emuvisor.devices.apic.io_apic import IoApic
from emuvisor.devices.apic.local_apic import LocalApic
from emuvisor.devices.debug_exit import DebugExit
from emuvisor.devices.debugcon import DebugConsole
from emuvisor.devices.dma import PAGE_REGISTERS, DmaController
from emuvisor.devices.floppy import FloppyController
from emuvisor.devices.fw_cfg import PORT_COUNT as FW_CFG_PORTS
from emuvisor.devices.fw_cfg import FwCfg
from emuvisor.devices.hpet import Hpet
from emuvisor.devices.i8042 import I8042
from emuvisor.devices.imcr import Imcr
from emuvisor.devices.keyboard import Keyboard
from emuvisor.devices.mouse import Mouse
from emuvisor.devices.pic import PicPair
from emuvisor.devices.pit import I8254
from emuvisor.devices.port92 import Port92
from emuvisor.devices.post import PostPort
from emuvisor.devices.pvpanic import PvPanic
from emuvisor.devices.reset_control import ResetControl
from emuvisor.devices.rtc import MC146818
from emuvisor.devices.shutdown import PowerManagementControl, ShutdownPort
from emuvisor.devices.speaker import SpeakerPort
from emuvisor.devices.storage.ide.cdrom import CdRom
from emuvisor.devices.storage.ide.disk import AtaDisk
from emuvisor.devices.storage.ide.piix_ide import PiixIde
from emuvisor.devices.uart import NS16550A
from emuvisor.devices.vm_generation import ID_LENGTH, VmGenerationId

EPOCH = datetime(2024, 2, 29, 23, 59, 58, tzinfo=UTC)
EXTINT_VECTOR = 0x08
"""What the 8259s answer a local APIC's acknowledge cycle with."""

Chips = dict[str, Any]
States = dict[str, SavedState]


class Wires:
    """What surrounds the chips. `levels` are what an interrupt controller has kept of the lines."""

    def __init__(self, now_ns: int = 0, levels: dict[str, bool] | None = None) -> None:
        self.clock = VirtualClock()
        self.clock.skip(now_ns)
        self.log: list[tuple[str, Any]] = []
        self.lines: dict[str, InterruptLine] = {}
        self._levels = levels or {}
        self.memory = FlatRam()
        self.disk = FakeFloppy()
        self.hard_disk = TrimmingDisk(300)

    def line(self, name: str) -> InterruptLine:
        line = InterruptLine(self.call(name), name)
        line.level = self._levels.get(name, False)
        self.lines[name] = line
        return line

    def call(self, name: str) -> Callable[[Any], None]:
        return lambda value: self.log.append((name, value))

    def event(self, name: str) -> Callable[[], None]:
        return lambda: self.log.append((name, None))


@dataclass(frozen=True)
class Kind:
    build: Callable[[Wires], Chips]
    ports: Callable[[Chips], Sequence[tuple[Device, int]]]
    """What the board attaches, with the number of registers."""


def _single(name: str, build: Callable[[Wires], Any], length: int) -> Kind:
    return Kind(
        lambda wires: {name: build(wires)},
        lambda chips: [(chips[name], length)],
    )


def _i8042_wiring(wires: Wires, a20: A20Gate) -> dict[str, Any]:
    return {"irq": wires.line("irq1"), "a20": a20, "on_reset": wires.event("reset")}


def _build_i8042(wires: Wires) -> Chips:
    a20 = A20Gate(wires.call("a20"))
    keyboard = Keyboard()
    controller = I8042(keyboard=keyboard, **_i8042_wiring(wires, a20))
    return {"a20": a20, "keyboard": keyboard, "i8042": controller}


def _build_ps2(wires: Wires) -> Chips:
    a20 = A20Gate(wires.call("a20"))
    keyboard, mouse = Keyboard(), Mouse()
    controller = I8042(
        keyboard=keyboard, mouse=mouse, aux_irq=wires.line("irq12"), **_i8042_wiring(wires, a20)
    )
    return {"a20": a20, "keyboard": keyboard, "mouse": mouse, "i8042": controller}


def _floppy_wiring(wires: Wires, dma: DmaController) -> dict[str, Any]:
    return {
        "clock": wires.clock,
        "irq": wires.line("irq6"),
        "dma": dma.channels[2],
        "disks": [wires.disk, None],
    }


def _build_floppy(wires: Wires) -> Chips:
    dma = DmaController(memory=wires.memory)
    return {"dma": dma, "floppy": FloppyController(**_floppy_wiring(wires, dma))}


def _build_port92(wires: Wires) -> Chips:
    a20 = A20Gate(wires.call("a20"))
    return {"a20": a20, "port92": Port92(a20=a20, on_reset=wires.event("reset"))}


def _build_pit(wires: Wires) -> Chips:
    pit = I8254(clock=wires.clock, irq=wires.line("irq0"))
    return {"pit": pit, "speaker": SpeakerPort(pit=pit)}


def _uart_wiring(wires: Wires) -> dict[str, Any]:
    return {"name": "com1", "clock": wires.clock, "irq": wires.line("irq4"), "sink": wires.call("sent")}


def _apic_wiring(wires: Wires, bus: ApicBus) -> dict[str, Any]:
    return {
        "clock": wires.clock,
        "apic_id": 0,
        "bus": bus,
        "on_intr": wires.line("intr").set,
        "on_nmi": wires.event("nmi"),
        "on_init": wires.event("init"),
        "on_sipi": wires.call("sipi"),
        "extint": lambda: EXTINT_VECTOR,
    }


def _build_apic(wires: Wires) -> Chips:
    bus = ApicBus()
    return {"lapic": LocalApic(**_apic_wiring(wires, bus)), "ioapic": IoApic(bus=bus)}


def _hpet_wiring(wires: Wires) -> dict[str, Any]:
    return {
        "clock": wires.clock,
        "irq0": wires.line("irq0"),
        "irq8": wires.line("irq8"),
        "routes": {gsi: wires.line(f"gsi{gsi}") for gsi in (16, 17)},
        "msi": lambda address, data: wires.log.append(("msi", (address, data))),
    }


def _imcr_wiring(wires: Wires) -> dict[str, Any]:
    return {"direct": wires.line("direct"), "lint0": wires.line("lint0")}


def _pm_wiring(wires: Wires) -> dict[str, Any]:
    return {"clock": wires.clock, "sci": wires.line("sci"), "on_shutdown": wires.event("off")}


def _build_pm(wires: Wires) -> Chips:
    pm = PowerManagement(**_pm_wiring(wires))
    return {"pm": pm, "smi": SmiCommandPort(on_acpi_mode=pm.set_acpi_mode)}


def _ide_wiring(wires: Wires) -> dict[str, Any]:
    drives = [AtaDisk(disk=wires.hard_disk), CdRom(disc=wires.hard_disk), AtaDisk(disk=wires.hard_disk)]
    return {"irqs": (wires.line("irq14"), wires.line("irq15")), "drives": drives}


KINDS: dict[str, Kind] = {
    "pic": Kind(
        lambda wires: {"pic": PicPair(wires.line("intr"))},
        lambda chips: [(chips["pic"].master, 2), (chips["pic"].slave, 2), (chips["pic"].elcr, 2)],
    ),
    "pit": Kind(_build_pit, lambda chips: [(chips["pit"], 4), (chips["speaker"], 1)]),
    "rtc": _single(
        "rtc",
        lambda wires: MC146818(clock=wires.clock, irq=wires.line("irq8"), epoch=EPOCH),
        2,
    ),
    "uart": _single(
        "uart",
        lambda wires: NS16550A(**_uart_wiring(wires)),
        8,
    ),
    "i8042": Kind(
        _build_i8042,
        lambda chips: [(chips["i8042"].data, 1), (chips["i8042"].command, 1)],
    ),
    "ps2": Kind(_build_ps2, lambda chips: [(chips["i8042"].data, 1), (chips["i8042"].command, 1)]),
    "dma": Kind(
        lambda wires: {"dma": DmaController(memory=wires.memory)},
        lambda chips: [
            (chips["dma"].first, 16),
            (chips["dma"].second, 32),
            (chips["dma"].pages, PAGE_REGISTERS),
        ],
    ),
    "floppy": Kind(
        _build_floppy,
        lambda chips: [(chips["floppy"], 6), (chips["floppy"].rate_and_change, 1)],
    ),
    "ide": Kind(
        lambda wires: {"ide": PiixIde(**_ide_wiring(wires))},
        lambda chips: [
            (chips["ide"].channels[0], 8),
            (chips["ide"].channels[1], 8),
            (chips["ide"].channels[0].control_block, 1),
            (chips["ide"].bars[4].device, 16),
        ],
    ),
    "port92": Kind(_build_port92, lambda chips: [(chips["port92"], 1)]),
    "post": _single("post", lambda _: PostPort(), 1),
    "debugcon": _single(
        "debugcon",
        lambda wires: DebugConsole(sink=wires.call("sent")),
        1,
    ),
    "debug_exit": _single(
        "debug_exit",
        lambda wires: DebugExit(on_exit=wires.call("exit")),
        4,
    ),
    "pm1a": _single(
        "pm1a",
        lambda wires: PowerManagementControl(on_shutdown=wires.event("off")),
        2,
    ),
    "shutdown": _single(
        "shutdown",
        lambda wires: ShutdownPort(on_shutdown=wires.event("off")),
        1,
    ),
    "apic": Kind(_build_apic, lambda chips: [(chips["lapic"], 0x400), (chips["ioapic"], 0x50)]),
    "fw_cfg": _single(
        "fw_cfg",
        lambda _: FwCfg(memory=FlatRam()),
        FW_CFG_PORTS,
    ),
    "hpet": _single(
        "hpet",
        lambda wires: Hpet(**_hpet_wiring(wires)),
        0x170,
    ),
    "imcr": _single(
        "imcr",
        lambda wires: Imcr(**_imcr_wiring(wires)),
        2,
    ),
    "acpi_pm": Kind(_build_pm, lambda chips: [(chips["pm"], 64), (chips["smi"], 2)]),
    "pvpanic": _single(
        "pvpanic",
        lambda wires: PvPanic(on_panic=wires.call("panic")),
        1,
    ),
    "vm_generation": _single(
        "vm_generation",
        lambda wires: VmGenerationId(identifier=bytes(range(ID_LENGTH)), irq=wires.line("irq7")),
        ID_LENGTH,
    ),
    "reset_control": _single(
        "reset_control",
        lambda wires: ResetControl(on_reset=wires.event("reset")),
        1,
    ),
}


class Rig:
    """The chips of `kind` on a bench."""

    def __init__(self, kind: str, states: States | None = None, wires: Wires | None = None) -> None:
        self.kind = kind
        self.wires = wires or Wires()
        of_kind = KINDS[kind]
        self.chips = of_kind.build(self.wires)
        self.ports = of_kind.ports(self.chips)
        if states is not None:
            self.load(states)

    def save(self) -> States:
        return {name: chip.save() for name, chip in self.chips.items()}

    def load(self, states: States) -> None:
        for name, chip in self.chips.items():
            chip.load(states[name])

    def restored(self) -> "Rig":
        """The same bench again, from saved state alone; the log goes on."""
        wires = Wires(self.wires.clock.now_ns(), self.levels())
        wires.memory, wires.disk = self.wires.memory, self.wires.disk
        wires.hard_disk = self.wires.hard_disk
        again = Rig(self.kind, self.save(), wires)
        # A gate that is loaded drives its wire, which is a new one here: no event that the guest would notice.
        wires.log[:] = self.wires.log + [event for event in wires.log if event[0] != "a20"]
        return again

    def become(self, other: "Rig") -> None:
        """Take over the state of `other`, a bench of the same kind; the logs of both begin anew."""
        clock = other.wires.clock.save()
        self.wires.memory.bytes[:] = other.wires.memory.bytes
        self.wires.disk.written = dict(other.wires.disk.written)
        self.wires.hard_disk.bytes[:] = other.wires.hard_disk.bytes
        self.wires.clock.load(clock)
        self.load(other.save())
        self.wires.clock.load_timers(clock)
        self.wires.log.clear()
        other.wires.log.clear()

    def levels(self) -> dict[str, bool]:
        return {name: line.level for name, line in self.wires.lines.items()}

    def pass_ns(self, ns: int) -> int:
        """Let time go on at once to `ns` later; returns how many timers fired."""
        self.wires.clock.skip(ns)
        return self.wires.clock.fire_due()

    def run_ns(self, ns: int) -> None:
        """Let time go on from one deadline to the next, as a runner does."""
        clock = self.wires.clock
        end = clock.now_ns() + ns
        while (deadline := clock.next_deadline_ns()) is not None and deadline <= end:
            clock.skip(deadline - clock.now_ns())
            clock.fire_due()
        clock.skip(end - clock.now_ns())

    def logged(self, name: str) -> list[Any]:
        return [value for event, value in self.wires.log if event == name]

    def sent(self) -> bytes:
        return b"".join(self.logged("sent"))

    def level(self, name: str) -> bool:
        return self.wires.lines[name].level
