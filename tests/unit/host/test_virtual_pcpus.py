"""Virtual pCPUs with guests that only do what a test tells them: at which virtual time what happens."""

import threading
from types import SimpleNamespace

import pytest
from pcpu_rig import IDLE, MS, PATIENCE_S, RUNNABLE, Broken, FakeGuest, Latest, PcpuRig, refused

from emuvisor.cpu.models import DEFAULT_MODEL
from emuvisor.errors import AdmissionError, HostError
from emuvisor.host import processors
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.instructions import Left, Preempt, Run, Timer, Woke
from emuvisor.host.virtual_pcpus import LANES, QUANTUM_NS, VirtualPcpus
from emuvisor.machine.machine import Activity, Readiness

STARVED = Activity(Readiness.STARVED)
ENDED = Activity(Readiness.ENDED)
FOREVER = 1 << 60
OVERSHOOT = 13
"""Bytes of code that are left of a block when a budget is used up."""


def idle(ns):
    return Activity(Readiness.IDLE, ns)


class FakeMachine:
    """`plan` is what it does: work, and what it can do then; at the end, it is idle. Budgets end within a block."""

    def __init__(self, plan):
        self.model = DEFAULT_MODEL
        self.skips_idle_time = True
        self.spent = 0
        self.vcpus = SimpleNamespace(work=0)
        self.plan = list(plan)
        self.idled = []
        self.waits = None
        """Its runs begin when this event comes, or `stop`."""
        self.began = threading.Event()
        self._stopped = threading.Event()

    def idle(self, ns):
        self.idled.append(ns)

    def stop(self):
        self._stopped.set()
        if self.waits is not None:
            self.waits.set()

    def run_slice(self, _engine, budget, _stolen_ns):
        assert not self.skips_idle_time
        self.began.set()
        if self.waits is not None:
            assert self.waits.wait(PATIENCE_S)
            if self._stopped.is_set():
                self._stopped.clear()
                return RUNNABLE
        if not self.plan:
            return IDLE
        work, step = self.plan[0]
        if budget <= 0:
            return RUNNABLE
        if work > budget:
            done = min(budget + OVERSHOOT, work)
            self.plan[0] = (work - done, step)
            self._work(done)
            return RUNNABLE
        del self.plan[0]
        self._work(work)
        if isinstance(step, Exception):
            raise step
        if callable(step):
            step()
            return self.run_slice(_engine, budget - work, 0)
        return step

    def _work(self, done):
        self.spent += done
        self.vcpus.work += done


class StarvingGuest(FakeGuest):
    def __init__(self, name, machine):
        super().__init__(name, machine)
        self.starves = False
        self.on_end = None


class Rig(PcpuRig):
    """VirtualPcpus; `answers` is what the scheduler said, and when."""

    Guest = StarvingGuest

    def __init__(self, threads=2, policy=None, **options):
        self.answers = []
        super().__init__(VirtualPcpus, threads, policy, **options)

    def listen(self, now_ns, event, answer):
        super().listen(now_ns, event, answer)
        self.answers += [(now_ns, instruction) for instruction in answer]

    def goes_on(self, guest, activity):
        if activity is STARVED:
            guest.starves = True
        elif activity is None or activity.readiness is Readiness.ENDED:
            if guest.on_end is not None:
                guest.on_end()
        elif activity.readiness is Readiness.RUNNABLE:
            return not guest.leaving
        else:
            self.pcpus.nap(guest, activity.wake_ns)
        return False

    def guest(self, name, *plan, **claim):
        return self.add(name, FakeMachine(plan), **claim)

    def go(self, *guests):
        with self.lock:
            self.pcpus.start()
            self.queue(*guests)

    def left(self, name):
        """When it left a lane, how long it had been there, and with how much work."""
        return [(now, e.ran_ns, e.work) for now, e in self.told if isinstance(e, Left) and e.name == name]


