"""The pCPU threads with guests that only do what a test tells them: what they run, when they look at the time, and
that nothing that a guest, a policy or an operator does loses a guest or a thread."""

import threading
import time
from queue import SimpleQueue
from types import SimpleNamespace

import pytest
from pcpu_rig import IDLE, MS, PATIENCE_S, RUNNABLE, Broken, FakeGuest, Latest, PcpuRig, refused

from emuvisor.cpu.models import DEFAULT_MODEL
from emuvisor.errors import AdmissionError, EngineError, HostError, UsageError
from emuvisor.host import pcpus as module
from emuvisor.host import processors
from emuvisor.host.pcpus import Pcpus
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.instructions import Left, Slept, Timer, Woke
from emuvisor.machine.machine import Activity, Readiness

HOUR = 3_600_000 * MS
UNTIL_STOPPED = "runs until it is stopped"


class FakeMachine:
    """Each slice does the next thing of `plan`: an Activity, an exception, UNTIL_STOPPED; at its end, it is idle."""

    def __init__(self):
        self.model = DEFAULT_MODEL
        self.vcpus = SimpleNamespace(work=0)
        self.plan = SimpleQueue()
        self.runs = []
        """Thread, engine and budget of each slice."""
        self.began = threading.Semaphore(0)
        self._stopped = threading.Event()
        self.stops = 0

    def stop(self):
        self.stops += 1
        self._stopped.set()

    def run_slice(self, engine, budget, _stolen_ns):
        self.runs.append((threading.current_thread().name, engine, budget))
        self.began.release()
        step = IDLE if self.plan.empty() else self.plan.get()
        if step is UNTIL_STOPPED:
            assert self._stopped.wait(PATIENCE_S)
            step = RUNNABLE
        self._stopped.clear()
        self.vcpus.work += budget
        if isinstance(step, Exception):
            raise step
        return step

    @property
    def threads(self):
        return [thread for thread, _, _ in self.runs]

    @property
    def budgets(self):
        return [budget for _, _, budget in self.runs]


class NappingGuest(FakeGuest):
    def __init__(self, name, machine):
        super().__init__(name, machine)
        self.naps = 0


class Rig(PcpuRig):
    """Pcpus. `told` says by which thread, too."""

    Guest = NappingGuest

    def __init__(self, count, policy, **options):
        super().__init__(Pcpus, count, policy, **options)

    def listen(self, _now_ns, event, _answer):
        self.told.append((threading.current_thread().name, event))

    def goes_on(self, guest, activity):
        if activity is None or guest.leaving:
            return False
        if activity.readiness is Readiness.IDLE:
            guest.naps += 1
            self.pcpus.nap(guest, activity.wake_ns)
            return False
        return True

    def guest(self, name, *plan, **claim):
        machine = FakeMachine()
        for step in plan:
            machine.plan.put(step)
        return self.add(name, machine, **claim)

    def take_off(self, guest):
        with self.lock:
            self.pcpus.take_off(guest)

    def settle(self):
        """Until all threads wait that run no guest."""
        waiting = False
        while not waiting:
            with self.lock:
                on = [*self.pcpus._on, None]
                idle = [wanted for wanted, guest in zip(self.pcpus._wanted, on, strict=True) if guest is None]
                waiting = all(condition._waiters for condition in idle)

    def tellers(self, kind, name=""):
        """The threads that told the scheduler of an event of that kind, about that guest."""
        return [
            thread
            for thread, event in self.told
            if isinstance(event, kind) and (not name or event.name == name)
        ]


@pytest.fixture
def make(monkeypatch):
    """make(count=1, policy=first come, **options): a Rig whose threads run; start=False: not yet. Engines are names,
    and no slice takes too long, however busy the machine is: nothing else is due than what a test has asked for."""
    numbers = iter(range(100))
    monkeypatch.setattr(processors, "Pcpu", lambda pool, model: f"engine {next(numbers)} of {pool}")
    monkeypatch.setattr(module, "LONGEST_SLICE_NS", HOUR)
    rigs = []

    def make(count=1, policy=None, *, start=True, **options):
        rig = Rig(count, policy, **options)
        rigs.append(rig)
        if start:
            rig.pcpus.start()
        return rig

    yield make
    for rig in rigs:
        rig.close()


