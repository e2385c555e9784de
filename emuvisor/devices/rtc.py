"""Motorola MC146818 real-time clock with 128 bytes of CMOS RAM, as at ports 70h and 71h of a PC.

Source: MC146818 data sheet (ADI-856); the century byte and the NMI mask are the PC's. The time of day is the
epoch given at construction plus the guest's clock. It is worked out when read; the clock is asked for a timer
only while an interrupt is enabled that has not been raised yet, so a guest that does not read register C gets
one interrupt and costs nothing more.
"""

from datetime import UTC, datetime

from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import (
    OPTIONAL_TIME,
    TIME,
    Data,
    Deadline,
    Fields,
    Flag,
    LineLevel,
    Number,
    load_fields,
    save_fields,
)
from emuvisor.devices.bcd import from_bcd, to_bcd
from emuvisor.devices.calendar import civil_from_days, days_from_civil
from emuvisor.errors import UsageError
from emuvisor.units import NS_PER_S, NS_PER_US

__all__ = ["MC146818"]

# Offsets on the bus.
INDEX = 0
DATA = 1

INDEX_MASK = 0x7F
NMI_DISABLE = 0x80
"""Bit of the index register that masks NMIs in a PC."""
OPEN_BUS = 0xFF
"""What the write-only index register reads as."""

# Registers.
SECONDS = 0x00
SECONDS_ALARM = 0x01
MINUTES = 0x02
MINUTES_ALARM = 0x03
HOURS = 0x04
HOURS_ALARM = 0x05
DAY_OF_WEEK = 0x06
DATE_OF_MONTH = 0x07
MONTH = 0x08
YEAR = 0x09
REGISTER_A = 0x0A
REGISTER_B = 0x0B
REGISTER_C = 0x0C
REGISTER_D = 0x0D
CENTURY = 0x32
TIME_REGISTERS = (SECONDS, MINUTES, HOURS, DAY_OF_WEEK, DATE_OF_MONTH, MONTH, YEAR, CENTURY)
FIRST_FREE = 0x0E
"""The first byte of plain RAM."""
CMOS_SIZE = 128

# Register A.
UIP = 0x80
DV_MASK = 0x60
DV_RESET = 0x60
RS_MASK = 0x0F
RS_WRAPPED = 2
RS_WRAP = 7
"""Rates 1 and 2 are too fast for the 32.768 kHz time base and act as 8 and 9."""
REGISTER_A_DEFAULT = 0x26
"""32.768 kHz time base, 1,024 Hz periodic rate: what a PC's BIOS sets."""

# Register B.
SET = 0x80
PIE = 0x40
AIE = 0x20
UIE = 0x10
SQWE = 0x08
DM = 0x04
HOURS_24 = 0x02

# Register C.
IRQF = 0x80
PF = 0x40
AF = 0x20
UF = 0x10

# Register D.
VRT = 0x80

PM = 0x80
"""Afternoon, in the hours of a 12-hour clock."""
DONT_CARE = 0xC0
"""An alarm register with both top bits set matches always."""

TIME_BASE_HZ = 32_768
UPDATE_NS = (244 + 1984) * NS_PER_US
"""UIP is set this long before the second changes: t(BUC) and t(UC) of the data sheet."""
RESTART_NS = NS_PER_S // 2
"""After a divider reset the first update comes half a second later."""

SECONDS_PER_HOUR = 3600
SECONDS_PER_DAY = 86_400
DAYS_PER_WEEK = 7
WEEKDAY_OF_DAY_0 = 6
"""1 January of the year 0 was a Saturday; Sunday is 0."""

_DEVICE = "mc146818"
_VERSION = 1
_FIELDS = Fields(
    {
        "index": Number(0xFF),
        "cmos": Data(CMOS_SIZE, minimum=CMOS_SIZE),
        "register_a": Number(0x7F),
        "register_b": Number(0xFF),
        "register_c": Number(0xFF),
        "base_seconds": TIME,
        "base_ns": TIME,
        "weekday_shift": Number(DAYS_PER_WEEK - 1),
        "checked_ns": TIME,
        "irq_level": Flag(),
        "deadline_ns": OPTIONAL_TIME,
    }
)


