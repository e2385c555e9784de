"""The local APIC's timer, computed from the guest's clock. Source: Intel SDM volume 3, section 10.5.4."""

from collections.abc import Callable

from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import OPTIONAL_TIME, TIME, Deadline, Fields, Flag, Number, load_fields, save_fields
from emuvisor.devices.apic.registers import DIVIDE_WRITABLE
from emuvisor.units import NS_PER_S, NS_PER_US

__all__ = ["ApicTimer"]

MIN_PERIOD_NS = 10 * NS_PER_US
"""A periodic timer's interrupts are at least this far apart: a guest cannot keep the host busy with a period of 1."""

MAX_COUNT = 0xFFFFFFFF

_DEVICE = "apic-timer"
_VERSION = 1
_FIELDS = Fields(
    {
        "initial_count": Number(MAX_COUNT),
        "divide_configuration": Number(DIVIDE_WRITABLE),
        "periodic": Flag(),
        "masked": Flag(),
        "count": Number(MAX_COUNT),
        "origin_ns": TIME,
        "missed_periods": Number(2**63 - 1),
        "deadline_ns": OPTIONAL_TIME,
    }
)


class ApicTimer:
    """Counts down at `hz` divided by the divide configuration; `on_expiry` is called at zero.

    It is never stepped: `count` was in the counter at `origin_ns`, 0 when the timer is stopped. A timer that
    comes late expires once, and the periods in between are added to `missed_periods`. While masked it counts
    and does not wake the clock.
    """

    def __init__(self, *, clock: Clock, hz: int, on_expiry: Callable[[], None]) -> None:
        self._clock = clock
        self._hz = hz
        self._on_expiry = on_expiry
        self._timer = clock.timer(self._expire, "local APIC timer")
        self._clear()

    def _clear(self) -> None:
        self.initial_count = 0
        self.divide_configuration = 0
        self.periodic = False
        self.masked = True
        self.count = 0
        self.origin_ns = 0
        self.missed_periods = 0

    def reset(self) -> None:
        """Stopped and masked."""
        self._timer.cancel()
        self._clear()

    @property
    def shift(self) -> int:
        """The binary logarithm of the divisor: bits 3, 1 and 0 are 000b for 2 up to 110b for 128, 111b for 1."""
        configuration = self.divide_configuration
        return ((configuration >> 1 & 4 | configuration & 3) + 1) & 7

    deadline_ns = Deadline("_timer")
    """When the next interrupt is due."""

    def write_initial_count(self, value: int) -> None:
        """Start counting down from `value`; 0 stops the timer."""
        self.initial_count = self.count = value
        now_ns = self.origin_ns = self._clock.now_ns()
        if value and not self.masked:  # as `_arm` would; this is what a guest does for each of its events
            self._timer.arm(now_ns + self._ns_of_counts(value))
        else:
            self._timer.cancel()

    def write_divide_configuration(self, value: int) -> None:
        """Change the divisor; the count goes on from where it is."""
        self._rebase()
        self.divide_configuration = value & DIVIDE_WRITABLE
        self._arm(self.origin_ns)

    def configure(self, *, periodic: bool, masked: bool) -> None:
        """Take over mode and mask from the vector table entry."""
        if periodic != self.periodic:
            self._rebase()
            self.periodic = periodic
        self.masked = masked
        self._arm(self._clock.now_ns())

    def current_count(self) -> int:
        """The counter now."""
        if not self.count:
            return 0
        left = self.count - self._elapsed(self._clock.now_ns())
        if left > 0:
            return left
        if not self.periodic:
            return 0
        return self.initial_count - -left % self.initial_count

    def save(self) -> SavedState:
        """The registers as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over the registers that `save` returned. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
        self.count = min(self.count, self.initial_count)  # as it is in every state that `save` made

    def _elapsed(self, now_ns: int) -> int:
        """Counts since `origin_ns`."""
        ns = now_ns - self.origin_ns
        return ns * self._hz // NS_PER_S >> self.shift if ns > 0 else 0

    def _rebase(self) -> None:
        """Let `count` be what is in the counter now."""
        self.count = self.current_count()
        self.origin_ns = self._clock.now_ns()

    def _ns_of_counts(self, counts: int) -> int:
        """Nanoseconds after which `counts` have elapsed."""
        return -(-(counts << self.shift) * NS_PER_S // self._hz)

    def _arm(self, now_ns: int) -> None:
        """Wait for the first zero behind `now_ns`."""
        expiry = self.count
        if not expiry or self.masked:
            self._timer.cancel()
            return
        elapsed = self._elapsed(now_ns)
        earliest_ns = now_ns
        if elapsed >= expiry:
            if not self.periodic:
                self._timer.cancel()
                return
            period = self.initial_count
            expiry += ((elapsed - expiry) // period + 1) * period
            if self._ns_of_counts(period) < MIN_PERIOD_NS:
                earliest_ns += MIN_PERIOD_NS
        self._timer.arm(max(self.origin_ns + self._ns_of_counts(expiry), earliest_ns))

    def _expire(self, deadline_ns: int) -> None:
        now_ns = self._clock.now_ns()
        if self.periodic and self.count:
            self.missed_periods += self._expiries(now_ns) - self._expiries(deadline_ns)
        self._arm(now_ns)
        self._on_expiry()

    def _expiries(self, now_ns: int) -> int:
        """How often a periodic timer has come to zero."""
        return max(0, self._elapsed(now_ns) - self.count) // self.initial_count