# ---- running ----


def test_a_guest_runs_until_it_is_idle_and_again_when_it_is_queued(make):
    rig = make()
    guest = rig.guest("g", RUNNABLE, RUNNABLE)
    for naps, slices in ((1, 3), (2, 4)):
        rig.queue(guest)
        rig.until(lambda naps=naps: guest.naps == naps)
        assert rig.pcpus.is_napping(guest)
        assert (guest.slices, guest.on_pcpu, guest.failure) == (slices, False, "")
    assert guest.machine.threads == ["pcpu0"] * 4
    assert guest.cpu_ns == guest.entity.ran_ns > 0


def test_a_thread_makes_one_engine_for_each_model(make):
    rig = make(2)
    guests = [rig.guest(f"g{number}", UNTIL_STOPPED) for number in range(2)]
    rig.queue(*guests)
    for guest in guests:
        guest.machine.began.acquire()
    others = [rig.guest(f"h{number}", *[RUNNABLE] * 5) for number in range(3)]
    rig.queue(*others)
    for guest in guests:
        guest.machine.stop()
    rig.until(lambda: all(guest.naps for guest in (*guests, *others)))
    used = {run[:2] for guest in (*guests, *others) for run in guest.machine.runs}
    assert {thread for thread, _ in used} == {"pcpu0", "pcpu1"}
    assert sorted(engine for _, engine in used) == ["engine 0 of the pool", "engine 1 of the pool"]


def test_an_engine_is_made_beside_other_work(make, monkeypatch):
    """Once; and what goes wrong with it, or with the thread for it, shows when a guest runs."""
    made = []
    monkeypatch.setattr(
        processors, "Pcpu", lambda _pool, model: made.append(threading.current_thread().name) or model
    )
    rig = make(2, start=False)
    for _ in range(2):
        with rig.pcpus.preparing(DEFAULT_MODEL):
            pass
    assert made == ["engine"]


def test_an_engine_that_cannot_be_made_beside_other_work(make, monkeypatch):
    def fail(*_arguments, **_options):
        raise EngineError("no engine")

    monkeypatch.setattr(processors, "Pcpu", fail)
    rig = make(start=False)
    with rig.pcpus.preparing(DEFAULT_MODEL):
        pass

    def no_thread(_self):
        raise RuntimeError

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with rig.pcpus.preparing(DEFAULT_MODEL):
        pass


def test_a_slice_is_what_the_scheduler_says_by_the_guests_pace(make):
    rig = make(start=False)
    guest = rig.guest("g", latency_us=2_000)
    guest.entity.pace = 3.0
    rig.queue(guest)
    rig.pcpus.start()
    rig.until(lambda: guest.naps)
    assert guest.machine.budgets == [6 * MS]


def test_a_slice_is_no_more_than_slice_work(make):
    rig = make(slice_work=1_000)
    guest = rig.guest("g", RUNNABLE)
    rig.queue(guest)
    rig.until(lambda: guest.naps)
    assert guest.machine.budgets == [1_000, 1_000]


def test_no_pcpu_is_idle_while_a_guest_waits(make):
    """All have their home on one pCPU, which is busy: the other one runs them."""
    rig = make(2, start=False)
    hog = rig.guest("hog", UNTIL_STOPPED)
    others = [rig.guest(f"g{number}", RUNNABLE, RUNNABLE) for number in range(4)]
    for guest in (hog, *others):
        guest.entity.home = 0
    rig.queue(hog, *others)
    rig.pcpus.start()
    hog.machine.began.acquire()
    rig.until(lambda: all(guest.naps for guest in others))
    assert hog.machine.threads == ["pcpu0"]
    assert {thread for guest in others for thread in guest.machine.threads} == {"pcpu1"}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ZeroDivisionError("of the device"), "ZeroDivisionError: of the device"),
        (HostError("the swap file is gone"), "the swap file is gone"),
    ],
)
def test_what_a_guest_raises_costs_its_own_guest(make, error, text):
    rig = make()
    guest, other = rig.guest("g", error), rig.guest("other")
    rig.queue(guest, other)
    rig.until(lambda: other.naps)
    assert (guest.failure, guest.entity.place, guest.naps) == (text, "asleep", 0)


