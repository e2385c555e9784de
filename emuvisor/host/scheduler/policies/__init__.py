"""The scheduling policies beside each other, by name; users add theirs by the entry point `emuvisor.schedulers`."""

from collections.abc import Callable
from importlib.metadata import entry_points

from emuvisor.errors import UsageError
from emuvisor.host.scheduler.entity import MIN_SLICE_NS
from emuvisor.host.scheduler.policies.credit import Credit
from emuvisor.host.scheduler.policies.deadline import Deadline
from emuvisor.host.scheduler.policies.proportional import ProportionalShare
from emuvisor.host.scheduler.policies.round_robin import RoundRobin
from emuvisor.host.scheduler.policy import Policy

__all__ = ["ENTRY_POINTS", "POLICIES", "make_policy"]

ENTRY_POINTS = "emuvisor.schedulers"
MIN_PERIOD_NS = 1_000_000

POLICIES: dict[str, Callable[[int], Policy]] = {
    ProportionalShare.name: lambda _pcpus: ProportionalShare(),
    RoundRobin.name: lambda _pcpus: RoundRobin(),
    Credit.name: lambda _pcpus: Credit(),
    Deadline.name: lambda _pcpus: Deadline(),
}
"""How each is made for a number of pCPUs."""


def make_policy(name: str, pcpus: int) -> Policy:
    """The policy called `name`; an entry point of that name is called with the number of pCPUs.

    Raises UsageError when there is none, or it fails, or makes something else.
    """
    if name in POLICIES:
        return POLICIES[name](pcpus)
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in found:
        known = ", ".join(sorted({*POLICIES, *found}))
        raise UsageError(f"there is no scheduling policy {name!r}; there are: {known}")
    try:
        policy = found[name].load()(pcpus)
    except Exception as error:
        raise UsageError(f"scheduling policy {name!r}: {type(error).__name__}: {error}") from error
    if not isinstance(policy, Policy):
        raise UsageError(f"scheduling policy {name!r} is a {type(policy).__name__}, not a Policy")
    for what, least in (("turn_ns", MIN_SLICE_NS), ("period_ns", MIN_PERIOD_NS)):
        value = getattr(policy, what)
        if value is not None and not (isinstance(value, int) and value >= least):
            raise UsageError(
                f"scheduling policy {name!r}: {what} {value!r} is impossible; it is {least:,} or more"
            )
    return policy
