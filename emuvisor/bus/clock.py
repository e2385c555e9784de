"""The one clock of a guest, and the timers that devices set on it.

Devices see only `Clock`: they ask for the time and arm timers. Whoever runs the guest asks for the next
deadline, runs the vCPU until then, and calls `fire_due`.
"""

import heapq
import time
from collections import deque
from collections.abc import Callable

__all__ = ["Clock", "HostClock", "Timer", "VirtualClock"]


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
    """Nanoseconds since the guest was powered on, and the timers on it. Never goes backwards."""

    def __init__(self) -> None:
        self.on_schedule: Callable[[int], None] | None = None
        """Hears each deadline that is armed: who runs the guest may have to come back earlier."""
        self._queue: list[tuple[int, int, Timer]] = []
        self._next_ticket = 0
        self._compact_at = _COMPACT_MIN

    def now_ns(self) -> int:
        """The time now."""
        raise NotImplementedError

    def timer(self, callback: Callable[[int], None], name: str = "") -> Timer:
        """A timer on this clock, not yet armed."""
        return Timer(self, callback, name)

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


class HostClock(Clock):
    """Time follows the host's monotonic clock, from `origin_ns` of guest time on."""

    def __init__(self, source: Callable[[], int] = time.monotonic_ns, origin_ns: int = 0) -> None:
        super().__init__()
        self._source = source
        self._start = source() - origin_ns

    def now_ns(self) -> int:
        """Nanoseconds since power-on by the host's clock."""
        return self._source() - self._start