class MC146818:
    """The clock chip of a PC; `irq` is IRQ 8. Two registers on the bus: index and data.

    `epoch` is the time of day at the guest's time 0; it must have a time zone and is shown as UTC. The time
    registers live in `cmos` only while the guest holds the clock (SET, or divider reset); otherwise the time
    is `base_seconds` (since the year 0) at `base_ns`.
    """

    name = _DEVICE

    def __init__(self, *, clock: Clock, irq: InterruptLine, epoch: datetime) -> None:
        if epoch.tzinfo is None:
            raise UsageError(f"{_DEVICE}: epoch {epoch} has no time zone; use a UTC datetime")
        self._clock = clock
        self._irq = irq
        self._timer = clock.timer(self._due, _DEVICE)
        utc = epoch.astimezone(UTC)
        days = days_from_civil(utc.year, utc.month, utc.day)
        self.base_seconds = (
            days * SECONDS_PER_DAY + utc.hour * SECONDS_PER_HOUR + utc.minute * 60 + utc.second
        )
        self.base_ns = -utc.microsecond * NS_PER_US
        self.weekday_shift = 0
        """How far the guest has set the day of the week away from the date's."""
        self.checked_ns = 0
        """Events up to this time are in register C."""
        self.cmos = bytearray(CMOS_SIZE)
        self.index = 0
        self.register_a = REGISTER_A_DEFAULT
        self.register_b = HOURS_24
        self.register_c = 0

    @property
    def nmi_masked(self) -> bool:
        """Whether the guest masks NMIs at port 70h."""
        return bool(self.index & NMI_DISABLE)

    def set_cmos(self, address: int, value: int) -> None:
        """Give a byte of the plain CMOS RAM a value, as firmware's setup would.

        Raises UsageError outside 0Eh..7Fh, at the century byte, and for a value that is not a byte.
        """
        if not FIRST_FREE <= address < CMOS_SIZE or address == CENTURY:
            raise UsageError(
                f"{_DEVICE}: CMOS address {address:#x} is not plain RAM "
                f"({FIRST_FREE:#x}..{CMOS_SIZE - 1:#x} without {CENTURY:#x})"
            )
        if not 0 <= value <= 0xFF:
            raise UsageError(f"{_DEVICE}: CMOS byte {address:#x} cannot be {value}; it holds 0 to 255")
        self.cmos[address] = value

    def reset(self) -> None:
        """As the RESET pin does: interrupts off and flags clear; time, alarm and RAM have a battery."""
        now_ns = self._clock.now_ns()
        self._catch_up(now_ns)
        self.register_b &= ~(PIE | AIE | UIE | SQWE)
        self.register_c = 0
        self.index = 0
        self._update_irq(now_ns)

    def read(self, offset: int, size: int) -> int:
        """The register that the index selects."""
        if offset == INDEX:
            return OPEN_BUS
        address = self.index & INDEX_MASK
        if address in TIME_REGISTERS:
            return self._time_register(address)
        if address == REGISTER_A:
            return self.register_a | (UIP if self._update_in_progress() else 0)
        if address == REGISTER_B:
            return self.register_b
        if address == REGISTER_C:
            return self._read_register_c()
        if address == REGISTER_D:
            return VRT
        return self.cmos[address]

    def write(self, offset: int, value: int, size: int) -> None:
        """Set the index, or the register that it selects; C and D are read-only."""
        value &= 0xFF
        if offset == INDEX:
            self.index = value
            return
        address = self.index & INDEX_MASK
        if address in (REGISTER_C, REGISTER_D):
            return
        now_ns = self._clock.now_ns()
        self._catch_up(now_ns)
        if address in TIME_REGISTERS:
            self._write_time_register(address, value, now_ns)
        elif address == REGISTER_A:
            self._write_control(value & ~UIP, self.register_b, now_ns)
        elif address == REGISTER_B:
            self._write_control(self.register_a, value & ~UIE if value & SET else value, now_ns)
        else:
            self.cmos[address] = value
        self._update_irq(now_ns)

    irq_level = LineLevel("_irq")
    """The interrupt line."""

    deadline_ns = Deadline("_timer")
    """When the next enabled interrupt is due."""

    def save(self) -> SavedState:
        """The registers, the RAM and the time as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)

    # The time of day.

    def _held(self) -> bool:
        """Whether the guest keeps the time from running on."""
        return bool(self.register_b & SET) or self._divider_reset()

    def _divider_reset(self) -> bool:
        return self.register_a & DV_MASK == DV_RESET

    def _seconds_at(self, now_ns: int) -> int:
        return self.base_seconds + (now_ns - self.base_ns) // NS_PER_S

    def _update_in_progress(self) -> bool:
        phase = (self._clock.now_ns() - self.base_ns) % NS_PER_S
        return not self._held() and phase >= NS_PER_S - UPDATE_NS

    def _time_register(self, address: int) -> int:
        if self._held():
            return self.cmos[address]
        return self._time_registers(self._clock.now_ns())[address]

    def _time_registers(self, now_ns: int) -> dict[int, int]:
        """The time registers' contents at a time, in the data mode of register B."""
        days, second_of_day = divmod(self._seconds_at(now_ns), SECONDS_PER_DAY)
        year, month, day = civil_from_days(days)
        hour, second_of_hour = divmod(second_of_day, SECONDS_PER_HOUR)
        numbers = {
            SECONDS: second_of_hour % 60,
            MINUTES: second_of_hour // 60,
            DAY_OF_WEEK: (days + WEEKDAY_OF_DAY_0 + self.weekday_shift) % DAYS_PER_WEEK + 1,
            DATE_OF_MONTH: day,
            MONTH: month,
            YEAR: year % 100,
            CENTURY: year // 100,
        }
        registers = {address: self._encode(number) for address, number in numbers.items()}
        registers[HOURS] = self._encode_hour(hour)
        return registers

    def _encode(self, number: int) -> int:
        return number if self.register_b & DM else to_bcd(number)

    def _decode(self, value: int) -> int:
        return value if self.register_b & DM else from_bcd(value)

    def _encode_hour(self, hour: int) -> int:
        if self.register_b & HOURS_24:
            return self._encode(hour)
        return self._encode((hour + 11) % 12 + 1) | (PM if hour >= 12 else 0)

    def _decode_hour(self, value: int) -> int:
        if self.register_b & HOURS_24:
            return self._decode(value)
        return self._decode(value & ~PM) % 12 + (12 if value & PM else 0)

    def _write_time_register(self, address: int, value: int, now_ns: int) -> None:
        if self._held():
            self.cmos[address] = value
            return
        # Outside SET the chip takes one register at once: the others are as they read now.
        self._hold(now_ns)
        self.cmos[address] = value
        self._release(now_ns)

    def _hold(self, now_ns: int) -> None:
        """Put the running time into the registers."""
        for address, value in self._time_registers(now_ns).items():
            self.cmos[address] = value

    def _release(self, now_ns: int) -> None:
        """Let the time run on from what the registers say; the second changes when it would have."""
        time = {address: self._decode(self.cmos[address]) for address in TIME_REGISTERS}
        days = days_from_civil(time[CENTURY] * 100 + time[YEAR], time[MONTH], time[DATE_OF_MONTH])
        hour = self._decode_hour(self.cmos[HOURS])
        self.base_seconds = (
            days * SECONDS_PER_DAY + hour * SECONDS_PER_HOUR + time[MINUTES] * 60 + time[SECONDS]
        )
        self.base_ns += (now_ns - self.base_ns) // NS_PER_S * NS_PER_S
        weekday = self.base_seconds // SECONDS_PER_DAY + WEEKDAY_OF_DAY_0
        self.weekday_shift = (time[DAY_OF_WEEK] - 1 - weekday) % DAYS_PER_WEEK

    def _write_control(self, register_a: int, register_b: int, now_ns: int) -> None:
        """Set registers A and B; the time stops and goes on with SET and the divider reset."""
        was_held = self._held()
        was_divider_reset = self._divider_reset()
        self.register_a = register_a
        self.register_b = register_b
        if self._held() and not was_held:
            self._hold(now_ns)
        if was_divider_reset and not self._divider_reset():
            self.base_ns = now_ns - RESTART_NS
        if was_held and not self._held():
            self._release(now_ns)

    # Interrupts.

    def _read_register_c(self) -> int:
        now_ns = self._clock.now_ns()
        self._catch_up(now_ns)
        self._update_irq(now_ns)
        flags, self.register_c = self.register_c, 0
        self._update_irq(now_ns)
        return flags

    def _due(self, deadline_ns: int) -> None:
        now_ns = self._clock.now_ns()
        self._catch_up(now_ns)
        self._update_irq(now_ns)

    def _catch_up(self, now_ns: int) -> None:
        """Set the flags of what has happened since the last time."""
        before_ns, self.checked_ns = self.checked_ns, now_ns
        periodic = self._next_periodic_ns(before_ns)
        if periodic is not None and periodic <= now_ns:
            self.register_c |= PF
        if not self._held():
            before, now = self._seconds_at(before_ns), self._seconds_at(now_ns)
            if now > before:
                self.register_c |= UF
                alarm = self._next_alarm(before)
                if alarm is not None and alarm <= now:
                    self.register_c |= AF

    def _update_irq(self, now_ns: int) -> None:
        """Drive the line from the enabled flags; while it is low, wait for the next enabled event."""
        self.register_c &= ~IRQF
        if self.register_c & self.register_b & (PF | AF | UF):
            self.register_c |= IRQF
        raised = bool(self.register_c & IRQF)
        self._irq.set(raised)
        event_ns = None if raised else self._next_event_ns(now_ns)
        if event_ns is None:
            self._timer.cancel()
        else:
            self._timer.arm(event_ns)

    def _next_event_ns(self, now_ns: int) -> int | None:
        """When the first enabled interrupt is due behind `now_ns`."""
        events: list[int | None] = []
        if self.register_b & PIE:
            events.append(self._next_periodic_ns(now_ns))
        if not self._held():
            now = self._seconds_at(now_ns)
            if self.register_b & UIE:
                events.append(self._ns_of_second(now + 1))
            alarm = self._next_alarm(now) if self.register_b & AIE else None
            if alarm is not None:
                events.append(self._ns_of_second(alarm))
        return min((event for event in events if event is not None), default=None)

    def _ns_of_second(self, second: int) -> int:
        return self.base_ns + (second - self.base_seconds) * NS_PER_S

    def _next_periodic_ns(self, after_ns: int) -> int | None:
        """When the periodic interrupt comes behind `after_ns`; None with no rate or a stopped divider."""
        rate = self.register_a & RS_MASK
        if rate == 0 or self._divider_reset():
            return None
        if rate <= RS_WRAPPED:
            rate += RS_WRAP
        period = 1 << (rate - 1)  # in cycles of the time base
        cycle = after_ns * TIME_BASE_HZ // NS_PER_S
        next_cycle = (cycle // period + 1) * period
        return -(-next_cycle * NS_PER_S // TIME_BASE_HZ)

    def _alarm_numbers(self, address: int, limit: int) -> range:
        """The seconds, minutes or hours at which the alarm register matches."""
        value = self.cmos[address]
        if value & DONT_CARE == DONT_CARE:
            return range(limit)
        number = self._decode_hour(value) if address == HOURS_ALARM else self._decode(value)
        return range(number, number + 1) if number < limit else range(0)

    def _next_alarm(self, second: int) -> int | None:
        """The first second behind `second` at which the alarm goes off; None if it never does."""
        seconds = self._alarm_numbers(SECONDS_ALARM, 60)
        minutes = self._alarm_numbers(MINUTES_ALARM, 60)
        hours = self._alarm_numbers(HOURS_ALARM, 24)
        if not (seconds and minutes and hours):
            return None
        second_of_day = second % SECONDS_PER_DAY
        midnight = second - second_of_day
        hour, rest = divmod(second_of_day, SECONDS_PER_HOUR)
        minute = rest // 60
        later_seconds = _behind(seconds, rest % 60)
        later_minutes = _behind(minutes, minute)
        later_hours = _behind(hours, hour)
        if hour in hours and minute in minutes and later_seconds:
            when = (hour, minute, later_seconds[0])
        elif hour in hours and later_minutes:
            when = (hour, later_minutes[0], seconds[0])
        elif later_hours:
            when = (later_hours[0], minutes[0], seconds[0])
        else:
            midnight += SECONDS_PER_DAY
            when = (hours[0], minutes[0], seconds[0])
        return midnight + when[0] * SECONDS_PER_HOUR + when[1] * 60 + when[2]


def _behind(numbers: range, number: int) -> range:
    """The part of `numbers` that is greater than `number`."""
    return range(max(numbers.start, number + 1), numbers.stop)
