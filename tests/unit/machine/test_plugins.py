"""Devices of the user's: how they are found, and what goes wrong with them."""

import sys
import types
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from emuvisor.errors import ConfigError
from emuvisor.machine.boards import plugins
from emuvisor.machine.boards.plugins import load_device, plug_devices


class Good:
    @classmethod
    def plug(cls, board: Any) -> tuple[type, Any]:
        return cls, board


class Broken:
    @classmethod
    def plug(cls, board: Any) -> None:
        raise KeyError("no such thing")


class NotADevice:
    pass


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    made = types.ModuleType("my_devices")
    for item in (Good, Broken, NotADevice):
        setattr(made, item.__name__, item)
    monkeypatch.setitem(sys.modules, "my_devices", made)
    known = EntryPoints(
        EntryPoint(name, f"my_devices:{target}", plugins.ENTRY_POINTS)
        for name, target in (("good", "Good"), ("gone", "Gone"), ("odd", "NotADevice"))
    )
    monkeypatch.setattr(plugins, "entry_points", known.select)


def test_by_module_and_class() -> None:
    board: Any = object()
    assert plug_devices(board, ["my_devices:Good"]) == [(Good, board)]


def test_by_entry_point() -> None:
    assert load_device("good") is Good


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:X", "cannot import 'no_such_module': No module named 'no_such_module'"),
        (":X", "cannot import '': Empty module name"),
        ("my_devices:Nothing", "module 'my_devices' has no 'Nothing'"),
        ("my_devices:NotADevice", "it has no class method plug(board)"),
        ("odd", "it has no class method plug(board)"),
        ("gone", "its entry point cannot be loaded: module 'my_devices' has no attribute 'Gone'"),
        (
            "unknown",
            "neither module:Class nor an entry point of emuvisor.devices (known: gone, good, odd)",
        ),
    ],
)
def test_what_cannot_be_loaded(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_device(name)
    assert str(caught.value) == f"device {name}: {message}"


def test_without_any_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", EntryPoints().select)
    with pytest.raises(ConfigError) as caught:
        load_device("good")
    assert str(caught.value).endswith("(known: none)")


def test_a_device_that_fails() -> None:
    board: Any = object()
    with pytest.raises(ConfigError) as caught:
        plug_devices(board, ["my_devices:Good", "my_devices:Broken"])
    assert str(caught.value) == "device my_devices:Broken: plug failed: KeyError: 'no such thing'"
