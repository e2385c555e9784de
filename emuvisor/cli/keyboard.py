"""What people type, or a pipe holds, on its way to a guest's console."""

import os
import sys
from collections.abc import Iterator
from enum import Enum

__all__ = ["HELP_TEXT", "EscapeKeys", "Key", "Keyboard", "stdin_descriptor"]

PREFIX = 0x01
"""Ctrl-A."""
CHUNK = 4096

HELP_TEXT = """\
Ctrl-A X       leave: switch the guest off
Ctrl-A H       this help
Ctrl-A Ctrl-A  send Ctrl-A to the guest
"""


class Key(Enum):
    """What a key behind the prefix asks for."""

    LEAVE = "x"
    HELP = "h"


class EscapeKeys:
    """Takes the command keys out of what is typed: Ctrl-A and a letter, as on QEMU's console."""

    def __init__(self) -> None:
        self._prefixed = False

    def feed(self, data: bytes) -> Iterator[bytes | Key]:
        """Bytes for the guest and commands, in order. An unknown key behind the prefix is dropped."""
        run = bytearray()
        for byte in data:
            if not self._prefixed:
                if byte == PREFIX:
                    self._prefixed = True
                else:
                    run.append(byte)
                continue
            self._prefixed = False
            if byte == PREFIX:
                run.append(byte)
                continue
            command = next((key for key in Key if key.value == chr(byte).lower()), None)
            if command is not None:
                if run:
                    yield bytes(run)
                    run.clear()
                yield command
        if run:
            yield bytes(run)


class Keyboard:
    """Reads the file `descriptor`; on a `terminal` the command keys work and raw mode is asked for."""

    def __init__(self, descriptor: int, terminal: bool) -> None:
        self.descriptor = descriptor
        self.terminal = terminal
        self.at_end = False
        """Nothing more will come."""
        self._keys = EscapeKeys()

    def read(self) -> list[bytes | Key]:
        """What is there now, to be called when the descriptor is readable."""
        try:
            data = os.read(self.descriptor, CHUNK)
        except OSError:  # a terminal whose other side has gone
            data = b""
        self.at_end = not data
        if not self.terminal:
            return [data] if data else []
        return list(self._keys.feed(data))


def stdin_descriptor() -> int | None:
    """The file descriptor of standard input; None where there is none."""
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # None, no real file, closed
        return None
