"""MSI-X: message-signalled interrupts with a table of addresses and data words in a BAR.

Source: PCI Local Bus Specification 3.0, section 6.8.2. The BAR's lower half holds the table, its upper half
the pending bit array.
"""

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, load_fields, save_fields
from emuvisor.devices.pci.capabilities.capability import Owner
from emuvisor.devices.pci.registers import CAP_MSIX
from emuvisor.errors import UsageError
from emuvisor.units import PAGE_SIZE

__all__ = ["Msix"]

CONTROL = 2
FUNCTION_MASK = 0x4000
ENABLE = 0x8000
MAX_VECTORS = 2048

ENTRY_SIZE = 16
ENTRY_DATA = 8
ENTRY_CONTROL = 12
ENTRY_MASKED = 1
ENTRY_WRITABLE = b"\xfc" + b"\xff" * 11 + bytes([ENTRY_MASKED, 0, 0, 0])
ENTRY_RESET = bytes(ENTRY_CONTROL) + bytes([ENTRY_MASKED, 0, 0, 0])

_VERSION = 1
_DEVICE = "msix"


class Msix:
    """The capability, and the chip behind its BAR: table and pending bits. `notify` is how the device interrupts."""

    name = _DEVICE

    def __init__(self, owner: Owner, *, bar: int, vectors: int) -> None:
        if not 1 <= vectors <= MAX_VECTORS:
            raise UsageError(f"{owner.name}: {vectors} MSI-X vectors; 1 to {MAX_VECTORS}")
        self._owner = owner
        self._vectors = vectors
        table_bytes = vectors * ENTRY_SIZE
        self._pending_at = max(PAGE_SIZE // 2, 1 << (table_bytes - 1).bit_length())
        self.size = 2 * self._pending_at
        """Bytes of the BAR."""
        self.table = bytearray(ENTRY_RESET * vectors)
        self.pending = bytearray(-(-vectors // 64) * 8)
        self._fields = Fields(
            {
                "table": Data(table_bytes, minimum=table_bytes),
                "pending": Data(len(self.pending), minimum=len(self.pending)),
            }
        )
        body = (vectors - 1).to_bytes(2, "little")
        body += bar.to_bytes(4, "little")
        body += (self._pending_at | bar).to_bytes(4, "little")
        writable = (ENABLE | FUNCTION_MASK).to_bytes(2, "little") + bytes(8)
        self.offset = owner.add_capability(CAP_MSIX, body, writable)

    @property
    def _control(self) -> int:
        at = self.offset + CONTROL
        return int.from_bytes(self._owner.config[at : at + 2], "little")

    @property
    def enabled(self) -> bool:
        """Whether the guest wants messages."""
        return bool(self._control & ENABLE)

    @property
    def replaces_pin(self) -> bool:
        """A function that uses messages must not use its pin."""
        return self.enabled

    def notify(self, vector: int = 0) -> bool:
        """Interrupt by table entry `vector`; False when the guest has not enabled messages: use the pin."""
        if not self.enabled:
            return False
        if self._masked(vector):
            self.pending[vector // 8] |= 1 << vector % 8
        else:
            self._send(vector)
        return True

    def _masked(self, vector: int) -> bool:
        entry_control = self.table[vector * ENTRY_SIZE + ENTRY_CONTROL]
        return bool(self._control & FUNCTION_MASK or entry_control & ENTRY_MASKED)

    def _send(self, vector: int) -> None:
        entry = self.table[vector * ENTRY_SIZE : (vector + 1) * ENTRY_SIZE]
        address = int.from_bytes(entry[:ENTRY_DATA], "little")
        self._owner.send_msi(address, int.from_bytes(entry[ENTRY_DATA:ENTRY_CONTROL], "little"))

    def config_changed(self) -> None:
        """Send what waited for its mask to be lifted."""
        if not self.enabled or not any(self.pending):
            return
        for vector in range(self._vectors):
            if self.pending[vector // 8] >> vector % 8 & 1 and not self._masked(vector):
                self.pending[vector // 8] &= ~(1 << vector % 8)
                self._send(vector)

    # ---- the BAR ----

    def read(self, offset: int, size: int) -> int:
        """Bytes of the table or of the pending bit array."""
        if offset < self._pending_at:
            data = self.table[offset : offset + size]
        else:
            data = self.pending[offset - self._pending_at : offset - self._pending_at + size]
        return int.from_bytes(data, "little")

    def write(self, offset: int, value: int, size: int) -> None:
        """Change a table entry; the pending bits are read-only."""
        for i, byte in enumerate(value.to_bytes(size, "little"), offset):
            if i < len(self.table):
                mask = ENTRY_WRITABLE[i % ENTRY_SIZE]
                self.table[i] = self.table[i] & ~mask | byte & mask
        self.config_changed()

    def reset(self) -> None:
        """All entries masked, nothing pending."""
        self.table[:] = ENTRY_RESET * self._vectors
        self.pending[:] = bytes(len(self.pending))

    def save(self) -> SavedState:
        """Table and pending bits as plain data."""
        return save_fields(self, _DEVICE, _VERSION, self._fields)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, self._fields)
