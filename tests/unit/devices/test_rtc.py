from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from device_rigs import EPOCH, Rig, Wires
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.bus.clock import VirtualClock
from emuvisor.bus.irq import InterruptLine
from emuvisor.devices.bcd import from_bcd
from emuvisor.devices.calendar import YEARS, civil_from_days, days_from_civil
from emuvisor.devices.rtc import MC146818
from emuvisor.errors import UsageError
from emuvisor.units import NS_PER_MS, NS_PER_S, NS_PER_US

SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY = 0, 2, 4, 6, 7, 8, 9, 0x32
ALARM = (1, 3, 5)
A, B, C, D = 0x0A, 0x0B, 0x0C, 0x0D
SET, PIE, AIE, UIE, DM, HOURS_24 = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02
IRQF, PF, AF, UF = 0x80, 0x40, 0x20, 0x10
UIP = 0x80
DAY_NS = 86_400 * NS_PER_S


class Bench:
    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.rtc: MC146818 = rig.chips["rtc"]

    def read(self, register: int) -> int:
        self.rtc.write(0, register, 1)
        return self.rtc.read(1, 1)

    def write(self, register: int, value: int) -> None:
        self.rtc.write(0, register, 1)
        self.rtc.write(1, value, 1)

    def time(self) -> tuple[int, ...]:
        """Year to second, from BCD registers of a 24-hour clock."""
        numbers = [from_bcd(self.read(r)) for r in (CENTURY, YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS)]
        return (numbers[0] * 100 + numbers[1], *numbers[2:])

    def set_alarm(self, hour: int, minute: int, second: int) -> None:
        for register, value in zip(ALARM, (second, minute, hour), strict=True):
            self.write(register, value)

    def interrupts(self) -> int:
        return self.rig.logged("irq8").count(True)


@pytest.fixture
def bench(rig_of: Callable[[str], Rig]) -> Bench:
    return Bench(rig_of("rtc"))


def test_time_is_the_epoch_plus_the_clock(bench: Bench) -> None:
    assert bench.time() == (2024, 2, 29, 23, 59, 58)
    assert bench.read(WEEKDAY) == 5  # a Thursday; Sunday is 1
    bench.rig.pass_ns(NS_PER_S)
    assert bench.time() == (2024, 2, 29, 23, 59, 59)
    bench.rig.pass_ns(NS_PER_S)
    assert bench.time() == (2024, 3, 1, 0, 0, 0)
    assert bench.read(WEEKDAY) == 6


def test_the_second_changes_where_the_epochs_does() -> None:
    wires = Wires()
    epoch = EPOCH + timedelta(microseconds=900_000)
    rtc = MC146818(clock=wires.clock, irq=wires.line("irq8"), epoch=epoch)
    wires.clock.skip(99 * NS_PER_MS)
    assert rtc.read(1, 1) == 0x58
    wires.clock.skip(NS_PER_MS)
    assert rtc.read(1, 1) == 0x59


