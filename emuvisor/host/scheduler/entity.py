"""A guest as the scheduler sees it."""

from enum import StrEnum
from math import inf

from emuvisor.bus.bucket import TokenBucket
from emuvisor.host.scheduler.affinity import Affinity
from emuvisor.host.scheduler.claim import WHOLE, CpuClaim

__all__ = ["MIN_SLICE_NS", "RESERVED", "SHARED", "SPARE", "Entity", "Place"]

NS_PER_US = 1_000
NS_PER_S = 1_000_000_000

MIN_SLICE_NS = 100_000
"""Shorter ones cost more than they give."""
RESERVED, ELSEWHERE, SHARED, SPARE = 0, 1, 2, 3
"""Ranks: by its reservation on its home, by its reservation on another pCPU, by the policy, and, when its cap or limit
is half used up, on what nobody else wants."""
LONGEST_SLICE_NS = 100_000_000
PACE_SAMPLE_NS = 100_000
"""Less time than this says little about a guest's pace: shorter slices are added up."""
MIN_PACE = 0.001


class Place(StrEnum):
    """Where a guest is."""

    ASLEEP = "asleep"
    """It does not want to run."""
    WAITING = "waiting"
    RUNNING = "running"
    THROTTLED = "throttled"
    """It wants to run, and its cap or limit forbids it for now."""


