"""What a recorded schedule comes to: for each guest and each pCPU, as a table and for JSON."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from emuvisor.cli.tables import aligned
from emuvisor.host.scheduler.recording import SLEPT, SLICE_OVER, THROTTLED, UNFINISHED, Stretch
from emuvisor.units import NS_PER_MS

__all__ = ["COLUMNS", "GuestSum", "as_text", "document", "sums"]

COLUMNS = (
    *("guest", "ran ms", "share", "waited ms", "longest", "throttled ms", "slices", "on", "slice over"),
    *("preempted", "slept", "throttled"),
)
OWN_REASONS = (SLICE_OVER, SLEPT, THROTTLED, UNFINISHED)


@dataclass(slots=True)
class GuestSum:
    """What became of one guest's time. Times are nanoseconds of the host."""

    ran_ns: int = 0
    waited_ns: int = 0
    longest_wait_ns: int = 0
    throttled_ns: int = 0
    slices: int = 0
    """How often it got a pCPU."""
    pcpus: set[int] = field(default_factory=set)
    why: Counter[str] = field(default_factory=Counter)
    """How often it left one, by why."""

    @property
    def preempted(self) -> int:
        """How often another guest was ahead of it."""
        return sum(count for why, count in self.why.items() if why not in OWN_REASONS)

    def add(self, stretch: Stretch) -> None:
        """Take one more of its stretches."""
        self.waited_ns += stretch.waited_ns
        self.longest_wait_ns = max(self.longest_wait_ns, stretch.waited_ns)
        self.throttled_ns += stretch.throttled_ns
        if not stretch.ran_ns:  # it only waits in the part that is looked at
            return
        self.ran_ns += stretch.ran_ns
        self.slices += 1
        self.pcpus.add(stretch.pcpu)
        if stretch.why != UNFINISHED:
            self.why[stretch.why] += 1


def sums(stretches: Iterable[Stretch]) -> dict[str, GuestSum]:
    """By guest, those that ran most first."""
    found: dict[str, GuestSum] = {}
    for stretch in stretches:
        found.setdefault(stretch.guest, GuestSum()).add(stretch)
    return dict(sorted(found.items(), key=lambda item: (-item[1].ran_ns, item[0])))


def busy(stretches: Iterable[Stretch]) -> dict[int, int]:
    """By pCPU, for how many nanoseconds somebody ran."""
    found: Counter[int] = Counter()
    for stretch in stretches:
        found[stretch.pcpu] += stretch.ran_ns
    return dict(sorted(found.items()))


def as_text(stretches: Sequence[Stretch], span_ns: int) -> str:
    """The table of guests in `span_ns` nanoseconds, and a line for the pCPUs. The last columns say how often it left a
    pCPU, and why."""
    rows = [
        (
            name,
            _ms(guest.ran_ns),
            f"{guest.ran_ns / span_ns:.1%}",
            _ms(guest.waited_ns),
            _ms(guest.longest_wait_ns),
            _ms(guest.throttled_ns),
            f"{guest.slices:,}",
            _numbers(guest.pcpus),
            *(_count(n) for n in (guest.why[SLICE_OVER], guest.preempted)),
            *(_count(guest.why[why]) for why in (SLEPT, THROTTLED)),
        )
        for name, guest in sums(stretches).items()
    ]
    table = aligned(COLUMNS, rows, right=COLUMNS[1:7] + COLUMNS[8:])
    used = ", ".join(f"pCPU {pcpu} {ran_ns / span_ns:.1%}" for pcpu, ran_ns in busy(stretches).items())
    return f"{table}\n{_ms(span_ns)} ms; busy: {used or 'none'}"


def document(stretches: Sequence[Stretch], span_ns: int) -> dict[str, Any]:
    """The same for JSON. Times are nanoseconds, shares are of one pCPU."""
    return {
        "span_ns": span_ns,
        "pcpus": [
            {"pcpu": pcpu, "busy_ns": ran_ns, "share": round(ran_ns / span_ns, 6)}
            for pcpu, ran_ns in busy(stretches).items()
        ],
        "guests": [
            {
                "name": name,
                "ran_ns": guest.ran_ns,
                "share": round(guest.ran_ns / span_ns, 6),
                "waited_ns": guest.waited_ns,
                "longest_wait_ns": guest.longest_wait_ns,
                "throttled_ns": guest.throttled_ns,
                "slices": guest.slices,
                "pcpus": sorted(guest.pcpus),
                "why": dict(guest.why.most_common()),
            }
            for name, guest in sums(stretches).items()
        ],
    }


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / NS_PER_MS:,.1f}" if nanoseconds else "-"


def _count(number: int) -> str:
    return f"{number:,}" if number else "-"


def _numbers(pcpus: set[int]) -> str:
    """Numbers as people write them: 0-2,5."""
    parts: list[tuple[int, int]] = []
    for number in sorted(pcpus):
        if parts and parts[-1][1] == number - 1:
            parts[-1] = parts[-1][0], number
        else:
            parts.append((number, number))
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts) or "-"