def test_an_epoch_of_another_zone_is_shown_as_utc() -> None:
    epoch = datetime(2024, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    rtc = MC146818(clock=VirtualClock(), irq=InterruptLine(lambda _: None), epoch=epoch)
    rtc.write(0, HOURS, 1)
    assert rtc.read(1, 1) == 0x23


def test_an_epoch_without_a_zone_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        MC146818(clock=VirtualClock(), irq=InterruptLine(lambda _: None), epoch=datetime(2024, 1, 1))
    assert str(caught.value) == "mc146818: epoch 2024-01-01 00:00:00 has no time zone; use a UTC datetime"


def test_binary_and_12_hour_modes(bench: Bench) -> None:
    bench.write(B, DM)
    assert [bench.read(r) for r in (HOURS, MINUTES, YEAR, CENTURY)] == [0x80 | 11, 59, 24, 20]
    bench.write(B, 0)
    assert bench.read(HOURS) == 0x80 | 0x11
    bench.rig.pass_ns(2 * NS_PER_S)
    assert bench.read(HOURS) == 0x12  # midnight is 12 a.m.
    bench.rig.pass_ns(12 * 3600 * NS_PER_S)
    assert bench.read(HOURS) == 0x92


def test_setting_the_time_as_linux_does(bench: Bench) -> None:
    bench.write(B, HOURS_24 | SET)
    for register, value in ((YEAR, 0x99), (CENTURY, 0x19), (MONTH, 0x12), (DAY, 0x31), (WEEKDAY, 6)):
        bench.write(register, value)
    for register, value in ((HOURS, 0x23), (MINUTES, 0x59), (SECONDS, 0x59)):
        bench.write(register, value)
    bench.rig.pass_ns(10 * NS_PER_S)
    assert bench.time() == (1999, 12, 31, 23, 59, 59)  # SET holds it
    bench.write(B, HOURS_24)
    assert bench.time() == (1999, 12, 31, 23, 59, 59)
    bench.rig.pass_ns(NS_PER_S)
    assert bench.time() == (2000, 1, 1, 0, 0, 0)
    assert bench.read(WEEKDAY) == 7


def test_a_register_may_be_set_while_the_clock_runs(bench: Bench) -> None:
    bench.write(MINUTES, 0x30)
    bench.rig.pass_ns(NS_PER_S)
    assert bench.time() == (2024, 2, 29, 23, 30, 59)


def test_the_day_of_the_week_is_the_guests(bench: Bench) -> None:
    bench.write(WEEKDAY, 1)
    bench.rig.pass_ns(DAY_NS)
    assert bench.read(WEEKDAY) == 2


def test_a_12_hour_clock_is_set_in_the_afternoon(bench: Bench) -> None:
    bench.write(B, SET)
    bench.write(HOURS, 0x80 | 0x12)
    bench.write(B, 0)
    bench.write(B, HOURS_24)
    assert bench.read(HOURS) == 0x12


def test_nonsense_in_the_time_registers_counts_on(bench: Bench) -> None:
    bench.write(B, SET | HOURS_24)
    for register in (SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY):
        bench.write(register, 0xFF)
    bench.write(B, HOURS_24)
    year, month, day, hour, minute, second = bench.time()
    assert 0 <= year < YEARS
    assert datetime(2000 + year % 400, month, day, hour, minute, second)


def test_update_in_progress_precedes_each_second(bench: Bench) -> None:
    assert not bench.read(A) & UIP
    bench.rig.pass_ns(NS_PER_S - 2228 * NS_PER_US - 1)
    assert not bench.read(A) & UIP
    bench.rig.pass_ns(1)
    assert bench.read(A) & UIP
    bench.rig.pass_ns(2228 * NS_PER_US)
    assert not bench.read(A) & UIP
    bench.rig.pass_ns(NS_PER_S - NS_PER_US)
    bench.write(B, HOURS_24 | SET)
    assert not bench.read(A) & UIP


def test_after_a_divider_reset_the_first_update_takes_half_a_second(bench: Bench) -> None:
    bench.rig.pass_ns(700 * NS_PER_MS)
    bench.write(A, 0x76)
    bench.rig.pass_ns(5 * NS_PER_S)
    assert bench.read(SECONDS) == 0x58
    bench.write(A, 0x26)
    bench.rig.pass_ns(500 * NS_PER_MS - 1)
    assert bench.read(SECONDS) == 0x58
    bench.rig.pass_ns(1)
    assert bench.read(SECONDS) == 0x59


def test_the_registers_after_power_on(bench: Bench) -> None:
    assert [bench.read(r) for r in (A, B, C, D)] == [0x26, 0x02, 0, 0x80]
    for register in (C, D):
        bench.write(register, 0xFF)
    assert [bench.read(r) for r in (C, D)] == [0, 0x80]
    assert bench.rtc.read(0, 1) == 0xFF
    assert bench.rig.wires.clock.next_deadline_ns() is None


def test_the_update_ended_interrupt_comes_each_second(bench: Bench) -> None:
    bench.write(B, HOURS_24 | UIE)
    for _ in range(3):
        bench.rig.run_ns(NS_PER_S)
        assert bench.rig.level("irq8")
        assert bench.read(C) & (IRQF | UF) == IRQF | UF
        assert not bench.rig.level("irq8")
    assert bench.interrupts() == 3


def test_an_interrupt_that_is_not_answered_comes_once(bench: Bench) -> None:
    bench.write(B, HOURS_24 | PIE)
    bench.rig.run_ns(10 * NS_PER_S)
    assert bench.interrupts() == 1
    assert bench.rig.wires.clock.next_deadline_ns() is None


@pytest.mark.parametrize(("rate", "hertz"), [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)])
def test_periodic_rates(bench: Bench, rate: int, hertz: int) -> None:
    bench.write(A, 0x20 | rate)
    bench.write(B, HOURS_24 | PIE)
    clock = bench.rig.wires.clock
    ticks = 0
    while clock.now_ns() < NS_PER_S:
        deadline = clock.next_deadline_ns()
        assert deadline is not None
        clock.skip(deadline - clock.now_ns())
        assert clock.fire_due() == 1
        assert bench.read(C) & (IRQF | PF) == IRQF | PF
        ticks += 1
    assert ticks == hertz
    assert clock.now_ns() == NS_PER_S


def test_no_rate_no_periodic_interrupt(bench: Bench) -> None:
    bench.write(A, 0x20)
    bench.write(B, HOURS_24 | PIE)
    assert bench.rig.wires.clock.next_deadline_ns() is None
    bench.rig.pass_ns(NS_PER_MS)
    assert bench.read(C) == 0


def test_flags_are_set_without_their_interrupts(bench: Bench) -> None:
    bench.set_alarm(0x23, 0x59, 0x59)
    bench.rig.pass_ns(NS_PER_MS)
    assert bench.read(C) == PF
    bench.rig.pass_ns(NS_PER_S)
    assert bench.read(C) == PF | UF | AF
    assert bench.read(C) == 0
    assert bench.interrupts() == 0


def test_enabling_an_interrupt_whose_flag_is_set_raises_it(bench: Bench) -> None:
    bench.rig.pass_ns(NS_PER_S)
    bench.write(B, HOURS_24 | UIE)
    assert bench.rig.level("irq8")


