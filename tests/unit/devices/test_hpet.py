"""The HPET: IA-PC HPET Specification 1.0a, section 2.3."""

from collections.abc import Callable
from typing import Any

import pytest
from device_rigs import Rig
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.devices.hpet import (
    CAPABILITIES,
    CONFIGURATION,
    ENABLE,
    EVENT_TIMER_BLOCK_ID,
    INTERRUPT_STATUS,
    LEGACY_REPLACEMENT,
    MAIN_COUNTER,
    MIN_PERIOD_NS,
    Hpet,
)
from emuvisor.devices.hpet_comparator import (
    FSB_CAPABLE,
    FSB_ENABLED,
    INTERRUPT_ENABLED,
    LEVEL_TRIGGERED,
    MODE_32,
    PERIODIC,
    PERIODIC_CAPABLE,
    ROUTE_SHIFT,
    SIZE_64_CAPABLE,
    VALUE_SET,
)

ROUTED_TO_16 = 16 << ROUTE_SHIFT
ROUTED_TO_17 = 17 << ROUTE_SHIFT
TICK_NS = 10


class Bench:
    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.hpet: Hpet = rig.chips["hpet"]

    def read(self, register: int) -> int:
        return self.hpet.read(register, 8)

    def write(self, register: int, value: int) -> None:
        self.hpet.write(register, value, 8)

    def start(self, config: int = 0) -> None:
        self.write(CONFIGURATION, ENABLE | config)

    def set_timer(self, index: int, config: int, comparator: int) -> None:
        self.write(0x100 + 0x20 * index, config)
        self.write(0x108 + 0x20 * index, comparator)

    def rises(self, line: str) -> int:
        return self.rig.logged(line).count(True)

    @property
    def deadline_ns(self) -> int | None:
        return self.rig.wires.clock.next_deadline_ns()


@pytest.fixture
def bench(rig_of: Callable[[str], Rig]) -> Bench:
    return Bench(rig_of("hpet"))


def test_capabilities(bench: Bench) -> None:
    assert bench.read(CAPABILITIES) == 10_000_000 << 32 | EVENT_TIMER_BLOCK_ID
    assert EVENT_TIMER_BLOCK_ID == 0x8086A201
    both = SIZE_64_CAPABLE | FSB_CAPABLE | (1 << 16 | 1 << 17) << 32
    assert [bench.read(0x100 + 0x20 * n) for n in range(3)] == [both | PERIODIC_CAPABLE, both, both]
    assert bench.read(0x108) == 0xFFFFFFFFFFFFFFFF
    for register in (0x008, 0x018, 0x028, 0x118, 0x160, 0x3F8):
        bench.write(register, 0xFFFFFFFFFFFFFFFF)
        assert bench.read(register) == 0


def test_without_messages_the_capability_is_off() -> None:
    wires = Rig("hpet").wires
    hpet = Hpet(clock=wires.clock, irq0=wires.line("a"), irq8=wires.line("b"), routes={})
    hpet.write(0x100, FSB_ENABLED | PERIODIC, 8)
    assert hpet.read(0x100, 8) == PERIODIC_CAPABLE | SIZE_64_CAPABLE | PERIODIC
    hpet.write(0x120, FSB_ENABLED | PERIODIC, 8)
    assert hpet.read(0x120, 8) == SIZE_64_CAPABLE


def test_the_counter_counts_while_it_is_enabled(bench: Bench) -> None:
    bench.rig.run_ns(1000)
    assert bench.read(MAIN_COUNTER) == 0
    bench.start()
    bench.rig.run_ns(1000)
    assert bench.read(MAIN_COUNTER) == 100
    bench.write(CONFIGURATION, 0)
    bench.rig.run_ns(1000)
    assert bench.read(MAIN_COUNTER) == 100
    bench.write(MAIN_COUNTER, 0xFFFFFFFFFFFFFFFE)
    bench.start()
    bench.rig.run_ns(40)
    assert bench.read(MAIN_COUNTER) == 2