def test_a_reset_sets_the_work_back(make):
    rig = make()
    guest = rig.guest("g")
    guest.machine.run_slice = lambda *_: setattr(guest.machine.vcpus, "work", -5) or IDLE
    rig.queue(guest)
    rig.until(lambda: guest.naps)
    assert [event.work for _, event in rig.told if isinstance(event, Left)] == [0]


# ---- who makes way ----


def test_a_guest_that_has_not_begun_makes_way(make):
    rig = make(policy=Latest(), start=False)
    guests = [rig.guest(name) for name in "abc"]
    rig.queue(*guests)
    rig.pcpus.start()
    rig.until(lambda: all(guest.naps for guest in guests))
    assert [guest.slices for guest in guests] == [1, 1, 1]
    ran = [event.name for _, event in rig.told if isinstance(event, Left) and event.work]
    assert ran == ["c", "b", "a"]


def test_a_guest_that_runs_makes_way(make):
    rig = make(policy=Latest())
    slow, quick = rig.guest("slow", UNTIL_STOPPED), rig.guest("quick")
    rig.queue(slow)
    slow.machine.began.acquire()
    rig.queue(quick)
    rig.until(lambda: slow.naps)
    assert (slow.machine.stops, slow.slices, quick.slices) == (1, 2, 1)


def test_a_slice_that_takes_too_long_is_ended(make, monkeypatch):
    rig = make()
    monkeypatch.setattr(module, "LONGEST_SLICE_NS", MS)
    guest = rig.guest("g", UNTIL_STOPPED)
    rig.queue(guest)
    rig.until(lambda: guest.naps)
    assert guest.machine.stops >= 1


# ---- the time ----


@pytest.fixture
def clock(monkeypatch):
    """The host's clock, by hand: `ns` is its time."""
    clock = SimpleNamespace(ns=0)
    monkeypatch.setattr(Pcpus, "now_ns", property(lambda _pcpus: clock.ns))
    return clock


def test_an_idle_pcpu_looks_at_its_guests_timers_itself(make):
    rig = make(2)
    guest = rig.guest("g", UNTIL_STOPPED, IDLE, *[Activity(Readiness.IDLE, MS)] * 5, affinity=frozenset({1}))
    # Now somebody looks whether that slice takes an hour; from then on, nobody has to be told again.
    rig.queue(guest)
    guest.machine.began.acquire()
    rig.settle()
    guest.machine.stop()
    rig.until(lambda: guest.naps == 1)
    rig.settle()
    rig.queue(guest)
    rig.until(lambda: guest.naps == 7)
    assert rig.tellers(Woke) == ["MainThread", "MainThread", *["pcpu1"] * 5]


def test_a_slice_ends_when_a_guest_of_the_same_pcpu_is_due(make, clock):
    rig = make()
    sleeper = rig.guest("sleeper", Activity(Readiness.IDLE, 3 * MS))
    other = rig.guest("other", latency_us=50_000)
    rig.queue(sleeper, other)
    rig.until(lambda: other.naps)
    assert other.machine.budgets == [3 * MS]
    clock.ns = 3 * MS
    rig.until(lambda: sleeper.naps == 2)


def test_the_watch_thread_looks_when_all_pcpus_are_busy(make, clock):
    rig = make(policy=Latest())
    sleeper = rig.guest("sleeper", Activity(Readiness.IDLE, 5 * MS))
    slow = rig.guest("slow", UNTIL_STOPPED)
    with rig.lock:
        rig.queue(slow)
        clock.ns += 1
        rig.queue(sleeper)  # the last is first
    slow.machine.began.acquire()
    clock.ns += 5 * MS
    rig.until(lambda: slow.naps)
    assert slow.machine.stops == 1
    assert rig.tellers(Woke, "sleeper") == ["MainThread", "timers"]


