"""What the autopilot must leave alone, and how far it may go."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from emuvisor.errors import UsageError
from emuvisor.host.autopilot.moves import Knob
from emuvisor.host.scheduler.claim import MAX_WEIGHT, WHOLE
from emuvisor.units import PAGE_SIZE, parse_size

__all__ = ["Bounds", "Constraints"]

FORM = "keep=NAME, knobs=KNOB+KNOB, changes=N, factor=X, virtual-clock=yes, NAME.KNOB=[LEAST]:[MOST]"
MIN_LATENCY_US, MAX_LATENCY_US = 500, 20_000
"""Shorter turns cost more in switches than they win."""
MAX_CHANGES = 1000
MAX_FACTOR = 1000.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """A knob stays from `least` to `most`; None: where `Constraints.factor` and the knob's nature end."""

    least: float | None = None
    most: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Bounds":
        """ "50:400", "1M:", ":80". Raises UsageError."""
        least, colon, most = text.partition(":")
        if not colon:
            raise UsageError(f"{text!r} is not [LEAST]:[MOST], such as 50:400")
        bounds = cls(parse_size(least) if least else None, parse_size(most) if most else None)
        if bounds.least is not None and bounds.most is not None and bounds.least > bounds.most:
            raise UsageError(f"{text!r}: the least is more than the most")
        return bounds


@dataclass(frozen=True, slots=True)
class Constraints:
    """What holds whatever the objective is. Reservations are never touched, and no cap or limit goes below one.

    keep: guests that are never touched.
    knobs: what may be changed.
    bounds: for a guest and a knob, where it stays; for disks and cards, of each of their limits.
    changes: most knobs that are turned in one period.
    factor: no number becomes more than this many times, or less than this part, of what it was at the start.
    virtual_clock: guests on the virtual clock, which are to repeat exactly, may be touched, too.

    Raises UsageError.
    """

    keep: frozenset[str] = frozenset()
    knobs: frozenset[Knob] = frozenset(Knob)
    bounds: Mapping[tuple[str, Knob], Bounds] = field(default_factory=dict)
    changes: int = 8
    factor: float = 8.0
    virtual_clock: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.changes <= MAX_CHANGES:
            raise UsageError(f"{self.changes} changes in a period are impossible; it is 1 to {MAX_CHANGES}")
        if not 1 <= self.factor <= MAX_FACTOR:
            raise UsageError(f"a factor of {self.factor:g} is impossible; it is 1 to {MAX_FACTOR:g}")

    @classmethod
    def parse(cls, text: str) -> "Constraints":
        """Constraints as people write them: "keep=db,changes=2,factor=4,web.weight=50:400". Raises UsageError."""
        constraints = cls()
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            try:
                constraints = constraints._with(name, value)
            except ValueError as error:
                why = f": {error}" if isinstance(error, UsageError) else ""
                raise UsageError(f"{part!r} is no constraint{why}; there are {FORM}") from None
        return constraints

    def _with(self, name: str, value: str) -> "Constraints":
        """One more. Raises ValueError."""
        if name == "keep":
            return replace(self, keep=self.keep | {value})
        if name == "knobs":
            return replace(self, knobs=frozenset(map(Knob, value.split("+"))))
        if name == "changes":
            return replace(self, changes=int(value))
        if name == "factor":
            return replace(self, factor=float(value))
        if (name, value) == ("virtual-clock", "yes"):
            return replace(self, virtual_clock=True)
        guest, dot, knob = name.rpartition(".")
        if not dot:
            raise UsageError(f"there is no {name!r}")
        return replace(self, bounds={**self.bounds, (guest, Knob(knob)): Bounds.parse(value)})

    def span(self, guest: str, knob: Knob, start: float) -> tuple[float, float]:
        """The least and the most that a knob may become that was at `start`."""
        least, most = _NATURE.get(knob, (1.0, float("inf")))
        least, most = max(least, start / self.factor), min(most, start * self.factor)
        own = self.bounds.get((guest, knob), Bounds())
        if own.least is not None:
            least = max(least, own.least)
        if own.most is not None:
            most = min(most, own.most)
        return least, most


_NATURE: Mapping[Knob, tuple[float, float]] = {
    Knob.WEIGHT: (1, MAX_WEIGHT),
    Knob.CAP: (1, WHOLE),
    Knob.LATENCY: (MIN_LATENCY_US, MAX_LATENCY_US),
    Knob.MEMORY_LIMIT: (PAGE_SIZE, float("inf")),
    Knob.MEMORY_SHARES: (1, 1_000_000),
}
"""Where knobs end by themselves."""
