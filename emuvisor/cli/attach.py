"""A console of a guest on this terminal."""

import os
import select
import sys
import threading
from contextlib import ExitStack, suppress
from enum import Enum
from typing import BinaryIO, Protocol

from emuvisor.cli.keyboard import Key, Keyboard
from emuvisor.cli.terminal import leaving_on_signals, raw_terminal
from emuvisor.errors import StateError

__all__ = ["Attached", "End", "attach"]

READ_S = 0.5
"""How often one who waits for output looks whether it is to end."""
ROOM_S = 0.05
"""How often a pipe tries whether the guest has taken what was typed."""
HELP_TEXT = """\
Ctrl-A X       leave the console{left}
Ctrl-A H       this help
Ctrl-A Ctrl-A  send Ctrl-A to the guest
"""


class Attached(Protocol):
    """A console that is somebody's to use, here or by way of the daemon."""

    @property
    def at_end(self) -> bool:
        """The guest is off, or one has left."""
        ...

    def read(self, timeout_s: float | None = None) -> bytes:
        """What it printed since; nothing when `timeout_s` passed, or at the end."""
        ...

    def write(self, data: bytes) -> None:
        """Type `data`. Raises StateError when the guest has not taken what was typed before."""
        ...

    def close(self) -> None:
        """Leave it."""
        ...


class End(Enum):
    """Why one is no longer at a console."""

    LEFT = "left"
    OFF = "off"
    """The guest is."""


def attach(console: Attached, keyboard: Keyboard | None, output: BinaryIO, left: str = "") -> End:
    """Show what `console` prints on `output`, and type what comes from `keyboard`, until somebody leaves by Ctrl-A X or
    the guest is off. `left` says in the help what leaving does. It closes the console."""
    ready, wake = os.pipe()
    leaving = threading.Event()
    printer = threading.Thread(
        target=_print, args=(console, output, leaving, wake), name="console", daemon=True
    )

    def leave() -> None:
        leaving.set()
        console.close()
        if printer.is_alive():
            printer.join()

    with ExitStack() as undo:
        undo.callback(os.close, ready)
        undo.enter_context(leaving_on_signals())
        if keyboard is not None and keyboard.terminal:
            print("emuvisor: Ctrl-A X leaves, Ctrl-A H helps", file=sys.stderr)
            undo.enter_context(raw_terminal(keyboard.descriptor))
        undo.callback(leave)  # before the start: a signal may come while it starts
        printer.start()
        return _type(console, keyboard, ready, HELP_TEXT.format(left=left))


def _print(console: Attached, output: BinaryIO, leaving: threading.Event, wake: int) -> None:
    """The thread that shows what is printed. It closes the pipe `wake` when it ends."""
    try:
        with suppress(BrokenPipeError):  # nobody looks any more
            while not leaving.is_set() and not console.at_end:
                if data := console.read(READ_S):
                    output.write(data)
                    output.flush()
    finally:
        os.close(wake)


def _type(console: Attached, keyboard: Keyboard | None, ready: int, help_text: str) -> End:
    while True:
        sources = [ready] if keyboard is None or keyboard.at_end else [ready, keyboard.descriptor]
        found = select.select(sources, (), ())[0]
        if ready in found:
            return End.OFF
        assert keyboard is not None
        for item in keyboard.read():
            if item is Key.LEAVE:
                return End.LEFT
            if item is Key.HELP:
                print(f"\n{help_text}", end="", file=sys.stderr)
            elif isinstance(item, bytes):
                _write(console, item, keyboard.terminal, ready)


def _write(console: Attached, data: bytes, terminal: bool, ready: int) -> None:
    """Type `data`. When the guest has not taken what was typed before, people are told so, and a pipe waits, until
    `ready` ends."""
    while True:
        try:
            return console.write(data)
        except StateError as error:
            if terminal:
                return print(f"\nemuvisor: {error}", file=sys.stderr)
        if select.select([ready], (), (), ROOM_S)[0]:
            return None
