"""A console on a terminal."""

import io
import os
import pty
import signal
import threading

import pytest

from emuvisor.cli.attach import End, attach
from emuvisor.cli.keyboard import Keyboard
from emuvisor.errors import StateError
from emuvisor.manager import ConsoleAttachment


@pytest.fixture
def terminal():
    """Both sides of one."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


class Typed:
    """What a guest was sent; it answers in capitals, and is off after an exclamation mark."""

    def __init__(self):
        self.data = b""
        self.closed = False
        self.console = ConsoleAttachment(b"ready ", self.send, self.close)

    def close(self, console):
        self.closed = True

    def send(self, data):
        self.data += data
        self.console.printed(data.upper())
        if b"!" in data:
            self.console.end()


def test_until_the_guest_is_off(terminal, capsys):
    ours, theirs = terminal
    guest, out = Typed(), io.BytesIO()
    os.write(ours, b"ab\x01\x01\x01h!")
    assert attach(guest.console, Keyboard(theirs, True), out, ": the guest is saved") is End.OFF
    assert guest.data == b"ab\x01!"
    assert out.getvalue() == b"ready AB\x01!"
    assert capsys.readouterr().err == (
        "emuvisor: Ctrl-A X leaves, Ctrl-A H helps\n\nCtrl-A X       leave the console: the guest is saved\n"
        "Ctrl-A H       this help\nCtrl-A Ctrl-A  send Ctrl-A to the guest\n"
    )


def test_leaving(terminal):
    ours, theirs = terminal
    guest = Typed()
    os.write(ours, b"a\x01x")
    assert attach(guest.console, Keyboard(theirs, True), io.BytesIO()) is End.LEFT
    assert guest.data == b"a"
    assert guest.closed


def test_a_pipe_that_ends_leaves_the_guest_on():
    read, write = os.pipe()

    class Ending(Typed):
        """It is off some time after it was typed to."""

        def send(self, data):
            super().send(data)
            self.ender = threading.Timer(0.05, self.console.end)
            self.ender.start()

    guest = Ending()
    os.write(write, b"ab")
    os.close(write)
    assert attach(guest.console, Keyboard(read, False), io.BytesIO()) is End.OFF
    os.close(read)
    guest.ender.join()
    assert guest.data == b"ab"


class Full(Typed):
    """A guest that takes nothing at the first `times`."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def send(self, data):
        self.times -= 1
        if self.times >= 0:
            raise StateError("the guest has not taken it")
        super().send(data)


def test_a_pipe_waits_until_the_guest_takes_what_was_typed():
    read, write = os.pipe()
    guest = Full(2)
    os.write(write, b"ab!")
    os.close(write)
    assert attach(guest.console, Keyboard(read, False), io.BytesIO()) is End.OFF
    os.close(read)
    assert guest.data == b"ab!"


def test_a_pipe_waits_until_the_guest_is_off():
    read, write = os.pipe()
    guest = Full(1 << 30)
    os.write(write, b"ab!")
    tried = guest.send

    def send(data):
        guest.console.end()  # it goes meanwhile
        tried(data)

    guest.console = ConsoleAttachment(b"", send, lambda console: None)
    assert attach(guest.console, Keyboard(read, False), io.BytesIO()) is End.OFF
    os.close(write)
    os.close(read)
    assert guest.data == b""


def test_people_are_told_that_the_guest_takes_nothing(terminal, capsys):
    ours, theirs = terminal
    guest = Full(1)
    os.write(ours, b"ab\x01x")
    assert attach(guest.console, Keyboard(theirs, True), io.BytesIO()) is End.LEFT
    assert capsys.readouterr().err.endswith("\nemuvisor: the guest has not taken it\n")
    assert guest.data == b""


def test_nobody_types():
    guest = Typed()
    guest.console.end()
    out = io.BytesIO()
    assert attach(guest.console, None, out) is End.OFF
    assert out.getvalue() == b"ready "


def test_nobody_looks():
    class Gone(io.BytesIO):
        def write(self, data):
            raise BrokenPipeError

    assert attach(Typed().console, None, Gone()) is End.OFF


def test_terminated():
    class Killer(io.BytesIO):
        """Once it is shown something, the console is attached, and a signal does not end the tests."""

        def write(self, data):
            os.kill(os.getpid(), signal.SIGTERM)

    guest = Typed()
    with pytest.raises(SystemExit) as exit:
        attach(guest.console, None, Killer())
    assert exit.value.code == 128 + signal.SIGTERM
    assert guest.closed
