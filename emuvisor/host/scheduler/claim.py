"""What a guest is promised of the host's processors."""

from dataclasses import dataclass

from emuvisor.errors import UsageError

__all__ = ["DEFAULT_LATENCY_US", "DEFAULT_WEIGHT", "MAX_WEIGHT", "WHOLE", "CpuClaim"]

DEFAULT_WEIGHT = 100
MAX_WEIGHT = 10_000
DEFAULT_LATENCY_US = 5_000
MIN_LATENCY_US, MAX_LATENCY_US = 100, 100_000
MIN_CAP = 0.01
"""Percent; less is no more than a guest that is switched off."""
MAX_LIMIT = 1 << 40
MIN_PERIOD_US, MAX_PERIOD_US = 1_000, 1_000_000
WHOLE = 100.0
"""Percent: a guest runs on one pCPU at a time, also with several vCPUs."""


@dataclass(frozen=True, slots=True)
class CpuClaim:
    """A guest's claim to pCPUs. Raises UsageError for impossible values.

    weight: its share against the others that want to run, 1 to 10,000.
    cap: percent of one pCPU that it never passes, however idle the host is; None is 100.
    reservation: percent of one pCPU that it gets for as long as it wants it.
    period_us: over which cap and reservation hold; a short one gives and takes time in small pieces and soon.
    limit: bytes of guest code a second that it never passes, what others call a clock rate; None is no limit.
    affinity: the pCPUs that may run it; None are all.
    latency_us: how soon it wants to run once it can, which is how long it runs at a time; a shorter one gives it
        no more of the processor, only sooner.
    """

    weight: int = DEFAULT_WEIGHT
    cap: float | None = None
    reservation: float = 0.0
    period_us: int = 20_000
    limit: int | None = None
    affinity: frozenset[int] | None = None
    latency_us: int = DEFAULT_LATENCY_US

    def __post_init__(self) -> None:
        _check("weight", self.weight, 1, MAX_WEIGHT)
        if self.cap is not None and not MIN_CAP <= self.cap <= WHOLE:
            raise UsageError(f"a cap of {self.cap:g} % of a pCPU is impossible; it is {MIN_CAP} to 100")
        if not 0 <= self.reservation <= WHOLE:
            raise UsageError(
                f"a reservation of {self.reservation:g} % of a pCPU is impossible; it is 0 to 100"
            )
        if self.cap is not None and self.reservation > self.cap:
            raise UsageError(
                f"a reservation of {self.reservation:g} % is more than the cap of {self.cap:g} %"
            )
        _check("period_us", self.period_us, MIN_PERIOD_US, MAX_PERIOD_US)
        _check("latency_us", self.latency_us, MIN_LATENCY_US, MAX_LATENCY_US)
        if self.limit is not None and not 1 <= self.limit <= MAX_LIMIT:
            raise UsageError(
                f"a limit of {self.limit} bytes of code a second is impossible; it is 1 to {MAX_LIMIT}"
            )
        if self.affinity is not None:
            if not self.affinity:
                raise UsageError("an affinity to no pCPU is impossible")
            for pcpu in self.affinity:
                if not isinstance(pcpu, int):
                    raise UsageError(f"an affinity to pCPU {pcpu!r} is impossible; it is a number")


def _check(name: str, value: int, first: int, last: int) -> None:
    if not (isinstance(value, int) and first <= value <= last):
        raise UsageError(f"{name} {value!r} is impossible; it is {first:,} to {last:,}")