@pytest.fixture
def rig(monkeypatch):
    made = []

    def make(*args, **kwargs):
        made.append(Rig(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(processors, "Pcpu", lambda *_args: "an engine")
    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("threads", [1, 2, 4, 9])
def test_time_is_work(rig, threads):
    this = rig(threads)
    guests = [this.guest(f"g{number}", (number * 700_000, ENDED)) for number in range(1, 7)]
    this.go(*guests)
    this.until(lambda: this.left("g6"))
    ends = {guest.name: this.left(guest.name)[-1][0] for guest in guests}
    assert ends == {
        "g1": 700_000,
        "g2": 1_400_000,
        "g3": 2_100_000,
        "g4": 2_800_000,
        "g5": 700_000 + 3_500_000,
        "g6": 1_400_000 + 4_200_000,
    }
    assert this.pcpus.now_ns == 5_600_000
    assert len(this.pcpus._threads) == min(threads, LANES)
    assert (guests[0].cpu_ns, guests[0].slices) == (700_000, 1)


def test_what_is_run_beyond_a_slice_is_part_of_the_next(rig):
    this = rig()
    guest = this.guest("g", (4 * MS, ENDED), latency_us=1000)
    this.go(guest)
    this.until(lambda: len(this.left("g")) == 4)
    assert [(now, ran) for now, ran, _ in this.left("g")] == [(n * MS, MS) for n in (1, 2, 3, 4)]
    assert [work for _, _, work in this.left("g")] == [MS + OVERSHOOT, MS, MS, MS - OVERSHOOT]


def test_the_most_code_at_a_time(rig):
    this = rig(slice_work=300_000)
    guest = this.guest("g", (600_000, ENDED))
    this.go(guest)
    this.until(lambda: len(this.left("g")) == 2)
    assert [now for now, _, _ in this.left("g")] == [300_000, 600_000]


def test_a_guest_that_is_interrupted_goes_when_the_quantum_is_over(rig):
    this = rig(policy=Latest())
    spinners = [this.guest(f"s{number}", (9 * MS, ENDED), latency_us=100_000) for number in range(LANES)]
    sleeper = this.guest("sleeper", (0, idle(1_300_000)), (10_000, ENDED))
    this.go(sleeper, *spinners)
    this.until(lambda: len(this.left("sleeper")) == 2)
    preempted = [now for now, instruction in this.answers if isinstance(instruction, Preempt)]
    ran = [now for now, i in this.answers if isinstance(i, Run) and i.name == "sleeper"]
    assert preempted == [1_300_000]
    assert ran == [0, 2 * QUANTUM_NS]


def test_an_idle_guest_is_woken_at_its_time_and_nobody_waits_for_it(rig):
    this = rig()
    hour = 3_600_000 * MS
    guest = this.guest("g", (1000, idle(hour)), (1000, ENDED))
    this.go(guest)
    this.until(lambda: len(this.left("g")) == 2)
    assert this.pcpus.now_ns == hour + 2000
    assert guest.machine.idled == [hour]
    assert (hour + 1000, Woke("g")) in this.told


def test_frames_arrive_when_the_quantum_is_over(rig):
    """Those that came first before others, whoever runs first; and one that waits for them goes on then."""
    this = rig(1)
    arrived = []
    receiver = this.guest("receiver", (0, IDLE), (1000, ENDED))

    def receive(frame, _offload):
        arrived.append((this.pcpus.now_ns, frame))
        if this.pcpus.is_napping(receiver):
            this.pcpus.queue(receiver)

    port = SimpleNamespace(name="port", send=receive)
    (one,), (two,) = this.pcpus.links("one", [port]), this.pcpus.links("two", [port])
    senders = [
        this.guest("one", (400_000, lambda: one.send(b"second")), (0, ENDED)),
        this.guest("two", (200_000, lambda: two.send(b"first")), (FOREVER, idle(1))),
    ]
    with this.lock:
        one.send(b"from outside")
    this.go(receiver, *senders)
    this.until(lambda: len(this.left("receiver")) == 2)
    assert arrived == [(QUANTUM_NS, b"from outside"), (QUANTUM_NS, b"first"), (QUANTUM_NS, b"second")]
    assert this.left("one") == [(400_000, 400_000, 400_000)]
    assert receiver.machine.idled == [QUANTUM_NS]
    assert this.left("receiver")[1][0] == QUANTUM_NS + 1000


def test_an_idle_guest_that_is_woken_early_has_been_idle_so_long(rig):
    this = rig()
    guest = this.guest("g", (0, idle(FOREVER)), (0, IDLE))
    other = this.guest("other", (5 * MS, ENDED))
    other.on_end = lambda: this.pcpus.queue(guest)
    this.go(guest, other)
    this.until(lambda: len(this.left("g")) == 2)
    assert guest.machine.idled == [5 * MS]
    with this.lock:
        assert this.pcpus.is_napping(guest)
        this.pcpus.take_off(guest)
        assert not this.pcpus.is_napping(guest)
    assert guest.machine.idled == [5 * MS, 0]


def test_a_cap_takes_virtual_time(rig):
    this = rig()
    guest = this.guest("g", (20 * MS, ENDED), cap=10, period_us=1000)
    this.go(guest)
    this.until(lambda: guest.machine.spent == 20 * MS and this.left("g")[-1][2])
    assert 195 * MS < this.pcpus.now_ns < 205 * MS
    assert any(isinstance(event, Timer) for _, event in this.told)


@pytest.mark.parametrize("release", ["queue", "release"])
def test_a_guest_that_starves_goes_on_with_its_slice(rig, release):
    this = rig()
    guest = this.guest("g", (300_000, STARVED), (500_000, ENDED))
    other = this.guest("other", (400_000, ENDED))
    this.go(guest, other)
    this.until(lambda: guest.starves)
    with this.lock:
        assert this.pcpus.now_ns == 0, "the other has come further, but time waits"
        getattr(this.pcpus, release)(guest)
    this.until(lambda: this.left("g"))
    assert this.left("other") == [(400_000, 400_000, 400_000)]
    assert this.left("g") == [(800_000, 800_000, 800_000)]


def test_when_a_guest_that_starves_is_taken_off_time_goes_on(rig):
    this = rig(1)
    starving = this.guest("starving", (0, STARVED))
    sleeper = this.guest("sleeper", (0, idle(5 * MS)), (1000, ENDED))
    wait, waiting = this.pcpus._wanted.wait, threading.Event()

    def tell_and_wait():
        waiting.set()
        return wait()

    this.pcpus._wanted.wait = tell_and_wait
    this.go(sleeper, starving)
    assert waiting.wait(PATIENCE_S)
    with this.lock:
        assert starving.starves
        assert not this.left("sleeper")
        this.pcpus.take_off(starving)
    this.until(lambda: len(this.left("sleeper")) == 2)
    assert this.pcpus.now_ns == 5 * MS + 1000


def test_a_guest_that_is_taken_off_has_its_slice_till_now(rig):
    this = rig()
    guest = this.guest("g", (3 * QUANTUM_NS, ENDED), latency_us=100_000)
    starving = this.guest("starving", (0, STARVED))
    this.go(guest, starving)
    this.until(lambda: starving.starves)
    with this.lock:
        while guest.machine.spent < QUANTUM_NS or guest.on_pcpu:
            this.changed.wait()
        this.pcpus.take_off(guest)
        assert this.left("g") == [(0, 0, QUANTUM_NS + OVERSHOOT)]
        this.pcpus.queue(guest)  # what it has run it need not run again
        this.pcpus.take_off(starving)
    this.until(lambda: len(this.left("g")) == 2)
    assert this.left("g")[1] == (3 * QUANTUM_NS, 3 * QUANTUM_NS, 2 * QUANTUM_NS - OVERSHOOT)


@pytest.mark.parametrize("method", ["take_off", "hold"])
def test_who_wants_a_guest_waits_until_no_thread_runs_it(rig, method):
    this = rig()
    guest = this.guest("g", (1000, ENDED))
    guest.machine.waits = threading.Event()
    this.go(guest)
    assert guest.machine.began.wait(PATIENCE_S)
    with this.lock:
        getattr(this.pcpus, method)(guest)
        assert not guest.on_pcpu
        assert guest.machine.spent == 0
        assert bool(this.left("g")) == (method == "take_off")
        guest.machine.waits = None
        this.pcpus.queue(guest)
    this.until(lambda: guest.machine.spent and this.left("g")[-1] == (1000, 1000, 1000))


def test_who_hears_of_an_end_may_have_the_guest_go_on(rig):
    this = rig()
    guest = this.guest("g", (1000, ENDED), (2000, IDLE))

    def again():
        this.pcpus.take_off(guest)
        this.pcpus.queue(guest)

    guest.on_end = again
    this.go(guest)
    this.until(lambda: len(this.left("g")) == 2)
    assert [now for now, _, _ in this.left("g")] == [1000, 3000]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ZeroDivisionError("of a device"), "ZeroDivisionError: of a device"),
        (HostError("no engine"), "no engine"),
    ],
)
def test_a_guest_that_fails_leaves(rig, error, text):
    this = rig()
    guest = this.guest("g", (1000, error))
    this.go(guest)
    this.until(lambda: this.left("g"))
    assert guest.failure == text
    assert this.left("g") == [(1000, 1000, 1000)]
    with this.lock:
        this.pcpus.remove("g")
        assert "g" not in this.pcpus.scheduler.entities


