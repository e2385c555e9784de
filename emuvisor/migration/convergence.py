"""When copying in rounds has an end: a pure function from the rounds so far to what comes next.

Sources: C. Clark et al., "Live Migration of Virtual Machines", NSDI 2005 (the writable working set); QEMU's
docs/devel/migration, auto-converge (throttling from 20 % on, in steps of 10 %).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from emuvisor.migration.options import Options, Round
from emuvisor.units import NS_PER_MS, NS_PER_S, PAGE_SIZE

__all__ = ["MAX_THROTTLE", "Decision", "decide", "expected_downtime_ns"]

FIRST_THROTTLE = 20
THROTTLE_STEP = 10
MAX_THROTTLE = 99
"""Per cent."""
FIXED_NS = 20 * NS_PER_MS
"""What changing over takes without a page: states, disks, an answer."""
FEW_PAGES = 64
"""So many are sent as fast as none."""
FASTEST = 1 << 34
"""Bytes per second that a line is believed to have at most."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What comes next: another round, with this throttle, or the end."""

    stop: bool
    throttle: int


def bandwidth(rounds: Sequence[Round], options: Options) -> float:
    """Bytes per second that the line gives, by the last rounds that say something about it."""
    some = [item for item in rounds if item.bytes >= PAGE_SIZE][-3:]
    measured = sum(item.bytes for item in some) / max(sum(item.ns for item in some), 1) * NS_PER_S
    found = min(measured, FASTEST) if some else FASTEST
    return found if options.bandwidth is None else min(found, options.bandwidth)


def expected_downtime_ns(rounds: Sequence[Round], options: Options) -> int:
    """How long the guest would stand still if it changed over now. Before the first round nobody knows: for ever."""
    if not rounds:
        return 1 << 62
    return FIXED_NS + int(rounds[-1].left * PAGE_SIZE / bandwidth(rounds, options) * NS_PER_S)


def decide(rounds: Sequence[Round], throttle: int, options: Options) -> Decision:
    """What comes after `rounds`, during the last of which `throttle` per cent were taken from the guest."""
    if len(rounds) >= options.max_rounds or (_fits(rounds, options) and not _another_pays(rounds)):
        return Decision(True, throttle)
    if options.throttle and len(rounds) >= 2 and all(_gains_little(item) for item in rounds[-2:]):
        throttle = min(MAX_THROTTLE, throttle + THROTTLE_STEP if throttle else FIRST_THROTTLE)
    return Decision(False, throttle)


def _fits(rounds: Sequence[Round], options: Options) -> bool:
    return expected_downtime_ns(rounds, options) <= options.downtime_ms * NS_PER_MS


def _another_pays(rounds: Sequence[Round]) -> bool:
    """Whether one round more is likely to leave less than half of what is left now: the last one did."""
    last = rounds[-1]
    return last.left > FEW_PAGES and 2 * last.left < last.pages


def _gains_little(item: Round) -> bool:
    """Whether the guest wrote more than half as many pages as were sent meanwhile."""
    return 2 * item.left > item.pages