class Entity:
    """One guest. Times are in nanoseconds of the host's clock."""

    __slots__ = (
        "affinity",
        "budget_ns",
        "cap",
        "claim",
        "deadline_ns",
        "distance",
        "home",
        "key",
        "lag",
        "limit",
        "limits",
        "name",
        "pace",
        "pcpu",
        "place",
        "queued_ns",
        "ran_ns",
        "rank",
        "reserved",
        "rest_ns",
        "sample_ns",
        "sample_work",
        "since_ns",
        "slice_ns",
        "throttled_ns",
        "ticket",
        "virtual",
        "waited_ns",
    )

    def __init__(self, name: str, claim: CpuClaim, affinity: Affinity, now_ns: int) -> None:
        self.name = name
        self.place = Place.ASLEEP
        self.since_ns = now_ns
        """Until when its time in that place has been counted."""
        self.home = -1
        """The pCPU whose engine has its code translated, or that keeps its reservation; -1 before there is one."""
        self.pcpu = -1
        """The pCPU that it is on, or was on last."""
        self.queued_ns = now_ns
        """When it got in line for the turn that it waits for, or has begun."""
        self.rest_ns = 0
        """What is left of that turn."""
        self.key: float = 0
        """Its place among those of its rank: the least is first. A deadline when it is reserved, else the policy's."""
        self.virtual: float = 0
        """What the policy counts for it."""
        self.distance: float = 0
        """What its key is more for other pCPUs than for its home."""
        self.lag: float = inf
        """How far `virtual` may be behind that of guests with other affinities."""
        self.rank = SHARED
        """How it was queued last."""
        self.ticket = 0
        """Which entry in a queue is its own; older ones are void."""
        self.ran_ns = self.waited_ns = self.throttled_ns = 0
        self.pace = 1.0
        """Bytes of code per nanosecond, lately."""
        self.sample_ns = self.sample_work = 0
        """What the next look at its pace has to go by."""
        self.cap: TokenBucket | None = None
        self.limit: TokenBucket | None = None
        self.reserved: TokenBucket | None = None
        self.budget_ns: float = 0
        """What it is still to have, by its reservation, until `deadline_ns`."""
        self.deadline_ns = now_ns
        self.change(claim, affinity, now_ns)

    def change(self, claim: CpuClaim, affinity: Affinity, now_ns: int) -> None:
        """Another claim, from now on. What its buckets hold or owe stays."""
        self.claim = claim
        self.affinity = affinity
        self.slice_ns = claim.latency_us * NS_PER_US
        """How long it runs at a time."""
        period_ns = claim.period_us * NS_PER_US
        cap = None if claim.cap is None or claim.cap >= WHOLE else claim.cap / WHOLE
        reserved = claim.reservation / WHOLE or None
        limit = None if claim.limit is None else claim.limit / NS_PER_S
        # Both halves of a bucket are worth a slice: what is queued with half of it must not run on more than it has.
        self.cap = _bucket(self.cap, cap, period_ns, 2 * MIN_SLICE_NS, now_ns)
        self.reserved = _bucket(self.reserved, reserved, period_ns, 2 * MIN_SLICE_NS, now_ns)
        self.limit = _bucket(self.limit, limit, period_ns, 0, now_ns)
        self.budget_ns = 0
        self.limits = [bucket for bucket in (self.cap, self.limit) if bucket is not None]

    @property
    def allowed(self) -> frozenset[int]:
        """The pCPUs that may run it."""
        return self.affinity.allowed

    @property
    def stolen_ns(self) -> int:
        """How long it has wanted a pCPU and had none, but for the wait that it is in."""
        return self.waited_ns + self.throttled_ns

    def charge(self, ran_ns: int, work: int, now_ns: int) -> None:
        """It ran until `now_ns` for `ran_ns` and retired `work` bytes of code."""
        self.ran_ns += ran_ns
        self.sample_ns += ran_ns
        self.sample_work += work
        if self.sample_ns >= PACE_SAMPLE_NS:
            self.pace = max(MIN_PACE, (self.pace + self.sample_work / self.sample_ns) / 2)
            self.sample_ns = self.sample_work = 0
        # Taken when it began, so that what fills the buckets while it runs is not lost at their brim.
        began_ns = now_ns - ran_ns
        if self.cap is not None:
            self.cap.take(ran_ns, began_ns)
        if self.limit is not None:
            self.limit.take(work, began_ns)
        if self.reserved is not None:
            self.reserved.take(ran_ns, began_ns)
            if self.rank == RESERVED:
                self.budget_ns -= ran_ns
                self._merge_rest(now_ns)
            elif self.reserved.level(now_ns) < 0:
                self.reserved.forgive()  # what it got beyond its reservation is not taken from it

    def is_due(self, now_ns: int) -> bool:
        """Whether it is to run by its reservation now: `budget_ns` until `deadline_ns`. What is left of the last
        budget, or half a bucket as soon as there is as much: so its budgets are never more than its rate, and earliest
        deadline first keeps all deadlines."""
        bucket = self.reserved
        if bucket is None:
            return False
        if self.budget_ns < MIN_SLICE_NS:
            half = bucket.burst / 2
            if bucket.level(now_ns) < half:
                return False
            paid_ns = self.deadline_ns - int(self.budget_ns / bucket.rate)
            self._grant(bucket, max(now_ns, paid_ns))
        return True

    def _merge_rest(self, now_ns: int) -> None:
        """It was interrupted. Less than a slice that is left of its budget goes into the next one, if that can be had
        now: due later by the time for what is added. `is_due` would give it up to half a period more, which it may
        have waited already, and its bucket would be full before."""
        bucket = self.reserved
        assert bucket is not None
        if 0 < self.budget_ns < MIN_SLICE_NS and bucket.level(now_ns) >= bucket.burst / 2:
            self._grant(bucket, max(now_ns, self.deadline_ns) - int(self.budget_ns / bucket.rate))

    def _grant(self, bucket: TokenBucket, begins_ns: int) -> None:
        """Half of `bucket` is its budget, as if given at `begins_ns`."""
        self.budget_ns = bucket.burst / 2
        self.deadline_ns = begins_ns + int(self.budget_ns / bucket.rate)

    def resume(self, now_ns: int) -> None:
        """It did not want to run, or was throttled. What it did not run meanwhile would be others' time now."""
        if self.reserved is not None:
            self.budget_ns = min(self.budget_ns, max(0, self.deadline_ns - now_ns) * self.reserved.rate)

    def is_used_up(self, now_ns: int) -> bool:
        """Whether its cap or limit forbids it to run."""
        return any(bucket.level(now_ns) <= 0 for bucket in self.limits)

    def half_full_ns(self, now_ns: int) -> int:
        """When its cap and limit are half full again; `now_ns` if they are."""
        return max((bucket.when(bucket.burst / 2, now_ns) for bucket in self.limits), default=now_ns)

    def allowance(self, now_ns: int) -> int:
        """How long it may run at most if it is picked now, by its turn and its buckets."""
        left: float = self.rest_ns
        if self.rank == RESERVED:
            left = self.budget_ns
        if self.cap is not None:
            left = min(left, _lasts_ns(self.cap, 1.0, now_ns))
        if self.limit is not None:
            left = min(left, _lasts_ns(self.limit, self.pace, now_ns))
        return max(MIN_SLICE_NS, int(left))


def _lasts_ns(bucket: TokenBucket, pace: float, now_ns: int) -> float:
    """How long what is in `bucket` lasts for who takes `pace` tokens in a nanosecond, while it fills."""
    return bucket.level(now_ns) / (pace - bucket.rate) if pace > bucket.rate else float(LONGEST_SLICE_NS)


def _bucket(
    bucket: TokenBucket | None, rate: float | None, period_ns: int, least: int, now_ns: int
) -> TokenBucket | None:
    if rate is None:
        return None
    burst = max(rate * period_ns, least)
    if bucket is None:
        return TokenBucket(rate, burst, now_ns)
    bucket.change(rate, burst, now_ns)
    return bucket