def test_a_guest_that_goes_leaves_its_lane(rig):
    this = rig()
    guest = this.guest("g", (0, STARVED))
    this.go(guest)
    this.until(lambda: guest.starves)
    with this.lock:
        this.pcpus.remove("g")
        assert this.pcpus._slices == [None] * LANES
        assert not this.pcpus.scheduler.entities


def test_claims(rig):
    this = rig()
    guest = this.guest("g", reservation=50)
    assert guest.entity.claim.reservation == 50
    for name in "abc":
        this.guest(name, reservation=100)
    this.guest("d", reservation=40)
    with this.lock, pytest.raises(AdmissionError):
        this.pcpus.change(guest, CpuClaim(reservation=70))
    with this.lock:
        this.pcpus.change(guest, CpuClaim(weight=7))
    assert guest.entity.claim.weight == 7


def test_a_policy_that_fails_ends_everything(rig):
    policy = Broken()
    this = rig(policy=policy)
    guest = this.guest("g", (FOREVER, ENDED))
    with this.lock:
        policy.fails = True
        this.pcpus.start()
        this.pcpus.queue(guest)
        text = "scheduling policy 'broken' failed: KeyError: 'g'"
        assert this.failures == [text]
        with refused(text):
            this.pcpus.start()
        with refused(text):
            this.pcpus.admit("other", CpuClaim())
        with refused(text):
            this.pcpus.change(guest, CpuClaim())
        this.pcpus.take_off(guest)
        this.pcpus.remove("g")


def test_a_policy_that_fails_stops_who_runs(rig):
    policy = Broken()
    this = rig(policy=policy)
    guest = this.guest("g", (FOREVER, ENDED))
    other = this.guest("other", (FOREVER, ENDED))
    this.go(guest, other)
    assert guest.machine.began.wait(PATIENCE_S)
    with this.lock:
        policy.fails = True
    this.until(lambda: this.failures)
    assert this.pcpus._slices == [None] * LANES
