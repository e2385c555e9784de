"""Intel 82093AA I/O APIC: interrupt lines become messages to local APICs.

Source: 82093AA data sheet (290566). Version 20h, which the ICH chips have, adds the EOI register (ICH9 data sheet,
section 13.5).
"""

import reprlib
from collections.abc import Callable

from emuvisor.bus.device import SavedState
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import Fields, Number, load_fields, save_fields
from emuvisor.devices.apic.apic_bus import ApicBus
from emuvisor.devices.apic.message import (
    ACTIVE_LOW,
    DELIVERY_MODE,
    FIXED,
    LEVEL_TRIGGERED,
    LOGICAL,
    LOWEST_PRIORITY,
    MASKED,
    REMOTE_IRR,
    VECTOR,
)
from emuvisor.errors import SnapshotError, UsageError

__all__ = ["PINS", "IoApic"]

PINS = 24
MAX_PINS = 120
"""What the index register can reach."""

# The memory-mapped registers
IOREGSEL = 0x00
IOWIN = 0x10
EOI = 0x40

# What IOREGSEL selects
IOAPICID = 0x00
IOAPICVER = 0x01
IOAPICARB = 0x02
IOREDTBL = 0x10
"""Two registers for each entry, the low half first."""

VERSION = 0x20
MAXIMUM_ENTRY_SHIFT = 16
ID_SHIFT = 24
ID_MASK = 0x0F

ENTRY_WRITABLE = VECTOR | DELIVERY_MODE | LOGICAL | ACTIVE_LOW | LEVEL_TRIGGERED | MASKED
"""Of the low half. Messages leave at once, so the delivery status reads 0."""
MESSAGE_FIELDS = VECTOR | DELIVERY_MODE | LOGICAL
HIGH_SHIFT = 32
WORD = 0xFFFFFFFF
DESTINATION_SHIFT = 56
DESTINATION = 0xFF << DESTINATION_SHIFT
REGISTER_BYTES = 4

_DEVICE = "io-apic"
_VERSION = 1
_FIELDS = Fields(
    {
        "select": Number(0xFF),
        "apic_id": Number(ID_MASK),
        "arbitration_id": Number(ID_MASK),
        "levels": Number((1 << MAX_PINS) - 1),
    }
)
_ENTRY = Number(DESTINATION | ENTRY_WRITABLE | REMOTE_IRR)


