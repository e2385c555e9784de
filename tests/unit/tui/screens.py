"""Driving the dashboard by textual's pilot, and what it shows as text."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fake_source import FakeSource

from emuvisor.tui.dashboard import Dashboard

FOLDER = Path(__file__).parent / "screens"

Scenario = Callable[[Dashboard, Any], Awaitable[None]]

KEYS = " p Pause  r Resume  w Weight  c Cap  o Console  s Screenshot  q Quit"


def drive(
    scenario: Scenario, source: FakeSource, size: tuple[int, int] = (100, 30), folder: Path = Path()
) -> None:
    """Run `scenario` with a dashboard that looks at `source` when it is told to, and has once."""

    async def main() -> None:
        app = Dashboard(source, period_s=None, folder=folder)
        async with app.run_test(size=size) as pilot:
            await settle(app, pilot)
            await scenario(app, pilot)

    asyncio.run(main())


async def settle(app: Dashboard, pilot: Any) -> None:
    """Until nothing is under way."""
    await pilot.pause()
    await app.workers.wait_for_complete()
    await pilot.pause()


async def press(app: Dashboard, pilot: Any, *keys: str) -> None:
    await pilot.press(*keys)
    await settle(app, pilot)


def footer(app: Dashboard) -> str:
    return screen_text(app).splitlines()[-1]


def title(app: Dashboard) -> str:
    """Of the panel with the console of the chosen guest."""
    return next(
        line.strip("╭─╮ ")
        for line in screen_text(app).splitlines()[10:]
        if line.startswith("╭") and "CPU" not in line
    )


def screen_text(app: Dashboard) -> str:
    """All lines of the screen that is on top, without the blanks at their ends."""
    strips = app.screen._compositor.render_strips()
    return "".join("".join(segment.text for segment in strip).rstrip() + "\n" for strip in strips)


def kept(name: str) -> str:
    """The screen in the file `name`, which people have looked at."""
    return (FOLDER / f"{name}.txt").read_text()
