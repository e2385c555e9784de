"""Looking at a host again and again."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from emuvisor.errors import UsageError
from emuvisor.metrics.sample import HostSample, take_sample

if TYPE_CHECKING:
    from emuvisor.host import Host

__all__ = ["DEFAULT_PERIOD_S", "Sampler"]

DEFAULT_PERIOD_S = 1.0
SHORTEST_PERIOD_S = 0.01


class Sampler:
    """While it is entered, `take` gets a sample of `host` at once, each `period_s` seconds, and at the end.

    `take` is called in a thread of the sampler's own and must not raise; while it takes its time there are no samples.
    Raises UsageError for an impossible period.
    """

    def __init__(
        self, host: "Host", take: Callable[[HostSample], None], period_s: float = DEFAULT_PERIOD_S
    ) -> None:
        if not period_s >= SHORTEST_PERIOD_S:
            raise UsageError(
                f"a sample every {period_s} s is impossible; it is {SHORTEST_PERIOD_S} s at least"
            )
        self._host = host
        self._take = take
        self._period_s = period_s
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics-sampler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._take(take_sample(self._host))
            if self._ending.wait(self._period_s):
                break
        self._take(take_sample(self._host))
