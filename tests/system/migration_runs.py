"""Migrations of a Debian guest that writes all the time, each with a random death: of the source's process, of the
target's, of the line between them, or of nobody; at a random time, or where the sides decide. Prints a table; fails
when a guest was lost or doubled that must not be, or counted wrongly.

    python tests/system/migration_runs.py [RUNS] [SEED]
"""

import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from migration_guests import HostProcess, check_console
from migration_line import Line

MODES = ("pre-copy", "post-copy", "hybrid")
VICTIMS = ("nobody", "source", "target", "line")
LOAD_BYTES = 500_000
LATEST_S = 1.5
"""A migration takes about that long, until one has said how long it takes here."""
POINTS = {
    "pre-copy": ("", "switching"),
    "post-copy": ("", "switching", "following"),
    "hybrid": ("", "switching"),
}
"""When somebody dies: at a random time, or when the source has come to a phase."""


@dataclass(frozen=True)
class Result:
    """What became of the guest: "moved", "stayed", "gone with the source" or "gone with the target" where its process
    had it alone, or "lost" (post-copy)."""

    mode: str
    victim: str
    fate: str
    progress: dict[str, Any] | None
    """The source's, unless it was killed."""
    seconds: float = 0.0
    """How long the migration took."""


def run_once(
    source: HostProcess, target: HostProcess, mode: str, victim: str, delay_s: float = 0, *, until: str = ""
) -> Result:
    """Migrate the guest of `source` and let the victim die after `delay_s`, or in the phase `until`; checks that it is
    on one side only, and what it has counted."""
    token = random.randbytes(16).hex()
    with Line(target.do("listen", address="127.0.0.1:0", token=token)["address"]) as line:
        began = time.monotonic()
        source.do("migrate", to=line.address, token=token, options={"mode": mode}, until=until)
        time.sleep(delay_s)
        if victim == "line":
            line.cut()
        elif victim != "nobody":
            (source if victim == "source" else target).kill()
        if victim == "source":
            return Result(mode, victim, _without_source(target, mode), None)
        if until:
            source.do("go_on")
        ended = source.do("migrated")
        seconds = time.monotonic() - began
    phase, progress = ended["progress"]["phase"], ended["progress"]
    if phase == "stayed":
        assert victim in ("target", "line"), ended
        if victim == "line":
            assert _state(target) in ("none", "discarded"), _state(target)
        return Result(mode, victim, _goes_on(source, "stayed"), progress)
    if phase == "lost":
        assert (victim, mode != "pre-copy") == ("target", True), ended
        return Result(mode, victim, "lost", progress)
    assert _state(source) == "none"
    if victim == "target":
        return Result(mode, victim, "gone with the target", progress)
    return Result(mode, victim, _goes_on(target, "moved"), progress, seconds)


def _state(process: HostProcess) -> str:
    guests = process.do("guests")["guests"]
    return str(guests["debian"][0]) if "debian" in guests else "none"


def _without_source(target: HostProcess, mode: str) -> str:
    """The source's process is gone: the target has the guest as a whole, or not at all, or (post-copy) in parts."""
    for _ in range(100):
        state = _state(target)
        if state == "running" and target.do("missing")["missing"] == 0:
            return _goes_on(target, "moved")
        if state == "none":
            return "gone with the source"
        if state == "crashed":
            assert mode != "pre-copy"
            return "lost"
        time.sleep(0.1)
    raise AssertionError(f"the guest is {state} at the target")


def _goes_on(process: HostProcess, fate: str) -> str:
    """It runs there, and has counted rightly."""
    before = check_console(process.do("console")["text"])
    assert process.do("expect", text="tick ")["found"], process.do("guests")
    assert process.do("expect", text="tick ")["found"]
    assert check_console(process.do("console")["text"]) > before
    return fate


def main(runs: int, seed: int) -> None:
    rng = random.Random(seed)
    print(f"{runs} migrations, seed {seed}")
    fates: Counter[tuple[str, str, str]] = Counter()
    downtimes: dict[str, list[float]] = {mode: [] for mode in MODES}
    latest = dict.fromkeys(MODES, LATEST_S)
    source: HostProcess | None = None
    for number in range(runs):
        mode, victim = MODES[number % len(MODES)], VICTIMS[number // len(MODES) % len(VICTIMS)]
        if source is None:
            source = HostProcess()
            source.do("boot", disk="", size=LOAD_BYTES, memory=256)
        target = HostProcess()
        until = "" if victim == "nobody" else rng.choice(POINTS[mode])
        delay_s = 0.0 if until else rng.uniform(0, 1.1 * latest[mode])
        result = run_once(source, target, mode, victim, delay_s, until=until)
        if victim == "nobody":
            latest[mode] = result.seconds
        fates[mode, victim, result.fate] += 1
        if (
            victim == "nobody" and result.progress is not None
        ):  # a line that is cut adds the time until it is back
            downtimes[mode].append(result.progress["downtime_ns"] / 1e6)
        when = f"while {until}" if until else f"after {delay_s:.2f} s"
        print(f"{number:3} {mode:10} {victim:8} {when:16} {result.fate}", flush=True)
        keep = {"moved": target, "stayed": source}.get(result.fate)
        for process in (source, target):
            if process is not keep:
                process.kill()
        source = keep
    if source is not None:
        source.kill()
    print(f"\n{'mode':10} {'victim':8} {'fate':22} runs")
    for (mode, victim, fate), count in sorted(fates.items()):
        print(f"{mode:10} {victim:8} {fate:22} {count}")
    for mode, times in downtimes.items():
        if times:
            ordered = sorted(times)
            print(
                f"{mode}: downtime p50 {ordered[len(ordered) // 2]:.0f} ms, "
                f"p99 {ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]:.0f} ms ({len(ordered)} undisturbed)"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
