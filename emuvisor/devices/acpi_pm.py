"""ACPI's fixed hardware as the PIIX4 has it: power management events, SCI, timer, and the SMI command port.

Source: ACPI specification 6.4, section 4.8; register layout from the Intel 82371AB (PIIX4) data sheet, section 7.2.
Left out: sleep states but S5, processor power states, bus master and global lock events, the SMI itself.
"""

from collections.abc import Callable

from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import (
    OPTIONAL_TIME,
    TIME,
    Deadline,
    Fields,
    Flag,
    LineLevel,
    Number,
    load_fields,
    save_fields,
)
from emuvisor.devices.shutdown import SLP_TYP_MASK, is_soft_off
from emuvisor.errors import UsageError
from emuvisor.units import NS_PER_S

__all__ = [
    "ACPI_DISABLE",
    "ACPI_ENABLE",
    "GPE0_EN_OFFSET",
    "GPE0_LENGTH",
    "GPE0_OFFSET",
    "PM1_CNT_LENGTH",
    "PM1_CNT_OFFSET",
    "PM1_EVT_LENGTH",
    "PM1_EVT_OFFSET",
    "PM_BLOCK_LENGTH",
    "PM_TMR_LENGTH",
    "PM_TMR_OFFSET",
    "PowerManagement",
    "SmiCommandPort",
]

# What the FADT says about the block
PM_BLOCK_LENGTH = 64
PM1_EVT_OFFSET = 0x00
PM1_EVT_LENGTH = 4
PM1_CNT_OFFSET = 0x04
PM1_CNT_LENGTH = 2
PM_TMR_OFFSET = 0x08
PM_TMR_LENGTH = 4
GPE0_OFFSET = 0x0C
GPE0_LENGTH = 4

# The 16-bit registers of the block
PM1_STS_OFFSET = PM1_EVT_OFFSET
PM1_EN_OFFSET = PM1_EVT_OFFSET + 2
GPE0_STS_OFFSET = GPE0_OFFSET
GPE0_EN_OFFSET = GPE0_OFFSET + 2
WORD = 0xFFFF

PM_TIMER_HZ = 3_579_545
TIMER_WIDTHS = (24, 32)

# PM1 status; the first four also in PM1 enable
TMR_STS = 0x0001
GBL_STS = 0x0020
PWRBTN_STS = 0x0100
RTC_STS = 0x0400
WAK_STS = 0x8000
PM1_EVENTS = TMR_STS | GBL_STS | PWRBTN_STS | RTC_STS

# PM1 control; GBL_RLS and SLP_EN read 0
SCI_EN = 0x0001
BM_RLD = 0x0002
PM1_CNT_KEPT = SCI_EN | BM_RLD | SLP_TYP_MASK

GPE_COUNT = 16

# SMI command port
APMC = 0
APMS = 1
ACPI_ENABLE = 0xF1
ACPI_DISABLE = 0xF0

_PM = "acpi-pm"
_SMI = "smi-command"
_VERSION = 1
_FIELDS = Fields(
    {
        "pm1_sts": Number(PM1_EVENTS | WAK_STS),
        "pm1_en": Number(PM1_EVENTS),
        "pm1_cnt": Number(PM1_CNT_KEPT),
        "gpe0_sts": Number(WORD),
        "gpe0_en": Number(WORD),
        "checked_ns": TIME,
        "sci_level": Flag(),
        "deadline_ns": OPTIONAL_TIME,
    }
)
_SMI_FIELDS = Fields({"command": Number(0xFF), "status": Number(0xFF)})


