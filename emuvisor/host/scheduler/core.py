"""The scheduler: events in, instructions out.

It knows no thread, no clock and no guest: time is an argument, and whoever calls it carries out what it says. So a
thousand hours of scheduling are a loop in a test, and two runs with the same events are the same.

A guest is asleep, throttled, waiting in one queue, or on one pCPU. There is a queue for each pair of *home* (the pCPU
whose engine has a guest's code translated) and affinity. A pCPU that becomes free takes the first of the queues it may
take from, its own with some preference. What comes before any policy:

- a guest whose **cap** or **limit** is used up is throttled until half of its bucket is full again; with less than half
  of it, it has only what nobody else wants;
- a guest with a **reservation** has half of a period's budget to run in each half of a period, ahead of all others on
  its home, by earliest deadline (a constant bandwidth server: Abeni and Buttazzo, RTSS 1998). Its home stays: `admit`
  found one where all reservations add up to at most a pCPU. Other pCPUs run it by its reservation, too, when nobody
  has reserved them.

A turn is the policy's, or as long as the guest's latency. Who is interrupted in it keeps its place and the rest.

No pCPU is free while a guest waits that it may run. Each step takes the logarithm of the guests that wait, times the
number of queues that a pCPU takes from: its homes, times the different affinities.
"""

from heapq import heappop, heappush
from itertools import count
from math import inf

from emuvisor.errors import UsageError
from emuvisor.host.scheduler.admission import admit, allowed_pcpus
from emuvisor.host.scheduler.affinity import SLACK, Affinity, Entry, WaitQueue
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.entity import ELSEWHERE, MIN_SLICE_NS, RESERVED, SHARED, SPARE, Entity, Place
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
from emuvisor.host.scheduler.policy import Policy

__all__ = ["Scheduler"]


