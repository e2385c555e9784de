"""What a function asks of its capabilities, and what they see of it."""

from typing import Protocol

from emuvisor.bus.device import SavedState

__all__ = ["Capability", "Owner"]


class Owner(Protocol):
    """The function as its capabilities see it."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def config(self) -> bytearray:
        """The configuration space."""
        ...

    def add_capability(self, cap_id: int, body: bytes, writable: bytes) -> int:
        """Append to the capability list; returns the offset."""
        ...

    def send_msi(self, address: int, data: int) -> None:
        """Write a message."""
        ...


class Capability(Protocol):
    """A capability with behaviour."""

    @property
    def replaces_pin(self) -> bool:
        """Whether the function must not use its interrupt pin now."""
        ...

    def config_changed(self) -> None:
        """The guest has written to configuration space."""
        ...

    def reset(self) -> None:
        """As after power-on; the configuration space is already."""
        ...

    def save(self) -> SavedState:
        """What is not in configuration space."""
        ...

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        ...
