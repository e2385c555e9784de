"""The benchmarks of schedulers, pCPUs, vCPUs and limits: what they compute, and what their guests do."""

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks import bare_guests
from benchmarks.bare_guests import COMPUTE, HALT, OUT, bare_host, config, running
from benchmarks.figures import interval_of_ratio
from benchmarks.harness import BenchmarkError, Context, Result, Row, Settings, Task
from benchmarks.shell import Cost, Shell
from benchmarks.workloads import CURVES, fairness, limits, pcpus, scheduler, smp, switch, wakeup
from benchmarks.workloads.fairness import Fairness, due, errors, ran
from benchmarks.workloads.limits import LIMITS, Limits
from benchmarks.workloads.pcpus import LOADS, ONE, TWO, TwoPcpus, Windows
from benchmarks.workloads.scheduler import COUNTS, Decisions, Drive, guests, halted_guests
from benchmarks.workloads.smp import Smp
from benchmarks.workloads.wakeup import METER_PORT, SLEEPER, Meter, Wakeup, quantile
from emuvisor.bus.clock import Clock, HostClock
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.devices.limits import Rate
from emuvisor.host import Guest
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.core import Scheduler
from emuvisor.host.scheduler.instructions import Event, Instruction
from emuvisor.host.scheduler.policies import POLICIES
from emuvisor.host.scheduler.recording import Stretch
from emuvisor.machine.machine import Machine, Readiness
from emuvisor.memory import FramePool
from emuvisor.units import MIB

MS = 1_000_000
PATIENCE_S = 60


# ---- guests of a few instructions ----


def assembled(source: str, folder: Path) -> bytes:
    """Real-mode code, as GNU as makes it."""
    if shutil.which("as") is None or shutil.which("objcopy") is None:
        pytest.skip("not installed: as, objcopy (Debian: binutils)")
    head = f".intel_syntax noprefix\n.code16\n.set METER, {METER_PORT}\n"
    (folder / "guest.s").write_text(f"{head}{source}\n")
    subprocess.run(["as", "guest.s", "-o", "guest.o"], cwd=folder, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "guest.o", "guest.bin"], cwd=folder, check=True)
    return (folder / "guest.bin").read_bytes()


def source_in(docstring: str | None, number: int = 0) -> str:
    """The indented paragraph with that number."""
    assert docstring is not None
    return [part for part in docstring.split("\n\n") if part.startswith("    ")][number]


def test_guests_are_what_their_docstrings_say(tmp_path: Path) -> None:
    assert assembled(source_in(bare_guests.__doc__), tmp_path) == HALT
    assert assembled(source_in(bare_guests.__doc__, 1), tmp_path) == OUT
    assert assembled(source_in(wakeup.__doc__), tmp_path) == SLEEPER


def test_the_compute_loop_has_no_end(tmp_path: Path) -> None:
    pool = FramePool(16 * MIB)
    guest = Machine(config(tmp_path, "busy", COMPUTE), pool)
    try:
        guest.boot()
        state = guest.vcpu.state
        state.rip += len(COMPUTE) - 5  # the jump: the same as from the beginning
        guest.vcpu.state = state
        activity = guest.run_slice(Pcpu(pool), 1_000_000)
        assert (activity.readiness, guest.outcome) == (Readiness.RUNNABLE, None)
        assert guest.vcpu.work >= 1_000_000
    finally:
        guest.close()


def test_a_guest_that_does_not_run_is_no_figure(tmp_path: Path) -> None:
    with bare_host(1, 1) as host:
        guest = host.create(config(tmp_path, "halted", HALT, clock="host"))
        with pytest.raises(BenchmarkError) as error:
            running([guest])
    assert str(error.value) == "halted is defined: "


# ---- decisions ----


