"""Every chip on a bench: a virtual clock, lines and sinks that keep a log, save and restore."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from emuvisor.bus.clock import VirtualClock
from emuvisor.bus.device import Device, SavedState
from emuvisor.bus.irq import InterruptLine
from emuvisor.devices.a20 import A20Gate
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

EPOCH = datetime(2024, 2, 29, 23, 59, 58, tzinfo=UTC)

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
    restore: Callable[[States, Wires], Chips]
    ports: Callable[[Chips], Sequence[tuple[Device, int]]]
    """What the board attaches, with the number of registers."""


def _single(name: str, build: Callable[[Wires], Any], restore: Any, length: int) -> Kind:
    return Kind(
        lambda wires: {name: build(wires)},
        lambda states, wires: {name: restore(states[name], wires)},
        lambda chips: [(chips[name], length)],
    )


def _build_i8042(wires: Wires) -> Chips:
    a20 = A20Gate(wires.call("a20"))
    keyboard = Keyboard()
    controller = I8042(keyboard=keyboard, irq=wires.line("irq1"), a20=a20, on_reset=wires.event("reset"))
    return {"a20": a20, "keyboard": keyboard, "i8042": controller}


def _restore_i8042(states: States, wires: Wires) -> Chips:
    a20 = A20Gate.restore(states["a20"], on_change=wires.call("a20"))
    keyboard = Keyboard.restore(states["keyboard"])
    controller = I8042.restore(
        states["i8042"], keyboard=keyboard, irq=wires.line("irq1"), a20=a20, on_reset=wires.event("reset")
    )
    return {"a20": a20, "keyboard": keyboard, "i8042": controller}


def _build_port92(wires: Wires) -> Chips:
    a20 = A20Gate(wires.call("a20"))
    return {"a20": a20, "port92": Port92(a20=a20, on_reset=wires.event("reset"))}


def _restore_port92(states: States, wires: Wires) -> Chips:
    a20 = A20Gate.restore(states["a20"], on_change=wires.call("a20"))
    return {"a20": a20, "port92": Port92.restore(states["port92"], a20=a20, on_reset=wires.event("reset"))}


def _build_pit(wires: Wires) -> Chips:
    pit = I8254(clock=wires.clock, irq=wires.line("irq0"))
    return {"pit": pit, "speaker": SpeakerPort(pit=pit)}


def _restore_pit(states: States, wires: Wires) -> Chips:
    pit = I8254.restore(states["pit"], clock=wires.clock, irq=wires.line("irq0"))
    return {"pit": pit, "speaker": SpeakerPort.restore(states["speaker"], pit=pit)}


def _uart_wiring(wires: Wires) -> dict[str, Any]:
    return {"name": "com1", "clock": wires.clock, "irq": wires.line("irq4"), "sink": wires.call("sent")}


KINDS: dict[str, Kind] = {
    "pic": Kind(
        lambda wires: {"pic": PicPair(wires.line("intr"))},
        lambda states, wires: {"pic": PicPair.restore(states["pic"], intr=wires.line("intr"))},
        lambda chips: [(chips["pic"].master, 2), (chips["pic"].slave, 2), (chips["pic"].elcr, 2)],
    ),
    "pit": Kind(_build_pit, _restore_pit, lambda chips: [(chips["pit"], 4), (chips["speaker"], 1)]),
    "rtc": _single(
        "rtc",
        lambda wires: MC146818(clock=wires.clock, irq=wires.line("irq8"), epoch=EPOCH),
        lambda state, wires: MC146818.restore(state, clock=wires.clock, irq=wires.line("irq8")),
        2,
    ),
    "uart": _single(
        "uart",
        lambda wires: NS16550A(**_uart_wiring(wires)),
        lambda state, wires: NS16550A.restore(state, **_uart_wiring(wires)),
        8,
    ),
    "i8042": Kind(
        _build_i8042,
        _restore_i8042,
        lambda chips: [(chips["i8042"].data, 1), (chips["i8042"].command, 1)],
    ),
    "port92": Kind(_build_port92, _restore_port92, lambda chips: [(chips["port92"], 1)]),
    "post": _single("post", lambda _: PostPort(), lambda state, _: PostPort.restore(state), 1),
    "debugcon": _single(
        "debugcon",
        lambda wires: DebugConsole(sink=wires.call("sent")),
        lambda state, wires: DebugConsole.restore(state, sink=wires.call("sent")),
        1,
    ),
    "debug_exit": _single(
        "debug_exit",
        lambda wires: DebugExit(on_exit=wires.call("exit")),
        lambda state, wires: DebugExit.restore(state, on_exit=wires.call("exit")),
        4,
    ),
    "pm1a": _single(
        "pm1a",
        lambda wires: PowerManagementControl(on_shutdown=wires.event("off")),
        lambda state, wires: PowerManagementControl.restore(state, on_shutdown=wires.event("off")),
        2,
    ),
    "shutdown": _single(
        "shutdown",
        lambda wires: ShutdownPort(on_shutdown=wires.event("off")),
        lambda state, wires: ShutdownPort.restore(state, on_shutdown=wires.event("off")),
        1,
    ),
}


class Rig:
    """The chips of `kind` on a bench."""

    def __init__(self, kind: str, states: States | None = None, wires: Wires | None = None) -> None:
        self.kind = kind
        self.wires = wires or Wires()
        of_kind = KINDS[kind]
        self.chips = of_kind.build(self.wires) if states is None else of_kind.restore(states, self.wires)
        self.ports = of_kind.ports(self.chips)

    def save(self) -> States:
        return {name: chip.save() for name, chip in self.chips.items()}

    def restored(self) -> "Rig":
        """The same bench again, from saved state alone; the log goes on."""
        levels = {name: line.level for name, line in self.wires.lines.items()}
        wires = Wires(self.wires.clock.now_ns(), levels)
        again = Rig(self.kind, self.save(), wires)
        wires.log[:0] = self.wires.log
        return again

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