def test_an_idle_pcpu_looks_for_a_busy_one(make):
    """A guest with a timer is at home on pCPU 0, which runs another one: pCPU 1 wakes it, and runs it."""
    rig = make(2)
    guest = rig.guest("g", *[Activity(Readiness.IDLE, 5 * MS)] * 1_000)
    hog = rig.guest("hog", UNTIL_STOPPED, affinity=frozenset({0}))
    rig.queue(guest)
    rig.until(lambda: guest.naps)
    rig.queue(hog)
    hog.machine.began.acquire()
    naps = guest.naps
    rig.until(lambda: guest.naps >= naps + 3)
    assert guest.machine.threads[-2:] == ["pcpu1"] * 2
    assert hog.machine.stops == 0


def test_a_cap_is_over_when_the_scheduler_says(make):
    rig = make()
    guest = rig.guest("g", *[RUNNABLE] * 20, cap=1.0, period_us=1_000)
    guest.machine.run_slice = spend(guest.machine, 150_000)
    rig.queue(guest)
    rig.until(lambda: guest.naps)
    assert rig.tellers(Timer)
    assert guest.entity.throttled_ns > 19 * 99 * 150_000 * 0.9, "1 % of the time: 99 times as long as it ran"


def spend(machine, least_ns):
    """Slices that take `least_ns` at least."""
    run_slice = machine.run_slice

    def spend(*arguments):
        until = time.monotonic_ns() + least_ns
        while time.monotonic_ns() < until:
            pass
        return run_slice(*arguments)

    return spend


def test_timers_for_centuries(make):
    rig = make()
    guest = rig.guest("g", *[Activity(Readiness.IDLE, 10**30)] * 2)
    for naps in (1, 2, 3):
        rig.queue(guest)
        rig.until(lambda naps=naps: guest.naps == naps)


# ---- taking guests off ----


def test_taking_off_a_guest_that_runs_waits_for_it(make):
    rig = make()
    guest = rig.guest("g", UNTIL_STOPPED)
    rig.queue(guest)
    guest.machine.began.acquire()
    rig.take_off(guest)
    assert (guest.on_pcpu, guest.leaving, guest.entity.place) == (False, 0, "asleep")
    assert guest.slices == 1


def test_taking_off_a_guest_that_has_not_begun(make):
    rig = make(start=False)
    guest, other = rig.guest("g"), rig.guest("other")
    rig.queue(guest, other)
    rig.take_off(guest)
    rig.pcpus.start()
    rig.until(lambda: other.naps)
    assert (guest.machine.runs, guest.entity.place) == ([], "asleep")


@pytest.mark.parametrize("delay_ns", [None, 0])
def test_taking_off_an_idle_guest(make, delay_ns):
    rig = make(start=False)
    guest, other = rig.guest("g"), rig.guest("other")
    with rig.lock:
        guest.entity.home = 0
        rig.pcpus.nap(guest, delay_ns)
        rig.pcpus.take_off(guest)
    assert not rig.pcpus.is_napping(guest)
    rig.queue(other)
    rig.pcpus.start()
    rig.until(lambda: other.naps)
    assert guest.machine.runs == []


def test_two_take_a_guest_off_and_the_first_queues_it_again(make):
    """The second, which may be about to read its memory, must not find it running."""
    rig = make(start=False)
    guest, other = rig.guest("g"), rig.guest("other")
    guest.on_pcpu = True

    def wait():
        guest.on_pcpu = False
        rig.pcpus.queue(guest)  # the first one

    rig.pcpus._changed = SimpleNamespace(wait=wait)
    rig.take_off(guest)
    rig.pcpus.start()
    rig.queue(other)
    rig.until(lambda: other.naps)
    assert (guest.machine.stops, guest.machine.runs, guest.entity.place) == (1, [], "asleep")


