"""Guests from start to result, with one keyboard and one screen."""

import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from emuvisor.cli.keyboard import HELP_TEXT, Key, Keyboard
from emuvisor.cli.results import Cut, HostMemory, Result
from emuvisor.cli.screen import Screen
from emuvisor.cli.screen_keys import chords
from emuvisor.cli.terminal import raw_terminal
from emuvisor.errors import StateError
from emuvisor.host import Guest, GuestState, Host
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.outcome import Ending
from emuvisor.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from emuvisor.cli.display_text import TextDisplay

__all__ = ["Session"]

REFRESH_S = 0.004
"""Output is written at most this often: a guest prints byte by byte."""
FRAME_S = 0.1
"""How often a display is drawn."""
SUSPENDED_S = 1.0
"""How long a guest rests whose disk is full, or the like, before it tries again."""
PATIENCE_S = 1.0
"""How long all guests may be paused for want of memory before one is given up: the memory manager looks ten times a
second for what has become free, and lets one guest go on each time."""
BY_HAND = "paused"
"""The reason of a guest that somebody else has paused: it waits for him, not for memory."""
RETRY_S = 0.02
"""How soon to look again whether the guest took what it was sent."""


class _Wakeup:
    """Lets other threads wake the main one out of `select`."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._read

    def set(self) -> None:
        with suppress(BlockingIOError):  # full: the main thread is about to wake up anyway
            os.write(self._write, b"!")

    def clear(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Session:
    """Runs guests on `host` and shows on `screen` what they print; `keyboard` types to the only one.

    With a `display` the only guest's screen is shown there, and `keyboard` is its PC keyboard. `attach` is called with
    each guest before it starts.
    """

    def __init__(
        self,
        host: Host,
        screen: Screen,
        keyboard: Keyboard | None = None,
        display: "TextDisplay | None" = None,
        attach: Callable[[Guest], None] = lambda _guest: None,
        *,
        counts_memory: bool = False,
    ) -> None:
        self._host = host
        self._screen = screen
        self._keyboard = keyboard
        self._display = display
        self._attach = attach
        self._live: list[Guest] = []
        self._results: dict[str, Result] = {}
        self._resting: dict[str, float] = {}
        """Guests that a device suspended, and when they try again."""
        self._hopeless_at: float | None = None
        """All guests wait for memory; then one is given up."""
        self._said: dict[str, str] = {}
        """Why they were, as far as people have been told."""
        self._started = 0.0
        self._counts_memory = counts_memory
        self.host_memory: HostMemory | None = None
        """As it was when the last guest ended, if that is wanted: counting takes modules that else are not needed."""

    def run(self, configs: Sequence[GuestConfig]) -> list[Result]:
        """Run the guests to their ends; the results are in the order of `configs`.

        A guest that ended gives its memory back at once: others may wait for it. Raises ImageError,
        OutOfFrames and the like for a guest that cannot be made or started.
        """
        guests = [self._create(config) for config in configs]
        with self._wakeup() as wakeup, self._raw_keyboard():
            self._started = time.monotonic()
            with self._together(len(guests)):
                for guest in guests:
                    guest.start()
                    self._live.append(guest)
            while self._live:
                self._wait(wakeup)
                self._collect()
        return [self._results[config.name] for config in configs]

    def _together(self, guests: int) -> AbstractContextManager[object]:
        """On the virtual clock several guests start at one moment of it, or else the host's speed would show."""
        return self._host.lock if self._host.clock == "virtual" and guests > 1 else nullcontext()

    def _create(self, config: GuestConfig) -> Guest:
        guest = self._host.create(config)
        listener = self._screen.listener(config.name)
        if listener is not None and guest.machine.consoles:
            guest.console.listeners.append(listener)
        self._attach(guest)
        return guest

    @contextmanager
    def _wakeup(self) -> Iterator[_Wakeup]:
        """Set by every event of the host and by output."""
        wakeup = _Wakeup()

        def heard(_event: object) -> None:
            wakeup.set()

        self._host.listeners.append(heard)
        self._host.warnings.append(lambda text: print(f"emuvisor: {text}", file=sys.stderr))
        self._screen.outlet.wake = wakeup.set
        try:
            yield wakeup
        finally:
            with self._host.lock:
                self._host.listeners.remove(heard)
            self._screen.outlet.close()  # also lets guests go on that wait for room
            wakeup.close()

    @contextmanager
    def _raw_keyboard(self) -> Iterator[None]:
        keyboard = self._keyboard
        if keyboard is None or not keyboard.terminal:
            yield
            return
        print("emuvisor: Ctrl-A X leaves, Ctrl-A H helps", file=sys.stderr)
        with raw_terminal(keyboard.descriptor):
            yield

    def _wait(self, wakeup: _Wakeup) -> None:
        """Wait until something happens, and handle what came from keyboard and guests."""
        ends = [end for guest in self._live if (end := self._deadline(guest)) is not None]
        ends += self._resting.values()
        if self._hopeless_at is not None:
            ends.append(self._hopeless_at)
        timeout = max(0.0, min(ends) - time.monotonic()) if ends else None
        sources: list[_Wakeup | int] = [wakeup]
        keyboard = self._keyboard
        if keyboard is not None and not keyboard.at_end:
            # A terminal is read at once, for the command keys' sake; a pipe when the guest listens.
            if keyboard.terminal or self._display is not None or self._listens(self._live[0]):
                sources.append(keyboard.descriptor)
            else:
                timeout = RETRY_S if timeout is None else min(timeout, RETRY_S)
        if self._display is not None:
            self._display.update(self._live[0].screen())
            timeout = FRAME_S if timeout is None else min(timeout, FRAME_S)
        ready = select.select(sources, (), (), timeout)[0]
        wakeup.clear()
        if keyboard is not None and keyboard.descriptor in ready:
            self._type(keyboard)
        if self._screen.show():
            time.sleep(REFRESH_S)

    @staticmethod
    def _listens(guest: Guest) -> bool:
        """Whether the guest took all so far, and its driver is there: what comes before is lost."""
        return guest.machine.board.uarts[0].terminal_ready and not guest.console.has_input

    def _deadline(self, guest: Guest) -> float | None:
        timeout_s = guest.config.timeout_s
        return None if timeout_s is None else self._started + timeout_s

    def _type(self, keyboard: Keyboard) -> None:
        for item in keyboard.read():
            if item is Key.HELP:
                print(f"\n{HELP_TEXT}", end="", file=sys.stderr)
            elif item is Key.LEAVE:
                for guest in list(self._live):
                    self._cut(guest, Cut.LEFT)
                print("\nemuvisor: switched off", file=sys.stderr)
                return
            elif isinstance(item, bytes) and self._display is None:
                try:
                    self._live[0].type(item)
                except StateError as error:  # it takes nothing
                    print(f"\nemuvisor: {error}", file=sys.stderr)
            elif isinstance(item, bytes):
                self._press(self._live[0], item.decode(errors="ignore"))

    @staticmethod
    def _press(guest: Guest, text: str) -> None:
        for key, chord in chords(text):
            if chord:
                guest.send_keys(key)
            else:
                guest.type_keys(key)

    def _collect(self) -> None:
        """Record what has ended, and end what has no time left, or no memory and nobody to wait for."""
        before = len(self._live)
        now = time.monotonic()
        for guest in list(self._live):
            deadline = self._deadline(guest)
            if guest.state is not GuestState.RUNNING and guest.outcome is not None:
                self._ended(guest)
            elif guest.state is GuestState.DEFINED:  # somebody else has switched it off
                self._record(guest, Cut.LEFT, 0, "")
            elif deadline is not None and now >= deadline:
                self._cut(guest, Cut.TIMEOUT, f"no end after {guest.config.timeout_s:g} s")
        paused = [guest for guest in self._live if guest.state is GuestState.PAUSED and guest.outcome is None]
        starved = [guest for guest in paused if not guest.suspended and guest.reason != BY_HAND]
        for guest in paused:
            if guest.suspended:
                self._rest(guest, now)
        if not (starved and len(starved) == len(self._live) == before):
            self._hopeless_at = None
        elif self._hopeless_at is None:
            self._hopeless_at = now + PATIENCE_S
        if self._hopeless_at is not None and now >= self._hopeless_at:
            self._hopeless_at = None
            guest = starved.pop()
            self._cut(guest, Cut.NO_MEMORY, self._want_of_memory(guest))
        if len(self._live) < before:
            for guest in starved:
                with suppress(StateError):  # the memory manager resumes them, too
                    guest.resume()

    def _want_of_memory(self, guest: Guest) -> str:
        """Why there is no frame for it, and what was tried."""
        memory = guest.memory_statistics()
        if memory.limit is not None and memory.resident > memory.limit - PAGE_SIZE:
            return f"it holds its limit of {format_size(memory.limit)}; --limit gives it more"
        frames = self._host.pool.limit
        taken = f"all {frames} frames of the host ({format_size(frames * PAGE_SIZE)}) are taken"
        gained = {name: n for name, n in self._host.memory.log.gained.items() if n > 0}
        tried = ", ".join(f"{count} by {name}" for name, count in gained.items())
        return f"{taken}{f' (frames gained: {tried})' if tried else ''}; --pool gives it more"

    def _rest(self, guest: Guest, now: float) -> None:
        """Say why a device suspended the guest, once for each reason, and let it try again after a while."""
        if self._said.get(guest.name) != guest.reason:
            self._said[guest.name] = guest.reason
            print(f"emuvisor: {guest.name}: paused: {guest.reason}", file=sys.stderr)
        if now >= self._resting.setdefault(guest.name, now + SUSPENDED_S):
            del self._resting[guest.name]
            guest.resume()

    def _cut(self, guest: Guest, why: Cut, message: str = "") -> None:
        """End a guest that has not ended by itself."""
        with self._screen.outlet.unlimited(), suppress(StateError):  # it may end meanwhile, or starve
            guest.pause()
        if guest.outcome is None:
            self._record(guest, why, 0, message)
        else:
            self._ended(guest)

    def _ended(self, guest: Guest) -> None:
        assert guest.outcome is not None
        self._record(guest, guest.outcome.ending, guest.outcome.code, guest.outcome.message)

    def _record(self, guest: Guest, ending: Ending | Cut, code: int, message: str) -> None:
        self._screen.finish(guest.name)
        self._results[guest.name] = Result(
            name=guest.name,
            ending=ending,
            code=code,
            message=message,
            seconds=time.monotonic() - self._started,
            statistics=guest.statistics(),
            memory=guest.memory_statistics(),
            console=guest.console.text if guest.machine.consoles else "",
        )
        if self._counts_memory:
            memory = self._host.memory
            self.host_memory = HostMemory(memory.statistics(), dict(memory.log.gained))
        self._live.remove(guest)
        self._resting.pop(guest.name, None)
        guest.delete()
