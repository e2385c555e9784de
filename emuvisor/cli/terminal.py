"""A terminal in raw mode, for the time of a run, whatever ends it."""

import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["leaving_on_signals", "raw_terminal"]

IFLAG, OFLAG, CFLAG, LFLAG, CC = 0, 1, 2, 3, 6
"""Places in the list of tcgetattr."""

_SIGNAL_EXIT = 128
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def raw_terminal(descriptor: int) -> Iterator[None]:
    """Every key goes through as it is, Ctrl-C included; restores the old mode at the end.

    Output keeps its translation of line ends, as on QEMU's console: firmware often prints bare line feeds.
    While it lasts, SIGTERM and SIGHUP raise SystemExit with 128 + their number. In the main thread only.
    """
    before = termios.tcgetattr(descriptor)
    mode = termios.tcgetattr(descriptor)
    mode[IFLAG] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
        | termios.ICRNL | termios.IXON
    )  # fmt: skip
    mode[OFLAG] |= termios.OPOST
    mode[LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    mode[CFLAG] = mode[CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[CC] = list(before[CC])
    mode[CC][termios.VMIN] = 1
    mode[CC][termios.VTIME] = 0
    with leaving_on_signals():
        try:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, mode)
            yield
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def leaving_on_signals() -> Iterator[None]:
    """While it lasts, SIGTERM and SIGHUP raise SystemExit with 128 + their number. In the main thread only."""
    handlers = {number: signal.signal(number, _leave) for number in _ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(_SIGNAL_EXIT + number)
