"""What the autopilot is to raise."""

from dataclasses import dataclass
from enum import StrEnum

from emuvisor.errors import UsageError
from emuvisor.host.autopilot.score import BEST, fairness, score, throughput
from emuvisor.host.autopilot.view import HostView

__all__ = ["Goal", "Objective"]


class Goal(StrEnum):
    """What counts."""

    THROUGHPUT = "throughput"
    FAIRNESS = "fairness"
    LATENCY = "latency"


@dataclass(frozen=True, slots=True)
class Objective:
    """`goal`; for latency, whose. Raises UsageError where the guest is missing, or there is one too many."""

    goal: Goal
    guest: str = ""

    def __post_init__(self) -> None:
        if self.goal is Goal.LATENCY and not self.guest:
            raise UsageError("latency of which guest? Write latency:NAME")
        if self.goal is not Goal.LATENCY and self.guest:
            raise UsageError(f"{self.goal} is of all guests, not of {self.guest!r} alone")

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """An objective as people write it: "throughput", "fairness", "latency:web". Raises UsageError."""
        goal, _, guest = text.partition(":")
        if goal not in tuple(Goal):
            raise UsageError(f"{text!r} is no objective; there are throughput, fairness and latency:NAME")
        return cls(Goal(goal), guest)

    def value(self, view: HostView) -> float:
        """What was reached in a period, 0 to 100. For latency it is the guest's score: a request takes 100 / score
        times as long as it would alone."""
        if self.goal is Goal.THROUGHPUT:
            return throughput(view)
        if self.goal is Goal.FAIRNESS:
            return fairness(view)
        guest = view.guest(self.guest)
        return BEST if guest is None else score(guest)

    def favours(self, guest: str) -> bool:
        """Whether it is the one whose latency counts."""
        return self.goal is Goal.LATENCY and guest == self.guest

    def __str__(self) -> str:
        return f"{self.goal}:{self.guest}" if self.guest else self.goal
