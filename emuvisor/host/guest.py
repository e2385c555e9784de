"""A guest as people handle it: a machine with a name, a state and a life."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from emuvisor.errors import UsageError
from emuvisor.host.states import GuestState, require
from emuvisor.host.statistics import GuestStatistics
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.console import Console
from emuvisor.machine.machine import Machine
from emuvisor.machine.outcome import Outcome

if TYPE_CHECKING:
    from emuvisor.devices.display.screen import Screen
    from emuvisor.devices.display.vga import Vga
    from emuvisor.devices.mouse import Mouse
    from emuvisor.host.host import Host

__all__ = ["Guest"]

_T = TypeVar("_T")

WHEEL_UP, WHEEL_DOWN = 1 << 3, 1 << 4
"""Buttons 4 and 5 of a pointer, as X11 and VNC number them."""
PRESENT = tuple(state for state in GuestState if state is not GuestState.GONE)


class Guest:
    """Made by `Host.create`. Its methods may be called from any thread but the guest's own callbacks.

    An operation in the wrong state raises StateError naming guest, state and what is needed.
    """

    def __init__(self, host: "Host", config: GuestConfig) -> None:
        self.host = host
        self.config = config
        self.name = config.name
        self.machine = Machine(config, host.pool)
        self.state = GuestState.DEFINED
        self.reason = ""
        """Why it is in this state."""
        self.outcome: Outcome | None = None
        """How the last run ended."""
        self.pcpu: int | None = None
        """The pCPU that ran it last."""
        self.on_pcpu = False
        self.on_pcpu_since = 0.0
        """When its slice began (time.monotonic seconds)."""
        self._read_to = 0
        """Where in the console's output the next `expect` starts to look."""
        self.leaving = False
        """Someone waits to take it off its pCPU: it is not queued again."""
        self.wake_at: float | None = None
        """Idle until then (time.monotonic seconds)."""
        self._operating = threading.RLock()
        """One operation at a time, also of those on its screen and keys; taken before the host's lock."""
        self.cpu_ns = 0
        self.waited_ns = 0
        self.queued_at = 0
        self.slices = 0

    # ---- life ----

    def start(self) -> None:
        """Power on. Raises ImageError for what it should boot, OutOfFrames when that does not fit the pool."""
        with self._operating:
            with self.host.lock:
                require(self.name, self.state, (GuestState.DEFINED, GuestState.CRASHED), "start")
            try:
                self.machine.boot()  # without the host's lock: reading an image must not stop the others
            except BaseException:
                self.machine.memory.reset()
                raise
            with self.host.lock:
                self.outcome = None
                self.host.make_runnable(self, "started")

    def pause(self) -> None:
        """Stop it where it is."""
        with self._operating, self.host.lock:
            require(self.name, self.state, (GuestState.RUNNING,), "pause")
            self.host.take_off(self)
            if self.state is GuestState.RUNNING:  # it may have ended meanwhile
                self.host.set_state(self, GuestState.PAUSED, "paused")

    def resume(self) -> None:
        """Let a paused guest go on."""
        with self._operating, self.host.lock:
            require(self.name, self.state, (GuestState.PAUSED,), "resume")
            self.machine.outcome = self.outcome = None
            self.host.make_runnable(self, "resumed")

    def stop(self) -> None:
        """Switch it off at once, as by pulling the plug."""
        with self._operating, self.host.lock:
            require(self.name, self.state, (GuestState.RUNNING, GuestState.PAUSED), "stop")
            self.host.take_off(self)
            if self.state in (GuestState.RUNNING, GuestState.PAUSED):
                self.machine.memory.reset()
                self.host.set_state(self, GuestState.DEFINED, "stopped")

    def reset(self) -> None:
        """Press the reset button."""
        with self._operating:
            with self.host.lock:
                require(self.name, self.state, (GuestState.RUNNING, GuestState.PAUSED), "reset")
                running = self.state is GuestState.RUNNING
                self.host.take_off(self)
            self.machine.reset()
            with self.host.lock:
                self.outcome = None
                if running:
                    self.host.make_runnable(self, "reset")

    def delete(self) -> int:
        """Remove it and give its memory back; returns how many frames became free."""
        with self._operating, self.host.lock:
            if self.state is GuestState.GONE:
                return 0
            self.host.take_off(self)
            return self.host.forget(self)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it does not run any more. False when `timeout_s` passed first."""
        with self.host.lock:
            return self.host.changed.wait_for(lambda: self.state is not GuestState.RUNNING, timeout_s)

    # ---- console ----

    @property
    def console(self) -> Console:
        """The first serial port."""
        return self.machine.console

    @property
    def console_waits(self) -> bool:
        """Whether typed input waits that the guest could take now."""
        uarts = self.machine.board.uarts
        return any(c.has_input and u.room for c, u in zip(self.machine.consoles, uarts, strict=True))

    def type(self, text: str | bytes) -> None:
        """Type `text` on the console."""
        self.console.feed(text.encode() if isinstance(text, str) else text)
        with self.host.lock:
            self.host.wake(self)

    def expect(self, text: str, timeout_s: float = 60, send: str = "") -> bool:
        """Type `send`, then wait until `text` is printed behind what the last `expect` found (behind the present
        end of the output, with `send`). False when `timeout_s` passed or the guest ended first."""
        console = self.console
        pattern = text.encode()
        found = threading.Event()

        def seen() -> None:
            self._read_to = console.written
            found.set()
            with self.host.lock:
                self.host.changed.notify_all()

        if send:
            self._read_to = console.written
        watch = console.watch(pattern, seen)
        end = console.find(pattern, self._read_to)
        if end is not None:
            self._read_to = end
        else:
            if send:
                self.type(send)
            with self.host.lock:
                self.host.changed.wait_for(
                    lambda: found.is_set() or self.state is not GuestState.RUNNING, timeout_s
                )
        console.unwatch(watch)
        return end is not None or found.is_set()

    # ---- screen, keys, mouse, buttons ----

    def screen(self) -> "Screen":
        """What its display shows now. Raises UsageError on a board without one."""
        display: Vga = self._part("display")
        return self._between_runs(display.screen)

    def send_keys(self, *chords: str) -> None:
        """Press and release keys: "ret", "ctrl-alt-delete", "f2"; the names are those of `devices.keymap`.

        Raises UsageError for an unknown key, or on a board without a keyboard.
        """
        self._input("keyboard", lambda keyboard: [keyboard.send_keys(chord) for chord in chords])

    def press(self, key: str, down: bool = True) -> None:
        """Press the key, or release it. Raises UsageError for an unknown one, or on a board without a keyboard."""
        self._input("keyboard", lambda keyboard: keyboard.press(key, down))

    def type_keys(self, text: str) -> None:
        """Type `text` on the keyboard, as `type` does on the serial console. Raises UsageError for a character that
        the US layout does not have, or on a board without a keyboard."""
        self._input("keyboard", lambda keyboard: keyboard.type_text(text))

    def point(self, dx: int, dy: int, buttons: int = 0) -> None:
        """Move the mouse by `dx` to the right and `dy` down, with a bit for each button that is held: left, middle,
        right, and two for a turn of the wheel up and down. Raises UsageError on a board without a mouse."""

        def act(mouse: "Mouse") -> None:
            mouse.move(dx, dy)
            for number in (1, 2, 3):
                mouse.button(number, bool(buttons >> number - 1 & 1))
            if buttons & (WHEEL_UP | WHEEL_DOWN):
                mouse.wheel(1 if buttons & WHEEL_DOWN else -1)

        self._input("mouse", act)

    def press_power_button(self) -> None:
        """Ask the guest's system to shut down, by ACPI. Raises UsageError when nobody in it listens."""
        if not self._between_runs(self.machine.board.press_power_button):
            raise UsageError(f"guest {self.name!r}: nothing listens to the power button")

    def _part(self, name: str) -> Any:
        part = getattr(self.machine.board, name)
        if part is None:
            raise UsageError(f"guest {self.name!r}: the {self.config.board} board has no {name}")
        return part

    def _input(self, device: str, act: Callable[[Any], object]) -> None:
        part = self._part(device)
        self._between_runs(lambda: act(part))

    def _between_runs(self, function: Callable[[], _T]) -> _T:
        """Call `function` while the guest is on no pCPU. Raises StateError for a guest that is gone."""
        with self._operating, self.host.lock:
            require(self.name, self.state, PRESENT, "use")
            return self.host.between_runs(self, function)

    # ---- numbers ----

    def statistics(self) -> GuestStatistics:
        """What it has used so far."""
        machine = self.machine
        return GuestStatistics(
            name=self.name,
            state=self.state,
            reason=self.reason,
            retired=machine.vcpu.work,
            guest_ns=machine.clock.now_ns(),
            cpu_ns=self.cpu_ns,
            waited_ns=self.waited_ns,
            slices=self.slices,
            frames=machine.memory.census(),
            exits=machine.vcpu.counters(),
            console_bytes=sum(console.written for console in machine.consoles),
            last_line=machine.console.last_line if machine.consoles else "",
        )
