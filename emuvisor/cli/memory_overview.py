"""What has come of a recording, or of a run, so far: the newest numbers and sums over all decisions."""

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from emuvisor.host.memory.decisions import Decision
from emuvisor.host.memory.recording import End, Item, Sample
from emuvisor.host.memory.statistics import GuestMemoryStatistics

__all__ = ["Overview", "RungSum"]

LATEST = 5
MAX_GONE = 100


@dataclass(slots=True)
class RungSum:
    """What one rung did: frames that the host gained by it, and that guests got back."""

    decisions: int = 0
    gained: int = 0
    given: int = 0


class Overview:
    """`add` what is read. Of samples the last and the fullest are kept, and the last numbers of guests that ended."""

    def __init__(self) -> None:
        self.sample: Sample | None = None
        self.fullest: Sample | None = None
        """The one at which the rungs had gained the most."""
        self.gone: dict[str, GuestMemoryStatistics] = {}
        """Guests that ended."""
        self.latest: deque[Decision] = deque(maxlen=LATEST)
        """Decisions, the newest last."""
        self.rungs: dict[str, RungSum] = {}
        self.samples = 0
        self.lowest_free: int | None = None
        """Bytes."""
        self.overcommit = 0.0
        """The highest ratio."""
        self.ended = False
        self._first = 0.0

    @property
    def seconds(self) -> float:
        """From the first sample to the last."""
        return 0.0 if self.sample is None else max(0.0, self.sample.time - self._first)

    @property
    def decisions(self) -> int:
        """How many there were."""
        return sum(rung.decisions for rung in self.rungs.values())

    def add(self, item: Item) -> None:
        """Take one more of what was recorded."""
        if isinstance(item, Sample):
            self._sampled(item)
        elif isinstance(item, Decision):
            rung = self.rungs.setdefault(item.rung, RungSum())
            rung.decisions += 1
            rung.gained += max(0, item.frames)
            rung.given += max(0, -item.frames)
            self.latest.append(item)
        elif isinstance(item, End):
            self.ended = True

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the last sample, and sums. Sizes are bytes, times seconds since 1970."""
        sample = self.sample
        return {
            "time": None if sample is None else sample.time,
            "host": None if sample is None else sample.host.as_dict(),
            "guests": [] if sample is None else [guest.as_dict() for guest in sample.guests],
            "gone": [guest.as_dict() for guest in self.gone.values()],
            "seconds": round(self.seconds, 3),
            "samples": self.samples,
            "lowest_free": self.lowest_free,
            "highest_overcommit": self.overcommit,
            "ended": self.ended,
            "rungs": {name: asdict(rung) for name, rung in self.rungs.items()},
        }

    def _sampled(self, sample: Sample) -> None:
        if self.sample is None:
            self._first = sample.time
        else:
            self.gone.update((guest.name, guest) for guest in self.sample.guests)
        for guest in sample.guests:
            self.gone.pop(guest.name, None)
        while len(self.gone) > MAX_GONE:
            del self.gone[next(iter(self.gone))]
        self.sample = sample
        if self.fullest is None or _saved(sample) > _saved(self.fullest):
            self.fullest = sample
        self.samples += 1
        self.overcommit = max(self.overcommit, sample.host.overcommit)
        free = sample.host.free
        self.lowest_free = free if self.lowest_free is None else min(free, self.lowest_free)


def _saved(sample: Sample) -> int:
    return sum(sample.host.savings.values())
