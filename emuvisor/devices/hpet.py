"""High precision event timer: a 100 MHz counter and three comparators, computed from the guest's clock.

Source: IA-PC HPET (High Precision Event Timers) Specification 1.0a.
"""

from collections.abc import Callable, Mapping
from functools import partial

from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState, check_saved
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import TIME, Fields, Flag, InputLevel, Number, load_fields, save_fields, saved_part
from emuvisor.devices.hpet_comparator import (
    FSB_ENABLED,
    INTERRUPT_ENABLED,
    LEVEL_TRIGGERED,
    MASK_64,
    PERIODIC,
    VALUE_SET,
    Comparator,
)
from emuvisor.units import NS_PER_US

__all__ = ["BLOCK_LENGTH", "EVENT_TIMER_BLOCK_ID", "MIN_PERIODIC_TICKS", "Hpet"]

BLOCK_LENGTH = 0x400

# Register offsets
CAPABILITIES = 0x000
CONFIGURATION = 0x010
INTERRUPT_STATUS = 0x020
MAIN_COUNTER = 0x0F0
TIMERS = 0x100
TIMER_STRIDE = 0x20
TIMER_CONFIG = 0x00
TIMER_COMPARATOR = 0x08
TIMER_FSB_ROUTE = 0x10
REGISTER_BYTES = 8
WORD_BYTES = 4

FSB_ADDRESS_SHIFT = 32
FSB_DATA = 0xFFFFFFFF

TICK_NS = 10
FS_PER_TICK = 10_000_000
TIMER_COUNT = 3
MIN_PERIODIC_TICKS = 1000
"""10 us. For the ACPI table: ticks that should lie between two interrupts so that none is lost."""
MIN_PERIOD_NS = 10 * NS_PER_US
"""A periodic timer's interrupts are at least this far apart: a guest cannot keep the host busy with a period of 1."""
MAX_DEADLINE_NS = 1 << 62
"""What is due after this (146 years) never comes."""

# General capabilities and ID register
REVISION = 0x01
TIMERS_SHIFT = 8
COUNTER_64 = 0x2000
LEGACY_CAPABLE = 0x8000
VENDOR_INTEL = 0x8086
VENDOR_SHIFT = 16
PERIOD_SHIFT = 32
EVENT_TIMER_BLOCK_ID = (
    VENDOR_INTEL << VENDOR_SHIFT | LEGACY_CAPABLE | COUNTER_64 | TIMER_COUNT - 1 << TIMERS_SHIFT | REVISION
)
"""The low half of the register, which the ACPI table repeats."""

# General configuration register
ENABLE = 0x1
LEGACY_REPLACEMENT = 0x2

_DEVICE = "hpet"
_VERSION = 1
_FIELDS = Fields(
    {
        "config": Number(ENABLE | LEGACY_REPLACEMENT),
        "status": Number((1 << TIMER_COUNT) - 1),
        "base": Number(MASK_64),
        "started_tick": TIME,
        "pit_level": Flag(),
        "rtc_level": Flag(),
    }
)


