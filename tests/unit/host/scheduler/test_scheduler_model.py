"""Random events against what must hold after each: hypothesis as the host."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from emuvisor.errors import AdmissionError
from emuvisor.host.scheduler.affinity import SLACK
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.core import Scheduler
from emuvisor.host.scheduler.entity import MIN_SLICE_NS, RESERVED, SPARE, Place
from emuvisor.host.scheduler.instructions import (
    Added,
    Changed,
    Event,
    Instruction,
    Left,
    Preempt,
    Removed,
    Run,
    Slept,
    Timer,
    Woke,
)
from emuvisor.host.scheduler.policies import POLICIES, make_policy

PCPUS = 3
NAMES = tuple("abcdefgh")

claims = st.builds(
    CpuClaim,
    weight=st.sampled_from([1, 50, 100, 10_000]),
    cap=st.sampled_from([None, None, 30, 60, 100]),
    reservation=st.sampled_from([0, 0, 10, 30]),
    period_us=st.sampled_from([1_000, 20_000, 1_000_000]),
    limit=st.sampled_from([None, None, 1, 10**9]),
    affinity=st.none() | st.frozensets(st.integers(0, PCPUS - 1), min_size=1),
    latency_us=st.sampled_from([100, 5_000, 100_000]),
)
names = st.sampled_from(NAMES)


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(policy=st.sampled_from(sorted(POLICIES)))
    def start(self, policy: str) -> None:
        self.now_ns = 0
        self.scheduler = Scheduler(PCPUS, make_policy(policy, PCPUS))
        self.claims: dict[str, CpuClaim] = {}
        self.wanting: set[str] = set()
        self.on: dict[int, tuple[str, int]] = {}
        self.told: set[int] = set()

    def handle(self, event: Event) -> None:
        done = self.scheduler.handle(self.now_ns, event)
        assert self.carry_out(done) == len(done)

    def carry_out(self, instructions: list[Instruction]) -> int:
        for instruction in instructions:
            match instruction:
                case Run(pcpu, name, slice_ns):
                    assert pcpu not in self.on, "it was free"
                    assert name in self.wanting
                    assert name not in {guest for guest, _ in self.on.values()}
                    assert pcpu in (self.claims[name].affinity or range(PCPUS))
                    assert slice_ns >= MIN_SLICE_NS
                    self.on[pcpu] = name, self.now_ns
                case Preempt(pcpu, name, why):
                    assert self.on[pcpu][0] == name
                    assert pcpu not in self.told, "it was told once"
                    assert why
                    self.told.add(pcpu)
        return len(instructions)

    @rule(ns=st.sampled_from([1, 1_000, MIN_SLICE_NS, 5_000_000, 10**9, 10**14]))
    def pass_time(self, ns: int) -> None:
        self.now_ns += ns

    @rule(name=names, claim=claims)
    def add_or_change(self, name: str, claim: CpuClaim) -> None:
        event = Changed if name in self.claims else Added
        before = self.claims.get(name)
        self.claims[name] = claim
        try:
            self.handle(event(name, claim))
        except AdmissionError:
            del self.claims[name]
            if before is not None:
                self.claims[name] = before

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), steps=st.integers(1, 3))
    def wake(self, data: st.DataObject, steps: int) -> None:
        for _ in range(steps):
            name = data.draw(st.sampled_from(sorted(self.claims)))
            self.wanting.add(name)
            self.handle(Woke(name))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def sleep(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.claims)))
        if name not in {guest for guest, _ in self.on.values()}:
            self.wanting.discard(name)
        self.handle(Slept(name))

    @precondition(lambda self: self.on)
    @rule(data=st.data(), work=st.sampled_from([0, 1, 10**6, 10**12]), wants=st.booleans())
    def leave(self, data: st.DataObject, work: int, wants: bool) -> None:
        pcpu = data.draw(st.sampled_from(sorted(self.on)))
        name, since_ns = self.on.pop(pcpu)
        self.told.discard(pcpu)
        if not wants:
            self.wanting.discard(name)
        self.handle(Left(pcpu, name, self.now_ns - since_ns, work, wants))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.claims)))
        if name not in {guest for guest, _ in self.on.values()}:
            del self.claims[name]
            self.wanting.discard(name)
            self.handle(Removed(name))

    @rule()
    def timer(self) -> None:
        due = self.scheduler.timer_ns
        if due is not None:
            self.now_ns = max(self.now_ns, due)
        self.handle(Timer())
        due = self.scheduler.timer_ns
        assert due is None or due > self.now_ns, "it is over"

    @invariant()
    def every_guest_is_in_one_place(self) -> None:
        scheduler = self.scheduler
        assert set(scheduler.entities) == set(self.claims)
        on = {name: pcpu for pcpu, (name, _) in self.on.items()}
        entries: dict[str, int] = {}
        affinities = scheduler._affinities.values()
        for affinity in affinities:
            for home, queue in affinity.queues.items():
                assert len(queue.heap) <= 2 * affinity.guests + SLACK + 1
                for _, _, ticket, entity in queue.heap:
                    if ticket == entity.ticket:
                        entries[entity.name] = entries.get(entity.name, 0) + 1
                        assert entity.home == home
                        assert entity.affinity is affinity
                        assert entity.place is Place.WAITING
        timed = [entity.name for _, ticket, entity in scheduler._timers if ticket == entity.ticket]
        for name, entity in scheduler.entities.items():
            assert (entity.place is Place.RUNNING) == (name in on)
            assert (entity.place is Place.ASLEEP) == (name not in self.wanting)
            assert entries.get(name, 0) == (entity.place is Place.WAITING)
            waits_for_time = entity.place is Place.THROTTLED or (
                entity.place is Place.WAITING
                and (entity.rank == SPARE or (entity.reserved is not None and entity.rank != RESERVED))
            )
            assert timed.count(name) == waits_for_time
            if name in on:
                assert scheduler.running[on[name]] is entity
        assert sum(map(bool, scheduler.running)) == len(on)

    @invariant()
    def counts_are_right(self) -> None:
        scheduler = self.scheduler
        active = {n: e for n, e in scheduler.entities.items() if e.place in (Place.WAITING, Place.RUNNING)}
        assert scheduler._active == active
        homes = [entity.home for entity in active.values()]
        assert scheduler._homed == [homes.count(pcpu) for pcpu in range(PCPUS)]
        used = [entity.affinity for entity in scheduler.entities.values()]
        assert {id(a) for a in used} == {id(a) for a in scheduler._affinities.values()}
        assert all(used.count(a) == a.guests for a in scheduler._affinities.values())
        for pcpu, sources in enumerate(scheduler._sources):
            assert all(pcpu in queue.affinity.allowed for queue in sources)
            assert len(sources) == sum(
                len(a.pcpus) for a in scheduler._affinities.values() if pcpu in a.allowed
            )

    @invariant()
    def no_pcpu_is_free_while_a_guest_waits_for_it(self) -> None:
        for entity in self.scheduler.entities.values():
            if entity.place is Place.WAITING:
                assert all(pcpu in self.on for pcpu in entity.allowed)

    @invariant()
    def nobody_waits_for_one_that_has_what_is_left_over(self) -> None:
        waiting = [
            entity.allowed
            for entity in self.scheduler.entities.values()
            if entity.place is Place.WAITING and entity.rank != SPARE
        ]
        for pcpu, running in enumerate(self.scheduler.running):
            if running is not None and running.rank == SPARE and pcpu not in self.told:
                # But one that is to have another pCPU as soon as that is left.
                assert sum(pcpu in allowed for allowed in waiting) <= len(self.told)

    @invariant()
    def reservations_can_be_kept(self) -> None:
        kept = [0.0] * PCPUS
        for name, entity in self.scheduler.entities.items():
            if self.claims[name].reservation:
                assert entity.home in entity.allowed
                kept[entity.home] += self.claims[name].reservation
        assert max(kept) <= 100


SchedulerMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestScheduler = SchedulerMachine.TestCase
