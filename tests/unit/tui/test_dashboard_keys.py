"""What the dashboard's keys do."""

from pathlib import Path
from typing import Any

import pytest
from fake_source import FakeSource
from screens import KEYS, drive, footer, kept, press, screen_text

from emuvisor.tui.dashboard import Dashboard


def test_pause_and_resume() -> None:
    source = FakeSource()

    async def scenario(app: Dashboard, pilot: Any) -> None:
        await press(app, pilot, "p")
        assert footer(app) == " web is paused"
        assert screen_text(app).splitlines()[5].split()[:2] == ["web", "paused"]
        await press(app, pilot, "r")
        assert footer(app) == " web goes on"
        assert screen_text(app).splitlines()[5].split()[:2] == ["web", "running"]
        await press(app, pilot, "down")
        assert footer(app) == KEYS

    drive(scenario, source)
    assert source.asked == [("pause", "web"), ("resume", "web")]


def test_a_weight_is_asked_for() -> None:
    source = FakeSource()

    async def scenario(app: Dashboard, pilot: Any) -> None:
        await press(app, pilot, "w")
        assert screen_text(app) == kept("weight")
        await press(app, pilot, "end", "backspace", "5", "enter")
        assert footer(app) == " web has weight 205"

    drive(scenario, source, (80, 24))
    assert source.asked == [("weight", "web", 205)]


def test_a_cap_is_asked_for() -> None:
    source = FakeSource()

    async def scenario(app: Dashboard, pilot: Any) -> None:
        await press(app, pilot, "down", "c")  # it has none
        await press(app, pilot, *"12.5%", "enter")
        assert footer(app) == " db has a cap of 12.5 %"

    drive(scenario, source)
    assert source.asked == [("cap", "db", 12.5)]


def test_answers_that_are_none() -> None:
    source = FakeSource()

    async def scenario(app: Dashboard, pilot: Any) -> None:
        for keys, says in (
            (["w", "escape"], KEYS),
            (["w", "ctrl+u", "enter"], KEYS),
            (["w", "ctrl+u", "x", "enter"], " a weight is a whole number, not 'x'"),
            (["c", "ctrl+u", "x", "%", "enter"], " a cap is a number of percent, not 'x%'"),
        ):
            for key in keys:
                await press(app, pilot, key)
            assert footer(app) == says

    drive(scenario, source)
    assert source.asked == []


def test_a_screenshot_is_kept(tmp_path: Path) -> None:
    source = FakeSource()

    async def scenario(app: Dashboard, pilot: Any) -> None:
        await press(app, pilot, "s")
        assert footer(app) == f" {tmp_path}/web-1.png has the screen of web"

    drive(scenario, source, size=(100 + len(str(tmp_path)), 30), folder=tmp_path)
    assert (tmp_path / "web-1.png").read_bytes() == b"a picture"


def test_why_something_is_not_possible_is_said() -> None:
    source = FakeSource()

    async def scenario(app: Dashboard, pilot: Any) -> None:
        for number, keys in enumerate((["p"], ["r"], ["s"], ["w", "enter"], ["c", "enter"])):
            source.refusal = f"guest 'web': {number}\ncannot be"
            for key in keys:
                await press(app, pilot, key)
            assert footer(app) == f" guest 'web': {number} cannot be"

    drive(scenario, source)
    assert source.asked == []


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_leaving(key: str) -> None:
    async def scenario(app: Dashboard, pilot: Any) -> None:
        await pilot.press(key)
        await pilot.pause()
        assert not app.is_running

    drive(scenario, FakeSource())
