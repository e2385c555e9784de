"""Whether a host can keep what guests have reserved, and which pCPU keeps it for whom.

On one processor, earliest deadline first keeps every set of reservations that adds up to no more than the processor
(Liu and Layland, 1973). Over several at once it does not, even if they are mostly free (Dhall and Liu, 1978). So each
guest with a reservation gets a *home*, and the reservations of a home add up to at most one pCPU. That is bin packing,
here by first fit in decreasing order: where all may run anywhere and none reserves more than a part r of a pCPU,
everything up to pcpus * (1 - r) + r is possible. A set that could be laid out, but in no order tried, is refused.
"""

from collections.abc import Iterable, Mapping

from emuvisor.errors import AdmissionError, UsageError
from emuvisor.host.scheduler.claim import WHOLE, CpuClaim

__all__ = ["admit", "allowed_pcpus"]

PARTS = 10_000
"""Of a percent: reservations are added up exactly."""


def allowed_pcpus(name: str, claim: CpuClaim, pcpus: int) -> frozenset[int]:
    """The pCPUs that may run guest `name`. Raises UsageError when the host has one of them not."""
    if claim.affinity is None:
        return frozenset(range(pcpus))
    missing = sorted(pcpu for pcpu in claim.affinity if not 0 <= pcpu < pcpus)
    if missing:
        raise UsageError(
            f"guest {name!r}: an affinity to pCPU {missing[0]} is impossible; the host has {_pcpus(pcpus)}"
        )
    return claim.affinity


def admit(
    claims: Mapping[str, CpuClaim],
    pcpus: int,
    homes: Mapping[str, int] | None = None,
    asking: str | None = None,
) -> dict[str, int]:
    """A home for each guest in `claims` that has reserved something: the one in `homes` if that is possible for all,
    and for `asking` if it is beside the others.

    Raises AdmissionError with the arithmetic when none is left for one of them, UsageError for an affinity to a pCPU
    that there is not.
    """
    allowed = {name: allowed_pcpus(name, claim, pcpus) for name, claim in claims.items()}
    reserved = {name: claim for name, claim in claims.items() if claim.reservation}
    largest_first = sorted(reserved, key=lambda name: -reserved[name].reservation)
    bound_first = sorted(largest_first, key=lambda name: len(allowed[name]))
    homes = homes or {}
    kept_first = sorted(largest_first, key=lambda name: (name == asking, name not in homes))
    why = ""
    for order, kept in ((kept_first, homes), (bound_first, {}), (largest_first, {})):
        found = _fit(order, reserved, allowed, pcpus, kept)
        if not isinstance(found, str):
            return found
        why = why or found
    raise AdmissionError(why)


def _fit(
    order: Iterable[str],
    claims: Mapping[str, CpuClaim],
    allowed: Mapping[str, frozenset[int]],
    pcpus: int,
    kept: Mapping[str, int],
) -> dict[str, int] | str:
    """Homes by first fit in `order`, those in `kept` first, or why there is none."""
    free = [round(WHOLE * PARTS)] * pcpus
    homes: dict[str, int] = {}
    for name in order:
        needed = round(claims[name].reservation * PARTS)
        candidates = sorted(allowed[name], key=lambda pcpu: (pcpu != kept.get(name), pcpu))
        home = next((pcpu for pcpu in candidates if needed <= free[pcpu]), None)
        if home is None:
            left = ", ".join(f"{free[pcpu] / PARTS:g} % of pCPU {pcpu}" for pcpu in candidates)
            return (
                f"guest {name!r}: a reservation of {claims[name].reservation:g} % of a pCPU cannot be promised: "
                f"beside {_guests(len(homes))} with reservations {left} "
                f"{'is' if len(candidates) == 1 else 'are'} left"
            )
        free[home] -= needed
        homes[name] = home
    return homes


def _pcpus(count: int) -> str:
    return "pCPU 0 alone" if count == 1 else f"pCPUs 0 to {count - 1}"


def _guests(count: int) -> str:
    return "1 guest" if count == 1 else f"{count} guests"
