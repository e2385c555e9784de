"""The dashboard on a host with guests that compute."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from screens import footer, press, screen_text, settle

from emuvisor.host import Host
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.tui.dashboard import Dashboard
from emuvisor.tui.local import LocalSource
from emuvisor.units import MIB

ENDLESS = b"\xeb\xfe"  # jmp $


def drive(folder: Path, scenario: Callable[[Dashboard, Any, Host], Any]) -> None:
    """Run `scenario` with two guests, busy and light, that share a pCPU."""
    (folder / "endless.bin").write_bytes(ENDLESS)
    flat = FlatConfig(folder / "endless.bin", 0x8000)
    configs = [
        GuestConfig(name=name, memory=4 * MIB, flat=flat, cpu_weight=weight)
        for name, weight in (("busy", 300), ("light", 100))
    ]

    async def main(host: Host) -> None:
        source = LocalSource(host, configs)
        source.start()
        for guest in host.guests.values():
            guest.pause()  # the pilot waits until the process is idle
        app = Dashboard(source, period_s=None)
        async with app.run_test(size=(100, 30)) as pilot:
            await settle(app, pilot)
            await scenario(app, pilot, host)

    with Host(memory=16 * MIB) as host:
        asyncio.run(asyncio.wait_for(main(host), 60))


def rows(app: Dashboard) -> dict[str, dict[str, str]]:
    """The list of guests: by name, its cells by heading."""
    lines = screen_text(app).replace(" %", "%").splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(" guest "))
    headings = lines[at].split()
    return {
        line.split()[0]: dict(zip(headings, line.split(), strict=False)) for line in lines[at + 1 : at + 3]
    }


async def run_until(app: Dashboard, pilot: Any, host: Host, counters: dict[str, Sequence[str]]) -> None:
    """Let the guests run until `counters` of them have grown, and look what that comes to."""

    def now() -> list[int]:
        found = {name: guest.statistics() for name, guest in host.guests.items()}
        return [getattr(found[name], counter) for name in counters for counter in counters[name]]

    await app.overview.look()
    before = now()
    for guest in host.guests.values():
        guest.resume()
    while any(after <= old for old, after in zip(before, now(), strict=True)):
        await asyncio.sleep(0)
    for guest in host.guests.values():
        guest.pause()
    await app.overview.look()
    await settle(app, pilot)


def is_some(cell: str) -> bool:
    return int(cell.removesuffix("%")) > 0


def test_weight_and_cap_are_changed_and_what_comes_of_it_is_shown(tmp_path: Path) -> None:
    async def scenario(app: Dashboard, pilot: Any, host: Host) -> None:
        assert {name: (row["weight"], row["cap"]) for name, row in rows(app).items()} == {
            "busy": ("300", "-"),
            "light": ("100", "-"),
        }
        both = dict.fromkeys(("busy", "light"), ("cpu_ns", "waited_ns", "stolen_ns"))
        while not all(is_some(row[key]) for row in rows(app).values() for key in ("used", "ready", "stolen")):
            await run_until(app, pilot, host, both)
        await press(app, pilot, "w", "ctrl+u", *"500", "enter")
        assert footer(app) == " busy has weight 500"
        await press(app, pilot, "c", *"20", "enter")
        assert footer(app) == " busy has a cap of 20 %"
        claim = host.guests["busy"].cpu_claim
        assert (claim.weight, claim.cap) == (500, 20)
        await app.overview.look()
        assert (rows(app)["busy"]["weight"], rows(app)["busy"]["cap"]) == ("500", "20%")
        while "│capped         0 %" in screen_text(app):
            await run_until(app, pilot, host, {"busy": ("throttled_ns",)})
        assert "│capped " in screen_text(app)
        await press(app, pilot, "c", "ctrl+u", *"100", "enter")
        assert host.guests["busy"].cpu_claim.cap is None
        await press(app, pilot, "w", "ctrl+u", *"0", "enter")
        assert footer(app) == " weight 0 is impossible; it is 1 to 10,000"

    drive(tmp_path, scenario)
