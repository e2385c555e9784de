"""Guests from start to result, with one keyboard and one screen."""

import os
import select
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from types import TracebackType
from typing import Self

from emuvisor.cli.keyboard import HELP_TEXT, Key, Keyboard
from emuvisor.cli.results import Cut, Result
from emuvisor.cli.screen import Screen
from emuvisor.cli.terminal import raw_terminal
from emuvisor.host import Guest, GuestState, Host
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.outcome import Ending

__all__ = ["Session"]

REFRESH_S = 0.004
"""Output is written at most this often: a guest prints byte by byte."""
FULL_S = 0.02
"""How soon to look again whether the guest took what it was sent."""


class _Wakeup:
    """Lets other threads wake the main one out of `select`."""

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        return self._read

    def set(self) -> None:
        try:
            os.write(self._write, b"!")
        except BlockingIOError:  # full: the main thread is going to wake up anyway
            pass

    def clear(self) -> None:
        try:
            while os.read(self._read, 4096):
                pass
        except BlockingIOError:
            pass


class Session:
    """Runs guests on `host`, what they print on `screen`; `keyboard` types to the only one, if there is one."""

    def __init__(self, host: Host, screen: Screen, keyboard: Keyboard | None = None) -> None:
        self._host = host
        self._screen = screen
        self._keyboard = keyboard
        self._live: list[Guest] = []
        self._results: dict[str, Result] = {}
        self._start = 0.0

    def run(self, configs: Sequence[GuestConfig]) -> list[Result]:
        """Run the guests to their ends; the results in the order of `configs`.

        Raises ImageError and the like for a guest that cannot be started.
        """
        raw = nullcontext()
        with ExitStack() as stack:
            wakeup = stack.enter_context(_Wakeup())
            # Whatever happens, no guest may wait for a screen that nobody writes any more.
            stack.callback(self._host.close)
            self._screen.wake = wakeup.set
            self._host.listeners.append(lambda _event: wakeup.set())
            self._live = [self._create(config) for config in configs]
            if self._keyboard is not None and self._keyboard.terminal:
                print("emuvisor: Ctrl-A X leaves, Ctrl-A H helps", file=sys.stderr)
                stack.enter_context(raw_terminal(self._keyboard.descriptor))
            stack.enter_context(self._screen.outlet.unlimited()) if False else None
            self._start = time.monotonic()
            for guest in self._live:
                guest.start()
            while self._live:
                self._wait(wakeup)
        return [self._results[config.name] for config in configs]
