from collections.abc import Callable
from itertools import pairwise

import pytest
from device_rigs import Rig
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.devices.bcd import from_bcd, to_bcd
from emuvisor.devices.pit import PIT_HZ, ns_at_tick, tick_at_ns
from emuvisor.units import NS_PER_S

CONTROL = 3
GATE, SPEAKER_DATA, REFRESH, OUT2 = 0x01, 0x02, 0x10, 0x20
STATUS_OUT, STATUS_NULL = 0x80, 0x40


class Bench:
    """Counter 2, whose gate and output a guest can reach, and counter 0 on its interrupt line."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.pit = rig.chips["pit"]
        self.speaker = rig.chips["speaker"]
        self.tick = self.pit.tick()

    def pass_ticks(self, ticks: int) -> None:
        self.tick += ticks
        self.rig.run_ns(ns_at_tick(self.tick) - self.rig.wires.clock.now_ns())

    def program(self, counter: int, mode: int, count: int, bcd: bool = False) -> None:
        self.pit.write(CONTROL, counter << 6 | 0x30 | mode << 1 | bcd, 1)
        self.load(counter, count)

    def load(self, counter: int, count: int) -> None:
        self.pit.write(counter, count & 0xFF, 1)
        self.pit.write(counter, count >> 8, 1)

    def count(self, counter: int = 2) -> int:
        self.pit.write(CONTROL, counter << 6, 1)
        low = self.pit.read(counter, 1)
        return low | self.pit.read(counter, 1) << 8

    def status(self, counter: int = 2) -> int:
        self.pit.write(CONTROL, 0xE0 | 2 << counter, 1)
        return self.pit.read(counter, 1)

    def gate(self, level: bool) -> None:
        self.speaker.write(0, GATE if level else 0, 1)

    def outputs(self, ticks: int, counter: int = 2) -> str:
        """OUT from now on, a letter per tick."""
        seen = ""
        for _ in range(ticks):
            seen += "H" if self.pit.output(counter) else "L"
            self.pass_ticks(1)
        return seen

    def interrupts(self) -> int:
        return self.rig.logged("irq0").count(True)


@pytest.fixture
def bench(rig_of: Callable[[str], Rig]) -> Bench:
    return Bench(rig_of("pit"))


@given(st.integers(0, 10**19))
def test_ticks_and_nanoseconds_do_not_drift(tick: int) -> None:
    ns = ns_at_tick(tick)
    assert tick_at_ns(ns) == tick
    assert tick == 0 or tick_at_ns(ns - 1) == tick - 1
    assert tick_at_ns(tick * NS_PER_S) == tick * PIT_HZ


@given(st.integers(0, 9999))
def test_bcd_is_there_and_back(number: int) -> None:
    assert from_bcd(to_bcd(number)) == number
    assert f"{to_bcd(number):x}" == str(number)


def test_mode_0_goes_high_at_the_terminal_count_and_counts_on(bench: Bench) -> None:
    bench.gate(True)
    bench.program(2, 0, 4)
    assert bench.outputs(8) == "LLLLLHHH"  # N + 1 ticks after the write
    assert bench.count() == 0x10000 - 3


def test_mode_0_stops_while_the_gate_is_low(bench: Bench) -> None:
    bench.gate(True)
    bench.program(2, 0, 100)
    bench.pass_ticks(11)
    assert bench.count() == 90
    bench.gate(False)
    bench.pass_ticks(50)
    assert bench.count() == 90
    bench.gate(True)
    bench.pass_ticks(10)
    assert bench.count() == 80


def test_mode_0_stops_at_the_first_byte_of_a_new_count(bench: Bench) -> None:
    bench.gate(True)
    bench.program(2, 0, 2)
    bench.pass_ticks(10)
    assert bench.pit.output(2)
    bench.pit.write(2, 5, 1)
    assert bench.outputs(3) == "LLL"
    bench.pit.write(2, 0, 1)
    assert bench.outputs(8) == "LLLLLLHH"


def test_mode_1_is_triggered_by_the_gate_and_again(bench: Bench) -> None:
    bench.program(2, 1, 3)
    assert bench.outputs(5) == "HHHHH"
    bench.gate(True)
    assert bench.outputs(6) == "HLLLHH"
    bench.gate(False)
    bench.gate(True)
    assert bench.outputs(3) == "HLL"
    bench.gate(False)
    bench.gate(True)
    assert bench.outputs(6) == "LLLLHH"  # not a glitch high in the tick before the load


def test_mode_2_is_low_for_the_last_tick_of_each_period(bench: Bench) -> None:
    bench.gate(True)
    bench.program(2, 2, 4)
    bench.pass_ticks(1)
    assert bench.outputs(9) == "HHHLHHHLH"
    bench.gate(False)
    assert bench.outputs(5) == "HHHHH"
    bench.gate(True)
    assert bench.outputs(6) == "HHHHLH"


def test_mode_2_takes_a_new_count_at_the_end_of_the_period(bench: Bench) -> None:
    bench.gate(True)
    bench.program(2, 2, 5)
    bench.pass_ticks(2)
    bench.load(2, 3)
    assert bench.status() & STATUS_NULL
    assert bench.outputs(10) == "HHHLHHLHHL"
    assert not bench.status() & STATUS_NULL


@pytest.mark.parametrize(("count", "wave"), [(4, "HHLLHHLLHH"), (5, "HHHLLHHHLL")])
def test_mode_3_is_a_square_wave(bench: Bench, count: int, wave: str) -> None:
    bench.gate(True)
    bench.program(2, 3, count)
    bench.pass_ticks(1)
    assert bench.outputs(10) == wave


@pytest.mark.parametrize(("count", "counts"), [(6, [6, 4, 2, 6, 4, 2, 6]), (5, [4, 2, 0, 4, 2, 4, 2])])
def test_mode_3_counts_down_by_two(bench: Bench, count: int, counts: list[int]) -> None:
    bench.gate(True)
    bench.program(2, 3, count)
    seen = []
    for _ in counts:
        bench.pass_ticks(1)
        seen.append(bench.count())
    assert seen == counts


def test_mode_3_takes_a_new_count_at_the_end_of_the_half_cycle(bench: Bench) -> None:
    bench.gate(True)
    bench.program(2, 3, 8)
    bench.pass_ticks(2)
    bench.load(2, 4)
    assert bench.outputs(9) == "HHHLLHHLL"


def test_mode_4_strobes_once(bench: Bench) -> None:
    bench.gate(True)
    bench.program(2, 4, 3)
    assert bench.outputs(8) == "HHHHLHHH"


def test_mode_5_strobes_after_a_trigger(bench: Bench) -> None:
    bench.program(2, 5, 3)
    assert bench.outputs(5) == "HHHHH"
    bench.gate(True)
    assert bench.outputs(7) == "HHHHLHH"


def test_modes_6_and_7_are_2_and_3(bench: Bench) -> None:
    for written, mode in ((6, 2), (7, 3)):
        bench.program(2, written, 10)
        assert bench.status() >> 1 & 7 == mode


def test_a_forbidden_count_of_one_acts_as_two(bench: Bench) -> None:
    bench.gate(True)
    bench.program(2, 2, 1)
    bench.pass_ticks(1)
    assert bench.outputs(4) == "HLHL"


def test_bcd_counts_in_decimal(bench: Bench) -> None:
    bench.gate(True)
    bench.program(2, 0, 0x0100, bcd=True)
    bench.pass_ticks(2)
    assert bench.count() == 0x0099
    bench.pass_ticks(100)
    assert bench.count() == 0x9999
    bench.program(2, 2, 0, bcd=True)
    bench.pass_ticks(2)
    assert bench.count() == 0x9999


def test_a_count_of_zero_is_the_largest(bench: Bench) -> None:
    bench.gate(True)
    bench.program(2, 2, 0)
    bench.pass_ticks(2)
    assert bench.count() == 0xFFFF


def test_a_latched_count_stays_until_it_is_read(bench: Bench) -> None:
    bench.gate(True)
    bench.program(2, 2, 0x1000)
    bench.pass_ticks(2)
    bench.pit.write(CONTROL, 0x80, 1)
    bench.pass_ticks(100)
    bench.pit.write(CONTROL, 0x80, 1)  # ignored: the first latch is unread
    assert [bench.pit.read(2, 1), bench.pit.read(2, 1)] == [0xFF, 0x0F]
    assert bench.count() == 0x1000 - 101


def test_one_byte_access_modes(bench: Bench) -> None:
    bench.gate(True)
    bench.pit.write(CONTROL, 0x94, 1)  # LSB only, mode 2
    bench.pit.write(2, 0x40, 1)
    bench.pass_ticks(2)
    assert [bench.pit.read(2, 1), bench.pit.read(2, 1)] == [0x3F, 0x3F]
    bench.pit.write(CONTROL, 0xA4, 1)  # MSB only
    bench.pit.write(2, 0x40, 1)
    bench.pass_ticks(2)
    assert bench.pit.read(2, 1) == 0x3F


def test_read_back_latches_status_and_count_of_several_counters(bench: Bench) -> None:
    bench.gate(True)
    bench.program(0, 2, 0x200)
    bench.program(2, 3, 0x300)
    bench.pass_ticks(1)
    bench.pit.write(CONTROL, 0xC0 | 0x0A, 1)  # count and status of counters 0 and 2
    bench.pass_ticks(5)
    assert [bench.pit.read(0, 1) for _ in range(3)] == [STATUS_OUT | 0x34, 0x00, 0x02]
    assert [bench.pit.read(2, 1) for _ in range(3)] == [STATUS_OUT | 0x36, 0x00, 0x03]
    assert bench.pit.read(CONTROL, 1) == 0


def test_null_count_is_set_until_the_count_is_loaded(bench: Bench) -> None:
    bench.pit.write(CONTROL, 0xB2, 1)  # mode 1
    assert bench.status() == STATUS_OUT | STATUS_NULL | 0x32
    bench.load(2, 5)
    assert bench.status() & STATUS_NULL
    bench.gate(True)
    assert bench.status() & STATUS_NULL
    bench.pass_ticks(1)
    assert not bench.status() & STATUS_NULL


def test_counter_0_interrupts_at_100_hz_without_drift(bench: Bench) -> None:
    bench.program(0, 2, 11932)
    bench.pass_ticks(1 + 11932 * 1000 - 1)
    assert bench.interrupts() == 1 + 999  # the first is OUT going high at the control word
    bench.pass_ticks(1)
    assert bench.interrupts() == 1000 + 1
    assert bench.pit.missed_edges == 0


def test_each_interrupt_is_one_edge_at_its_exact_time(bench: Bench) -> None:
    bench.program(0, 2, 100)
    clock = bench.rig.wires.clock
    edges = []
    for _ in range(50):
        deadline = clock.next_deadline_ns()
        assert deadline is not None
        clock.skip(deadline - clock.now_ns())
        before = bench.interrupts()
        assert clock.fire_due() == 1
        assert bench.interrupts() == before + 1
        edges.append(tick_at_ns(deadline))
    assert {b - a for a, b in pairwise(edges)} == {100}


@pytest.mark.parametrize(("mode", "ticks"), [(0, 1 + 50), (4, 1 + 50 + 1)])
def test_one_shot_modes_interrupt_once(bench: Bench, mode: int, ticks: int) -> None:
    bench.program(0, mode, 50)
    before = bench.interrupts()
    bench.pass_ticks(ticks - 1)
    assert bench.interrupts() == before
    bench.pass_ticks(1)
    assert bench.interrupts() == before + 1
    bench.pass_ticks(200_000)
    assert bench.interrupts() == before + 1
    assert bench.rig.wires.clock.next_deadline_ns() is None


def test_counter_0_in_mode_3_takes_a_new_rate(bench: Bench) -> None:
    bench.program(0, 3, 1000)
    bench.pass_ticks(1 + 100)
    bench.load(0, 200)  # from the end of the high half on: 100 low, then a rise each 200
    before = bench.interrupts()
    bench.pass_ticks(500 - 100 + 100 + 400)
    assert bench.interrupts() == before + 3


def test_a_late_timer_skips_and_counts_the_missed_edges(bench: Bench) -> None:
    bench.program(0, 2, 2)
    before = bench.interrupts()
    bench.rig.wires.clock.skip(NS_PER_S)
    assert bench.rig.wires.clock.fire_due() == 1
    assert bench.interrupts() == before + 1
    assert bench.pit.missed_edges == pytest.approx(PIT_HZ / 2, abs=2)
    deadline = bench.rig.wires.clock.next_deadline_ns()
    assert deadline is not None
    assert 0 < deadline - bench.rig.wires.clock.now_ns() < 2_000


def test_a_new_control_word_stops_the_interrupts(bench: Bench) -> None:
    bench.program(0, 2, 100)
    bench.pit.write(CONTROL, 0x30, 1)
    assert not bench.rig.level("irq0")
    bench.pass_ticks(1000)
    assert bench.interrupts() == 1


def test_port_61_shows_gate_speaker_refresh_and_output(bench: Bench) -> None:
    bench.speaker.write(0, 0xFF, 1)
    assert bench.speaker.read(0, 1) & 0x0F == 0x0F
    assert bench.speaker.speaker_on
    bench.speaker.write(0, GATE, 1)
    assert not bench.speaker.speaker_on
    bench.program(2, 0, 3)
    assert bench.speaker.read(0, 1) & (OUT2 | GATE) == GATE
    bench.pass_ticks(4)
    assert bench.speaker.read(0, 1) & (OUT2 | GATE) == OUT2 | GATE


def test_the_refresh_bit_toggles_every_15_us(bench: Bench) -> None:
    seen = []
    for _ in range(36 * 4):
        seen.append(bench.speaker.read(0, 1) & REFRESH)
        bench.pass_ticks(1)
    assert sum(a != b for a, b in pairwise(seen)) == 7


def test_linux_calibrates_against_counter_2(bench: Bench) -> None:
    """As pit_calibrate_tsc: 50 ms in mode 0, waiting for OUT at port 61h."""
    latch = PIT_HZ // 20
    bench.speaker.write(0, GATE, 1)
    bench.program(2, 0, latch)
    clock = bench.rig.wires.clock
    start = clock.now_ns()
    loops = 0
    while not bench.speaker.read(0, 1) & OUT2:
        clock.skip(3_000)
        loops += 1
    assert loops > 1_000
    assert clock.now_ns() - start == pytest.approx(50_000_000, rel=0.001)


def test_the_gate_of_counter_0_starts_its_interrupts_anew(bench: Bench) -> None:
    """No PC wires it; boards may."""
    bench.program(0, 2, 100)
    bench.pass_ticks(50)
    bench.pit.set_gate(0, False)
    assert bench.rig.wires.clock.next_deadline_ns() is None
    bench.pit.set_gate(0, True)
    bench.pit.set_gate(0, True)
    before = bench.interrupts()
    bench.pass_ticks(100)
    assert bench.interrupts() == before
    bench.pass_ticks(1)
    assert bench.interrupts() == before + 1


def test_reset_stops_everything(bench: Bench) -> None:
    bench.speaker.write(0, GATE | SPEAKER_DATA, 1)
    bench.program(0, 2, 100)
    bench.program(2, 2, 100)
    for chip in (bench.pit, bench.speaker):
        chip.reset()
    assert bench.rig.wires.clock.next_deadline_ns() is None
    assert not bench.rig.level("irq0")
    assert bench.count() == 0
    assert bench.speaker.read(0, 1) & 0x0F == 0
