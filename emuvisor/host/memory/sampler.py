"""Looking at a host's memory again and again."""

import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from emuvisor.errors import UsageError
from emuvisor.host.memory.decisions import Decision
from emuvisor.host.memory.recording import Sample
from emuvisor.host.states import Event, GuestState

if TYPE_CHECKING:
    from emuvisor.host.host import Host

__all__ = ["DEFAULT_PERIOD_S", "MemorySampler", "sample"]

DEFAULT_PERIOD_S = 0.25
SHORTEST_PERIOD_S = 0.01
MAX_WAITING = 10_000
"""Samples and decisions that wait for a slow taker; the oldest are dropped for new ones."""


def sample(host: "Host") -> Sample:
    """Where the memory of `host` and of its guests is now."""
    guests = tuple(guest.memory_statistics() for guest in host.all_guests())
    return Sample(time.time(), host.memory.statistics(), guests)


class MemorySampler:
    """While it is entered, `take` gets a sample of `host` at once, each `period_s` seconds and whenever a guest starts
    or stops, and every decision of the memory manager.

    `take` is called in a thread of the sampler's own, so it may take its time, and must not raise. Without guests there
    are no samples. Raises UsageError for an impossible period.
    """

    def __init__(
        self,
        host: "Host",
        take: Callable[[Sample | Decision], None],
        period_s: float = DEFAULT_PERIOD_S,
    ) -> None:
        if not period_s >= SHORTEST_PERIOD_S:
            raise UsageError(
                f"a sample every {period_s} s is impossible; it is {SHORTEST_PERIOD_S} s at least"
            )
        self._host = host
        self._take = take
        self._period_s = period_s
        self._waiting: deque[Sample | Decision] = deque(maxlen=MAX_WAITING)
        self._news = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)

    def __enter__(self) -> Self:
        with self._host.lock:
            self._look()  # here: the thread may come to it when a guest has run already
            self._host.listeners.append(self._heard)
        self._host.memory.log.listeners.append(self._put)
        self._host.memory.watch()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._host.memory.unwatch()
        self._host.memory.log.listeners.remove(self._put)
        with self._host.lock:
            self._host.listeners.remove(self._heard)
        self._ending = True
        self._news.set()
        self._thread.join()

    def _heard(self, event: Event) -> None:
        """A guest that stops may be gone a moment later: the host's lock, which is held here, keeps it."""
        if event.new is not GuestState.GONE:
            self._put(sample(self._host))

    def _look(self) -> None:
        if self._host.all_guests():
            self._put(sample(self._host))

    def _put(self, item: Sample | Decision) -> None:
        self._waiting.append(item)
        self._news.set()

    def _run(self) -> None:
        due = time.monotonic() + self._period_s
        while True:
            ending = self._ending
            now = time.monotonic()
            if now >= due or ending:
                due = now + self._period_s
                with self._host.lock:  # or one that a listener takes meanwhile, later, would come first
                    self._look()
            while self._waiting:
                self._take(self._waiting.popleft())
            if ending:
                return
            self._news.wait(max(0.0, due - time.monotonic()))
            self._news.clear()
