"""One counter of an Intel 8254, computed from the number of the present tick.

Source: Intel 8254 data sheet (231164). A counter is never stepped: it remembers the tick at which it was
loaded and works out its count and its output when somebody looks.

Two simplifications: a count that will be loaded at the next tick is read as if it had been; a count of 1 in
modes 2 and 3, which the data sheet forbids, acts as 2.
"""

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import OPTIONAL_TIME, TIME, Fields, Flag, Number, load_fields, save_fields
from emuvisor.devices.bcd import from_bcd, to_bcd

__all__ = ["Counter"]

# RW, the access mode: which bytes of the count a read or write moves.
RW_SHIFT = 4
RW_MASK = 0x3
RW_LSB = 1
RW_MSB = 2
RW_LSB_MSB = 3

MODE_SHIFT = 1
MODE_MASK = 0x7
INTERRUPT_ON_TERMINAL_COUNT = 0
ONE_SHOT = 1
RATE_GENERATOR = 2
SQUARE_WAVE = 3
SOFTWARE_STROBE = 4
HARDWARE_STROBE = 5
PERIODIC = (RATE_GENERATOR, SQUARE_WAVE)
TRIGGERED = (ONE_SHOT, HARDWARE_STROBE)
"""Modes that start at a rising gate, not when a count is written."""

# Status byte; RW, mode and BCD stand where the control word has them.
STATUS_OUTPUT = 0x80
STATUS_NULL_COUNT = 0x40

BINARY_MODULUS = 0x10000
BCD_MODULUS = 10_000

_DEVICE = "i8254-counter"
_VERSION = 1
_FIELDS = Fields(
    {
        "mode": Number(HARDWARE_STROBE),
        "bcd": Flag(),
        "access": Number(RW_LSB_MSB, minimum=RW_LSB),
        "gate": Flag(),
        "low_byte": Number(0xFF, optional=True),
        "reload": Number(BINARY_MODULUS, minimum=1, optional=True),
        "null_count": Flag(),
        "period": Number(BINARY_MODULUS),
        "origin": TIME,
        "held": OPTIONAL_TIME,
        "reload_tick": OPTIONAL_TIME,
        "retriggered": Flag(),
        "read_high": Flag(),
        "latched_count": Number(0xFFFF, optional=True),
        "latched_status": Number(0xFF, optional=True),
    }
)


