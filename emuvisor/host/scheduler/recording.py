"""A recorded schedule: who ran where, from when to when, why it was switched out, and how long it had waited before.

    recorder = Recorder(scheduler)
    instructions = scheduler.handle(now_ns, event)
    recorder.record(now_ns, event, instructions)
    recorder.finish()

It is kept as JSON lines, a stretch each:

    {"pcpu": 0, "guest": "a", "start_ns": 0, "end_ns": 5000000, "why": "its slice was over", "waited_ns": 0, ...}
"""

import json
import reprlib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from emuvisor.errors import UsageError
from emuvisor.host.scheduler.core import Scheduler
from emuvisor.host.scheduler.entity import MIN_SLICE_NS, Place
from emuvisor.host.scheduler.instructions import Event, Instruction, Left, Removed, Run
from emuvisor.units import MIB, format_size

__all__ = [
    "MAX_STRETCHES",
    "SLEPT",
    "SLICE_OVER",
    "THROTTLED",
    "UNFINISHED",
    "Recorder",
    "Stretch",
    "cut",
    "read_recording",
    "write_recording",
]

MAX_STRETCHES = 100_000
"""20 MB: ten minutes of a pCPU whose guests take turns every few milliseconds."""
MAX_BYTES = 64 * MIB
"""Of a file."""
MAX_NS, MAX_PCPU = 1 << 63, 1 << 10
SLICE_OVER = "its slice was over"
SLEPT = "it slept"
THROTTLED = "its cap or limit was used up"
BY_ITSELF = "it left by itself"
UNFINISHED = "the recording ended"


@dataclass(frozen=True, slots=True)
class Stretch:
    """A guest on a pCPU, from when the scheduler gave it to it until it left it, or another guest got it. Times are
    nanoseconds of the host's clock."""

    pcpu: int
    guest: str
    start_ns: int
    end_ns: int
    why: str
    """Why it ended: one of the texts above, or what the scheduler said when it sent the guest away."""
    waited_ns: int
    """How long it had waited for a pCPU since it ran last."""
    throttled_ns: int
    """How long its cap or limit had forbidden it to run since then."""

    @property
    def ran_ns(self) -> int:
        """How long it ran."""
        return self.end_ns - self.start_ns


FIELDS = {field.name for field in fields(Stretch)}


@dataclass(slots=True)
class _Open:
    """A stretch that has not ended."""

    guest: str
    start_ns: int
    slice_ns: int
    waited_ns: int
    throttled_ns: int
    preempted: str = ""
    """Why it is to leave."""


