"""Balloons that do what they are asked to, and balloons that do not, by the firmware guest `balloon`: the host gains
what was given, its limit holds, and every guest reads what it wrote."""

import re
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emuvisor import firmware
from emuvisor.host import Guest, GuestState, Host
from emuvisor.host.memory.decisions import Decision
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.host.memory.rungs import BalloonRung, CompressionRung, PauseRung, Rung, SwapRung
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.outcome import Ending
from emuvisor.units import KIB, MIB, PAGE_SIZE

PATIENCE_S = 180
START = 0x100000
LENGTH = 8 * MIB
PAGES = LENGTH // PAGE_SIZE
KEPT = 2 * MIB
STRIDE = 512
ENDLESS = 1 << 40
"""Passes; typing ends the guest."""
WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
HONEST, LIAR, REPEATER, REFUSER, GREEDY, DEAD, KILLED, RELOADED = range(8)
MODES = ("honest", "liar", "repeater", "refuser", "greedy", "dead", "killed", "reloaded")
ENTRY = b"\xea\x00\x00\x00\x08".ljust(16, b"\0")
"""jmp 0800h:0, over the parameter block."""
SLICE = 100_000
"""Short enough that guests and the memory manager take turns."""
PERIOD_S = 0.01
SOFT = 0.04
"""With less of the pool available balloons are inflated."""
VERDICTS = {
    LIAR: r"its balloon lies: it claims \d+ pages, and holds 0",
    REPEATER: r"its balloon lies: it claims \d+ pages, and holds [01]",  # the one page may have been taken back
    REFUSER: r"its balloon does not follow: it was asked for \d+ pages, and holds 0",
    GREEDY: r"its balloon lies: it claims \d+ pages, and holds \d",
    DEAD: r"its balloon does not follow: it was asked for \d+ pages, and holds \d+",
}
"""What the log says of a guest."""

Config = Callable[..., GuestConfig]
RunFirmware = Callable[..., Any]


def block(
    *,
    start: int = START,
    length: int = LENGTH,
    stride: int = STRIDE,
    passes: int = ENDLESS,
    mode: int = 0,
    kept: int = KEPT,
) -> bytes:
    """The guest's parameters."""
    return struct.pack("<6Q", start, length, stride, passes, mode, kept)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """config(name, mode, passes=endless): a guest of 9 MiB with a balloon, which uses 8 MiB and gives up to 6."""

    def make(name: str, mode: int = HONEST, passes: int = ENDLESS) -> GuestConfig:
        path = tmp_path / f"{name}.bin"
        parameters = block(passes=passes, mode=mode).ljust(firmware.PARAMETERS_SIZE, b"\0")
        path.write_bytes(ENTRY + parameters + firmware.image("balloon"))
        flat = FlatConfig(path, firmware.PARAMETERS - len(ENTRY))
        return GuestConfig(name=name, board="microvm", memory=START + LENGTH, balloon=True, flat=flat)

    return make


def checksum(passes: int) -> int:
    """The sum of all words in the pages that are never given."""
    addresses = np.arange(START, START + KEPT, STRIDE, dtype=np.uint64)
    total = 0
    for number in range(1, passes + 1):
        total += int((addresses ^ np.uint64(number * GOLDEN & WORD)).sum(dtype=np.uint64))
    return total & WORD


def check_passed(guest: Guest) -> None:
    """It has found everything as it was, and the sum is the one that it has on any host."""
    assert guest.wait(PATIENCE_S), (guest.state, guest.reason)
    assert guest.outcome is not None, guest.reason
    assert guest.outcome.ending is Ending.POWER_OFF, guest.console.text[-500:]
    found = re.search(
        r"balloon: (\d+) passes, checksum 0x(\w{16})\r?\nballoon: PASS\r?\n$", guest.console.text
    )
    assert found is not None
    assert int(found[2], 16) == checksum(int(found[1]))


def expect(guest: Guest, text: str) -> None:
    """Wait until `guest` prints `text`, from now on."""
    assert guest.expect(text, PATIENCE_S, send=""), (guest.state, guest.reason, guest.console.text[-500:])


# ---- balloons that people set ----


