"""One timer of an HPET: its configuration, comparator and period. It is told what the main counter says.

Source: IA-PC HPET Specification 1.0a, section 2.3.8.
"""

from emuvisor.bus.clock import Timer
from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import OPTIONAL_TIME, Deadline, Fields, Number, load_fields, save_fields

__all__ = ["FSB_ENABLED", "INTERRUPT_ENABLED", "LEVEL_TRIGGERED", "PERIODIC", "VALUE_SET", "Comparator"]

# Configuration and capability register
LEVEL_TRIGGERED = 0x0002
INTERRUPT_ENABLED = 0x0004
PERIODIC = 0x0008
PERIODIC_CAPABLE = 0x0010
SIZE_64_CAPABLE = 0x0020
VALUE_SET = 0x0040
MODE_32 = 0x0100
ROUTE_SHIFT = 9
ROUTE_MASK = 0x1F
ROUTE = ROUTE_MASK << ROUTE_SHIFT
FSB_ENABLED = 0x4000
FSB_CAPABLE = 0x8000
ROUTES_SHIFT = 32
WRITABLE = LEVEL_TRIGGERED | INTERRUPT_ENABLED | PERIODIC | VALUE_SET | MODE_32 | ROUTE | FSB_ENABLED

MASK_32 = (1 << 32) - 1
MASK_64 = (1 << 64) - 1
HIGH_HALF = MASK_64 ^ MASK_32

_DEVICE = "hpet-comparator"
_VERSION = 1
_FIELDS = Fields(
    {
        "config": Number(WRITABLE),
        "comparator": Number(MASK_64),
        "period": Number(MASK_64),
        "fsb": Number(MASK_64),
        "deadline_ns": OPTIONAL_TIME,
    }
)


class Comparator:
    """`alarm` rings at the next match. `routes` is a bit mask of the interrupt inputs that it may be routed to;
    `periodic_capable` tells that it may repeat, `fsb_capable` that its interrupts may be messages.
    """

    def __init__(self, *, alarm: Timer, routes: int, periodic_capable: bool, fsb_capable: bool) -> None:
        self.alarm = alarm
        self._routes = routes
        self._capabilities = (
            SIZE_64_CAPABLE
            | (PERIODIC_CAPABLE if periodic_capable else 0)
            | (FSB_CAPABLE if fsb_capable else 0)
            | routes << ROUTES_SHIFT
        )
        self._writable = WRITABLE
        if not periodic_capable:
            self._writable &= ~PERIODIC
        if not fsb_capable:
            self._writable &= ~FSB_ENABLED
        self.reset()

    def reset(self) -> None:
        """Disabled, the comparator all ones."""
        self.config = 0
        self.comparator = MASK_64
        self.period = 0
        self.fsb = 0
        """Where and what to write for a message: the address in the high half, the data in the low one."""

    @property
    def mask(self) -> int:
        """The bits of the counter that are compared."""
        return MASK_32 if self.config & MODE_32 else MASK_64

    @property
    def route(self) -> int:
        """The interrupt input that it is routed to."""
        return self.config >> ROUTE_SHIFT & ROUTE_MASK

    @property
    def repeats(self) -> bool:
        """Whether it is periodic and has a period."""
        return bool(self.config & PERIODIC) and self.period != 0

    def read_config(self) -> int:
        """The configuration and capability register."""
        return self.config | self._capabilities

    def write_config(self, value: int, written: int) -> None:
        """Set the bits in the mask `written`. A route that is not offered is not taken (section 2.3.8.1)."""
        writable = self._writable & written
        config = self.config & ~writable | value & writable
        if not self._routes >> (config >> ROUTE_SHIFT & ROUTE_MASK) & 1:
            config = config & ~ROUTE | self.config & ROUTE
        self.config = config
        self.comparator &= self.mask
        self.period &= self.mask

    def write_comparator(self, value: int, written: int) -> None:
        """Set the bits in the mask `written` of the comparator, of the period, or of both.

        While VALUE_SET is on, which the write ends, a periodic timer takes both; otherwise its period only. A
        store of 64 bits may come as two of 32: it ends with its high half.
        """
        mask = self.mask
        written &= mask
        value &= written
        if not self.config & PERIODIC or self.config & VALUE_SET:
            self.comparator = self.comparator & ~written | value
        if self.config & PERIODIC:
            self.period = self.period & ~written | value
        if mask == MASK_32 or written & HIGH_HALF:
            self.config &= ~VALUE_SET

    def ticks_to_match(self, counter: int) -> int:
        """Ticks from the main counter's value `counter` to a match; 0 if it matches."""
        return self.comparator - counter & self.mask

    def advance(self, counter: int) -> None:
        """Step a periodic comparator that has matched beyond `counter`."""
        if self.repeats:
            mask = self.mask
            late = counter - self.comparator & mask
            self.comparator = self.comparator + (late // self.period + 1) * self.period & mask

    def catch_up(self, counter: int) -> None:
        """Step a periodic comparator beyond `counter` whose first match has passed before its period came.

        Drivers read the counter, add a period and write the sum, which takes a processor a microsecond; a guest on the
        host's clock may be kept from running for milliseconds meanwhile, and would wait for the counter to wrap.
        """
        if 0 < counter - self.comparator & self.mask <= self.mask >> 1:
            self.advance(counter)

    deadline_ns = Deadline("alarm")
    """When the next match is due; setting it arms the alarm."""

    def save(self) -> SavedState:
        """The registers as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over the registers that `save` returned. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