def test_registers_are_taken_by_halves(bench: Bench) -> None:
    bench.hpet.write(MAIN_COUNTER + 4, 0x12345678, 4)
    bench.hpet.write(MAIN_COUNTER, 0x9ABCDEF0, 4)
    assert bench.read(MAIN_COUNTER) == 0x123456789ABCDEF0
    assert bench.hpet.read(MAIN_COUNTER + 4, 4) == 0x12345678
    assert bench.hpet.read(MAIN_COUNTER + 1, 1) == 0xDE
    bench.hpet.write(MAIN_COUNTER, 0, 2)
    bench.hpet.write(MAIN_COUNTER + 2, 0, 4)
    assert bench.read(MAIN_COUNTER) == 0x123456789ABCDEF0


def test_a_one_shot_fires_at_its_match(bench: Bench) -> None:
    bench.start()
    bench.set_timer(1, INTERRUPT_ENABLED | ROUTED_TO_17, 500)
    assert bench.deadline_ns == 500 * TICK_NS
    bench.rig.run_ns(4999)
    assert bench.rises("gsi17") == 0
    bench.rig.run_ns(1)
    assert bench.rises("gsi17") == 1
    assert not bench.rig.level("gsi17")
    assert bench.read(INTERRUPT_STATUS) == 0  # an edge
    assert bench.deadline_ns is None  # it comes again after 5,849 years


def test_a_match_behind_the_counter_is_a_round_away(bench: Bench) -> None:
    bench.start()
    bench.rig.run_ns(1000)
    bench.set_timer(0, INTERRUPT_ENABLED | MODE_32 | ROUTED_TO_16, 99)
    assert bench.deadline_ns == 1000 + (2**32 - 1) * TICK_NS
    bench.set_timer(0, INTERRUPT_ENABLED | MODE_32 | ROUTED_TO_16, 100)
    assert bench.deadline_ns == 1000  # it matches now
    assert bench.rig.pass_ns(0) == 1
    assert bench.deadline_ns == 1000 + 2**32 * TICK_NS


def test_a_level_stays_until_its_status_is_cleared(bench: Bench) -> None:
    bench.start()
    bench.set_timer(2, LEVEL_TRIGGERED | INTERRUPT_ENABLED | ROUTED_TO_16, 100)
    bench.rig.run_ns(2000)
    assert bench.rig.level("gsi16")
    assert bench.read(INTERRUPT_STATUS) == 0b100
    bench.write(INTERRUPT_STATUS, 0b011)
    assert bench.rig.level("gsi16")
    bench.write(INTERRUPT_STATUS, 0b100)
    assert not bench.rig.level("gsi16")


def test_a_disabled_level_timer_shows_its_status(bench: Bench) -> None:
    bench.start()
    bench.set_timer(2, LEVEL_TRIGGERED | ROUTED_TO_16, 100)
    bench.rig.run_ns(2000)
    assert bench.read(INTERRUPT_STATUS) == 0b100
    assert not bench.rig.level("gsi16")
    bench.write(0x140, LEVEL_TRIGGERED | INTERRUPT_ENABLED | ROUTED_TO_16)
    assert bench.rig.level("gsi16")
    bench.write(CONFIGURATION, 0)
    assert not bench.rig.level("gsi16")


def test_two_timers_may_share_a_line(bench: Bench) -> None:
    bench.start()
    for index in (1, 2):
        bench.set_timer(index, LEVEL_TRIGGERED | INTERRUPT_ENABLED | ROUTED_TO_16, 100)
    bench.rig.run_ns(2000)
    bench.write(INTERRUPT_STATUS, 0b010)
    assert bench.rig.level("gsi16")
    bench.write(INTERRUPT_STATUS, 0b100)
    assert not bench.rig.level("gsi16")


