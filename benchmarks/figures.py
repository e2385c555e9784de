"""What is made of repeated figures. All of them count: none is dropped as an outlier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from statistics import fmean, median

__all__ = [
    "Goal",
    "Summary",
    "Verdict",
    "interval_of_ratio",
    "pairwise_ratio",
    "ratio_of_medians",
    "summarize",
]

RESAMPLINGS = 2000


@dataclass(frozen=True, slots=True)
class Summary:
    """`spread` is the median absolute deviation from the median, in the figures' unit."""

    count: int
    median: float
    minimum: float
    maximum: float
    spread: float


def summarize(values: Sequence[float]) -> Summary:
    """The summary of one or more figures."""
    middle = median(values)
    return Summary(
        count=len(values),
        median=middle,
        minimum=min(values),
        maximum=max(values),
        spread=median(abs(value - middle) for value in values),
    )


def ratio_of_medians(values: Sequence[float], base: Sequence[float]) -> float | None:
    """How many times `base` the values are; None when that says nothing (`base` is zero)."""
    below = median(base)
    return median(values) / below if below else None


def pairwise_ratio(values: Sequence[float], base: Sequence[float]) -> float | None:
    """The median of the ratios of what was measured right after each other.

    A machine that slows down halfway moves the ratio of medians, not this one; when they differ much, the
    machine was not quiet.
    """
    ratios = [a / b for a, b in zip(values, base, strict=False) if b]
    return median(ratios) if ratios else None


def interval_of_ratio(
    values: Sequence[float], base: Sequence[float], confidence: float
) -> tuple[float, float]:
    """Where the ratio of the means lies with `confidence`: the percentiles of what comes out when both are drawn again
    from themselves (the bootstrap: Efron and Tibshirani, 1993). The same figures give the same interval."""
    chance = Random(len(values))
    ratios = sorted(
        fmean(chance.choices(values, k=len(values))) / fmean(chance.choices(base, k=len(base)))
        for _ in range(RESAMPLINGS)
    )
    outside = round((1 - confidence) / 2 * RESAMPLINGS)
    return ratios[outside], ratios[-1 - outside]


class Verdict(StrEnum):
    """What became of a goal."""

    MET = "met"
    NOT_MET = "not met"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Goal:
    """The figure of `contender` is to be at most `limit`: in its unit, or times that of `against`.

    With `at_least` more is better, and `limit` the least.
    """

    limit: float
    against: str | None = None
    contender: str = "emuvisor"
    at_least: bool = False

    def text(self, unit: str) -> str:
        """For people: "at most 0.9x qemu", "at least 30 MB/s"."""
        bound = "at least" if self.at_least else "at most"
        return f"{bound} {self.limit:g}" + (f"x {self.against}" if self.against else f" {unit}")

    def figure(self, values: Mapping[str, Sequence[float]]) -> float | None:
        """What is held against the limit, from the figures by contender; None when one of them is missing."""
        own = values.get(self.contender)
        if not own:
            return None
        if self.against is None:
            return median(own)
        base = values.get(self.against)
        return ratio_of_medians(own, base) if base else None

    def verdict(self, values: Mapping[str, Sequence[float]]) -> Verdict:
        """Whether the figures by contender reach it."""
        figure = self.figure(values)
        if figure is None:
            return Verdict.NOT_MEASURED
        met = figure >= self.limit if self.at_least else figure <= self.limit
        return Verdict.MET if met else Verdict.NOT_MET
