"""A scheduling policy of one's own: a lottery. `make` is what an entry point of `emuvisor.schedulers` names.

    [project.entry-points."emuvisor.schedulers"]
    lottery = "scheduling_policy:make"

Source: C. A. Waldspurger and W. E. Weihl, *Lottery Scheduling*, OSDI 1994.
"""

from random import Random

from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.core import Scheduler
from emuvisor.host.scheduler.entity import Entity
from emuvisor.host.scheduler.gantt import draw_text
from emuvisor.host.scheduler.instructions import Added, Event, Left, Run, Woke
from emuvisor.host.scheduler.policy import Policy
from emuvisor.host.scheduler.recording import Recorder


class Lottery(Policy):
    """Each guest has a bell that rings at random, `weight` times as often; who rang first runs."""

    name = "lottery"
    turn_ns = 2_000_000
    preemptive = False

    def __init__(self) -> None:
        self._random = Random(1)
        self._now = 0.0

    def woke(self, entity: Entity) -> None:
        entity.virtual = self._now + self._random.expovariate(entity.claim.weight)

    def picked(self, entity: Entity) -> None:
        self._now = max(self._now, entity.virtual)

    def ran(self, entity: Entity, ran_ns: int) -> None:
        entity.virtual += self._random.expovariate(entity.claim.weight) * ran_ns / self.turn_ns

    def key(self, entity: Entity) -> float:
        return entity.virtual


def make(_pcpus: int) -> Policy:
    return Lottery()


def main() -> None:
    """One pCPU for a fifth of a second, without a host."""
    scheduler = Scheduler(1, make(1))
    recorder = Recorder(scheduler)
    now_ns = 0
    scheduler.handle(now_ns, Added("light", CpuClaim(weight=100)))
    scheduler.handle(now_ns, Added("heavy", CpuClaim(weight=300)))
    event: Event = Woke("light")
    instructions = scheduler.handle(now_ns, event)
    recorder.record(now_ns, event, instructions)
    scheduler.handle(now_ns, Woke("heavy"))
    while now_ns < 200_000_000:
        (run,) = instructions
        assert isinstance(run, Run)
        now_ns += run.slice_ns
        event = Left(run.pcpu, run.name, run.slice_ns, work=2 * run.slice_ns, wants=True)
        instructions = scheduler.handle(now_ns, event)
        recorder.record(now_ns, event, instructions)
    print(draw_text(list(recorder.stretches), width=100), end="")
    for name, entity in scheduler.entities.items():
        print(f"{name}: weight {entity.claim.weight}, ran {entity.ran_ns / 1e6:g} ms")


if __name__ == "__main__":
    main()
