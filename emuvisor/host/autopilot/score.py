"""How well a guest fares, from 0 to 100: which part of the time that its work took was work.

    score = 100 * useful / (useful + ready + throttled + faults + I/O)

useful      on a pCPU, without `faults`
ready       it could have run, and waited for a pCPU
throttled   it could have run, and its cap or limit forbade it
faults      its pCPU waited for pages of its memory that the host had compressed or swapped
I/O         its disks and cards waited for tokens of their limits

So 100 divided by the score is its slowdown: how many times as long its work took as on a host of its own with no
limits. A guest that wanted nothing has 100: it lacks nothing. *Stolen* is no term of its own, as what the guest is told
of as steal time is ready and throttled together. Each term is a time, so nothing has to be weighed against
something else, but for what a fault takes, which is an average of our own benchmarks.

Sources: VMware's DRS score of a virtual machine (vSphere 7: the efficiency of its execution, of 0 to 100 %, against
that without contention) is the idea; the slowdown as its measure is that of multiprogramming (A. Snavely and D.
Tullsen, "Symbiotic Jobscheduling for a Simultaneous Multithreaded Processor", ASPLOS 2000); stalls as times rather than
counts are Linux's pressure stall information (J. Weiner, 2018).
"""

from collections.abc import Sequence

from emuvisor.host.autopilot.view import GuestView, HostView

__all__ = ["BEST", "fairness", "part_of_use", "score", "throughput", "wants"]

BEST = 100.0
LEAST_PART = 0.01
"""Of a period: who wanted less says nothing."""


def part_of_use(useful: float, lost: float) -> float:
    """The score, 0 to 100, of who used some time, and lost some, in whatever unit."""
    return BEST * useful / (useful + lost) if useful + lost else BEST


def score(guest: GuestView) -> float:
    """From 0 to 100."""
    return part_of_use(guest.useful_ns, guest.lost_ns)


def wants(view: HostView, guest: GuestView) -> bool:
    """Whether it wanted enough in the period for its score to mean something."""
    return guest.wanted_ns >= LEAST_PART * view.period_ns


def throughput(view: HostView) -> float:
    """Useful work of all guests, in percent of what could have been done: all that they wanted, or all pCPUs busy."""
    wanted = sum(min(view.period_ns, guest.wanted_ns) for guest in view.guests)
    possible = min(wanted, view.capacity_ns)
    return min(BEST, BEST * sum(guest.useful_ns for guest in view.guests) / possible) if possible else BEST


def fairness(view: HostView) -> float:
    """The harmonic mean of the scores of who wanted something, 0 to 100: it is as low as the one that fares badly.

    With slowdowns in place of scores it is n over their sum: K. Luo, J. Gummaraju and M. Franklin, "Balancing
    Throughput and Fairness in SMT Processors", ISPASS 2001.
    """
    return _harmonic_mean([score(guest) for guest in view.guests if wants(view, guest)])


def _harmonic_mean(scores: Sequence[float]) -> float:
    if not scores:
        return BEST
    return len(scores) / sum(1 / value for value in scores) if all(scores) else 0.0
