"""The generation ID of a virtual machine: 16 bytes that change when the guest goes on from a state that another guest,
or the same one, may have gone on from already. Its kernel then makes its random numbers anew.

Source: Microsoft, "Virtual Machine Generation ID" (2012); QEMU, docs/specs/vmgenid.rst, which numbers its demands.
"""

from emuvisor.bus.device import SavedState
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import Data, Fields, Flag, LineLevel, load_fields, save_fields
from emuvisor.errors import UsageError

__all__ = ["ID_LENGTH", "VmGenerationId"]

ID_LENGTH = 16

_DEVICE = "vm-generation-id"
_VERSION = 1
_FIELDS = Fields({"identifier": Data(ID_LENGTH, minimum=ID_LENGTH), "changed": Flag()})


class VmGenerationId:
    """`identifier` in `ID_LENGTH` bytes of address space that a guest can only read.

    It lies in MMIO space, which demand R1b allows: so it has one address whatever firmware boots, needs no page, and is
    no other guest's when pages are shared. `irq` rises with each change, for the ACPI event device to tell the guest,
    and falls when the guest reads. It outlives resets: a reboot is no new generation.
    """

    name = _DEVICE
    changed = LineLevel("_irq")

    def __init__(self, *, identifier: bytes, irq: InterruptLine) -> None:
        self._irq = irq
        self.identifier = _checked(identifier)

    def change(self, identifier: bytes) -> None:
        """A new generation begins. Raises UsageError unless it has 16 bytes."""
        self.identifier = _checked(identifier)
        self._irq.set(False)  # nobody may have read the last one: each change is an edge
        self._irq.set(True)

    def read(self, offset: int, size: int) -> int:
        """Bytes of the identifier."""
        self._irq.set(False)
        return int.from_bytes(self.identifier[offset : offset + size], "little")

    def write(self, offset: int, value: int, size: int) -> None:
        """Nothing happens."""

    def reset(self) -> None:
        """The identifier stays; nobody has to be told."""
        self._irq.set(False)

    def save(self) -> SavedState:
        """The identifier, and whether the guest has yet to look at it."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)


def _checked(identifier: bytes) -> bytes:
    if len(identifier) != ID_LENGTH:
        raise UsageError(f"{_DEVICE}: {len(identifier)} bytes; a generation ID has {ID_LENGTH}")
    return identifier
