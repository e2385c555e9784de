"""The log that explains every frame that the memory manager moved."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

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


class DecisionLog:
    """The latest decisions, and who hears of new ones. Listeners are called in the memory manager's thread; one that
    raises an exception hears no more, and `on_failure` is told."""

    def __init__(self, on_failure: Callable[[str], None]) -> None:
        self.listeners: list[Callable[[Decision], None]] = []
        self._on_failure = on_failure
        self.gained: dict[str, int] = {}
        """Frames by rung since the beginning, those that were given back subtracted."""
        self.added = 0
        """Decisions since the beginning."""
        self._decisions: deque[Decision] = deque(maxlen=MAX_DECISIONS)

    def __iter__(self) -> Iterator[Decision]:
        return iter(tuple(self._decisions))

    def __len__(self) -> int:
        return len(self._decisions)

    def add(self, decision: Decision) -> None:
        """Note one more."""
        self._decisions.append(decision)
        self.added += 1
        self.gained[decision.rung] = self.gained.get(decision.rung, 0) + decision.frames
        for listener in tuple(self.listeners):
            try:
                listener(decision)
            except Exception as error:
                with suppress(ValueError):  # it has gone by itself
                    self.listeners.remove(listener)
                self._on_failure(f"a listener of the memory log is dropped: {type(error).__name__}: {error}")
