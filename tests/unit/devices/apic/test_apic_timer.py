"""The local APIC's timer: Intel SDM volume 3, section 10.5.4."""

from collections.abc import Callable

import pytest
from device_rigs import Rig

from emuvisor.devices.apic import registers as reg
from emuvisor.devices.apic.apic_timer import MIN_PERIOD_NS, ApicTimer
from emuvisor.devices.apic.local_apic import LocalApic
from emuvisor.devices.apic.message import MASKED

VECTOR = 0xEF
DIVIDE_BY_1 = 0b1011
DIVIDE_BY_2 = 0b0000


class Bench:
    """The timer counts nanoseconds, divided by 1."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.apic: LocalApic = rig.chips["lapic"]
        self.write(reg.SPURIOUS_VECTOR, reg.SVR_ENABLE | 0xFF)
        self.write(reg.DIVIDE_CONFIGURATION, DIVIDE_BY_1)

    def write(self, register: int, value: int) -> None:
        self.apic.write(register, value, 4)

    @property
    def count(self) -> int:
        return self.apic.read(reg.CURRENT_COUNT, 4)

    @property
    def deadline_ns(self) -> int | None:
        return self.rig.wires.clock.next_deadline_ns()

    def take(self) -> bool:
        """Serve the timer's interrupt; whether there was one."""
        if not self.rig.level("intr"):
            return False
        assert self.apic.acknowledge() == VECTOR
        self.write(reg.END_OF_INTERRUPT, 0)
        return True


@pytest.fixture
def bench(rig_of: Callable[[str], Rig]) -> Bench:
    return Bench(rig_of("apic"))


def test_one_shot_counts_down_and_interrupts_once(bench: Bench) -> None:
    bench.write(reg.LVT_TIMER, VECTOR)
    bench.write(reg.INITIAL_COUNT, 1000)
    bench.rig.run_ns(400)
    assert bench.count == 600
    bench.rig.run_ns(599)
    assert bench.count == 1
    assert not bench.take()
    bench.rig.run_ns(1)
    assert bench.count == 0
    assert bench.take()
    bench.rig.run_ns(100_000)
    assert not bench.take()
    assert bench.deadline_ns is None


@pytest.mark.parametrize(
    ("configuration", "divisor"),
    [
        (0b0000, 2),
        (0b0001, 4),
        (0b0010, 8),
        (0b0011, 16),
        (0b1000, 32),
        (0b1001, 64),
        (0b1010, 128),
        (0b1011, 1),
    ],
)
def test_the_divide_configuration(bench: Bench, configuration: int, divisor: int) -> None:
    bench.write(reg.DIVIDE_CONFIGURATION, configuration)
    bench.write(reg.LVT_TIMER, VECTOR)
    bench.write(reg.INITIAL_COUNT, 100)
    assert bench.deadline_ns == 100 * divisor
    bench.rig.run_ns(10 * divisor)
    assert bench.count == 90


def test_periodic_interrupts_each_time_it_comes_to_zero(bench: Bench) -> None:
    bench.write(reg.LVT_TIMER, reg.TIMER_PERIODIC | VECTOR)
    bench.write(reg.INITIAL_COUNT, 50_000)
    for _ in range(5):
        bench.rig.run_ns(50_000)
        assert bench.count == 50_000
        assert bench.take()
    bench.rig.run_ns(20_000)
    assert bench.count == 30_000
    assert bench.apic.timer.missed_periods == 0


def test_a_late_periodic_timer_interrupts_once_and_keeps_its_phase(bench: Bench) -> None:
    bench.write(reg.LVT_TIMER, reg.TIMER_PERIODIC | VECTOR)
    bench.write(reg.INITIAL_COUNT, 50_000)
    assert bench.rig.pass_ns(525_000) == 1
    assert bench.take()
    assert bench.deadline_ns == 550_000
    assert bench.count == 25_000
    assert bench.apic.timer.missed_periods == 9
    assert bench.rig.pass_ns(1) == 0