def test_two_threads_take_a_guest_off_again_and_again(make):
    rig = make(2)
    guest = rig.guest("g", *[UNTIL_STOPPED] * 1_000)
    found = []

    def disturb():
        for _ in range(50):
            with rig.lock:
                rig.pcpus.hold(guest)
                found.append((guest.on_pcpu, guest.entity.place))
                rig.pcpus.release(guest)

    rig.queue(guest)
    threads = [threading.Thread(target=disturb) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert found == [(False, "asleep")] * 150
    rig.take_off(guest)


def test_a_guest_is_taken_off_while_it_is_to_make_way(make):
    rig = make(policy=Latest())
    guest, other = rig.guest("g", UNTIL_STOPPED), rig.guest("other")
    rig.queue(guest)
    guest.machine.began.acquire()
    with rig.lock:
        rig.pcpus.queue(other)  # the guest is told to leave, and has not yet
        rig.pcpus.take_off(guest)
    rig.until(lambda: other.naps)
    assert (guest.slices, guest.entity.place) == (1, "asleep")
    rig.queue(guest)
    rig.until(lambda: guest.naps)


def test_a_guest_that_is_gone(make):
    rig = make()
    guest = rig.guest("g", Activity(Readiness.IDLE, HOUR))
    rig.queue(guest)
    rig.until(lambda: guest.naps)
    with rig.lock:
        rig.pcpus.take_off(guest)
        rig.pcpus.remove("g")
        rig.pcpus.take_off(guest)  # it may be, while it is being deleted twice
    assert rig.pcpus.scheduler.entities == {}
    assert rig.guest("g").entity.place == "asleep"


def test_a_guest_that_was_only_admitted(make):
    rig = make(start=False)
    with rig.lock:
        entity = rig.pcpus.admit("g", CpuClaim(reservation=60))
        assert entity.name == "g"
        with pytest.raises(AdmissionError):
            rig.pcpus.admit("h", CpuClaim(reservation=60))
        with pytest.raises(UsageError):
            rig.pcpus.admit("h", CpuClaim(affinity=frozenset({1})))
        rig.pcpus.remove("g")
        rig.pcpus.admit("h", CpuClaim(reservation=60))
    assert rig.pcpus.links("g", ["a port"]) == ["a port"]


def test_another_claim(make):
    rig = make(2)
    guest = rig.guest("g", UNTIL_STOPPED, affinity=frozenset({0}))
    rig.queue(guest)
    guest.machine.began.acquire()
    with rig.lock:
        with pytest.raises(UsageError):
            rig.pcpus.change(guest, CpuClaim(affinity=frozenset({2})))
        assert guest.entity.claim.affinity == {0}
        rig.pcpus.change(guest, CpuClaim(affinity=frozenset({1})))
    rig.until(lambda: guest.naps)
    assert guest.machine.threads == ["pcpu0", "pcpu1"]


# ---- policies that fail ----

FAILURE = "scheduling policy 'broken' failed: KeyError: 'g'"


def test_a_policy_that_fails_in_a_pcpu_thread(make):
    policy = Broken()
    rig = make(2, policy)
    guest = rig.guest("g", UNTIL_STOPPED, affinity=frozenset({0}))
    other = rig.guest("other", UNTIL_STOPPED, affinity=frozenset({1}))
    rig.queue(guest, other)
    guest.machine.began.acquire()
    other.machine.began.acquire()
    policy.fails = True
    guest.machine.stop()
    rig.until(lambda: rig.failures and other.slices)  # which is stopped, too
    assert rig.failures == [FAILURE]
    assert (guest.slices, other.slices) == (1, 1)
    with rig.lock:
        with refused(FAILURE):
            rig.pcpus.start()
        with refused(FAILURE):
            rig.pcpus.admit("h", CpuClaim())
        with refused(FAILURE):
            rig.pcpus.change(guest, CpuClaim(weight=5))
        rig.pcpus.queue(guest)
        rig.pcpus.take_off(guest)
        rig.pcpus.remove("g")
    assert (guest.slices, rig.failures) == (1, [FAILURE])


def test_a_policy_that_fails_in_somebodys_call(make):
    policy = Broken()
    rig = make(policy=policy)
    guest = rig.guest("g")
    policy.fails = True
    rig.queue(guest)
    assert rig.failures == [FAILURE]
    assert rig.tellers(Slept) == []
    rig.take_off(guest)
    assert guest.machine.runs == []


# ---- the end ----


def test_the_threads_end_beside_what_is_to_be_run(make):
    rig = make(start=False)
    guest = rig.guest("g")
    rig.queue(guest)
    with rig.lock:
        rig.pcpus.end()
    rig.pcpus.start()
    rig.pcpus.join()
    assert guest.machine.runs == []
