"""A guest's screen, keys, mouse and power button, from other threads than the one that runs it."""

from collections.abc import Iterator
from pathlib import Path

import host_guests as guests
import pytest

from emuvisor.errors import StateError, UsageError
from emuvisor.host import Guest, Host
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.units import MIB

PATIENCE_S = 120
SHOW_KEYS = """
    mov ax, 0xb800
    mov es, ax
    mov word ptr es:[0], 0x0748
    mov dx, 0x3f8
    mov al, 0x52
    out dx, al
a:  in al, 0x64
    test al, 1
    jz a
    in al, 0x60
    out dx, al
    jmp a
"""
"""H on the screen and R on COM1, then every scan code on COM1."""


@pytest.fixture
def host() -> Iterator[Host]:
    with Host(64 * MIB) as host:
        yield host


def make(host: Host, folder: Path, source: str = SHOW_KEYS, **fields: object) -> Guest:
    path = folder / "guest.bin"
    path.write_bytes(guests.asm(source))
    config = GuestConfig(memory=16 * MIB, flat=FlatConfig(path, guests.ADDRESS), **fields)  # type: ignore[arg-type]
    return host.create(config)


def test_the_screen_of_a_guest_that_runs(host: Host, tmp_path: Path) -> None:
    guest = make(host, tmp_path)
    guest.start()
    assert guest.expect("R", PATIENCE_S)
    screen = guest.screen()
    assert screen.text is not None
    assert (screen.text[0], screen.width, screen.height) == ("H", 720, 400)


def test_the_screen_of_a_guest_that_does_not_run(host: Host, tmp_path: Path) -> None:
    screen = make(host, tmp_path).screen()
    assert screen.pixels.shape == (screen.height, screen.width, 3)


def test_what_a_board_does_not_have(host: Host, tmp_path: Path) -> None:
    guest = make(host, tmp_path, board="microvm")
    for action, part in (
        (guest.screen, "display"),
        (lambda: guest.press("KeyA"), "keyboard"),
        (lambda: guest.point(1, 1), "mouse"),
    ):
        with pytest.raises(UsageError) as error:
            action()
        assert str(error.value) == f"guest 'guest': the microvm board has no {part}"


def test_a_power_button_that_nobody_listens_to(host: Host, tmp_path: Path) -> None:
    guest = make(host, tmp_path)
    guest.start()
    with pytest.raises(UsageError) as error:
        guest.press_power_button()
    assert str(error.value) == "guest 'guest': nothing listens to the power button"


def test_a_guest_that_is_gone(host: Host, tmp_path: Path) -> None:
    guest = make(host, tmp_path)
    guest.delete()
    with pytest.raises(StateError) as error:
        guest.screen()
    assert str(error.value).startswith("guest 'guest' is gone; use needs it ")