class Scheduler:
    """Divides `pcpus` processors by `policy`. `handle` takes an event and says what is to be done."""

    def __init__(self, pcpus: int, policy: Policy, now_ns: int = 0) -> None:
        self.pcpus = pcpus
        self.policy = policy
        self.entities: dict[str, Entity] = {}
        self.running: list[Entity | None] = [None] * pcpus
        self._told: list[bool] = [False] * pcpus
        """It was told to let its guest go, and has not yet."""
        self._homed = [0] * pcpus
        """How many guests that wait or run have their home there."""
        self._active: dict[str, Entity] = {}
        """The guests that wait or run."""
        self._affinities: dict[frozenset[int], Affinity] = {}
        """Those that guests have."""
        self._sources: list[list[WaitQueue]] = [[] for _ in range(pcpus)]
        """The queues that each may take from."""
        self._timers: list[tuple[int, int, Entity]] = []
        """When a guest that is throttled, or waits for its reservation, is to be queued anew; by ticket."""
        self._tickets = count(1)
        self._accounted_ns = now_ns

    @property
    def timer_ns(self) -> int | None:
        """When a `Timer` event is due; None: there is nothing to wait for."""
        timers = self._timers
        while timers and timers[0][1] != timers[0][2].ticket:
            heappop(timers)
        due = timers[0][0] if timers else None
        period = self.policy.period_ns
        if period is not None and self._active:
            accounting = self._accounted_ns + period
            return accounting if due is None else min(due, accounting)
        return due

    def handle(self, now_ns: int, event: Event) -> list[Instruction]:
        """`event` happened at `now_ns`; the answer is to be carried out in its order.

        Raises UsageError for an event that cannot be: a guest that is not there, is there already, runs elsewhere or
        still; and AdmissionError for a reservation that cannot be kept. Then nothing has changed.
        """
        match event:
            case Left():
                return self._left(now_ns, event)
            case Woke(name):
                entity = self._entity(name)
                if entity.place is not Place.ASLEEP:
                    return []
                self.policy.woke(entity)
                self._new_turn(entity, now_ns)
                return self._queue(entity, now_ns)
            case Timer():
                return self._timer(now_ns)
            case Slept(name):
                entity = self._entity(name)
                if entity.place is not Place.RUNNING:
                    self._go(entity, Place.ASLEEP, now_ns)
            case Added(name, claim):
                return self._add(name, claim, now_ns)
            case Changed(name, claim):
                return self._change(self._entity(name), claim, now_ns)
            case Removed(name):
                return self._remove(self._entity(name), now_ns)
        return []

    def _entity(self, name: str) -> Entity:
        if name not in self.entities:
            raise UsageError(f"the scheduler knows no guest {name!r}")
        return self.entities[name]

    # ---- guests and their claims ----

    def _add(self, name: str, claim: CpuClaim, now_ns: int) -> list[Instruction]:
        if name in self.entities:
            raise UsageError(f"the scheduler knows a guest {name!r} already")
        homes = self._admit(name, claim)
        entity = self.entities[name] = Entity(name, claim, self._affinity(name, claim), now_ns)
        self.policy.changed(entity, None)
        return self._move(homes, now_ns)

    def _change(self, entity: Entity, claim: CpuClaim, now_ns: int) -> list[Instruction]:
        homes = self._admit(entity.name, claim)
        done: list[Instruction] = []
        place, before = entity.place, entity.claim
        if place is Place.WAITING:
            self._go(entity, Place.ASLEEP, now_ns)
        self._leave_affinity(entity)
        entity.change(claim, self._affinity(entity.name, claim), now_ns)
        entity.rest_ns = min(entity.rest_ns, self.policy.turn_ns or entity.slice_ns)
        self.policy.changed(entity, before)
        if place is Place.RUNNING:
            if not self._told[entity.pcpu]:
                done.append(self._preempt(entity.pcpu, "it has another claim"))
        elif place is not Place.ASLEEP:
            done += self._queue(entity, now_ns)
        return done + self._move(homes, now_ns)

    def _remove(self, entity: Entity, now_ns: int) -> list[Instruction]:
        if entity.place is Place.RUNNING:
            raise UsageError(f"guest {entity.name!r} is on pCPU {entity.pcpu}; it must leave it first")
        self._go(entity, Place.ASLEEP, now_ns)
        self._leave_affinity(entity)
        self.policy.removed(entity)
        del self.entities[entity.name]
        return []

    def _admit(self, name: str, claim: CpuClaim) -> dict[str, int]:
        """The home of each guest with a reservation, if `name` has `claim`."""
        if not claim.reservation:  # the others' reservations remain possible
            allowed_pcpus(name, claim, self.pcpus)
            return {}
        reserved = {n: e for n, e in self.entities.items() if e.reserved is not None}
        homes = {n: e.home for n, e in reserved.items()}
        claims = {n: e.claim for n, e in reserved.items()} | {name: claim}
        return admit(claims, self.pcpus, homes, name)

    def _affinity(self, name: str, claim: CpuClaim) -> Affinity:
        """The affinity of `claim`, for one guest more."""
        allowed = allowed_pcpus(name, claim, self.pcpus)
        affinity = self._affinities.get(allowed)
        if affinity is None:
            affinity = self._affinities[allowed] = Affinity(allowed)
            for pcpu in affinity.pcpus:
                self._sources[pcpu].extend(affinity.queues.values())
        affinity.guests += 1
        return affinity

    def _leave_affinity(self, entity: Entity) -> None:
        affinity = entity.affinity
        affinity.guests -= 1
        if not affinity.guests:
            del self._affinities[affinity.allowed]
            for pcpu in affinity.pcpus:
                self._sources[pcpu] = [
                    queue for queue in self._sources[pcpu] if queue.affinity is not affinity
                ]

    def _move(self, homes: dict[str, int], now_ns: int) -> list[Instruction]:
        """Guests with reservations get new homes."""
        done: list[Instruction] = []
        for name, home in homes.items():
            entity = self.entities[name]
            if entity.home != home:
                self._set_home(entity, home)
                if entity.place is Place.WAITING:
                    done += self._queue(entity, now_ns)
        return done

    def _set_home(self, entity: Entity, home: int) -> None:
        if entity.name in self._active:
            self._homed[entity.home] -= 1
            self._homed[home] += 1
        entity.home = home

    # ---- from event to queue ----

    def _left(self, now_ns: int, event: Left) -> list[Instruction]:
        pcpu, ran_ns = event.pcpu, event.ran_ns
        entity = self.running[pcpu] if 0 <= pcpu < self.pcpus else None
        if entity is None or entity.name != event.name:
            raise UsageError(f"pCPU {pcpu} does not run guest {event.name!r}")
        told = self._told[pcpu]
        self.running[pcpu] = None
        self._told[pcpu] = False
        entity.charge(ran_ns, event.work, now_ns)
        self.policy.ran(entity, ran_ns)
        entity.rest_ns -= ran_ns
        if entity.rest_ns < MIN_SLICE_NS:
            self._new_turn(entity, now_ns)
        if not event.wants:
            self._go(entity, Place.ASLEEP, now_ns)
            return self._pick(pcpu, now_ns)
        if self._throttle(entity, now_ns):
            return self._pick(pcpu, now_ns)
        if entity.home not in entity.affinity.allowed:
            self._find_home(entity)
        bound = len(self._affinities) > 1
        if bound and self._free_pcpu(entity, besides=pcpu) is not None:
            done = self._pick(pcpu, now_ns)  # for one that may not run where `entity` may
            return done + self._queue(entity, now_ns)
        self._push(entity, now_ns)
        done = self._pick(pcpu, now_ns)
        # It may have more right to another pCPU, unless its turn is over and there is but one order.
        if entity.place is Place.WAITING and (bound or told or entity.rank == RESERVED):
            done += self._start(entity, now_ns)
        return done

    def _timer(self, now_ns: int) -> list[Instruction]:
        done: list[Instruction] = []
        timers = self._timers
        while timers and timers[0][0] <= now_ns:
            _, ticket, entity = heappop(timers)
            if ticket == entity.ticket:
                done += self._queue(entity, now_ns)
        period = self.policy.period_ns
        if period is not None and now_ns >= self._accounted_ns + period:
            self._accounted_ns = now_ns
            for entity in self.policy.account(self._active.values()):
                if entity.place is Place.WAITING and entity.rank == SHARED:
                    self._push(entity, now_ns)
                    if entity.rank == RESERVED:
                        done += self._start(entity, now_ns)
        return done

    def _new_turn(self, entity: Entity, now_ns: int) -> None:
        entity.queued_ns = now_ns
        entity.rest_ns = self.policy.turn_ns or entity.slice_ns

    def _queue(self, entity: Entity, now_ns: int) -> list[Instruction]:
        """`entity` wants to run: now, in its turn, or when it is allowed to again."""
        if self._throttle(entity, now_ns):
            return []
        if entity.home not in entity.affinity.allowed:
            self._find_home(entity)
        self._push(entity, now_ns)
        return self._start(entity, now_ns)

    def _start(self, entity: Entity, now_ns: int) -> list[Instruction]:
        """`entity` waits: it is to run at once if a pCPU is free, or should be."""
        pcpu = self._free_pcpu(entity)
        if pcpu is not None:
            return [self._run(entity, pcpu, now_ns)]
        return self._make_way(entity)

    def _throttle(self, entity: Entity, now_ns: int) -> bool:
        """Whether its cap or limit is used up; it is queued when there is some again."""
        if not entity.limits or not entity.is_used_up(now_ns):
            return False
        self._go(entity, Place.THROTTLED, now_ns)
        self._wake_at(entity.half_full_ns(now_ns), entity)
        return True

    def _wake_at(self, until_ns: int, entity: Entity) -> None:
        timers = self._timers
        if len(timers) > 2 * len(self.entities) + SLACK:
            timers[:] = sorted(timer for timer in timers if timer[1] == timer[2].ticket)
        heappush(timers, (until_ns, entity.ticket, entity))

    def _push(self, entity: Entity, now_ns: int) -> None:
        """Into its queue; an entry that it has in one is void."""
        self._go(entity, Place.WAITING, now_ns)
        entity.rank = SHARED
        if entity.reserved is not None or entity.limits:
            self._rank(entity, now_ns)
        if entity.rank == SHARED:
            key = entity.key = self.policy.key(entity)
            if not -inf < key < inf:  # nothing is less or more than that, and the queue would lose its order
                raise ValueError(f"the key of guest {entity.name!r} is {key}")
        entity.affinity.queues[entity.home].push(entity)

    def _rank(self, entity: Entity, now_ns: int) -> None:
        """Whether it goes before or behind those that go by the policy, by what is in its buckets."""
        if entity.is_due(now_ns):
            entity.rank, entity.key = RESERVED, entity.deadline_ns
            return
        changes_ns: int | None = None
        if entity.reserved is not None:
            changes_ns = entity.reserved.when(entity.reserved.burst / 2, now_ns)
        half_full_ns = entity.half_full_ns(now_ns)
        if half_full_ns > now_ns:
            entity.rank, entity.key = SPARE, half_full_ns
            changes_ns = half_full_ns if changes_ns is None else min(changes_ns, half_full_ns)
        if changes_ns is not None:
            self._wake_at(changes_ns, entity)

    def _go(self, entity: Entity, place: Place, now_ns: int) -> None:
        """To another place; the time in the old one is counted, and what it has in a queue or a timer is void."""
        entity.ticket = next(self._tickets)
        before = entity.place
        if before is Place.THROTTLED or (before is Place.WAITING and entity.rank == SPARE):
            entity.throttled_ns += now_ns - entity.since_ns
        elif before is Place.WAITING:
            entity.waited_ns += now_ns - entity.since_ns
        entity.since_ns = now_ns
        if place is before:
            return
        entity.place = place
        if place is Place.ASLEEP or place is Place.THROTTLED:
            if self._active.pop(entity.name, None) is not None:
                self._homed[entity.home] -= 1
        elif before is Place.ASLEEP or before is Place.THROTTLED:
            entity.resume(now_ns)
            self._active[entity.name] = entity
            self._homed[entity.home] += 1

    # ---- from queue to pCPU ----

    def _find_home(self, entity: Entity) -> None:
        self._set_home(entity, min(entity.affinity.pcpus, key=lambda pcpu: (self._homed[pcpu], pcpu)))

    def _free_pcpu(self, entity: Entity, besides: int = -1) -> int | None:
        """Its home, or another one that nobody has."""
        running = self.running
        if running[entity.home] is None and entity.home != besides:
            return entity.home
        for pcpu in entity.affinity.pcpus:
            if running[pcpu] is None and pcpu != besides:
                return pcpu
        return None

    def _pick(self, pcpu: int, now_ns: int) -> list[Instruction]:
        """`pcpu` is free: run the first of those that wait."""
        best: Entry | None = None
        for queue in self._sources[pcpu]:
            entry = queue.first() if queue.heap else None
            if entry is None:
                continue
            rank, key, ticket, entity = entry
            if rank == SHARED:
                key += queue.affinity.offset
                if queue.home != pcpu:
                    key += entity.distance
            elif rank == RESERVED and queue.home != pcpu:
                rank = ELSEWHERE
            entry = rank, key, ticket, entity
            if best is None or entry < best:
                best = entry
        if best is None:
            return []
        chosen = best[3]
        if best[0] == SHARED and chosen.lag < inf and len(self._affinities) > 1:
            self._level(chosen, pcpu)
        return [self._run(chosen, pcpu, now_ns)]

    def _level(self, chosen: Entity, pcpu: int) -> None:
        """Guests that are bound to crowded pCPUs fall behind those that are not, for as long as it takes. They must
        not make up for that later: all that have their affinity are moved forward together."""
        affinity = chosen.affinity
        least = inf
        for queue in self._sources[pcpu]:
            entry = queue.first() if queue.affinity is not affinity else None
            if entry is not None and entry[3].reserved is None:  # or else that may have brought it ahead
                other = entry[3]
                least = min(least, other.virtual + queue.affinity.offset - other.lag)
        behind = least - (chosen.virtual + affinity.offset + chosen.lag)
        if 0 < behind < inf:
            affinity.offset += behind

    def _run(self, entity: Entity, pcpu: int, now_ns: int) -> Run:
        self._go(entity, Place.RUNNING, now_ns)
        if entity.reserved is None and entity.home != pcpu:
            self._set_home(entity, pcpu)
        self.running[pcpu] = entity
        entity.pcpu = pcpu
        self.policy.picked(entity)
        return Run(pcpu, entity.name, entity.allowance(now_ns))

    def _make_way(self, entity: Entity) -> list[Instruction]:
        """Send a guest away from a pCPU that `entity` has more right to: from the one that keeps its reservation, from
        one that nobody else wanted, or from the one whose guest has the least right."""
        home, rank = entity.home, entity.rank
        if rank == RESERVED and self._yields_reserved(home, entity):
            return [self._preempt(home, f"{entity.name} has time reserved")]
        if rank == SPARE:
            return []
        running = self.running
        told = self._told
        worst, latest = -1, -inf
        key = entity.key + entity.affinity.offset
        for pcpu in entity.affinity.pcpus:
            other = running[pcpu]
            if other is None or told[pcpu] or other.rank < SHARED:
                continue
            if other.rank == SPARE:
                return [self._preempt(pcpu, f"{other.name} had what was left over")]
            if rank == SHARED and self.policy.preemptive:
                distance = 0 if pcpu == home else entity.distance
                other_key = other.key + other.affinity.offset
                if other_key - distance > latest and self.policy.preempts(key + distance, other_key):
                    worst, latest = pcpu, other_key - distance
        return [self._preempt(worst, f"{entity.name} is ahead of it")] if worst >= 0 else []

    def _yields_reserved(self, pcpu: int, entity: Entity) -> bool:
        """Whether `pcpu`, which keeps `entity`'s reservation, is to run it instead of the guest that it runs."""
        running = self.running[pcpu]
        if running is None or self._told[pcpu]:
            return False
        if running.rank >= SHARED or running.home != pcpu or running.reserved is None:
            return True
        return entity.key < running.key

    def _preempt(self, pcpu: int, why: str) -> Preempt:
        running = self.running[pcpu]
        assert running is not None
        self._told[pcpu] = True
        return Preempt(pcpu, running.name, why)
