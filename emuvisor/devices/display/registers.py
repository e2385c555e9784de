"""A file of registers behind an index port and a data port, as four of the VGA's five parts have one."""

from collections.abc import Mapping
from typing import ClassVar

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Kind, Number, load_fields, save_fields

__all__ = ["RegisterFile"]

_VERSION = 1


class RegisterFile:
    """`power_on` gives the registers' first values, `writable` which of their bits a guest can set.

    A register that does not exist reads 0 and swallows writes.
    """

    name = "vga registers"
    power_on: bytes
    writable: bytes
    more_fields: ClassVar[Mapping[str, Kind]] = {}
    """What a kind of file saves besides index and registers."""
    fields: ClassVar[Fields]

    def __init_subclass__(cls) -> None:
        count = len(cls.power_on)
        own: dict[str, Kind] = {"index": Number(0xFF), "registers": Data(count, minimum=count)}
        cls.fields = Fields({**own, **cls.more_fields})

    def __init__(self) -> None:
        self.index = 0
        self.registers = bytearray(self.power_on)

    def read(self) -> int:
        """The register that the index names."""
        return self.registers[self.index] if self.index < len(self.registers) else 0

    def write(self, value: int) -> None:
        """Set the register that the index names."""
        if self.index < len(self.registers):
            self.registers[self.index] = value & self.writable[self.index]

    def reset(self) -> None:
        """Back to the values after power-on."""
        self.index = 0
        self.registers[:] = self.power_on

    def save(self) -> SavedState:
        """Index and registers as plain data."""
        return save_fields(self, self.name, _VERSION, self.fields)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, self.name, _VERSION, self.fields)
