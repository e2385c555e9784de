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
"""What changing over takes without a page, and without what the target says that it needs: states, an answer."""
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


def expected_downtime_ns(rounds: Sequence[Round], options: Options, load_ns: int = 0) -> int:
    """How long the guest would stand still if it changed over now, `load_ns` of it because the target builds it. Before
    the first round nobody knows: for ever."""
    if not rounds:
        return 1 << 62
    left = rounds[-1].left * PAGE_SIZE + rounds[-1].disk_left
    return FIXED_NS + load_ns + int(left / bandwidth(rounds, options) * NS_PER_S)


def decide(rounds: Sequence[Round], throttle: int, options: Options, load_ns: int = 0) -> Decision:
    """What comes after `rounds`, during the last of which `throttle` per cent were taken from the guest; `load_ns` is
    what the target will take to build it. No round makes that less, so it counts as half of the bound at most: a slow
    target does not throttle the guest until the rounds are used up."""
    bound_ns = options.downtime_ms * NS_PER_MS
    fits = expected_downtime_ns(rounds, options, min(load_ns, bound_ns // 2)) <= bound_ns
    if len(rounds) >= options.max_rounds or _is_all_sent(rounds) or (fits and not _another_pays(rounds)):
        return Decision(True, throttle)
    if options.throttle and len(rounds) >= 2 and all(_gains_little(item) for item in rounds[-2:]):
        throttle = min(MAX_THROTTLE, throttle + THROTTLE_STEP if throttle else FIRST_THROTTLE)
    return Decision(False, throttle)


def _is_all_sent(rounds: Sequence[Round]) -> bool:
    """Whether another round could only take time, as with a guest that is paused."""
    return bool(rounds) and not rounds[-1].left and not rounds[-1].disk_left


def _another_pays(rounds: Sequence[Round]) -> bool:
    """Whether one round more is likely to leave less than half of what is left now: the last one did."""
    last = rounds[-1]
    return last.left > FEW_PAGES and 2 * last.left < last.pages


def _gains_little(item: Round) -> bool:
    """Whether the guest wrote more than half as many pages as were sent meanwhile."""
    return 2 * item.left > item.pages
