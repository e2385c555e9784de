"""Intel 8254 programmable interval timer, computed from the guest's clock.

Source: Intel 8254 data sheet (231164). Ticks of the 1.193182 MHz input are numbered from power-on with
whole-number arithmetic, so nothing drifts.
"""

from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState, check_saved
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import (
    OPTIONAL_TIME,
    Deadline,
    Fields,
    Flag,
    LineLevel,
    Number,
    load_fields,
    save_fields,
    saved_part,
)
from emuvisor.devices.pit_counter import HARDWARE_STROBE, MODE_MASK, MODE_SHIFT, RW_MASK, RW_SHIFT, Counter
from emuvisor.units import NS_PER_S

__all__ = ["I8254", "PIT_HZ", "ns_at_tick", "tick_at_ns"]

PIT_HZ = 1_193_182

CONTROL = 3
"""Offset of the control word register, behind the three counters."""

# Control word.
SC_SHIFT = 6
SC_READ_BACK = 3
RW_LATCH = 0
MODE_DONT_CARE = 4
"""Modes 2 and 3 may be written as 6 and 7."""
CONTROL_BCD = 0x01

# Read-back command; both latches are active low.
READ_BACK_NO_COUNT = 0x20
READ_BACK_NO_STATUS = 0x10
READ_BACK_SELECT_SHIFT = 1

_DEVICE = "i8254"
_VERSION = 1
_FIELDS = Fields(
    {
        "missed_edges": Number(2**63 - 1),
        "irq_level": Flag(),
        "deadline_ns": OPTIONAL_TIME,
    }
)


def tick_at_ns(now_ns: int) -> int:
    """The number of input clock ticks that have passed at `now_ns`."""
    return now_ns * PIT_HZ // NS_PER_S


def ns_at_tick(tick: int) -> int:
    """The first nanosecond at which `tick_at_ns` gives `tick`."""
    return -(-tick * NS_PER_S // PIT_HZ)


class I8254:
    """The timer of a PC: counter 0 drives IRQ 0, counter 2 the speaker (its gate is on port 61h).

    Four registers: the counters and the control word. The clock is asked for one timer, at counter 0's next
    rising edge; a timer that comes late skips the edges in between and adds them to `missed_edges`. Between
    edges `irq` stays high, also in the low half of a square wave: no controller looks there.
    """

    name = _DEVICE

    def __init__(self, *, clock: Clock, irq: InterruptLine) -> None:
        self._clock = clock
        self._irq = irq
        self._timer = clock.timer(self._rise, "i8254 counter 0")
        self.counters = (Counter(gate=True), Counter(gate=True), Counter(gate=False))
        self.missed_edges = 0

    def reset(self) -> None:
        """All counters not programmed."""
        for counter in self.counters:
            counter.reset()
        self.missed_edges = 0
        self._update_irq(self.tick())

    def tick(self) -> int:
        """Ticks of the input clock since power-on."""
        return tick_at_ns(self._clock.now_ns())

    def read(self, offset: int, size: int) -> int:
        """A counter's next byte; the control word cannot be read."""
        if offset >= CONTROL:
            return 0
        return self.counters[offset].read(self.tick())

    def write(self, offset: int, value: int, size: int) -> None:
        """A byte of a count, or a control word."""
        tick = self.tick()
        value &= 0xFF
        if offset >= CONTROL:
            self._write_control(value, tick)
        else:
            self.counters[offset].write(value, tick)
            if offset == 0:
                self._update_irq(tick)

    def set_gate(self, index: int, level: bool) -> None:
        """Drive the gate of counter `index`."""
        tick = self.tick()
        self.counters[index].set_gate(level, tick)
        if index == 0:
            self._update_irq(tick)

    def output(self, index: int) -> bool:
        """The OUT pin of counter `index`."""
        return self.counters[index].output(self.tick())

    irq_level = LineLevel("_irq")
    """The interrupt line."""

    deadline_ns = Deadline("_timer")
    """When counter 0's output rises next."""

    def save(self) -> SavedState:
        """The counters and the next edge as plain data."""
        state = save_fields(self, _DEVICE, _VERSION, _FIELDS)
        for index, counter in enumerate(self.counters):
            state[f"counter{index}"] = counter.save()
        return state

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        check_saved(state, _DEVICE, _VERSION)
        for index, counter in enumerate(self.counters):
            counter.load(saved_part(state, _DEVICE, f"counter{index}"))
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)

    def _write_control(self, value: int, tick: int) -> None:
        select = value >> SC_SHIFT
        if select == SC_READ_BACK:
            self._read_back(value, tick)
            return
        access = value >> RW_SHIFT & RW_MASK
        if access == RW_LATCH:
            self.counters[select].latch_count(tick)
            return
        mode = value >> MODE_SHIFT & MODE_MASK
        if mode > HARDWARE_STROBE:
            mode -= MODE_DONT_CARE
        self.counters[select].program(mode, access, bool(value & CONTROL_BCD))
        if select == 0:
            self._update_irq(tick)

    def _read_back(self, command: int, tick: int) -> None:
        for index, counter in enumerate(self.counters):
            if command >> READ_BACK_SELECT_SHIFT >> index & 1:
                if not command & READ_BACK_NO_STATUS:
                    counter.latch_status(tick)
                if not command & READ_BACK_NO_COUNT:
                    counter.latch_count(tick)

    def _update_irq(self, tick: int) -> None:
        self._irq.set(self.counters[0].output(tick))
        self._arm(tick)

    def _arm(self, tick: int) -> None:
        rise = self.counters[0].next_rise(tick)
        if rise is None:
            self._timer.cancel()
        else:
            self._timer.arm(ns_at_tick(rise))

    def _rise(self, deadline_ns: int) -> None:
        tick = self.tick()
        self.missed_edges += self.counters[0].rises_between(tick_at_ns(deadline_ns), tick)
        self._irq.set(False)
        self._irq.set(True)
        self._arm(tick)
