"""One backend, such as a disk of the host's, divided among those who use it by weight.

Start-time fair queueing (P. Goyal, H. M. Vin, H. Cheng: "Start-Time Fair Queueing: A Scheduling Algorithm for
Integrated Services Packet Switching Networks", SIGCOMM 1996) decides whose request is next, token buckets when. A
request's start tag is the finish tag of its flow's last one, or the virtual time if that is later; its finish tag is
the start tag plus its cost by the flow's weight; virtual time is the start tag of the request that went last. It is
work conserving: while anybody waits, every token goes to somebody; who does not want its share leaves it to the others
and does not save it up.

A request that is granted while its flow does not ask (its guest is paused, or has no pCPU) waits as granted: it holds
nobody up. A large one is granted in parts, each in its turn and when it is asked for: else a guest could put a backend
into debt for hours with a request that is larger than its disk.
"""

import itertools
import threading
import time
from collections.abc import Callable

from emuvisor.bus.bucket import TokenBucket
from emuvisor.devices.limits import Rate
from emuvisor.errors import UsageError
from emuvisor.units import MIB, NS_PER_S

__all__ = ["DEFAULT_SHARES", "MAX_SHARES", "FairShare", "Flow"]

DEFAULT_SHARES = 1000
MAX_SHARES = 1_000_000
PART = MIB
"""Bytes of a request that are granted at once."""
COST_UNIT = MAX_SHARES
"""Costs are whole numbers of nanoseconds of the backend times this, so that they can be divided by any weight."""


class Flow:
    """One user of a backend, with one request at a time. Made by `FairShare.join`; a `Share`."""

    def __init__(self, backend: "FairShare", shares: int) -> None:
        self.backend = backend
        self.shares = shares
        self.finish = 0
        """Finish tag of its last request."""
        self.start = 0
        """Start tag of the request that waits, and its number, which decides between equal tags."""
        self.ticket = 0
        self.size = 0
        """Bytes of the request that was asked for last and may not go on yet."""
        self.waiting: int | None = None
        """How many of them wait for their turn."""
        self.granted: int | None = None
        """How many had it; None before the first."""

    def delay_ns(self, size: int) -> int:
        """0 when its request of `size` bytes may go on, which is then paid; or else when to ask again."""
        return self.backend.delay_ns(self, size)

    def tokens(self, counts_bytes: bool) -> int:
        """What the part that waits takes of a limit, in billionths of a token: a request is one operation."""
        if counts_bytes:
            return (self.waiting or 0) * NS_PER_S
        return NS_PER_S if self.granted is None else 0


class FairShare:
    """A backend that does `bytes_rate` and `operations`, each in a second, all its users together; None: any number.

    Thread-safe. `clock` gives nanoseconds.
    """

    def __init__(
        self,
        bytes_rate: Rate | None = None,
        operations: Rate | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._flows: list[Flow] = []
        self._waiting: list[Flow] = []
        self._virtual = 0
        self._tickets = itertools.count()
        self._time = 0
        """Up to when the requests that had their turn have been granted."""
        self._buckets: list[tuple[TokenBucket, bool]] = []
        self.change(bytes_rate, operations)

    def change(self, bytes_rate: Rate | None = None, operations: Rate | None = None) -> None:
        """Other limits from now on, with full buckets."""
        with self._lock:
            now = self._clock()
            self._grant(now)
            self._buckets = []
            for rate, counts_bytes in ((bytes_rate, True), (operations, False)):
                if rate is not None:
                    burst = rate.capacity * NS_PER_S
                    full = burst + rate.once * NS_PER_S
                    self._buckets.append((TokenBucket(rate.per_second, burst, now, full), counts_bytes))

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return bool(self._buckets)

    def join(self, shares: int = DEFAULT_SHARES) -> Flow:
        """A new user with `shares`, 1 to 1,000,000. Raises UsageError."""
        flow = Flow(self, 0)
        self.set_shares(flow, shares)
        with self._lock:
            self._flows.append(flow)
        return flow

    def set_shares(self, flow: Flow, shares: int) -> None:
        """Its weight against the others from its next request on. Raises UsageError."""
        if not 1 <= shares <= MAX_SHARES:
            raise UsageError(f"{shares} shares of a backend; 1 to {MAX_SHARES} are allowed")
        with self._lock:
            flow.shares = shares

    def leave(self, flow: Flow) -> None:
        """It has no more requests."""
        with self._lock:
            self._flows.remove(flow)
            self._withdraw(flow)

    def delay_ns(self, flow: Flow, size: int) -> int:
        """0 when the request of `size` bytes of `flow` may go on, which is then paid; or else when to ask again."""
        with self._lock:
            now = self._clock()
            self._grant(now)
            if size > flow.size:
                flow.granted = None  # it is another one: that before was given up, by a reset
            flow.size = size
            if flow.granted is None or flow.granted < size:
                self._line_up(flow)
                self._grant(now)
            if flow.granted is None or flow.granted < size:
                return max(1, self._when(flow, now) - now)
            self._withdraw(flow)
            flow.granted, flow.size = None, 0
            return 0

    def _withdraw(self, flow: Flow) -> None:
        """Nothing of it waits any more."""
        if flow.waiting is not None:
            self._waiting.remove(flow)
            flow.waiting = None

    def _line_up(self, flow: Flow) -> None:
        """The next part of its request waits for its turn."""
        if flow.waiting is None:
            flow.start, flow.ticket = max(self._virtual, flow.finish), next(self._tickets)
            self._waiting.append(flow)
        rest = flow.size - (flow.granted or 0)
        flow.waiting = min(rest, PART) if any(counts_bytes for _, counts_bytes in self._buckets) else rest

    def _grant(self, now: int) -> None:
        """Let the requests go whose turn it was by now: each at the moment at which it had its tokens, so that none
        are lost when nobody asks for a while."""
        at, self._time = self._time, now
        while self._waiting:
            flow = min(self._waiting, key=_order)
            at = max((bucket.when(flow.tokens(by), at) for bucket, by in self._buckets), default=at)
            if at > now:
                return
            for bucket, by in self._buckets:
                bucket.take(flow.tokens(by), at)
            self._waiting.remove(flow)
            self._virtual = flow.start
            flow.finish = flow.start + self._cost(flow) // flow.shares
            flow.granted, flow.waiting = (flow.granted or 0) + (flow.waiting or 0), None

    def _cost(self, flow: Flow) -> int:
        """What its part takes of the backend's time, by the limit of which it takes most."""
        return max(
            (int(flow.tokens(by) * COST_UNIT // bucket.rate) for bucket, by in self._buckets), default=0
        )

    def _when(self, flow: Flow, now: int) -> int:
        """When the tokens are there for the part of `flow` that waits and all that are before it; `now` when none of
        it waits."""
        until = now
        if flow.waiting is None:
            return until
        ahead = [other for other in self._waiting if _order(other) < _order(flow)]
        for bucket, by in self._buckets:
            tokens = sum(other.tokens(by) for other in ahead)
            missing = tokens + min(flow.tokens(by), bucket.burst) - bucket.level(now)
            until = max(until, now - int(-missing // bucket.rate))
        return until


def _order(flow: Flow) -> tuple[int, int]:
    return flow.start, flow.ticket