def test_a_route_that_is_not_offered_is_not_taken(bench: Bench) -> None:
    bench.write(0x100, ROUTED_TO_17 | INTERRUPT_ENABLED)
    bench.write(0x100, 5 << ROUTE_SHIFT)
    assert bench.hpet.timers[0].route == 17
    assert not bench.read(0x100) & INTERRUPT_ENABLED


def test_an_unrouted_timer_interrupts_nobody(bench: Bench) -> None:
    bench.start()
    bench.set_timer(1, INTERRUPT_ENABLED, 100)
    bench.rig.run_ns(2000)
    assert bench.rig.wires.log == []


def test_a_disabled_timer_does_not_wake_the_clock(bench: Bench) -> None:
    bench.start()
    bench.set_timer(0, ROUTED_TO_16, 100)
    assert bench.deadline_ns is None


# Periodic mode: 2.3.9.2.2.


def periodic(bench: Bench, first: int, period: int) -> None:
    """As Linux does: the first write sets the comparator too, the second the period only."""
    bench.start()
    bench.set_timer(0, INTERRUPT_ENABLED | PERIODIC | VALUE_SET | MODE_32 | ROUTED_TO_16, first)
    bench.write(0x108, period)


def test_a_periodic_timer_repeats(bench: Bench) -> None:
    periodic(bench, first=3000, period=2000)
    for rises, deadline_ns in ((0, 30_000), (1, 50_000), (2, 70_000)):
        assert bench.rises("gsi16") == rises
        assert bench.deadline_ns == deadline_ns
        bench.rig.run_ns(deadline_ns - bench.rig.wires.clock.now_ns())
    assert bench.read(0x108) == 9000


def test_one_write_sets_comparator_and_period(bench: Bench) -> None:
    bench.start()
    bench.set_timer(0, INTERRUPT_ENABLED | PERIODIC | VALUE_SET | ROUTED_TO_16, 2000)
    bench.rig.run_ns(100_000)
    assert bench.rises("gsi16") == 5


def test_a_store_of_64_bits_may_come_in_halves(bench: Bench) -> None:
    bench.start()
    bench.write(0x100, INTERRUPT_ENABLED | PERIODIC | VALUE_SET | ROUTED_TO_16)
    bench.hpet.write(0x108, 2000, 4)
    bench.hpet.write(0x10C, 0, 4)
    assert not bench.read(0x100) & VALUE_SET
    bench.rig.run_ns(100_000)
    assert bench.rises("gsi16") == 5


def test_a_late_periodic_timer_fires_once_and_keeps_its_phase(bench: Bench) -> None:
    periodic(bench, first=2000, period=2000)
    assert bench.rig.pass_ns(105_000) == 1
    assert bench.rises("gsi16") == 1
    assert bench.deadline_ns == 120_000


def test_a_first_match_that_has_passed_costs_a_period_not_a_round(bench: Bench) -> None:
    """A guest on the host's clock may not run between reading the counter and writing the comparator."""
    bench.start()
    bench.rig.run_ns(50_000)
    periodic(bench, first=3000, period=2000)
    assert bench.deadline_ns == 70_000
    bench.rig.run_ns(20_000)
    assert bench.rises("gsi16") == 1
    assert bench.read(0x108) == 9000


def test_a_tiny_period_does_not_occupy_the_host(bench: Bench) -> None:
    periodic(bench, first=1, period=1)
    bench.rig.run_ns(100 * MIN_PERIOD_NS)
    assert bench.rises("gsi16") == 100


def test_the_32_bit_comparator_wraps(bench: Bench) -> None:
    bench.write(MAIN_COUNTER, 0xFFFFF000)
    periodic(bench, first=0xFFFFF800, period=0x1000)
    bench.rig.run_ns(0x800 * TICK_NS)
    assert bench.read(0x108) == 0x800
    bench.rig.run_ns(0x1000 * TICK_NS)
    assert bench.rises("gsi16") == 2