@pytest.mark.parametrize(
    ("mode", "used", "claimed", "ballooned"),
    [
        (HONEST, 1536, 512, 512),
        (LIAR, 2048, 512, 0),
        (REPEATER, 2047, 512, 1),
        (REFUSER, 2048, 0, 0),
        (GREEDY, 2048, 512, 0),
        (DEAD, 1536, 512, 512),
        (KILLED, 2048, None, 0),
        (RELOADED, 1536, 512, 512),
    ],
    ids=MODES,
)
def test_what_each_mode_does(
    config: Config, mode: int, used: int, claimed: int | None, ballooned: int
) -> None:
    with Host(32 * MIB) as host:
        guest = host.create(config("g", mode, passes=2))
        guest.set_balloon(2 * MIB)
        guest.start()
        check_passed(guest)
        say = "" if claimed is None else f", {claimed} of 512 in the balloon"
        reset = "balloon: resets the device with 512 pages in the balloon\n" * (mode in (KILLED, RELOADED))
        assert guest.console.text.replace("\r", "") == (
            f"balloon: 2048 pages from 0x0000000000100000, 512 never given, stride 512, passes 2, mode {MODES[mode]}\n"
            f"balloon: the device is at 0x00000000feb00000\n"
            f"{reset}"
            f"balloon: pass 1: {used} pages read back{say}\n"
            f"balloon: pass 2: {used} pages read back{say}\n"
            f"balloon: 2 passes, checksum {checksum(2):#018x}\n"
            f"balloon: PASS\n"
        )
        assert guest.memory.census()["ballooned"] == ballooned
        assert guest.balloon.actual_pages == (claimed or 0)
        assert guest.balloon.failure is None


def test_the_host_gains_exactly_what_is_given(config: Config) -> None:
    with Host(32 * MIB) as host:
        guest = host.create(config("g"))
        guest.start()
        expect(guest, "2048 pages read back, 0 of 0")
        frames = host.pool.used
        for target, used in ((1, 2047), (300, 1748), (1200, 848), (700, 1348), (0, 2048)):
            guest.set_balloon(target * PAGE_SIZE)
            expect(guest, f": {used} pages read back, {target} of {target} in the balloon")
            guest.pause()
            assert host.pool.used == frames - target
            assert guest.memory.census()["ballooned"] == target
            guest.resume()
        guest.type("q")
        check_passed(guest)
        assert (guest.balloon.pages_inflated, guest.balloon.pages_deflated) == (1200, 1200)
        assert guest.balloon.frames_returned == 1200


def test_what_is_kept_is_never_given(config: Config) -> None:
    with Host(32 * MIB) as host:
        guest = host.create(config("g"))
        guest.start()
        guest.set_balloon(9 * MIB)
        expect(guest, ": 512 pages read back, 1536 of 2304 in the balloon")
        guest.type("q")
        check_passed(guest)


@pytest.mark.parametrize("mode", [HONEST, GREEDY], ids=["honest", "greedy"])
def test_a_target_that_changes_all_the_time(config: Config, mode: int) -> None:
    with Host(32 * MIB) as host:
        guest = host.create(config("g", mode))
        guest.start()
        for target in range(40):
            guest.set_balloon(target * 7919 % 1536 * PAGE_SIZE)
            expect(guest, " pages read back")
        guest.type("q")
        check_passed(guest)
        assert guest.balloon.pages_inflated > 1000
        assert guest.balloon.pages_deflated > 1000


def test_the_reset_button_with_a_full_balloon(config: Config) -> None:
    with Host(32 * MIB) as host:
        guest = host.create(config("g"))
        guest.set_balloon(4 * MIB)
        guest.start()
        for boot in range(4):
            if boot:
                guest.reset()
            expect(guest, "balloon: the device is at ")
            expect(guest, ": 1024 pages read back, 1024 of 1024 in the balloon")
        guest.type("q")
        check_passed(guest)
        assert guest.memory.census()["ballooned"] == 1024


# ---- balloons that the memory manager sets ----


