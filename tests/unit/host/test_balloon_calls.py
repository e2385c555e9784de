"""What people ask a guest's balloon for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from emuvisor.errors import StateError, UsageError
from emuvisor.host import Guest, Host
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.units import MIB


@pytest.fixture
def host() -> Iterator[Host]:
    with Host(16 * MIB) as host:
        yield host


def make(host: Host, folder: Path, balloon: bool = True) -> Guest:
    path = folder / "spin.bin"
    path.write_bytes(b"\xeb\xfe")
    flat = FlatConfig(path, 0x8000)
    return host.create(GuestConfig(name="g", board="microvm", memory=8 * MIB, balloon=balloon, flat=flat))


def test_without_a_driver(host: Host, tmp_path: Path) -> None:
    guest = make(host, tmp_path)
    with pytest.raises(StateError) as error:
        guest.balloon_statistics()
    assert str(error.value) == f"{guest.balloon.name}: the guest has no driver that gives statistics"
    with pytest.raises(StateError) as error:
        guest.hint_free_pages()
    assert str(error.value) == f"{guest.balloon.name}: the guest has no driver that gives hints"


def test_without_a_balloon(host: Host, tmp_path: Path) -> None:
    guest = make(host, tmp_path, balloon=False)
    for ask in (guest.balloon_statistics, guest.hint_free_pages):
        with pytest.raises(UsageError) as error:
            ask()
        assert str(error.value) == "guest 'g' has no balloon device"


def test_the_last_numbers_are_given_and_new_ones_asked_for(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = make(host, tmp_path)
    asked: list[bool] = []
    monkeypatch.setattr(guest.balloon, "request_statistics", lambda: asked.append(guest.on_pcpu))
    guest.start()
    guest.balloon.statistics = {"free": 5}
    numbers = guest.balloon_statistics()
    assert numbers == {"free": 5}
    assert asked == [False]
    numbers["free"] = 6
    assert guest.balloon.statistics == {"free": 5}, "a copy"


def test_a_wish_is_in_the_log(host: Host, tmp_path: Path) -> None:
    guest = make(host, tmp_path)
    guest.set_balloon(MIB)
    assert [str(decision) for decision in host.memory.log] == [
        "balloon: g: +0 frames: its balloon is to hold 256 pages: somebody asked for 256"
    ]
