"""Message-signalled interrupts: an interrupt is a write of a data word to an address that the guest has set.

Source: PCI Local Bus Specification 3.0, section 6.8.1.

    offset  size  register
    2       2     Message Control
    4       4     Message Address
    8       4     Message Upper Address, with 64-bit addresses only; what follows comes 4 bytes later then
    8       2     Message Data
    12      4     Mask Bits    with per-vector masking
    16      4     Pending Bits with per-vector masking
"""

from emuvisor.bus.device import SavedState, check_saved
from emuvisor.devices.pci.capabilities.capability import Owner
from emuvisor.devices.pci.registers import CAP_MSI
from emuvisor.errors import UsageError

__all__ = ["Msi"]

CONTROL = 2
ADDRESS = 4
ADDRESS_MASK = 0xFFFF_FFFC
DATA_MASK = 0xFFFF

ENABLE = 0x0001
MULTIPLE_CAPABLE_SHIFT = 1
MULTIPLE_ENABLE_SHIFT = 4
MULTIPLE_MASK = 0x7
ADDRESS_64 = 0x0080
MASKABLE = 0x0100
MAX_VECTORS = 32
MAX_ENABLE = 5
"""Multiple Message Enable for 32 vectors; 6 and 7 are reserved."""

_DEVICE = "msi"
_VERSION = 1


class Msi:
    """The capability; `notify` is how the device interrupts. Its state is all in configuration space."""

    def __init__(self, owner: Owner, *, vectors: int, wide: bool, maskable: bool) -> None:
        if not 1 <= vectors <= MAX_VECTORS or vectors & (vectors - 1):
            raise UsageError(f"{owner.name}: {vectors} MSI vectors; a power of two from 1 to {MAX_VECTORS}")
        self._owner = owner
        self._vectors = vectors
        capable = vectors.bit_length() - 1
        control = (
            capable << MULTIPLE_CAPABLE_SHIFT | (ADDRESS_64 if wide else 0) | (MASKABLE if maskable else 0)
        )
        body = control.to_bytes(2, "little") + bytes(4)
        writable = (ENABLE | MULTIPLE_MASK << MULTIPLE_ENABLE_SHIFT).to_bytes(2, "little")
        writable += ADDRESS_MASK.to_bytes(4, "little")
        if wide:
            body += bytes(4)
            writable += b"\xff" * 4
        body += bytes(4)
        writable += DATA_MASK.to_bytes(4, "little")
        if maskable:
            body += bytes(8)
            writable += ((1 << vectors) - 1).to_bytes(4, "little") + bytes(4)
        self.offset = owner.add_capability(CAP_MSI, body, writable)
        self._wide = wide
        self._data = self.offset + ADDRESS + (8 if wide else 4)
        self._mask = self._data + 4 if maskable else None
        self._pending = self._data + 8

    def _get(self, offset: int, size: int) -> int:
        return int.from_bytes(self._owner.config[offset : offset + size], "little")

    @property
    def enabled(self) -> bool:
        """Whether the guest wants messages."""
        return bool(self._get(self.offset + CONTROL, 2) & ENABLE)

    @property
    def replaces_pin(self) -> bool:
        """A function that uses messages must not use its pin."""
        return self.enabled

    @property
    def allocated(self) -> int:
        """How many vectors the guest has given."""
        exponent = self._get(self.offset + CONTROL, 2) >> MULTIPLE_ENABLE_SHIFT & MULTIPLE_MASK
        return min(1 << min(exponent, MAX_ENABLE), self._vectors)

    def notify(self, vector: int = 0) -> bool:
        """Interrupt by message `vector`; False when the guest has not enabled messages: use the pin.

        With fewer vectors allocated than the device has, the upper ones fall on the lower.
        """
        if not self.enabled:
            return False
        vector %= self.allocated
        if self._mask is not None and self._get(self._mask, 4) >> vector & 1:
            self._set_pending(self._get(self._pending, 4) | 1 << vector)
        else:
            self._send(vector)
        return True

    def _set_pending(self, bits: int) -> None:
        self._owner.config[self._pending : self._pending + 4] = bits.to_bytes(4, "little")

    def _send(self, vector: int) -> None:
        address = self._get(self.offset + ADDRESS, 8 if self._wide else 4)
        data = self._get(self._data, 2) & ~(self.allocated - 1) | vector
        self._owner.send_msi(address, data)

    def config_changed(self) -> None:
        """Send what waited for its mask to be lifted."""
        if self._mask is None or not self.enabled:
            return
        ready = self._get(self._pending, 4) & ~self._get(self._mask, 4)
        if ready:
            self._set_pending(self._get(self._pending, 4) & ~ready)
            for vector in range(self._vectors):
                if ready >> vector & 1:
                    self._send(vector)

    def reset(self) -> None:
        """Nothing beyond configuration space."""

    def save(self) -> SavedState:
        """Only what it is."""
        return {"device": _DEVICE, "version": _VERSION}

    def load(self, state: SavedState) -> None:
        """Check what it is. Raises SnapshotError."""
        check_saved(state, _DEVICE, _VERSION)