class Recorder:
    """Keeps the last `limit` stretches of what `scheduler` decided, in the order in which they ended."""

    def __init__(self, scheduler: Scheduler, limit: int = MAX_STRETCHES) -> None:
        self.stretches: deque[Stretch] = deque(maxlen=limit)
        self.count = 0
        """How many there were, with those that are not kept."""
        self._scheduler = scheduler
        self._now_ns = 0
        self._open: dict[int, _Open] = {}
        """By pCPU."""
        self._before: dict[str, tuple[int, int]] = {}
        """What each guest had waited and was throttled in all when it ran last."""

    def record(self, now_ns: int, event: Event, instructions: Sequence[Instruction]) -> None:
        """The scheduler answered `event` with `instructions`, a moment ago."""
        self._now_ns = now_ns
        goes_on: Run | None = None
        if isinstance(event, Left):
            runs = (step for step in instructions if isinstance(step, Run) and step.pcpu == event.pcpu)
            following = next(runs, None)
            here = self._open.get(event.pcpu)
            if here is not None and following is not None and following.name == event.name:
                goes_on = following
                here.slice_ns, here.preempted = following.slice_ns, ""
            else:
                self._end(now_ns, event, following)
        elif isinstance(event, Removed):
            self._before.pop(event.name, None)
        for step in instructions:
            if isinstance(step, Run):
                if step is not goes_on:
                    self._begin(now_ns, step)
            elif step.pcpu in self._open:
                self._open[step.pcpu].preempted = step.why

    def finish(self) -> None:
        """No more is recorded: what runs is taken to have run until the last event."""
        for pcpu, here in sorted(self._open.items()):
            self._keep(pcpu, here, self._now_ns, UNFINISHED)
        self._open.clear()

    def _begin(self, now_ns: int, run: Run) -> None:
        entity = self._scheduler.entities[run.name]
        before = self._before.get(run.name, (0, 0))
        waited, throttled = self._before[run.name] = entity.waited_ns, entity.throttled_ns
        self._open[run.pcpu] = _Open(
            run.name, now_ns, run.slice_ns, waited - before[0], throttled - before[1]
        )

    def _end(self, now_ns: int, event: Left, following: Run | None) -> None:
        here = self._open.pop(event.pcpu, None)
        if here is None:
            return  # it ran before there was a recorder
        if not event.wants:
            why = SLEPT
        elif self._scheduler.entities[event.name].place is Place.THROTTLED:
            why = THROTTLED
        elif event.ran_ns > here.slice_ns - MIN_SLICE_NS:
            why = SLICE_OVER
        elif here.preempted:
            why = here.preempted
        else:  # it had run what its slice was taken to be worth, sooner than thought
            why = f"{following.name} is ahead of it" if following else BY_ITSELF
        self._keep(event.pcpu, here, now_ns, why)

    def _keep(self, pcpu: int, here: _Open, now_ns: int, why: str) -> None:
        self.count += 1
        self.stretches.append(
            Stretch(pcpu, here.guest, here.start_ns, now_ns, why, here.waited_ns, here.throttled_ns)
        )


def cut(stretches: Iterable[Stretch], first_ns: int, last_ns: int) -> list[Stretch]:
    """What of `stretches`, with their waits, lies between `first_ns` and `last_ns`. What went on beyond that is
    unfinished."""
    found = []
    for stretch in stretches:
        queued_ns = stretch.start_ns - stretch.waited_ns
        waited = _overlap(queued_ns, stretch.start_ns, first_ns, last_ns)
        throttled = _overlap(queued_ns - stretch.throttled_ns, queued_ns, first_ns, last_ns)
        start = min(max(stretch.start_ns, first_ns), last_ns)
        end = min(max(stretch.end_ns, first_ns), last_ns)
        why = stretch.why if stretch.end_ns <= last_ns else UNFINISHED
        if waited or throttled or end > start:
            found.append(Stretch(stretch.pcpu, stretch.guest, start, end, why, waited, throttled))
    return found


def _overlap(start: int, end: int, first: int, last: int) -> int:
    return max(0, min(end, last) - max(start, first))


def write_recording(path: Path, stretches: Iterable[Stretch]) -> None:
    """As JSON lines. Raises UsageError when the file cannot be written."""
    try:
        with path.open("w") as file:
            file.writelines(json.dumps(asdict(stretch)) + "\n" for stretch in stretches)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def read_recording(path: Path) -> Sequence[Stretch]:
    """What `write_recording` wrote. Raises UsageError naming the line that is none."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise UsageError(f"cannot read {path}: it is larger than {format_size(MAX_BYTES)}")
    try:
        lines = raw.decode().splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read {path}: it is no text") from error
    return [_stretch(path, number, line) for number, line in enumerate(lines, 1)]


def _stretch(path: Path, number: int, line: str) -> Stretch:
    here = f"{path}, line {number}: no stretch of a schedule"
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{here}: {error}") from error
    if not isinstance(values, dict) or set(values) != FIELDS:
        raise UsageError(f"{here}: missing fields, or others")
    for name, value in values.items():
        if name in ("guest", "why"):
            good = isinstance(value, str) and value.isprintable() and (value != "" or name == "why")
        else:  # True is an int to Python, but not to people
            good = type(value) is int and 0 <= value < (MAX_PCPU if name == "pcpu" else MAX_NS)
        if not good:
            raise UsageError(f"{here}: {name} is {reprlib.repr(value)}")
    if values["end_ns"] < values["start_ns"]:
        raise UsageError(f"{here}: it ends before it starts")
    return Stretch(**values)
