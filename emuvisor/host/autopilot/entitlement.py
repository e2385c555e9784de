"""Who is due how much of something that is divided: weighted max-min fairness.

A water level rises, and each gets its weight's part of it, until it has all that it wants; what that leaves raises the
level for the others (D. Bertsekas and R. Gallager, "Data Networks", 1992, section 6.5.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Due", "divide"]

_STEPS = 60
"""Halvings: more than a double has bits."""


@dataclass(frozen=True, slots=True)
class Due:
    """Who has `weight`, wants `demand`, and was promised `floor` whatever it wants. Weights are above 0."""

    weight: float
    demand: float
    floor: float = 0.0

    def at(self, level: float) -> float:
        """What it gets at a water level."""
        return max(self.floor, min(self.demand, level * self.weight))


def divide(total: float, dues: Sequence[Due]) -> list[float]:
    """What of `total` each is due. Together they get no more than it, unless they were promised more."""
    most = [due.at(float("inf")) for due in dues]
    if sum(most) <= total:
        return most
    low, high = 0.0, max(due.demand / due.weight for due in dues)
    for _ in range(_STEPS):
        level = (low + high) / 2
        if sum(due.at(level) for due in dues) > total:
            high = level
        else:
            low = level
    return [due.at(low) for due in dues]