class Counter:
    """One of the three counters. Every method takes the present tick.

    `period` is the count in the counting element (0: none since the control word), loaded at tick `origin`;
    `reload` is the count register. `held` is the elapsed count while the gate stops the counter, and
    `reload_tick` when a periodic counter will take over a new count.
    """

    def __init__(self, gate: bool) -> None:
        self._gate_at_reset = gate
        self.reset()

    def reset(self) -> None:
        """Not programmed, the output low (the data sheet leaves it undefined)."""
        self.gate = self._gate_at_reset
        self.program(INTERRUPT_ON_TERMINAL_COUNT, RW_LSB_MSB, bcd=False)

    def program(self, mode: int, access: int, bcd: bool) -> None:
        """Take a control word: the counter waits for a count."""
        self.mode = mode
        self.access = access
        self.bcd = bcd
        self.low_byte: int | None = None
        self.reload: int | None = None
        self.null_count = True
        self.period = 0
        self.origin = 0
        self.held: int | None = None
        self.reload_tick: int | None = None
        self.retriggered = False
        """The trigger came while the output was low, which then stays low until the load."""
        self.read_high = False
        self.latched_count: int | None = None
        self.latched_status: int | None = None

    def write(self, value: int, tick: int) -> None:
        """Take a byte of a new count."""
        if self.access == RW_LSB:
            self._write_count(value, tick)
        elif self.access == RW_MSB:
            self._write_count(value << 8, tick)
        elif self.low_byte is None:
            self.low_byte = value
            if self.mode == INTERRUPT_ON_TERMINAL_COUNT:
                self.period = 0  # the first byte stops the counting and takes the output low
        else:
            count = value << 8 | self.low_byte
            self.low_byte = None
            self._write_count(count, tick)

    def read(self, tick: int) -> int:
        """The next byte at the counter's port: latched status, latched count, or the running count."""
        if self.latched_status is not None:
            status, self.latched_status = self.latched_status, None
            return status
        count = self.count(tick) if self.latched_count is None else self.latched_count
        if self.access == RW_LSB_MSB:
            high = self.read_high
            self.read_high = not high
            if not high:
                return count & 0xFF
        self.latched_count = None
        return count & 0xFF if self.access == RW_LSB else count >> 8

    def latch_count(self, tick: int) -> None:
        """Keep the count for the next read; an unread latch stays."""
        if self.latched_count is None:
            self.latched_count = self.count(tick)

    def latch_status(self, tick: int) -> None:
        """Keep the status for the next read; an unread latch stays."""
        if self.latched_status is None:
            status = self.access << RW_SHIFT | self.mode << MODE_SHIFT | self.bcd
            if self.output(tick):
                status |= STATUS_OUTPUT
            if self.null_count or (self.held is None and tick < self.origin):
                status |= STATUS_NULL_COUNT
            self.latched_status = status

    def set_gate(self, level: bool, tick: int) -> None:
        """Drive the GATE pin."""
        if level == self.gate:
            return
        self._settle(tick)
        elapsed = self._elapsed(tick)
        self.gate = level
        if not level:
            if self.mode not in TRIGGERED:
                self.held = elapsed
        elif self.mode in TRIGGERED or self.mode in PERIODIC:
            self.retriggered = self.mode in TRIGGERED and not self.output(tick)
            self._load(tick)
        elif self.held is not None:
            self.origin = tick - self.held
            self.held = None

    def output(self, tick: int) -> bool:
        """The OUT pin."""
        self._settle(tick)
        elapsed = self._elapsed(tick)
        if self.mode == INTERRUPT_ON_TERMINAL_COUNT:
            return self.period > 0 and elapsed >= self.period
        if not self.period or elapsed < 0:
            return not self.retriggered
        if self.mode == ONE_SHOT:
            return elapsed >= self.period
        if self.mode in PERIODIC and not self.gate:
            return True
        if self.mode == RATE_GENERATOR:
            return elapsed % self.period != self.period - 1
        if self.mode == SQUARE_WAVE:
            return elapsed % self.period < self._high_half()
        return elapsed != self.period

    def count(self, tick: int) -> int:
        """The counting element's 16 bits, as a read returns them."""
        self._settle(tick)
        if not self.period:
            return 0
        elapsed = max(0, self._elapsed(tick))
        if self.mode == RATE_GENERATOR:
            count = self.period - elapsed % self.period
        elif self.mode == SQUARE_WAVE:
            position = elapsed % self.period
            half = self._high_half()
            count = (self.period & ~1) - 2 * (position if position < half else position - half)
        else:
            count = self.period - elapsed
        return to_bcd(count % BCD_MODULUS) if self.bcd else count % BINARY_MODULUS

    def next_rise(self, tick: int) -> int | None:
        """The first tick behind `tick` at which OUT goes high; None if it will not by itself."""
        self._settle(tick)
        if not self.period or self.held is not None:
            return None
        if self.mode in PERIODIC:
            if self.reload_tick is not None and self.reload is not None:
                starts_low = self._starts_low_half(self.reload_tick)
                return self.reload_tick + (self.reload // 2 if starts_low else 0)
            return self.origin + (max(0, tick - self.origin) // self.period + 1) * self.period
        rise = self.origin + self.period
        if self.mode in (SOFTWARE_STROBE, HARDWARE_STROBE):
            rise += 1
        return rise if rise > tick else None

    def rises_between(self, first: int, last: int) -> int:
        """How often OUT goes high in the ticks behind `first` up to `last`, in a periodic mode."""
        if self.mode not in PERIODIC or not self.period:
            return 0
        return (last - self.origin) // self.period - (first - self.origin) // self.period

    def _elapsed(self, tick: int) -> int:
        """Ticks counted since the load; -1 between the write and the load."""
        return tick - self.origin if self.held is None else self.held

    def _high_half(self) -> int:
        return (self.period + 1) // 2

    def _starts_low_half(self, tick: int) -> bool:
        """Whether a half cycle of a square wave that begins at `tick` is the low one."""
        return self.mode == SQUARE_WAVE and (tick - self.origin) % self.period != 0

    def _load(self, tick: int) -> None:
        """Move the count register to the counting element at the tick behind `tick`."""
        if self.reload is not None:
            self.period = self.reload
            self.origin = tick + 1
            self.held = None if self.gate or self.mode in TRIGGERED else 0
            self.reload_tick = None
            self.null_count = False

    def _settle(self, tick: int) -> None:
        """Carry out a reload of a periodic counter that was due by `tick`."""
        if self.reload_tick is None or self.reload is None or not self.period:
            return
        if tick >= self.reload_tick:
            low_half = self._starts_low_half(self.reload_tick)
            self.period = self.reload
            self.origin = self.reload_tick - (self._high_half() if low_half else 0)
            self.reload_tick = None
            self.null_count = False

    def _write_count(self, value: int, tick: int) -> None:
        self._settle(tick)
        modulus = BCD_MODULUS if self.bcd else BINARY_MODULUS
        count = (from_bcd(value) if self.bcd else value) % modulus or modulus
        if self.mode in PERIODIC:
            count = max(count, 2)
        self.reload = count
        self.null_count = True
        if self.mode in TRIGGERED:
            return
        if self.mode not in PERIODIC or not self.period or tick < self.origin:
            self._load(tick)
        elif self.held is None and self.reload_tick is None:
            self.reload_tick = self._end_of_cycle(tick)

    def _end_of_cycle(self, tick: int) -> int:
        """When the present period, or half cycle of a square wave, is over."""
        position = (tick - self.origin) % self.period
        start = tick - position
        if self.mode == SQUARE_WAVE and position < self._high_half():
            return start + self._high_half()
        return start + self.period

    def save(self) -> SavedState:
        """The registers as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over the registers that `save` returned. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