def test_a_tiny_period_does_not_occupy_the_host(bench: Bench) -> None:
    bench.write(reg.LVT_TIMER, reg.TIMER_PERIODIC | VECTOR)
    bench.write(reg.INITIAL_COUNT, 1)
    bench.rig.run_ns(1)
    fired = 0
    while bench.rig.wires.clock.now_ns() <= 100 * MIN_PERIOD_NS:
        deadline_ns = bench.deadline_ns
        assert deadline_ns is not None
        fired += bench.rig.pass_ns(deadline_ns - bench.rig.wires.clock.now_ns())
    assert fired == 100


def test_zero_stops_it(bench: Bench) -> None:
    bench.write(reg.LVT_TIMER, reg.TIMER_PERIODIC | VECTOR)
    bench.write(reg.INITIAL_COUNT, 1000)
    bench.write(reg.INITIAL_COUNT, 0)
    assert bench.count == 0
    assert bench.deadline_ns is None


def test_masked_it_counts_in_silence(bench: Bench) -> None:
    bench.write(reg.LVT_TIMER, MASKED | reg.TIMER_PERIODIC | VECTOR)
    bench.write(reg.INITIAL_COUNT, 1000)
    assert bench.deadline_ns is None
    bench.rig.run_ns(2_300)
    assert bench.count == 700
    bench.write(reg.LVT_TIMER, reg.TIMER_PERIODIC | VECTOR)
    assert not bench.take()
    bench.write(reg.LVT_TIMER, MASKED | VECTOR)
    bench.rig.run_ns(800)
    bench.write(reg.LVT_TIMER, VECTOR)
    assert bench.deadline_ns is None  # a one-shot that ran out while masked
    assert bench.count == 0


def test_a_new_divisor_goes_on_from_the_present_count(bench: Bench) -> None:
    bench.write(reg.LVT_TIMER, VECTOR)
    bench.write(reg.INITIAL_COUNT, 1000)
    bench.rig.run_ns(400)
    bench.write(reg.DIVIDE_CONFIGURATION, DIVIDE_BY_2)
    assert bench.count == 600
    assert bench.deadline_ns == 400 + 2 * 600


def test_a_one_shot_becomes_periodic_where_it_is(bench: Bench) -> None:
    bench.write(reg.LVT_TIMER, VECTOR)
    bench.write(reg.INITIAL_COUNT, 20_000)
    bench.rig.run_ns(5_000)
    bench.write(reg.LVT_TIMER, reg.TIMER_PERIODIC | VECTOR)
    assert bench.count == 15_000
    bench.rig.run_ns(15_000)
    assert bench.take()
    assert bench.deadline_ns == 40_000


def test_one_that_has_run_out_stays_out(bench: Bench) -> None:
    bench.write(reg.LVT_TIMER, VECTOR)
    bench.write(reg.INITIAL_COUNT, 1000)
    bench.rig.run_ns(1000)
    bench.write(reg.LVT_TIMER, reg.TIMER_PERIODIC | VECTOR)
    assert bench.deadline_ns is None


def test_other_rates_than_the_clocks_never_drift() -> None:
    rig = Rig("apic")
    fired = []
    timer = ApicTimer(clock=rig.wires.clock, hz=3, on_expiry=lambda: fired.append(rig.wires.clock.now_ns()))
    timer.write_divide_configuration(DIVIDE_BY_1)
    timer.configure(periodic=True, masked=False)
    timer.write_initial_count(1)
    rig.run_ns(1_000_000_000)
    assert fired == [333_333_334, 666_666_667, 1_000_000_000]


def test_a_reset_stops_the_timer(bench: Bench) -> None:
    bench.write(reg.LVT_TIMER, VECTOR)
    bench.write(reg.INITIAL_COUNT, 1000)
    bench.apic.reset()
    assert bench.deadline_ns is None
    assert bench.count == 0


def test_a_restored_timer_fires_when_it_would_have(bench: Bench) -> None:
    bench.write(reg.LVT_TIMER, VECTOR)
    bench.write(reg.INITIAL_COUNT, 1000)
    bench.rig.run_ns(400)
    rig = bench.rig.restored()
    assert rig.wires.clock.next_deadline_ns() == 1000
    rig.run_ns(600)
    assert rig.chips["lapic"].acknowledge() == VECTOR