@pytest.mark.parametrize(
    ("hour", "minute", "second", "after_s"),
    [
        (0x23, 0x59, 0x59, 1),
        (0x00, 0x00, 0x00, 2),
        (0x23, 0x59, 0x58, 86_400),
        (0x00, 0x01, 0x00, 62),
        (0x12, 0x34, 0x56, 2 + 12 * 3600 + 34 * 60 + 56),
        (0xFF, 0xFF, 0x57, 59),
        (0xFF, 0x10, 0x00, 2 + 600),
        (0xC0, 0xC0, 0xC0, 1),
        (0x23, 0xFF, 0x00, 2 + 23 * 3600),
    ],
)
def test_the_alarm_comes_when_all_registers_match(
    bench: Bench, hour: int, minute: int, second: int, after_s: int
) -> None:
    bench.set_alarm(hour, minute, second)
    bench.write(B, HOURS_24 | AIE)
    assert bench.rig.wires.clock.next_deadline_ns() == after_s * NS_PER_S
    bench.rig.run_ns(after_s * NS_PER_S)
    assert bench.read(C) & (IRQF | AF) == IRQF | AF


def test_an_alarm_that_no_time_matches_never_comes(bench: Bench) -> None:
    bench.set_alarm(0x23, 0x75, 0x00)
    bench.write(B, HOURS_24 | AIE)
    assert bench.rig.wires.clock.next_deadline_ns() is None


def test_an_alarm_of_a_12_hour_clock(bench: Bench) -> None:
    bench.write(B, AIE)
    bench.set_alarm(0x81, 0x00, 0x00)
    assert bench.rig.wires.clock.next_deadline_ns() == (2 + 13 * 3600) * NS_PER_S


def test_set_stops_updates_and_their_interrupts(bench: Bench) -> None:
    bench.write(B, HOURS_24 | UIE | SET)
    assert bench.read(B) == HOURS_24 | SET
    bench.rig.run_ns(3 * NS_PER_S)
    assert bench.read(C) & (UF | AF) == 0


def test_cmos_is_the_boards_and_the_guests(bench: Bench) -> None:
    bench.rtc.set_cmos(0x10, 0x40)
    assert bench.read(0x10) == 0x40
    bench.write(0x7F, 0xAB)
    assert bench.read(0x7F) == 0xAB


@pytest.mark.parametrize(
    ("address", "value", "message"),
    [
        (0x0D, 0, "mc146818: CMOS address 0xd is not plain RAM (0xe..0x7f without 0x32)"),
        (0x32, 0, "mc146818: CMOS address 0x32 is not plain RAM (0xe..0x7f without 0x32)"),
        (0x80, 0, "mc146818: CMOS address 0x80 is not plain RAM (0xe..0x7f without 0x32)"),
        (0x10, 256, "mc146818: CMOS byte 0x10 cannot be 256; it holds 0 to 255"),
    ],
)
def test_the_board_cannot_set_registers(bench: Bench, address: int, value: int, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        bench.rtc.set_cmos(address, value)
    assert str(caught.value) == message


def test_the_nmi_mask_is_kept_beside_the_index(bench: Bench) -> None:
    bench.rtc.write(0, 0x80 | D, 1)
    assert bench.rtc.nmi_masked
    assert bench.rtc.read(1, 1) == 0x80
    bench.rtc.write(0, D, 1)
    assert not bench.rtc.nmi_masked


def test_reset_keeps_what_the_battery_keeps(bench: Bench) -> None:
    bench.write(0x20, 7)
    bench.write(HOURS, 0x10)
    bench.write(B, HOURS_24 | UIE | PIE | AIE)
    bench.rig.pass_ns(NS_PER_S)
    assert bench.rig.level("irq8")
    bench.rtc.reset()
    assert not bench.rig.level("irq8")
    assert bench.rig.wires.clock.next_deadline_ns() is None
    assert (bench.read(B), bench.read(C), bench.read(0x20)) == (HOURS_24, 0, 7)
    assert bench.time() == (2024, 2, 29, 10, 59, 59)


@given(st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)))
def test_days_are_those_of_the_gregorian_calendar(when: datetime) -> None:
    days = days_from_civil(when.year, when.month, when.day)
    assert days - days_from_civil(1, 1, 1) == when.toordinal() - 1
    assert civil_from_days(days) == (when.year, when.month, when.day)


@given(st.integers(-1000, 20_000), st.integers(-5, 200), st.integers(-5, 200))
def test_any_date_counts_as_some_day(year: int, month: int, day: int) -> None:
    found_year, found_month, found_day = civil_from_days(days_from_civil(year, month, day))
    assert 0 <= found_year < YEARS
    assert 1 <= found_month <= 12
    assert 1 <= found_day <= 31


@given(st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 1, 1), timezones=st.just(UTC)))
def test_any_epoch_is_shown(epoch: datetime) -> None:
    wires = Wires()
    rtc = MC146818(clock=wires.clock, irq=wires.line("irq8"), epoch=epoch)
    rig = Rig("rtc")
    rig.chips["rtc"] = rtc
    assert Bench(rig).time() == epoch.timetuple()[:6]
