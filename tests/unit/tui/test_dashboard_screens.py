"""Whole screens of the dashboard."""

from typing import Any

import pytest
from fake_source import FakeSource
from screens import drive, footer, kept, press, screen_text, settle

from emuvisor.tui.dashboard import Dashboard


@pytest.mark.parametrize("size", [(100, 30), (80, 24), (140, 34)])
def test_the_screen(size: tuple[int, int]) -> None:
    async def scenario(app: Dashboard, pilot: Any) -> None:
        for _ in range(25):
            await app.overview.look()
        await settle(app, pilot)
        assert screen_text(app) == kept(f"dashboard-{size[0]}x{size[1]}")

    drive(scenario, FakeSource(), size)


def test_the_first_look_has_no_rates() -> None:
    async def scenario(app: Dashboard, _pilot: Any) -> None:
        assert screen_text(app) == kept("first-look")

    drive(scenario, FakeSource(("web", "old")), (80, 24))


def test_a_host_without_guests() -> None:
    async def scenario(app: Dashboard, pilot: Any) -> None:
        assert screen_text(app) == kept("no-guests")
        for key in ("p", "w", "o"):
            app.overview._say("")
            await press(app, pilot, key)
            assert footer(app) == " there is no guest"

    drive(scenario, FakeSource(()), (80, 24))


@pytest.mark.parametrize("size", [(1, 1), (20, 5), (60, 12), (79, 20)])
def test_a_small_terminal_does_no_harm(size: tuple[int, int]) -> None:
    async def scenario(app: Dashboard, pilot: Any) -> None:
        await app.overview.look()
        await press(app, pilot, "o", "ctrl+a", "x", "p")
        assert len(screen_text(app).splitlines()) == size[1]

    source = FakeSource()
    drive(scenario, source, size)
    assert source.asked == [("pause", "web")]


def test_the_terminal_changes_its_size() -> None:
    async def scenario(app: Dashboard, pilot: Any) -> None:
        for _ in range(25):
            await app.overview.look()
        await pilot.resize_terminal(80, 24)
        await settle(app, pilot)
        assert screen_text(app) == kept("dashboard-80x24")

    drive(scenario, FakeSource())


def test_names_and_consoles_are_no_markup_and_no_escape_sequences() -> None:
    name = "[red]x[/]\x1b[31m\n\u202e"
    source = FakeSource((name, "["))
    source.consoles[name] = "[bold]a[/bold]\x1b]0;title\x07 \x1b[2Jb\r\nc\x9bd"

    async def scenario(app: Dashboard, pilot: Any) -> None:
        lines = screen_text(app).splitlines()
        assert lines[5][:20] == " [red]x[/]�[… runnin"
        assert lines[6][:20] == " [            runnin"
        assert "\x1b" not in screen_text(app)
        at = next(number for number, line in enumerate(lines) if line.startswith("╭─ [red]x"))
        assert lines[at + 1 : at + 3] == [
            "│[bold]a[/bold] b" + " " * 82 + "│",
            "│c�d" + " " * 95 + "│",
        ]
        for key in ("p", "o"):
            await press(app, pilot, key)
            assert "\x1b" not in screen_text(app)
        assert screen_text(app).splitlines()[0] == " [red]x[/]�[31m �: console   Ctrl-A X leaves"
        await press(app, pilot, "ctrl+a", "x", "w")
        assert "\x1b" not in screen_text(app)
        await press(app, pilot, "escape", "down", "p")
        assert footer(app) == " [ is paused"

    drive(scenario, source)