class PowerManagement:
    """The power management block, 64 ports: PM1 status, enable and control, PM timer, GPE0 status and enable.

    `sci` is the system control interrupt, a level. SLP_EN with the sleep type of S5 calls `on_shutdown`.
    Events reach the guest while SCI_EN is set: after it has asked for ACPI mode (`set_acpi_mode`, which the SMI
    command port calls). The timer has `timer_bits` bits.

    Raises UsageError for a timer of neither 24 nor 32 bits.
    """

    name = _PM

    def __init__(
        self,
        *,
        clock: Clock,
        sci: InterruptLine,
        on_shutdown: Callable[[], None],
        timer_bits: int = 24,
    ) -> None:
        if timer_bits not in TIMER_WIDTHS:
            raise UsageError(f"{_PM}: a timer of {timer_bits} bits; it has 24 or 32")
        self._clock = clock
        self._sci = sci
        self._on_shutdown = on_shutdown
        self._timer_mask = (1 << timer_bits) - 1
        self._half_period = 1 << timer_bits - 1
        self._timer = clock.timer(self._carry, "PM timer carry")
        self._clear()

    def _clear(self) -> None:
        self.pm1_sts = 0
        self.pm1_en = 0
        self.pm1_cnt = 0
        self.gpe0_sts = 0
        self.gpe0_en = 0
        self.checked_ns = self._clock.now_ns()
        """Up to when TMR_STS has been brought up to date."""

    def reset(self) -> None:
        """No events, all disabled; the timer runs on."""
        self._clear()
        self._update()

    # What happens outside the guest.

    def press_power_button(self) -> bool:
        """Press and let go; whether the guest will hear of it (it has enabled the event and ACPI mode)."""
        self.pm1_sts |= PWRBTN_STS
        self._update()
        return bool(self.pm1_en & PWRBTN_STS and self.pm1_cnt & SCI_EN)

    def rtc_alarm(self) -> None:
        """The real-time clock's interrupt, which is an event here too."""
        self.pm1_sts |= RTC_STS
        self._update()

    def raise_general_event(self, number: int) -> None:
        """Set bit `number` of GPE0 status. Raises UsageError unless it is 0 to 15."""
        if not 0 <= number < GPE_COUNT:
            raise UsageError(f"{_PM}: general-purpose event {number}; the block has 0 to {GPE_COUNT - 1}")
        self.gpe0_sts |= 1 << number
        self._update()

    def set_acpi_mode(self, enabled: bool) -> None:
        """Set or clear SCI_EN, as firmware does when it is asked to by SMI."""
        if enabled:
            self.pm1_cnt |= SCI_EN
        else:
            self.pm1_cnt &= ~SCI_EN
        self._update()

    # The ports.

    def read(self, offset: int, size: int) -> int:
        """Bytes of the block."""
        if offset == PM_TMR_OFFSET:
            return self._ticks() & self._timer_mask & (1 << 8 * size) - 1
        self._catch_up()
        block = (
            self.pm1_sts << 8 * PM1_STS_OFFSET
            | self.pm1_en << 8 * PM1_EN_OFFSET
            | self.pm1_cnt << 8 * PM1_CNT_OFFSET
            | (self._ticks() & self._timer_mask) << 8 * PM_TMR_OFFSET
            | self.gpe0_sts << 8 * GPE0_STS_OFFSET
            | self.gpe0_en << 8 * GPE0_EN_OFFSET
        )
        return block >> 8 * offset & (1 << 8 * size) - 1

    def write(self, offset: int, value: int, size: int) -> None:
        """Clear status bits by ones, set enable and control bits, sleep."""
        self._catch_up()
        mask = (1 << 8 * size) - 1 << 8 * offset
        block = value << 8 * offset & mask

        def bits(register: int) -> int:
            return block >> 8 * register & WORD

        def kept(register: int) -> int:
            return ~(mask >> 8 * register) & WORD

        self.pm1_sts &= ~bits(PM1_STS_OFFSET)
        self.pm1_en = (self.pm1_en & kept(PM1_EN_OFFSET) | bits(PM1_EN_OFFSET)) & PM1_EVENTS
        control = bits(PM1_CNT_OFFSET)
        self.pm1_cnt = self.pm1_cnt & kept(PM1_CNT_OFFSET) | control & PM1_CNT_KEPT
        self.gpe0_sts &= ~bits(GPE0_STS_OFFSET)
        self.gpe0_en = self.gpe0_en & kept(GPE0_EN_OFFSET) | bits(GPE0_EN_OFFSET)
        self._update()
        if is_soft_off(control):
            self._on_shutdown()

    # The timer, whose carry is an event.

    def _ticks(self) -> int:
        return self._clock.now_ns() * PM_TIMER_HZ // NS_PER_S

    def _catch_up(self) -> None:
        """Set TMR_STS if the timer's highest bit has changed."""
        now_ns = self._clock.now_ns()
        if self._half_periods(now_ns) != self._half_periods(self.checked_ns):
            self.pm1_sts |= TMR_STS
        self.checked_ns = now_ns

    def _half_periods(self, now_ns: int) -> int:
        return now_ns * PM_TIMER_HZ // NS_PER_S // self._half_period

    def _carry(self, deadline_ns: int) -> None:
        self._catch_up()
        self._update()

    def _update(self) -> None:
        """Drive SCI; wait for the timer's carry where that would raise it."""
        events = self.pm1_sts & self.pm1_en or self.gpe0_sts & self.gpe0_en
        self._sci.set(bool(events and self.pm1_cnt & SCI_EN))
        if self.pm1_en & ~self.pm1_sts & TMR_STS:
            carry = (self._half_periods(self._clock.now_ns()) + 1) * self._half_period
            self._timer.arm(-(-carry * NS_PER_S // PM_TIMER_HZ))
        else:
            self._timer.cancel()

    # Saving.

    sci_level = LineLevel("_sci")
    """The interrupt line."""

    deadline_ns = Deadline("_timer")
    """When the timer's next carry is due."""

    def save(self) -> SavedState:
        """The registers as plain data."""
        return save_fields(self, _PM, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _PM, _VERSION, _FIELDS)


class SmiCommandPort:
    """APMC and APMS, ports B2h and B3h: a command to the firmware's SMI handler, and a byte beside it.

    There is no system management mode; the two commands that the FADT names switch ACPI mode at once
    (`on_acpi_mode(enabled)`), any other does nothing.
    """

    name = _SMI

    def __init__(self, *, on_acpi_mode: Callable[[bool], None]) -> None:
        self._on_acpi_mode = on_acpi_mode
        self.reset()

    def reset(self) -> None:
        """Both bytes 0."""
        self.command = 0
        self.status = 0

    def read(self, offset: int, size: int) -> int:
        """The byte that was written last."""
        return self.command if offset == APMC else self.status

    def write(self, offset: int, value: int, size: int) -> None:
        """Give a command, or leave a byte."""
        if offset == APMC:
            self.command = value & 0xFF
            if self.command in (ACPI_ENABLE, ACPI_DISABLE):
                self._on_acpi_mode(self.command == ACPI_ENABLE)
        else:
            self.status = value & 0xFF

    def save(self) -> SavedState:
        """Both bytes as plain data."""
        return save_fields(self, _SMI, _VERSION, _SMI_FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _SMI, _VERSION, _SMI_FIELDS)