@pytest.fixture
def _a_decision_takes_a_microsecond(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else takes any time."""
    handle, spent_ns = Scheduler.handle, 0

    def decide(this: Scheduler, now_ns: int, event: Event) -> Sequence[Instruction]:
        nonlocal spent_ns
        spent_ns += 1_000
        return handle(this, now_ns, event)

    monkeypatch.setattr(Scheduler, "handle", decide)
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(thread_time_ns=lambda: spent_ns))


@pytest.mark.usefixtures("_a_decision_takes_a_microsecond")
@pytest.mark.parametrize("policy", POLICIES)
def test_pcpus_stay_busy_and_guests_sleep_in_turn(policy: str) -> None:
    drive = Drive(policy, 20)
    assert drive.turns(100) == 1
    assert drive.naps(100) >= 2  # more where who wakes takes another's pCPU
    assert drive.accounting() == (policy == "credit")
    places = [str(entity.place) for entity in drive.scheduler.entities.values()]
    assert sorted(places) == ["asleep"] * 5 + ["running"] * 4 + ["waiting"] * 11


def test_preempted_guests_leave() -> None:
    drive = Drive("credit", 20)
    drive.naps(400)
    assert sum(str(entity.place) == "running" for entity in drive.scheduler.entities.values()) == 4


def test_thousands_of_guests_decide_less() -> None:
    assert [scheduler.decisions_of(size, 20_000) for size in COUNTS] == [20_000, 20_000, 20_000, 2_000]


def small(monkeypatch: pytest.MonkeyPatch, module: object, **values: object) -> None:
    for name, value in values.items():
        monkeypatch.setattr(module, name, value)


def measured(tasks: Sequence[Task]) -> dict[str, dict[str, list[str]]]:
    """By task and contender: the names of the figures, none of which is negative."""
    found: dict[str, dict[str, list[str]]] = {}
    for task in tasks:
        for contender in task.contenders:
            figures = contender.measure()
            assert min(figures.values()) >= 0, figures
            found.setdefault(task.name, {})[contender.name] = list(figures)
    return found


@pytest.mark.usefixtures("_a_decision_takes_a_microsecond")
def test_decisions_have_figures_by_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, scheduler, COUNTS=(10, 40), QUICK_DECISIONS=80)
    with Decisions().tasks(Context(Settings(quick=True))) as tasks:
        found = measured(tasks[:3])
    assert list(found["decision"]) == list(POLICIES)
    assert found["decision"]["credit"] == ["10 guests", "40 guests", "10,000 guests, in times 10"]
    assert found["sleeping and waking"]["credit"] == [
        "10 guests: one sleeps, one wakes",
        "40 guests: one sleeps, one wakes",
    ]
    assert list(found["accounting"]) == ["credit"]


def test_halted_guests_have_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, scheduler, QUICK_HALTED=3, IDLE_WINDOW_S=0.02, SETTLE_S=0.02)
    with Decisions().tasks(Context(Settings(quick=True))) as tasks:
        none, some = (contender.measure() for contender in tasks[3].contenders)
    assert list(none) == ["CPU time of the host", "threads woken", "decisions of the scheduler"]
    assert list(some) == [*none, "CPU time of the host, more than without guests"]
    assert some["decisions of the scheduler"] == 0
    assert [contender.name for contender in tasks[3].contenders] == ["no guest", halted_guests(3)]


def test_guests_that_do_not_halt_are_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, scheduler, HALT=OUT, IDLE_WINDOW_S=0.0, SETTLE_S=0.0, HALT_TIMEOUT_S=0.05)
    with pytest.raises(BenchmarkError) as error:
        scheduler.halted_cost(tmp_path, 2)
    assert str(error.value) == "2 of 2 guests did not halt"


# ---- fairness ----


def test_due_is_weighted_max_min_fair() -> None:
    assert due([CpuClaim(weight) for weight in (100, 200, 400)], 1) == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    capped = [CpuClaim(cap=10), CpuClaim(), CpuClaim(300)]
    assert due(capped, 1) == pytest.approx([0.1, 0.225, 0.675])
    assert due([CpuClaim(reservation=40), *[CpuClaim()] * 4], 1) == pytest.approx([0.4, *[0.15] * 4])
    assert due([CpuClaim(10_000), CpuClaim(), CpuClaim()], 2) == pytest.approx([1, 0.5, 0.5])
    assert due([CpuClaim(cap=10), CpuClaim(cap=20)], 2) == pytest.approx([0.1, 0.2])


def stretch(guest: str, start_ms: int, end_ms: int, pcpu: int = 0) -> Stretch:
    return Stretch(pcpu, guest, start_ms * MS, end_ms * MS, "its slice was over", 0, 0)


def test_what_ran_outside_the_window_does_not_count() -> None:
    stretches = [stretch("a", 0, 15), stretch("b", 15, 18), stretch("a", 19, 30), stretch("c", 40, 50)]
    assert ran(stretches, 10 * MS, 20 * MS) == pytest.approx({"a": 0.6, "b": 0.3})


def test_the_error_is_of_the_worst_guest_in_the_worst_window() -> None:
    stretches = [stretch("a", 0, 5), stretch("b", 5, 10), stretch("a", 10, 18), stretch("b", 18, 20)]
    shares = {"a": 0.5, "b": 0.5}
    assert errors(stretches, shares, 0, 20 * MS, 10 * MS) == pytest.approx(30)
    assert errors(stretches, shares, 0, 20 * MS, 20 * MS) == pytest.approx(15)
    assert errors(stretches[:1], shares, 0, 10 * MS, 10 * MS) == pytest.approx(50)  # b never ran


def test_each_mix_has_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, fairness, WINDOWS_MS=(10, 20), WINDOW_S=0.04, SETTLE_S=0.02, TAIL_S=0.01)
    with Fairness().tasks(Context(Settings(quick=True))) as tasks:
        assert [task.name for task in tasks] == list(fairness.MIXES)
        figures = [tasks[mix].contenders[mix % 4].measure() for mix in range(len(tasks))]
    assert [list(figure) for figure in figures] == [
        [f"{mix}, 10 ms", f"{mix}, 20 ms"] if mix == "weights 1:2:4" else [f"{mix}, 20 ms"]
        for mix in fairness.MIXES
    ]


def result(name: str, figures: Sequence[str]) -> Result:
    """Each figure has its number as the cost of every policy but credit, which has none."""
    rows = [
        Row(figure, "us", None, None, {policy: [float(number)] for policy in POLICIES if policy != "credit"})
        for number, figure in enumerate(figures)
    ]
    return Result(name, "", rows, [], [], 1.0, False)


@pytest.mark.parametrize(
    ("name", "figures", "places"),
    [
        ("scheduler", [guests(size) for size in COUNTS], COUNTS),
        ("fairness", [f"weights 1:2:4, {ms} ms" for ms in fairness.WINDOWS_MS], fairness.WINDOWS_MS),
    ],
)
def test_curves_have_a_line_for_each_policy(name: str, figures: Sequence[str], places: Sequence[int]) -> None:
    lines = CURVES[name].lines(result(name, [*figures[:2], "another"]))
    assert list(lines) == list(POLICIES)
    assert lines["proportional"] == [(places[0], 0.0), (places[1], 1.0)]
    assert lines["credit"] == [(places[0], None), (places[1], None)]


# ---- wake-ups ----


class Watch:
    """The host's clock, by hand."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


def set_meter(clock: Clock, watch: Watch) -> tuple[Meter, int]:
    """A meter whose guest has just set its timer; when that is due."""
    meter = Meter(clock)
    due_ns = meter.read(0, 2) * 1_000_000_000 // 1_193_182
    clock.timer(lambda _deadline: None).arm(due_ns - 200)
    watch.ns = 300
    meter.write(Meter.SET, 0, 1)
    return meter, due_ns - 200


def test_lateness_is_counted_from_the_timers_deadline() -> None:
    watch = Watch()
    meter, due_ns = set_meter(HostClock(watch), watch)
    watch.ns = due_ns + 70_000
    meter.write(Meter.WOKE, 0, 1)
    meter.write(Meter.WOKE, 0, 1)  # of another interrupt
    meter.reset()
    assert meter.late_ns == [70_000]


def test_a_timer_of_another_device_does_not_count() -> None:
    watch = Watch()
    clock = HostClock(watch)
    clock.timer(lambda _deadline: None).arm(500_000)
    meter, due_ns = set_meter(clock, watch)
    watch.ns = due_ns
    meter.write(Meter.WOKE, 0, 1)
    assert meter.late_ns == []


def test_quantiles_are_values_that_were_seen() -> None:
    assert [quantile([4, 1, 3, 2], part) for part in (0.0, 0.25, 0.5, 0.51, 0.99, 1.0)] == [1, 1, 2, 3, 4, 4]
    assert quantile(range(1, 101), 0.99) == 99


def test_the_sleeper_wakes_alone_and_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that takes: in place of a time, until it wakes again."""
    meters: list[Meter] = []

    def meter_of(machine: Machine) -> Meter:
        meters.append(of(machine))
        return meters[-1]

    def sleep(_seconds: float) -> None:
        wakes, end = len(meters[-1].late_ns), time.monotonic() + PATIENCE_S
        while len(meters[-1].late_ns) == wakes:
            assert time.monotonic() < end
            time.sleep(0.001)

    of = Meter.of
    monkeypatch.setattr(Meter, "of", meter_of)
    small(monkeypatch, wakeup, time=SimpleNamespace(sleep=sleep), LEAST_WAKES=1, SET_WITHIN_NS=10**10)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0})
    context = Context(Settings(quick=True))
    with Wakeup().tasks(context) as [alone, two, _]:
        figures = [alone.contenders[0].measure(), two.contenders[0].measure()]
    assert [list(figure) for figure in figures] == [
        ["alone, p50", "alone, p99", "alone, wakes"],
        ["beside 2 busy guests, p50", "beside 2 busy guests, p99", "beside 2 busy guests, wakes"],
    ]
    assert context.notices == ["beside 20 busy guests, 2 pCPUs is skipped: this process has 1 cores"]


def test_a_guest_that_does_not_wake_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, wakeup, SLEEPER=HALT, SETTLE_S=0.0, WINDOW_S=0.0)
    with pytest.raises(BenchmarkError) as error:
        wakeup.measure(tmp_path, wakeup.COMPANIES[0], "proportional", 5000)
    assert str(error.value) == "alone: the guest woke 0 times in 0 s"


# ---- two pCPUs, and switches ----


def test_an_interval_holds_the_ratio_and_is_the_same_each_time() -> None:
    low, high = interval_of_ratio([2.0, 2.2, 1.8], [1.0, 1.1, 0.9], 0.95)
    assert 1.6 < low < 2.0 < high < 2.5
    assert interval_of_ratio([2.0, 2.2, 1.8], [1.0, 1.1, 0.9], 0.95) == (low, high)
    assert interval_of_ratio([3.0], [2.0], 0.95) == (1.5, 1.5)


def test_windows_say_what_the_second_pcpu_is_worth(tmp_path: Path) -> None:
    windows = Windows(tmp_path, LOADS[0], 1)
    assert windows.text() == "2 guests that compute: not measured."
    windows.throughputs = {ONE: [10.0], TWO: [15.0]}
    windows.at_work = [0.75]
    assert windows.text() == (
        "2 guests that compute: 1.50 times (95% interval 1.50 to 1.50, 1 windows); while a guest was on a pCPU, its "
        "thread had a core for 75% of the time."
    )


def test_loads_have_a_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, pcpus, SETTLE_S=0.02, WINDOW_S=0.02)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1})
    context = Context(Settings(quick=True))
    with TwoPcpus().tasks(context) as tasks:
        found = measured(tasks)
    assert found == {load.name: {ONE: [load.name], TWO: [load.name]} for load in LOADS}
    assert [note.startswith(load.name) for note, load in zip(context.notes[1:], LOADS, strict=True)] == [
        True
    ] * 3
    assert any("boots of 2 Debian guests is skipped" in notice for notice in context.notices)


def test_one_core_is_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0})
    context = Context(Settings(quick=True))
    with TwoPcpus().tasks(context) as tasks:
        assert tasks == []
    assert context.notices == ["pcpus is skipped: this process has 1 cores"]


def test_switches_by_a_host_have_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, switch, SETTLE_S=0.05, WINDOW_S=0.1, QUICK_ENTRIES=10, QUICK_ROUNDS=1)
    with switch.Switch().tasks(Context(Settings(quick=True))) as tasks:
        short, usual, cost = (contender.measure() for contender in tasks[-1].contenders)
    assert list(short) == list(usual) == ["switches", "throughput of two guests"]
    assert list(cost) == ["switch by a host, its scheduler and locks included"]


# ---- Debian guests ----


def test_vcpus_need_an_image() -> None:
    for benchmark in (Smp(), Limits()):
        context = Context(Settings(quick=True))
        with benchmark.tasks(context) as tasks:
            assert tasks == []
        assert context.notices == [
            f"{benchmark.name} is skipped: no Debian image; run `emuvisor images pull debian`"
        ]


def test_programs_at_once_print_what_no_typed_line_has() -> None:
    sums, calls = smp.functions(quick=True).values()
    assert sums == (
        "dd if=/dev/zero of=/tmp/zeros bs=1M count=1 2>/dev/null; "
        "for f in 0 1 2 3; do sha256sum < /tmp/zeros > /tmp/$f & done; wait; cat /tmp/[0-9] | uniq -c",
        " 4 ",
    )
    assert calls == (
        "for f in 0 1 2 3; do dd if=/dev/zero of=/dev/null bs=1 count=10000 2>/tmp/$f & done; wait; "
        "echo right-$(cat /tmp/[0-9] | grep -c '^10000+0 records out')",
        "right-4",
    )
    assert list(smp.functions(quick=False)) == [
        "sha256sum of 4 files of 4 MiB at once",
        "4 programs of 100,000 system calls at once",
    ]


class CostlyShell:
    """A guest whose functions take 2 seconds, and 1.5 of the host's processors."""

    name = "2 vCPUs"

    def __init__(self) -> None:
        self.called: list[tuple[str, str]] = []

    def cost(self, function: str, expected: str) -> Cost:
        self.called.append((function, expected))
        return Cost(2.0, 1.5)


def test_programs_at_once_are_timed_and_their_processor_time_is_counted() -> None:
    shell = CostlyShell()
    task = smp.work_task("sums", "work0", "right", [cast(Shell, shell)])
    [contender] = task.contenders
    assert contender.name == "2 vCPUs"
    assert contender.measure() == {"sums": 2.0, "sums: CPU time": 1.5}
    assert shell.called == [("work0", "right")]


class LimitedGuest:
    """A guest whose devices have done what is asked of them."""

    name = "fake"
    disks = ({"read_bytes": 1, "written_bytes": 2, "reads": 3},)
    nics = ({"sent_bytes": 4, "sent_frames": 5},)

    def __init__(self) -> None:
        self.changes: list[tuple[str, int, dict[str, Rate | None]]] = []

    def statistics(self) -> "LimitedGuest":
        return self

    def set_disk_limits(self, disk: int, **changes: Rate | None) -> None:
        self.changes.append(("disk", disk, changes))

    def set_nic_limits(self, nic: int, **changes: Rate | None) -> None:
        self.changes.append(("nic", nic, changes))


def test_limits_are_set_and_counted_at_their_device() -> None:
    fake = LimitedGuest()
    guest = cast(Guest, fake)
    assert [limit.done(guest) for limit in LIMITS] == [1, 1, 2, 3, 3, 4, 5]
    LIMITS[0].set(guest, Rate(1))
    LIMITS[-1].set(guest, None)
    assert fake.changes == [("disk", 0, {"read_bytes": Rate(1)}), ("nic", 0, {"out_packets": None})]
    assert limits.off(LIMITS[0]) == "disk, reading 1 MiB/s: off by"
