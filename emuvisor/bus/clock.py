"""The one clock of a guest, and the timers that devices set on it.

Devices see only `Clock`: they ask for the time and arm timers. Whoever runs the guest asks for the next
deadline, runs the vCPU until then, and calls `fire_due`.
"""

import heapq
import reprlib
import time
from collections import deque
from collections.abc import Callable

from emuvisor.bus.device import SavedState, check_saved
from emuvisor.errors import SnapshotError

__all__ = ["Clock", "HostClock", "Timer", "VirtualClock"]


_DEVICE = "clock"
_VERSION = 1
_LATEST_NS = (1 << 63) - 1

_COMPACT_MIN = 64
"""Queue length below which left-over entries are not worth a sweep."""


class Timer:
    """A callback at a time; `callback(deadline_ns)` runs once for each time the timer is armed."""

    __slots__ = ("_clock", "callback", "deadline_ns", "name", "ticket")

    def __init__(self, clock: "Clock", callback: Callable[[int], None], name: str) -> None:
        self._clock = clock
        self.callback = callback
        self.name = name
        self.deadline_ns: int | None = None
        self.ticket: int | None = None
        """Which entry of the clock's queue is the valid one; earlier arrangements left others there."""

    def arm(self, deadline_ns: int) -> None:
        """Run the callback when the clock reaches `deadline_ns`, instead of any earlier arrangement."""
        self.deadline_ns = deadline_ns
        self.ticket = self._clock.schedule(self, deadline_ns)

    def cancel(self) -> None:
        """Do not run the callback."""
        self.deadline_ns = None
        self.ticket = None


