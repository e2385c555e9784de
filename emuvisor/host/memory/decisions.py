"""The log that explains every frame that the memory manager moved."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from emuvisor.host.log import Log

__all__ = ["Decision", "DecisionLog"]

MAX_DECISIONS = 10_000


@dataclass(frozen=True, slots=True)
class Decision:
    """At `time` (seconds since 1970) the host gained `frames` from `guest`, by `rung`, because of `why`.

    Negative: the guest got them. They are counted, not promised: what a balloon is asked for is a decision with 0
    frames, and the pages that go into it or out of it are others, once they did.
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


class DecisionLog(Log[Decision]):
    """The latest decisions, and what they have gained."""

    def __init__(self, on_failure: Callable[[str], None]) -> None:
        super().__init__("the memory log", MAX_DECISIONS, on_failure)
        self.gained: dict[str, int] = {}
        """Frames by rung since the beginning, those that were given back subtracted."""

    def add(self, entry: Decision) -> None:
        """Note one more."""
        self.gained[entry.rung] = self.gained.get(entry.rung, 0) + entry.frames
        super().add(entry)