# Legacy replacement: 2.3.5.


def test_the_old_chips_lines_lead_through(bench: Bench) -> None:
    bench.hpet.pit.set(True)
    bench.hpet.rtc.pulse()
    assert bench.rig.level("irq0")
    assert bench.rises("irq8") == 1
    bench.hpet.pit.set(False)
    assert not bench.rig.level("irq0")


def test_legacy_replacement_cuts_the_old_chips_off(bench: Bench) -> None:
    bench.hpet.pit.set(True)
    bench.start(LEGACY_REPLACEMENT)
    assert not bench.rig.level("irq0")
    bench.hpet.rtc.set(True)
    assert bench.rises("irq8") == 0
    bench.set_timer(0, INTERRUPT_ENABLED | ROUTED_TO_16, 100)
    bench.set_timer(1, INTERRUPT_ENABLED | LEVEL_TRIGGERED, 200)
    bench.set_timer(2, INTERRUPT_ENABLED | ROUTED_TO_17, 300)
    rises = bench.rises("irq0")
    bench.rig.run_ns(5000)
    assert bench.rises("irq0") == rises + 1
    assert bench.rig.level("irq8")
    assert (bench.rises("gsi16"), bench.rises("gsi17")) == (0, 1)
    bench.write(INTERRUPT_STATUS, 0b010)
    assert not bench.rig.level("irq8")
    bench.write(CONFIGURATION, ENABLE)
    assert bench.rig.level("irq0")
    assert bench.rig.level("irq8")


# Messages: 2.3.10.


def test_a_message_instead_of_a_line(bench: Bench) -> None:
    bench.start(LEGACY_REPLACEMENT)
    bench.write(0x110, 0xFEE03000_00000041)
    assert bench.read(0x110) == 0xFEE03000_00000041
    bench.set_timer(0, INTERRUPT_ENABLED | FSB_ENABLED | LEVEL_TRIGGERED, 100)
    bench.rig.run_ns(2000)
    assert bench.rig.wires.log == [("msi", (0xFEE03000, 0x41))]


def test_reset_stops_all(bench: Bench) -> None:
    bench.hpet.pit.set(True)
    bench.start(LEGACY_REPLACEMENT)
    bench.set_timer(1, INTERRUPT_ENABLED, 100)
    bench.hpet.reset()
    assert bench.deadline_ns is None
    assert bench.read(MAIN_COUNTER) == 0
    assert bench.rig.level("irq0")  # the 8254's again


registers = st.sampled_from([0x010, 0x020, 0x0F0, 0x100, 0x108, 0x110, 0x120, 0x128, 0x140, 0x148])
values = st.integers(0, 0x7FFF) | st.integers(0, 2**64 - 1)
actions = st.tuples(registers, st.sampled_from([0, 4]), st.sampled_from([4, 8]), values) | st.integers(
    0, 10**12
)


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(actions, max_size=40), save_at=st.integers(0, 40))
def test_hostile_registers(steps: list[Any], save_at: int) -> None:
    straight, broken = Rig("hpet"), Rig("hpet")
    for number, step in enumerate(steps):
        if number == save_at:
            broken = broken.restored()
        for rig in (straight, broken):
            if isinstance(step, int):
                assert rig.pass_ns(step) <= 3
            else:
                register, half, size, value = step
                rig.chips["hpet"].write(register + half, value & (1 << 8 * size) - 1, size)
    assert straight.save() == broken.save()
    assert straight.wires.log == broken.wires.log


def test_a_restored_timer_fires_when_it_would_have(bench: Bench) -> None:
    periodic(bench, first=2000, period=2000)
    bench.rig.run_ns(25_000)
    again = Bench(bench.rig.restored())
    assert again.read(CONFIGURATION) == ENABLE
    assert again.deadline_ns == 40_000
    again.rig.run_ns(15_000)
    assert again.rises("gsi16") == 2
