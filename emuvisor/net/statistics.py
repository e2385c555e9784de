"""What passed a port and what did not, by reason."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Drop", "Flow", "PortStatistics"]


class Drop(StrEnum):
    """Why a frame went no further."""

    LINK_DOWN = "link down"
    TOO_SHORT = "too short"
    TOO_LONG = "longer than the MTU allows"
    BAD_OFFLOAD = "offload does not fit the frame"
    SOURCE_MAC = "source MAC is not the port's"
    SOURCE_ADDRESS = "source address is not the port's"
    NEIGHBOUR = "ARP or neighbour discovery for an address that is not the port's"
    ROUTER = "posing as a router or DHCP server"
    MALFORMED = "headers that cannot be read"
    CONGESTED = "more than may be on its way at a time"
    NOT_TAKEN = "receiver has no room"
    NOBODY = "nothing is plugged in"


@dataclass(slots=True)
class Flow:
    """One direction. A frame that is to be segmented yet counts once, with all its bytes."""

    frames: int = 0
    bytes: int = 0
    dropped: Counter[Drop] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class PortStatistics:
    """A port's counters at one moment: `sent` by its station, `received` by its station."""

    sent_frames: int
    sent_bytes: int
    received_frames: int
    received_bytes: int
    sent_dropped: Mapping[Drop, int]
    received_dropped: Mapping[Drop, int]
