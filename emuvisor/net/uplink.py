"""What a way out of a network is."""

from typing import Protocol

from emuvisor.net.port import Port

__all__ = ["Uplink"]


class Uplink(Protocol):
    """A station that leads out of its network, with a thread of its own."""

    @property
    def mac(self) -> bytes:
        """For its port."""
        ...

    def start(self, port: Port) -> None:
        """Plug into `port`, which is a trusted one, and begin. Raises HostError or ConfigError; then nothing runs."""
        ...

    def joined(self, name: str, port: Port) -> None:
        """A card of the guest `name` has been plugged into `port`. Raises ConfigError or HostError."""
        ...

    def left(self, name: str, port: Port) -> None:
        """It is there no more."""
        ...

    def close(self) -> None:
        """End, and let go of everything on the host. Does nothing the second time."""
        ...
