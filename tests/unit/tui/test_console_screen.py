"""A guest's console, full screen."""

from typing import Any

from fake_source import FakeSource
from screens import KEYS, drive, footer, kept, press, screen_text, settle

from emuvisor.tui.dashboard import Dashboard


def test_the_console() -> None:
    source = FakeSource()

    async def scenario(app: Dashboard, pilot: Any) -> None:
        await press(app, pilot, "enter")
        assert screen_text(app) == kept("console")
        await press(app, pilot, *"ls", "q", "ctrl+c", "tab", "enter", "up", "ctrl+a", "ctrl+a")
        await press(app, pilot, "ctrl+a")
        assert screen_text(app).splitlines()[0] == "Ctrl-A: X leaves, Ctrl-A again is one for the guest"
        await press(app, pilot, "z")  # no command
        assert screen_text(app).splitlines()[0] == " web: console   Ctrl-A X leaves"
        await press(app, pilot, "ctrl+a", "x")
        assert footer(app) == KEYS

    drive(scenario, source, (80, 24))
    typed = [data for what, _, data in source.asked if what == "type"]
    assert typed == [b"l", b"s", b"q", b"\x03", b"\t", b"\r", b"\x1b[A", b"\x01"]


def test_it_looks_while_another_screen_is_on_top() -> None:
    async def scenario(app: Dashboard, pilot: Any) -> None:
        for keys in (("w", "escape"), ("o", "ctrl+a", "x")):
            await press(app, pilot, keys[0])
            for _ in range(12):
                await app.overview.look()
            await press(app, pilot, *keys[1:])
        await app.overview.look()
        await settle(app, pilot)
        assert screen_text(app) == kept("dashboard-80x24")

    drive(scenario, FakeSource(), (80, 24))


def test_what_is_pasted_is_typed() -> None:
    from textual.events import Paste

    source = FakeSource()

    async def scenario(app: Dashboard, pilot: Any) -> None:
        await press(app, pilot, "o")
        app.screen.post_message(Paste("echo ä\n"))
        app.screen.post_message(Paste(""))
        await settle(app, pilot)

    drive(scenario, source)
    assert source.asked == [("type", "web", "echo ä\n".encode())]


def test_the_console_of_a_guest_that_is_gone_or_takes_nothing() -> None:
    source = FakeSource()

    async def scenario(app: Dashboard, pilot: Any) -> None:
        await press(app, pilot, "o")
        source.refusal = "guest 'web' has no serial port"
        await press(app, pilot, "a")
        assert screen_text(app).splitlines()[0] == "guest 'web' has no serial port"
        source.names = ()
        await press(app, pilot, "ctrl+b")
        assert screen_text(app).splitlines()[0] == "there is no guest 'web' any more"
        await press(app, pilot, "ctrl+a", "x")
        await app.overview.look()
        assert footer(app) == KEYS

    drive(scenario, source)
