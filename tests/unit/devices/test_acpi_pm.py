"""ACPI's fixed hardware: ACPI specification 6.4, section 4.8."""

from collections.abc import Callable

import pytest
from device_rigs import Rig

from emuvisor.bus.clock import VirtualClock
from emuvisor.bus.irq import InterruptLine
from emuvisor.devices.acpi_pm import (
    ACPI_DISABLE,
    ACPI_ENABLE,
    GPE0_EN_OFFSET,
    GPE0_STS_OFFSET,
    PM1_CNT_OFFSET,
    PM1_EN_OFFSET,
    PM1_STS_OFFSET,
    PM_TIMER_HZ,
    PM_TMR_OFFSET,
    PWRBTN_STS,
    RTC_STS,
    SCI_EN,
    TMR_STS,
    PowerManagement,
)
from emuvisor.errors import UsageError
from emuvisor.units import NS_PER_S

SLP_EN = 0x2000
BM_RLD = 0x0002
CARRY_NS = 2**23 * NS_PER_S // PM_TIMER_HZ + 1
"""When the timer's highest bit first changes: after 2.34 s."""


class Bench:
    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.pm: PowerManagement = rig.chips["pm"]

    def read(self, register: int, size: int = 2) -> int:
        return self.pm.read(register, size)

    def write(self, register: int, value: int, size: int = 2) -> None:
        self.pm.write(register, value, size)

    def command(self, value: int) -> None:
        self.rig.chips["smi"].write(0, value, 1)

    @property
    def sci(self) -> bool:
        return self.rig.level("sci")


@pytest.fixture
def bench(rig_of: Callable[[str], Rig]) -> Bench:
    return Bench(rig_of("acpi_pm"))


def test_all_is_zero_after_reset(bench: Bench) -> None:
    assert [bench.read(offset, 1) for offset in range(64)] == [0] * 64


def test_the_writable_bits(bench: Bench) -> None:
    for register in range(0, 64, 2):
        bench.write(register, 0xFFFF & ~SLP_EN)
    assert bench.read(PM1_EN_OFFSET) == 0x0521
    assert bench.read(PM1_CNT_OFFSET) == 0x1C03
    assert bench.read(GPE0_EN_OFFSET) == 0xDFFF
    assert bench.read(PM1_STS_OFFSET, 4) == 0x0521_0000
    assert bench.read(16, 8) == 0
    assert bench.rig.logged("off") == []


def test_registers_are_written_by_bytes(bench: Bench) -> None:
    bench.write(PM1_EN_OFFSET + 1, 0x05, 1)
    bench.write(PM1_EN_OFFSET, 0x20, 1)
    assert bench.read(PM1_EN_OFFSET) == 0x0520
    bench.pm.press_power_button()
    bench.write(PM1_STS_OFFSET, 0xFF, 1)
    assert bench.read(PM1_STS_OFFSET) == PWRBTN_STS
    bench.write(PM1_STS_OFFSET, 0x0001_0100, 4)
    assert bench.read(PM1_STS_OFFSET, 4) == 0x0001_0000


def test_the_smi_commands_switch_acpi_mode(bench: Bench) -> None:
    bench.command(ACPI_ENABLE)
    assert bench.read(PM1_CNT_OFFSET) == SCI_EN
    bench.write(PM1_CNT_OFFSET, SCI_EN | BM_RLD)
    assert bench.read(PM1_CNT_OFFSET) == SCI_EN | BM_RLD
    bench.command(0x42)
    assert bench.read(PM1_CNT_OFFSET) == SCI_EN | BM_RLD
    bench.command(ACPI_DISABLE)
    assert bench.read(PM1_CNT_OFFSET) == BM_RLD


def test_the_smi_ports_keep_what_is_written(bench: Bench) -> None:
    smi = bench.rig.chips["smi"]
    smi.write(0, 0x42, 1)
    smi.write(1, 0x43, 1)
    assert (smi.read(0, 1), smi.read(1, 1)) == (0x42, 0x43)
    smi.reset()
    assert (smi.read(0, 1), smi.read(1, 1)) == (0, 0)


def test_the_power_button_is_an_event(bench: Bench) -> None:
    bench.command(ACPI_ENABLE)
    bench.write(PM1_EN_OFFSET, PWRBTN_STS)
    assert bench.pm.press_power_button()
    assert bench.sci
    assert bench.read(PM1_STS_OFFSET) == PWRBTN_STS
    bench.write(PM1_STS_OFFSET, PWRBTN_STS)
    assert not bench.sci
    assert bench.read(PM1_STS_OFFSET) == 0


def test_nobody_hears_a_button_that_is_not_enabled(bench: Bench) -> None:
    bench.command(ACPI_ENABLE)
    assert not bench.pm.press_power_button()
    assert not bench.sci
    bench.write(PM1_EN_OFFSET, PWRBTN_STS)
    assert bench.sci
    bench.command(ACPI_DISABLE)
    assert not bench.sci
    assert not bench.pm.press_power_button()


def test_the_clock_chips_alarm_is_an_event(bench: Bench) -> None:
    bench.command(ACPI_ENABLE)
    bench.write(PM1_EN_OFFSET, RTC_STS)
    bench.pm.rtc_alarm()
    assert bench.sci
    assert bench.read(PM1_STS_OFFSET) == RTC_STS