class IoApic:
    """`pins` input lines and a redirection entry for each; a page with the index and data registers.

    An edge is lost while its entry is masked, as the data sheet says; a level is seen when it is unmasked,
    and again at the end of each interrupt. The polarity bits are kept and not used: a line that is high is
    one that requests, whatever the wire does. So guests that take the polarity from MP tables and those that
    take it from ACPI both get their interrupts.

    Raises UsageError unless there are 1 to 120 pins.
    """

    name = _DEVICE

    def __init__(self, *, bus: ApicBus, pins: int = PINS) -> None:
        if not 1 <= pins <= MAX_PINS:
            raise UsageError(f"{_DEVICE}: {pins} pins; an I/O APIC has 1 to {MAX_PINS}")
        self._bus = bus
        self.pins = pins
        self.lines = [InterruptLine(self._sink(pin), f"GSI{pin}") for pin in range(pins)]
        self.levels = 0
        self.entries = [MASKED] * pins
        self.reset()
        bus.connect_source(self)

    def _sink(self, pin: int) -> Callable[[bool], None]:
        return lambda level: self._line_changed(pin, level)

    def reset(self) -> None:
        """All entries masked. The levels on the lines stay what they are."""
        self.select = 0
        self.apic_id = 0
        self.arbitration_id = 0
        self.entries[:] = [MASKED] * self.pins

    # The register page.

    def read(self, offset: int, size: int) -> int:
        """The index, or the register that it selects; 0 elsewhere."""
        if offset == IOREGSEL:
            return self.select
        if offset == IOWIN:
            return self._selected() & (1 << 8 * size) - 1
        return 0

    def write(self, offset: int, value: int, size: int) -> None:
        """Set the index, or by a whole double word the register that it selects; or end an interrupt."""
        if offset == IOREGSEL:
            self.select = value & 0xFF
        elif size >= REGISTER_BYTES:
            if offset == IOWIN:
                self._write_selected(value & WORD)
            elif offset == EOI:
                self.end_of_interrupt(value & VECTOR)

    def _selected(self) -> int:
        select = self.select
        if select == IOAPICID:
            return self.apic_id << ID_SHIFT
        if select == IOAPICVER:
            return VERSION | self.pins - 1 << MAXIMUM_ENTRY_SHIFT
        if select == IOAPICARB:
            return self.arbitration_id << ID_SHIFT
        pin, high = divmod(select - IOREDTBL, 2)
        if 0 <= pin < self.pins:
            return self.entries[pin] >> (HIGH_SHIFT if high else 0) & WORD
        return 0

    def _write_selected(self, value: int) -> None:
        if self.select == IOAPICID:
            self.apic_id = self.arbitration_id = value >> ID_SHIFT & ID_MASK
            return
        pin, high = divmod(self.select - IOREDTBL, 2)
        if not 0 <= pin < self.pins:
            return
        entry = self.entries[pin]
        if high:
            entry = value << HIGH_SHIFT & DESTINATION | entry & WORD
        else:
            entry = entry & DESTINATION | value & ENTRY_WRITABLE | entry & REMOTE_IRR
            if not value & LEVEL_TRIGGERED:
                entry &= ~REMOTE_IRR  # how Linux clears it where there is no EOI register
        self.entries[pin] = entry
        self._sample(pin)

    # The pins.

    def _line_changed(self, pin: int, level: bool) -> None:
        if not level:
            self.levels &= ~(1 << pin)
            return
        self.levels |= 1 << pin
        entry = self.entries[pin]
        if _is_level(entry):
            self._sample(pin)
        elif not entry & MASKED:
            self._bus.send(entry & MESSAGE_FIELDS, entry >> DESTINATION_SHIFT)

    def _sample(self, pin: int) -> None:
        """Send the interrupt of a level-triggered line that is high, unless one is under way."""
        entry = self.entries[pin]
        if self.levels >> pin & 1 and _is_level(entry) and not entry & (MASKED | REMOTE_IRR):
            message = entry & MESSAGE_FIELDS | LEVEL_TRIGGERED
            if self._bus.send(message, entry >> DESTINATION_SHIFT):
                self.entries[pin] = entry | REMOTE_IRR

    def end_of_interrupt(self, vector: int) -> None:
        """The level-triggered interrupt `vector` has been served: lines that are still high send it again."""
        for pin, entry in enumerate(self.entries):
            if entry & REMOTE_IRR and entry & VECTOR == vector:
                self.entries[pin] = entry & ~REMOTE_IRR
                self._sample(pin)

    def offer_again(self) -> None:
        """Send what is asserted and nobody accepted so far."""
        for pin in range(self.pins):
            self._sample(pin)

    # Saving.

    def save(self) -> SavedState:
        """The registers and the levels on the lines as plain data."""
        state = save_fields(self, _DEVICE, _VERSION, _FIELDS)
        state["entries"] = list(self.entries)
        return state

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave, the levels on the input lines too. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
        self._load_entries(state.get("entries"))
        for pin, line in enumerate(self.lines):
            line.level = bool(self.levels >> pin & 1)

    def _load_entries(self, entries: object) -> None:
        if entries == self.entries:
            return
        if (
            not isinstance(entries, list)
            or len(entries) != self.pins
            or not all(_ENTRY.accepts(entry) for entry in entries)
        ):
            raise SnapshotError(
                f"{_DEVICE}: saved field 'entries' is {reprlib.repr(entries)}; expected {self.pins} entries"
            )
        self.entries[:] = entries


def _is_level(entry: int) -> bool:
    """Whether the entry's interrupt is level-triggered; only these two delivery modes may be."""
    return bool(entry & LEVEL_TRIGGERED) and entry & DELIVERY_MODE in (FIXED, LOWEST_PRIORITY)
