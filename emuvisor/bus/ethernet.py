"""The wire between a network card and a network: Ethernet frames, and what their sender left undone.

A frame is a whole Ethernet frame without its FCS, as `bytes`. A driver whose card does offloading leaves the
checksum to it, and hands over up to 64 KiB of TCP payload as one frame. Such a frame travels with an `Offload`, so
that it reaches another card as it is when that one's driver takes it, and is finished only for those who do not.
"""

from typing import NamedTuple, Protocol

__all__ = [
    "CHECKSUM",
    "ECN",
    "SEGMENTATION",
    "TSO4",
    "TSO6",
    "UFO",
    "USO",
    "VERIFIED",
    "Link",
    "Offload",
    "Station",
]

# Work that may be left on a frame, and that a station may accept it with; bits.
CHECKSUM = 1 << 0
"""The checksum field holds only the pseudo header's sum; the rest is to be added."""
TSO4 = 1 << 1
"""TCP over IPv4, to be cut into segments."""
TSO6 = 1 << 2
"""TCP over IPv6, to be cut into segments."""
ECN = 1 << 3
"""Comes with TSO4 or TSO6: the CWR flag is set, and only the first segment has it."""
UFO = 1 << 4
"""A UDP datagram, to be cut into IP fragments."""
USO = 1 << 5
"""A UDP datagram, to be cut into datagrams."""
SEGMENTATION = TSO4 | TSO6 | UFO | USO


class Offload(NamedTuple):
    """What is left to do on a frame: `needs` is a set of the bits above.

    `checksum_start` is where in the frame summing begins, `checksum_offset` where from there the checksum's field
    is. `segment_size` is the payload of one segment in bytes. With no needs at all the sender vouches for the
    frame's checksums.
    """

    needs: int = 0
    checksum_start: int = 0
    checksum_offset: int = 0
    segment_size: int = 0


VERIFIED = Offload()
"""Nothing is left to do, and the checksums are known to be right."""


class Station(Protocol):
    """What is plugged into a network's port: a card of a guest, or an uplink."""

    @property
    def accepts(self) -> int:
        """The needs that a frame may come with. Read for every frame, from any thread."""
        ...

    def receive(self, frame: bytes, offload: Offload | None, /) -> bool:
        """Take a frame; False if there is no room for it. Called from any thread, and never blocks."""
        ...

    def link_changed(self) -> None:
        """The link's `up` has changed. Called from any thread."""
        ...


class Link(Protocol):
    """A network's port, as the station plugged into it sees it."""

    @property
    def up(self) -> bool:
        """Whether the cable is plugged in."""
        ...

    @property
    def mtu(self) -> int:
        """The longest IP packet that passes, in bytes."""
        ...

    def attach(self, station: Station) -> None:
        """From now on frames go to `station`."""
        ...

    def send(self, frame: bytes, offload: Offload | None = None) -> None:
        """Put a frame on the wire. Never blocks, and never raises for what a guest sends."""
        ...