class Watch:
    """Hears every decision of a host's memory manager."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.most = 0
        """The most frames that were in use at a decision."""
        self.heard = threading.Condition()
        self.decisions: list[Decision] = []
        host.memory.log.listeners.append(self._hear)

    def _hear(self, decision: Decision) -> None:
        with self.heard:
            self.most = max(self.most, self.host.pool.used)
            self.decisions.append(decision)
            self.heard.notify_all()

    def expect(self, guest: str, rungs: tuple[str, ...], why: str) -> None:
        """Wait for a decision on `guest`, by one of `rungs`, for a reason that `why` is found in."""

        def is_there() -> bool:
            return any(
                d.guest == guest and d.rung in rungs and d.frames > 0 and re.search(why, d.why)
                for d in self.decisions
            )

        with self.heard:
            assert self.heard.wait_for(is_there, PATIENCE_S), [str(d) for d in self.decisions[-20:]]


def policy(*rungs: Rung, swap: Path | None = None, compression_limit: int | None = None) -> MemoryPolicy:
    return MemoryPolicy(
        rungs=rungs,
        swap=swap,
        compression_limit=compression_limit,
        balloon_virtual_clock=True,
        period_s=PERIOD_S,
        sampling_s=PERIOD_S,
    )


def start(host: Host, config: Config, *modes: int) -> list[Guest]:
    """A guest of each mode, called by it; each has used all of its memory before the next one starts."""
    guests = []
    for number, mode in enumerate(modes):
        guest = host.create(config(f"{MODES[mode]}{number}", mode))
        guest.start()
        expect(guest, "balloon: pass 2:")
        guests.append(guest)
    return guests


def finish(guests: list[Guest]) -> None:
    """End those that run; all have read what they wrote."""
    for guest in guests:
        guest.type("q")
    for guest in guests:
        check_passed(guest)


def two_passes(guest: Guest) -> None:
    """Wait until `guest` has begun and ended a pass."""
    guest.console.searched = guest.console.written
    for _ in range(2):
        expect(guest, "balloon: pass ")


def test_balloons_alone_carry_an_overcommitted_host(config: Config) -> None:
    """Whoever waits for a frame cannot look after its balloon. So that there is always one who runs, the second guest
    comes into its memory step by step."""
    with Host(12 * MIB, slice_work=SLICE, memory_policy=policy(BalloonRung(), PauseRung())) as host:
        watch = Watch(host)
        (first,) = start(host, config, HONEST)
        second = host.create(config("second"))
        second.set_balloon(LENGTH - KEPT)
        second.start()
        for size in range(LENGTH - KEPT, -1, -64 * PAGE_SIZE):
            second.set_balloon(size)
            two_passes(second)
            while host.pool.free < host.pool.limit * SOFT:
                two_passes(first)
        held = sum(guest.memory.census()["ballooned"] for guest in (first, second))
        assert held * PAGE_SIZE >= 2 * LENGTH - 12 * MIB
        finish([second])
        second.delete()
        expect(first, ": 2048 pages read back, 0 of 0 in the balloon")
        finish([first])
        assert {decision.rung for decision in watch.decisions} == {"balloon"}
        assert any(decision.frames < 0 for decision in watch.decisions), "the balloons got smaller again"
        assert watch.most <= host.pool.limit


@pytest.mark.parametrize("mode", VERDICTS, ids=[MODES[mode] for mode in VERDICTS])
def test_a_balloon_that_cheats_beside_an_honest_one(config: Config, tmp_path: Path, mode: int) -> None:
    stores = policy(
        BalloonRung(),
        CompressionRung(),
        SwapRung(),
        PauseRung(),
        swap=tmp_path / "swap",
        compression_limit=128 * KIB,
    )
    with Host(8 * MIB, slice_work=SLICE, memory_policy=stores) as host:
        watch = Watch(host)
        cheat, honest = guests = start(host, config, mode, HONEST)
        watch.expect(cheat.name, ("compression", "swap"), f"; {VERDICTS[mode]}$")
        finish(guests)
        assert watch.most <= host.pool.limit
        named = {d.guest for d in watch.decisions if re.search(r"its balloon (lies|does not follow)", d.why)}
        assert named == {cheat.name}
        gave = [d.frames for d in watch.decisions if d.guest == honest.name and d.rung == "balloon"]
        assert max(gave) > 0


@pytest.mark.parametrize("mode", [KILLED, RELOADED], ids=["killed", "reloaded"])
def test_a_driver_that_goes_away_with_a_full_balloon(config: Config, tmp_path: Path, mode: int) -> None:
    stores = policy(BalloonRung(), SwapRung(), PauseRung(), swap=tmp_path / "swap")
    with Host(8 * MIB, slice_work=SLICE, memory_policy=stores) as host:
        watch = Watch(host)
        gone, honest = guests = start(host, config, mode, HONEST)
        assert "balloon: resets the device with " in gone.console.text
        watch.expect(gone.name, ("swap",) if mode == KILLED else ("balloon",), "gives")
        finish(guests)
        assert watch.most <= host.pool.limit
        assert gone.machine.virtio is not None
        assert (gone.balloon.live, gone.balloon.actual_pages == 0) == (mode == RELOADED, mode == KILLED)
        assert honest.state is GuestState.DEFINED


# ---- parameters ----


TEXTS = {
    "range": "the range must be whole pages between 1 MiB and 4 GiB, and some of them never given",
    "stride": "the stride must be 8 to 4096 bytes",
    "mode": "the mode must be 0 to 7",
}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        pytest.param(block(start=0x1000), "range", id="below 1 MiB"),
        pytest.param(block(start=1 << 32), "range", id="at 4 GiB"),
        pytest.param(block(length=1 << 32), "range", id="past 4 GiB"),
        pytest.param(block(length=LENGTH + 8), "range", id="part of a page"),
        pytest.param(block(start=START + 8), "range", id="inside a page"),
        pytest.param(block(kept=8), "range", id="part of a page kept"),
        pytest.param(block(kept=LENGTH), "range", id="all kept"),
        pytest.param(block(stride=4), "stride", id="stride too small"),
        pytest.param(block(stride=4104), "stride", id="stride too large"),
        pytest.param(block(mode=8), "mode", id="no such mode"),
    ],
)
def test_parameters_that_cannot_be_used(run_firmware: RunFirmware, params: bytes, message: str) -> None:
    result = run_firmware("balloon", params)
    assert (result.output, result.exit, result.code) == (f"balloon: {TEXTS[message]}\n", "debug-exit", 5)
