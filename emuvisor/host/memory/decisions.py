"""The log that explains every frame that the memory manager moved."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Decision", "DecisionLog"]

MAX_DECISIONS = 10_000


@dataclass(frozen=True, slots=True)
class Decision:
    """At `time` (seconds since 1970) the host gained `frames` from `guest`, by `rung`, because of `why`.

    Negative: the guest got them. A balloon's are what was asked for; others were counted.
    """

    time: float
    guest: str
    rung: str
    frames: int
    why: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    """The numbers of the formula."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.rung}: {self.guest}: {self.frames:+d} frames: {self.why}"


class DecisionLog:
    """The latest decisions, and who hears of new ones. Listeners are called in the memory manager's thread."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Decision], None]] = []
        self.gained: dict[str, int] = {}
        """Frames by rung since the beginning, those that were given back subtracted."""
        self._decisions: deque[Decision] = deque(maxlen=MAX_DECISIONS)

    def __iter__(self) -> Iterator[Decision]:
        return iter(tuple(self._decisions))

    def __len__(self) -> int:
        return len(self._decisions)

    def add(self, decision: Decision) -> None:
        """Note one more."""
        self._decisions.append(decision)
        self.gained[decision.rung] = self.gained.get(decision.rung, 0) + decision.frames
        for listener in self.listeners:
            listener(decision)
