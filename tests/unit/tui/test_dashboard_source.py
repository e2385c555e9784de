"""Choosing guests, and what the dashboard does with what its source says."""

import asyncio
from typing import Any

from fake_source import FakeSource
from metrics_samples import host
from screens import drive, footer, press, screen_text, settle, title

from emuvisor.metrics import HostSample
from emuvisor.tui.dashboard import Dashboard


def test_up_and_down_choose_a_guest() -> None:
    async def scenario(app: Dashboard, pilot: Any) -> None:
        assert title(app) == "web: started"
        await press(app, pilot, "down", "down", "down")
        assert title(app) == "old: shutdown: triple fault"
        await press(app, pilot, "up")
        assert title(app) == "build: paused"

    source = FakeSource()
    source.consoles = {}
    drive(scenario, source)


def test_the_chosen_guest_stays_chosen_while_others_come_and_go() -> None:
    source = FakeSource()

    async def scenario(app: Dashboard, pilot: Any) -> None:
        await press(app, pilot, "down", "down")
        source.names = ("new", "db", "build")
        await app.overview.look()
        await press(app, pilot, "p")
        source.names = ("new", "db")  # the chosen one is gone: the one in its place, or the last
        await app.overview.look()
        await press(app, pilot, "p")
        source.names = ()
        await app.overview.look()
        await press(app, pilot, "p")
        assert footer(app) == " there is no guest"

    drive(scenario, source)
    assert source.asked == [("pause", "build"), ("pause", "db")]


def test_warnings_are_shown() -> None:
    source = FakeSource()

    async def scenario(app: Dashboard, pilot: Any) -> None:
        source.waiting = ["first", "/var: 98 % full"]
        await app.overview.look()
        await settle(app, pilot)
        assert footer(app) == " /var: 98 % full"

    drive(scenario, source)


def test_a_host_that_is_gone() -> None:
    source = FakeSource()

    async def scenario(app: Dashboard, pilot: Any) -> None:
        source.refusal = "no host"
        await app.overview.look()
        await settle(app, pilot)
        assert footer(app) == " the host has gone away"

    drive(scenario, source)


def test_a_host_that_is_not_there_yet() -> None:
    source = FakeSource()
    source.refusal = "no host"

    async def scenario(app: Dashboard, pilot: Any) -> None:
        await press(app, pilot, "p")
        assert footer(app) == " there is no guest"
        await pilot.resize_terminal(80, 24)
        source.refusal = ""
        await app.overview.look()
        await press(app, pilot, "down")
        assert title(app) == "db: started"

    drive(scenario, source)


class StillSource(FakeSource):
    """Where nothing changes in what is sampled."""

    def __init__(self, still: HostSample) -> None:
        super().__init__()
        self._still = still

    def sample(self) -> HostSample:
        return self._still


def test_guests_that_wait_for_memory() -> None:
    source = StillSource(host(free=0, starving=2, state="low", overcommit=2.0))

    async def scenario(app: Dashboard, _pilot: Any) -> None:
        assert screen_text(app).splitlines()[2] == (
            " memory ████████████████████ 96M of 96M, low, 2.0x promised; 2 wait for memory"
        )

    drive(scenario, source)


def test_a_guest_that_goes_between_sample_and_console() -> None:
    source = StillSource(FakeSource().sample())

    async def scenario(app: Dashboard, pilot: Any) -> None:
        source.names = ()
        await app.overview.look()
        await settle(app, pilot)
        assert footer(app) == " there is no guest 'web' any more"

    drive(scenario, source)


def test_it_looks_again_and_again_but_not_twice_at_a_time() -> None:
    source = FakeSource()

    async def scenario(app: Dashboard, pilot: Any) -> None:
        app.overview._look_aside()
        await settle(app, pilot)
        assert source.seconds == 2
        app.overview._looking = True
        app.overview._look_aside()
        await settle(app, pilot)
        assert source.seconds == 2

    drive(scenario, source)


def test_it_looks_by_itself() -> None:
    source = FakeSource()

    async def main() -> None:
        app = Dashboard(source, period_s=0.001)
        async with app.run_test() as pilot:
            while source.seconds < 3:
                await pilot.pause()

    asyncio.run(asyncio.wait_for(main(), 60))