class Hpet:
    """The timer block, 1 KiB of registers.

    It stands between the 8254 and the clock chip and their interrupts: wire those chips to the lines `pit` and
    `rtc`, which lead on to `irq0` and `irq8` until legacy replacement gives these to timers 0 and 1. `routes`
    are the other interrupt inputs that timers may drive, by number (0 to 31). With `msi(address, data)` the
    timers can send messages. Only timer 0 is periodic. A timer that comes late fires once for all periods
    that have passed. Restore it before the chips that are wired to it.
    """

    name = _DEVICE

    def __init__(
        self,
        *,
        clock: Clock,
        irq0: InterruptLine,
        irq8: InterruptLine,
        routes: Mapping[int, InterruptLine],
        msi: Callable[[int, int], None] | None = None,
    ) -> None:
        self._clock = clock
        self._routes = routes
        self._msi = msi
        self.pit = InterruptLine(partial(self._pass_on, irq0), "8254 output")
        self.rtc = InterruptLine(partial(self._pass_on, irq8), "clock chip output")
        self._legacy = ((self.pit, irq0), (self.rtc, irq8))
        """What legacy replacement takes from the old chips, for timers 0 and 1."""
        route_bits = sum(1 << number for number in routes)
        self.timers = [
            Comparator(
                alarm=clock.timer(partial(self._match, n), f"hpet timer {n}"),
                routes=route_bits,
                periodic_capable=n == 0,
                fsb_capable=msi is not None,
            )
            for n in range(TIMER_COUNT)
        ]
        self._clear()

    def _clear(self) -> None:
        self.config = 0
        self.status = 0
        self.base = 0
        """The main counter at `started_tick`, or for as long as it stands still."""
        self.started_tick = 0

    def reset(self) -> None:
        """The counter stands at 0, all timers off."""
        self._clear()
        for timer in self.timers:
            timer.reset()
        self._arm_all()
        self._drive()

    # The registers: all are 64 bits wide and taken in whole or by halves.

    def read(self, offset: int, size: int) -> int:
        """Bytes of a register."""
        inside = offset % REGISTER_BYTES
        register = self._read_register(offset - inside)
        return register >> 8 * inside & (1 << 8 * size) - 1

    def write(self, offset: int, value: int, size: int) -> None:
        """Set a register or half of one; other sizes have no effect."""
        if size < WORD_BYTES or offset % size:
            return
        inside = offset % REGISTER_BYTES
        register = offset - inside
        written = (1 << 8 * size) - 1 << 8 * inside
        value = value << 8 * inside & written
        if register == CONFIGURATION:
            self._write_configuration(self.config & ~written | value)
        elif register == INTERRUPT_STATUS:
            self.status &= ~value
            self._drive()
        elif register == MAIN_COUNTER:
            self.base = self._counter() & ~written | value
            self.started_tick = self._tick()
            self._arm_all()
        elif register >= TIMERS:
            self._write_timer(register - TIMERS, value, written)

    def _read_register(self, register: int) -> int:
        if register == MAIN_COUNTER:
            return self._counter()
        if register == CAPABILITIES:
            return FS_PER_TICK << PERIOD_SHIFT | EVENT_TIMER_BLOCK_ID
        if register == CONFIGURATION:
            return self.config
        if register == INTERRUPT_STATUS:
            return self.status
        index, register = divmod(register - TIMERS, TIMER_STRIDE)
        if not 0 <= index < TIMER_COUNT:
            return 0
        timer = self.timers[index]
        if register == TIMER_CONFIG:
            return timer.read_config()
        if register == TIMER_COMPARATOR:
            return timer.comparator
        return timer.fsb if register == TIMER_FSB_ROUTE else 0

    def _write_configuration(self, value: int) -> None:
        counter = self._counter()
        self.config = value & (ENABLE | LEGACY_REPLACEMENT)
        self.base = counter
        self.started_tick = self._tick()
        self._arm_all()
        self._drive()

    def _write_timer(self, offset: int, value: int, written: int) -> None:
        index, register = divmod(offset, TIMER_STRIDE)
        if index >= TIMER_COUNT:
            return
        timer = self.timers[index]
        if register == TIMER_CONFIG:
            timer.write_config(value, written)
            self._arm(index)
            self._drive()
        elif register == TIMER_COMPARATOR:
            sets_comparator = timer.config & VALUE_SET
            timer.write_comparator(value, written)
            if not sets_comparator:
                timer.catch_up(self._counter())
            self._arm(index)
        elif register == TIMER_FSB_ROUTE:
            timer.fsb = timer.fsb & ~written | value

    # The main counter.

    def _tick(self) -> int:
        return self._clock.now_ns() // TICK_NS

    def _counter(self) -> int:
        if not self.config & ENABLE:
            return self.base
        return self.base + self._tick() - self.started_tick & MASK_64

    # Matches.

    def _arm_all(self) -> None:
        for index in range(TIMER_COUNT):
            self._arm(index)

    def _arm(self, index: int, matched: bool = False) -> None:
        """Wait for the next match of a timer; one that has just `matched` does so again after a whole round."""
        timer = self.timers[index]
        alarm = timer.alarm
        if not self.config & ENABLE or not timer.config & (INTERRUPT_ENABLED | LEVEL_TRIGGERED | PERIODIC):
            alarm.cancel()
            return
        ticks = timer.ticks_to_match(self._counter())
        if matched and not ticks:
            ticks = timer.mask + 1
        deadline_ns = (self._tick() + ticks) * TICK_NS
        if timer.repeats and timer.period * TICK_NS < MIN_PERIOD_NS:
            deadline_ns = max(deadline_ns, self._clock.now_ns() + MIN_PERIOD_NS)
        if deadline_ns < MAX_DEADLINE_NS:
            alarm.arm(deadline_ns)
        else:
            alarm.cancel()

    def _match(self, index: int, deadline_ns: int) -> None:
        timer = self.timers[index]
        timer.advance(self._counter())
        self._arm(index, matched=True)
        if timer.config & LEVEL_TRIGGERED:
            self.status |= 1 << index
        if timer.config & INTERRUPT_ENABLED:
            line = self._line_of(index)
            if timer.config & FSB_ENABLED:
                if self._msi is not None:
                    self._msi(timer.fsb >> FSB_ADDRESS_SHIFT, timer.fsb & FSB_DATA)
            elif line is not None and not timer.config & LEVEL_TRIGGERED:
                line.pulse()
        self._drive()

    # Lines.

    def _line_of(self, index: int) -> InterruptLine | None:
        """The line that a timer drives; None for one that leads nowhere."""
        if self.config & LEGACY_REPLACEMENT and index < len(self._legacy):
            return self._legacy[index][1]
        return self._routes.get(self.timers[index].route)

    def _pass_on(self, line: InterruptLine, level: bool) -> None:
        """What an old chip drives goes to its interrupt, unless that has been given to a timer."""
        if not self.config & LEGACY_REPLACEMENT:
            line.set(level)

    def _drive(self) -> None:
        """Put on every line what belongs there: the old chips' outputs, and the level-triggered timers."""
        high: list[InterruptLine | None] = []
        if self.config & ENABLE:
            for index, timer in enumerate(self.timers):
                wanted = timer.config & (LEVEL_TRIGGERED | INTERRUPT_ENABLED | FSB_ENABLED)
                if self.status >> index & 1 and wanted == LEVEL_TRIGGERED | INTERRUPT_ENABLED:
                    high.append(self._line_of(index))
        for old_chip, line in self._legacy:
            line.set(line in high if self.config & LEGACY_REPLACEMENT else old_chip.level)
        for line in self._routes.values():
            line.set(line in high)

    # Saving.

    pit_level = InputLevel("pit")

    rtc_level = InputLevel("rtc")

    def save(self) -> SavedState:
        """The registers and the next matches as plain data."""
        state = save_fields(self, _DEVICE, _VERSION, _FIELDS)
        for index, timer in enumerate(self.timers):
            state[f"timer{index}"] = timer.save()
        return state

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        check_saved(state, _DEVICE, _VERSION)
        for index, timer in enumerate(self.timers):
            timer.load(saved_part(state, _DEVICE, f"timer{index}"))
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
        self._drive()
