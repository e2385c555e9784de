"""A guest's console on a terminal."""

import os
import pty
import signal
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emuvisor.cli.keyboard import Keyboard
from emuvisor.cli.results import Cut, Result
from emuvisor.cli.screen import Screen
from emuvisor.cli.session import Session
from emuvisor.cli.terminal import LFLAG, OFLAG, raw_terminal
from emuvisor.host import Guest, Host
from emuvisor.machine import console
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.outcome import Ending
from emuvisor.units import MIB

Capture = pytest.CaptureFixture[str]
BANNER = "emuvisor: Ctrl-A X leaves, Ctrl-A H helps\n"


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The two sides of a pseudo-terminal: what a person has, and what the program has."""
    person, computer = pty.openpty()
    yield person, computer
    os.close(person)
    os.close(computer)


def mode(descriptor: int) -> list[Any]:
    return termios.tcgetattr(descriptor)


def test_raw_mode_gives_every_key_and_keeps_line_ends(terminal: tuple[int, int]) -> None:
    _, computer = terminal
    before = mode(computer)
    with raw_terminal(computer):
        raw = mode(computer)
        assert not raw[LFLAG] & (termios.ICANON | termios.ECHO | termios.ISIG)
        assert raw[OFLAG] & termios.OPOST
        assert raw[OFLAG] & termios.ONLCR
    assert mode(computer) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
def test_the_mode_is_restored_whatever_happens(error: type[BaseException], terminal: tuple[int, int]) -> None:
    before = mode(terminal[1])
    with pytest.raises(error), raw_terminal(terminal[1]):
        raise error
    assert mode(terminal[1]) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_program_in_order(number: signal.Signals, terminal: tuple[int, int]) -> None:
    before, handler = mode(terminal[1]), signal.getsignal(number)
    with pytest.raises(SystemExit) as stop, raw_terminal(terminal[1]):
        signal.raise_signal(number)
    assert stop.value.code == 128 + number
    assert mode(terminal[1]) == before
    assert signal.getsignal(number) is handler


def talk(terminal: tuple[int, int], program: Path, typed: bytes) -> Result:
    """Type at a guest that sends everything back."""
    person, computer = terminal
    os.write(person, typed)
    guest = GuestConfig(memory=16 * MIB, flat=FlatConfig(program, 0x8000), timeout_s=300)
    with Host(32 * MIB) as host:
        (result,) = Session(host, Screen(None, ["guest"]), Keyboard(computer, terminal=True)).run([guest])
    return result


def test_typing(terminal: tuple[int, int], program: Callable[[str], Path], capsys: Capture) -> None:
    before = mode(terminal[1])
    result = talk(terminal, program("echo"), b"a\x01\x01b\x01hc!\n")
    assert (result.ending, result.console) == (Ending.POWER_OFF, "a\x01bc!")
    assert mode(terminal[1]) == before
    assert capsys.readouterr().err == (
        BANNER
        + """
Ctrl-A X       leave: switch the guest off
Ctrl-A H       this help
Ctrl-A Ctrl-A  send Ctrl-A to the guest
"""
    )


def test_people_are_told_that_a_guest_takes_nothing(
    terminal: tuple[int, int],
    program: Callable[[str], Path],
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(console, "MAX_TYPED", 0)
    typed = Guest.type

    def type_twice(guest: Guest, text: bytes) -> None:
        monkeypatch.setattr(guest.console, "pump", lambda receive: False)  # it takes nothing from now on
        typed(guest, text)
        typed(guest, text)

    monkeypatch.setattr(Guest, "type", type_twice)
    person, _ = terminal
    os.write(person, b"a\x01x")
    talk(terminal, program("echo"), b"")
    assert "\nemuvisor: the guest has not taken 1 B that were typed; at most 0 B wait for it\n" in (
        capsys.readouterr().err
    )


def test_leaving(terminal: tuple[int, int], program: Callable[[str], Path], capsys: Capture) -> None:
    before = mode(terminal[1])
    result = talk(terminal, program("endless"), b"\x01x\n")
    assert (result.ending, result.exit_code, result.complaint) == (Cut.LEFT, 0, "")
    assert mode(terminal[1]) == before
    assert capsys.readouterr().err == BANNER + "\nemuvisor: switched off\n"
