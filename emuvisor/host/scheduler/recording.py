"""A recorded schedule: who ran where, from when to when, why it was switched out, and how long it had waited before.

    recorder = Recorder(scheduler)
    instructions = scheduler.handle(now_ns, event)
    recorder.record(now_ns, event, instructions)

It is kept as JSON lines, a stretch each:

    {"pcpu": 0, "guest": "a", "start_ns": 0, "end_ns": 5000000, "why": "its slice was over", "waited_ns": 0, ...}
"""

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from emuvisor.errors import UsageError
from emuvisor.host.scheduler.core import Scheduler
from emuvisor.host.scheduler.entity import Place
from emuvisor.host.scheduler.instructions import Event, Instruction, Left, Preempt, Removed, Run

__all__ = ["Recorder", "Stretch", "read_recording", "write_recording"]

MAX_STRETCHES = 100_000
"""About ten minutes of a busy pCPU: 20 MB."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A guest on a pCPU. Times are nanoseconds of the host's clock."""

    pcpu: int
    guest: str
    start_ns: int
    end_ns: int
    why: str
    """Why it ended."""
    waited_ns: int
    """How long it had waited for a pCPU since it ran last."""
    throttled_ns: int
    """How long its cap or limit had forbidden it to run since then."""


FIELDS = {field.name for field in fields(Stretch)}


class Recorder:
    """Keeps the last `limit` stretches of what `scheduler` decided, in the order in which they ended."""

    def __init__(self, scheduler: Scheduler, limit: int = MAX_STRETCHES) -> None:
        self.stretches: deque[Stretch] = deque(maxlen=limit)
        self._scheduler = scheduler
        self._running: dict[int, tuple[Run, int, int, int]] = {}
        """For each pCPU: what it was told, when, and how long its guest had waited and was throttled."""
        self._preempted: dict[int, str] = {}
        self._before: dict[str, tuple[int, int]] = {}
        """What each guest had waited and was throttled in all when it ran last."""

    def record(self, now_ns: int, event: Event, instructions: Iterable[Instruction]) -> None:
        """The scheduler answered `event` with `instructions`, a moment ago."""
        if isinstance(event, Left):
            self._end(now_ns, event)
        elif isinstance(event, Removed):
            self._before.pop(event.name, None)
        for instruction in instructions:
            if isinstance(instruction, Preempt):
                self._preempted[instruction.pcpu] = instruction.why
            else:
                entity = self._scheduler.entities[instruction.name]
                waited, throttled = self._before.get(instruction.name, (0, 0))
                self._before[instruction.name] = entity.waited_ns, entity.throttled_ns
                self._running[instruction.pcpu] = (
                    instruction,
                    now_ns,
                    entity.waited_ns - waited,
                    entity.throttled_ns - throttled,
                )

    def _end(self, now_ns: int, event: Left) -> None:
        preempted = self._preempted.pop(event.pcpu, None)
        if event.pcpu not in self._running:
            return  # it ran before there was a recorder
        run, start_ns, waited_ns, throttled_ns = self._running.pop(event.pcpu)
        if not event.wants:
            why = "it slept"
        elif self._scheduler.entities[event.name].place is Place.THROTTLED:
            why = "its cap or limit was used up"
        elif event.ran_ns >= run.slice_ns:
            why = "its slice was over"
        else:
            why = preempted or "it left by itself"
        self.stretches.append(Stretch(event.pcpu, event.name, start_ns, now_ns, why, waited_ns, throttled_ns))


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
        lines = path.read_text().splitlines()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
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
        good = isinstance(value, str) if name in ("guest", "why") else type(value) is int and value >= 0
        if not good:
            raise UsageError(f"{here}: {name} is {value!r}")
    if values["end_ns"] < values["start_ns"]:
        raise UsageError(f"{here}: it ends before it starts")
    return Stretch(**values)