def test_general_purpose_events(bench: Bench) -> None:
    bench.command(ACPI_ENABLE)
    bench.write(GPE0_EN_OFFSET, 0x0002)
    bench.pm.raise_general_event(0)
    assert not bench.sci
    bench.pm.raise_general_event(1)
    assert bench.sci
    assert bench.read(GPE0_STS_OFFSET) == 0x0003
    bench.write(GPE0_STS_OFFSET, 0x0002)
    assert not bench.sci
    assert bench.read(GPE0_STS_OFFSET) == 0x0001


@pytest.mark.parametrize("number", [-1, 16])
def test_events_that_are_not_there(bench: Bench, number: int) -> None:
    with pytest.raises(UsageError) as caught:
        bench.pm.raise_general_event(number)
    assert str(caught.value) == f"acpi-pm: general-purpose event {number}; the block has 0 to 15"


@pytest.mark.parametrize(
    ("writes", "off"),
    [
        ([(PM1_CNT_OFFSET, 0x2000, 2)], 1),
        ([(PM1_CNT_OFFSET + 1, 0x20, 1)], 1),
        ([(PM1_EN_OFFSET, 0x2000_0000, 4)], 1),
        ([(PM1_CNT_OFFSET, 0x2400, 2)], 0),  # S3
        ([(PM1_CNT_OFFSET, 0x0000, 2)], 0),
    ],
)
def test_the_sleep_type_of_s5_switches_off(
    bench: Bench, writes: list[tuple[int, int, int]], off: int
) -> None:
    for write in writes:
        bench.write(*write)
    assert len(bench.rig.logged("off")) == off
    assert not bench.read(PM1_CNT_OFFSET) & SLP_EN


# The timer: 4.8.2.1.


def test_the_timer_counts(bench: Bench) -> None:
    bench.rig.run_ns(NS_PER_S)
    assert bench.read(PM_TMR_OFFSET, 4) == PM_TIMER_HZ
    assert bench.read(PM_TMR_OFFSET + 1, 1) == PM_TIMER_HZ >> 8 & 0xFF
    bench.rig.run_ns(9 * NS_PER_S)
    assert bench.read(PM_TMR_OFFSET, 4) == 10 * PM_TIMER_HZ % 2**24
    bench.write(PM_TMR_OFFSET, 0, 4)
    assert bench.read(PM_TMR_OFFSET, 2) == 10 * PM_TIMER_HZ % 2**16


def test_the_timers_carry_is_a_status_bit(bench: Bench) -> None:
    bench.rig.run_ns(CARRY_NS - 1)
    assert bench.read(PM1_STS_OFFSET) == 0
    bench.rig.run_ns(1)
    assert bench.read(PM_TMR_OFFSET, 4) == 2**23
    assert bench.read(PM1_STS_OFFSET) == TMR_STS
    bench.write(PM1_STS_OFFSET, TMR_STS)
    assert bench.read(PM1_STS_OFFSET) == 0
    assert bench.rig.wires.clock.next_deadline_ns() is None


def test_the_timers_carry_is_an_event(bench: Bench) -> None:
    bench.command(ACPI_ENABLE)
    bench.write(PM1_EN_OFFSET, TMR_STS)
    assert bench.rig.wires.clock.next_deadline_ns() == CARRY_NS
    bench.rig.run_ns(CARRY_NS)
    assert bench.sci
    assert bench.rig.wires.clock.next_deadline_ns() is None  # until it is answered
    bench.write(PM1_STS_OFFSET, TMR_STS)
    assert not bench.sci
    bench.rig.run_ns(CARRY_NS)
    assert bench.sci


def test_a_timer_of_32_bits() -> None:
    clock = VirtualClock()
    pm = PowerManagement(
        clock=clock,
        sci=InterruptLine(lambda _: None),
        on_shutdown=lambda: None,
        timer_bits=32,
    )
    clock.skip(10 * NS_PER_S)
    assert pm.read(PM_TMR_OFFSET, 4) == 10 * PM_TIMER_HZ


def test_a_timer_of_another_width_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        PowerManagement(
            clock=VirtualClock(), sci=InterruptLine(lambda _: None), on_shutdown=lambda: None, timer_bits=16
        )
    assert str(caught.value) == "acpi-pm: a timer of 16 bits; it has 24 or 32"


def test_a_reset_forgets_events_and_mode(bench: Bench) -> None:
    bench.command(ACPI_ENABLE)
    bench.write(PM1_EN_OFFSET, PWRBTN_STS)
    bench.pm.press_power_button()
    bench.rig.run_ns(CARRY_NS)
    bench.pm.reset()
    assert not bench.sci
    assert bench.read(0, 8) == 0


def test_a_restored_timer_carries_when_it_would_have(bench: Bench) -> None:
    bench.command(ACPI_ENABLE)
    bench.write(PM1_EN_OFFSET, TMR_STS)
    again = Bench(bench.rig.restored())
    again.rig.run_ns(CARRY_NS - 1)
    assert not again.sci
    again.rig.run_ns(1)
    assert again.sci