class Clock:
    """Nanoseconds since the guest was powered on, and the timers on it. Goes backwards only to a saved state.

    Timers are numbered as they are made: a device makes its own once, when it is made or connected. So the timers
    of two guests that are built alike have the same numbers.
    """

    def __init__(self) -> None:
        self.on_schedule: Callable[[int], None] | None = None
        """Hears each deadline that is armed: who runs the guest may have to come back earlier."""
        self._timers: list[Timer] = []
        """All that were made, in that order."""
        self._queue: list[tuple[int, int, Timer]] = []
        self._next_ticket = 0
        self._compact_at = _COMPACT_MIN

    def now_ns(self) -> int:
        """The time now."""
        raise NotImplementedError

    def timer(self, callback: Callable[[int], None], name: str = "") -> Timer:
        """A timer on this clock, not yet armed."""
        timer = Timer(self, callback, name)
        self._timers.append(timer)
        return timer

    def schedule(self, timer: Timer, deadline_ns: int) -> int:
        """Put `timer` into the queue and return its ticket (timers call this)."""
        if len(self._queue) >= self._compact_at:
            # A guest may re-program a timer a million times before its deadline: sweep what that left behind.
            self._queue = [entry for entry in self._queue if entry[2].ticket == entry[1]]
            heapq.heapify(self._queue)
            self._compact_at = max(_COMPACT_MIN, 2 * len(self._queue))
        ticket = self._next_ticket
        self._next_ticket += 1
        heapq.heappush(self._queue, (deadline_ns, ticket, timer))
        if self.on_schedule is not None:
            self.on_schedule(deadline_ns)
        return ticket

    def next_deadline_ns(self) -> int | None:
        """When the next timer is due; None without one."""
        while self._queue:
            deadline, ticket, timer = self._queue[0]
            if timer.ticket == ticket:
                return deadline
            heapq.heappop(self._queue)  # re-armed or cancelled since
        return None

    def fire_due(self) -> int:
        """Run every timer that is due, in order of deadline, then of arming; returns how many.

        The time is read once, and what the callbacks arm waits for the next call even if it is due already:
        so each timer fires at most once in a call, and a chip that is always late cannot hold the host here.
        """
        now = self.now_ns()
        due: deque[tuple[int, int, Timer]] = deque()
        while (deadline := self.next_deadline_ns()) is not None and deadline <= now:
            due.append(heapq.heappop(self._queue))
        fired = 0
        try:
            while due:
                deadline, ticket, timer = due.popleft()
                if timer.ticket == ticket:  # no earlier callback cancelled or moved it
                    timer.cancel()
                    timer.callback(deadline)
                    fired += 1
        finally:
            for entry in due:  # a callback raised: the others have not had their turn
                heapq.heappush(self._queue, entry)
        return fired

    # ---- saved state ----

    def save(self) -> SavedState:
        """The time, and the armed timers as [number, deadline] in the order in which they are due."""
        armed = [
            (timer.deadline_ns, timer.ticket, number)
            for number, timer in enumerate(self._timers)
            if timer.ticket is not None
        ]
        return {
            "device": _DEVICE,
            "version": _VERSION,
            "now_ns": self.now_ns(),
            "timers": [[number, deadline] for deadline, _, number in sorted(armed)],
        }

    def load(self, state: SavedState) -> None:
        """Let the time be that of `state`, with no timer armed: the chips arm theirs as they are loaded, and then
        `load_timers` puts them in order. Raises SnapshotError, and then nothing has changed.
        """
        check_saved(state, _DEVICE, _VERSION)
        now_ns = state.get("now_ns")
        if not isinstance(now_ns, int) or not _is_time(now_ns):
            raise SnapshotError(
                f"{_DEVICE}: saved field 'now_ns' is {reprlib.repr(now_ns)}; expected an integer from 0 to {_LATEST_NS}"
            )
        self._saved_timers(state)
        self.set_ns(now_ns)
        for timer in self._timers:
            timer.cancel()
        self._queue.clear()

    def load_timers(self, state: SavedState) -> None:
        """Arm the timers of `state`, which `load` has had, in the order that they had: what is due at the same time
        happens in the same order again. What chips have armed besides stays. Raises SnapshotError."""
        for timer, deadline_ns in self._saved_timers(state):
            timer.arm(deadline_ns)

    def _saved_timers(self, state: SavedState) -> list[tuple[Timer, int]]:
        saved = state.get("timers")
        if not isinstance(saved, list) or len(saved) > len(self._timers):
            raise SnapshotError(
                f"{_DEVICE}: saved field 'timers' is {reprlib.repr(saved)}; expected a list of at most "
                f"{len(self._timers)} timers"
            )
        timers = []
        for item in saved:
            match item:
                case [number, deadline_ns] if _is_time(deadline_ns) and type(number) is int:
                    if 0 <= number < len(self._timers):
                        timers.append((self._timers[number], deadline_ns))
                        continue
            raise SnapshotError(
                f"{_DEVICE}: saved field 'timers' has {reprlib.repr(item)}; expected the number of one of "
                f"{len(self._timers)} timers, and when it is due"
            )
        return timers

    def set_ns(self, now_ns: int) -> None:
        """Let the time be `now_ns`."""
        raise NotImplementedError


def _is_time(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LATEST_NS


class VirtualClock(Clock):
    """Time is what the guest's vCPUs retired plus the idle time that was skipped.

    `retired_ns` says how much the vCPUs have retired, in nanoseconds of guest time.
    """

    def __init__(self, retired_ns: Callable[[], int] = lambda: 0) -> None:
        super().__init__()
        self.retired_ns = retired_ns
        self.skipped_ns = 0

    def now_ns(self) -> int:
        """Retired work plus skipped idle time."""
        return self.retired_ns() + self.skipped_ns

    def skip(self, ns: int) -> None:
        """Let `ns` nanoseconds of idle time pass."""
        if ns > 0:
            self.skipped_ns += ns

    def set_ns(self, now_ns: int) -> None:
        """Let the time be `now_ns`; what the vCPUs have retired so far is part of it."""
        self.skipped_ns = now_ns - self.retired_ns()


class HostClock(Clock):
    """Time follows the host's monotonic clock, from `origin_ns` of guest time on."""

    def __init__(self, source: Callable[[], int] = time.monotonic_ns, origin_ns: int = 0) -> None:
        super().__init__()
        self._source = source
        self._start = source() - origin_ns

    def now_ns(self) -> int:
        """Nanoseconds since power-on by the host's clock."""
        return self._source() - self._start

    def set_ns(self, now_ns: int) -> None:
        """Let the time be `now_ns`, and go on from there."""
        self._start = self._source() - now_ns
