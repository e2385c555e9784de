"""Which frames the driver wants: receive modes, MAC table, VLAN table (virtio 1.2, sections 5.1.6.5.1 to 5.1.6.5.3)."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Self

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Flag, Numbers, load_fields, save_fields
from emuvisor.errors import SnapshotError

__all__ = ["MAC_LENGTH", "MAX_MAC_TABLE", "VLANS", "ReceiveFilter", "split_addresses"]

MAC_LENGTH = 6
BROADCAST = b"\xff" * MAC_LENGTH
GROUP = 1
"""Bit of a MAC address's first byte."""
TAG_PROTOCOL = slice(12, 14)
VLAN_TPID = b"\x81\x00"
TAGGED_HEADER = 18
VLAN_MASK = 0x0FFF
VLANS = VLAN_MASK + 1
MAX_MAC_TABLE = 256
"""Addresses of each kind. For more, the device takes all of the kind, as it may."""

_DEVICE = "virtio-net-filter"
_VERSION = 1
_FIELDS = Fields(
    {
        "mac": Data(MAC_LENGTH, minimum=MAC_LENGTH),
        "promiscuous": Flag(),
        "all_multicast": Flag(),
        "all_unicast": Flag(),
        "no_multicast": Flag(),
        "no_unicast": Flag(),
        "no_broadcast": Flag(),
        "unicast_overflow": Flag(),
        "multicast_overflow": Flag(),
        "filter_vlans": Flag(),
    }
)
_ALL_FIELDS = Fields(
    {
        **_FIELDS,
        "unicast": Data(MAX_MAC_TABLE * MAC_LENGTH),
        "multicast": Data(MAX_MAC_TABLE * MAC_LENGTH),
        "vlans": Numbers(VLANS, VLAN_MASK),
    }
)


@dataclass(frozen=True)
class ReceiveFilter:
    """One state of the filter; it is replaced as a whole, because other threads look at it.

    Promiscuous until the driver says otherwise: one that does not know of filters gets everything.
    """

    mac: bytes
    promiscuous: bool = True
    all_multicast: bool = False
    all_unicast: bool = False
    no_multicast: bool = False
    no_unicast: bool = False
    no_broadcast: bool = False
    unicast: frozenset[bytes] = frozenset()
    multicast: frozenset[bytes] = frozenset()
    unicast_overflow: bool = False
    multicast_overflow: bool = False
    filter_vlans: bool = False
    vlans: frozenset[int] = frozenset()

    def takes(self, frame: bytes) -> bool:
        """Whether the driver wants this frame of at least 14 bytes."""
        if self.filter_vlans and frame[TAG_PROTOCOL] == VLAN_TPID and not self._takes_vlan(frame):
            return False
        if self.promiscuous:
            return True
        destination = frame[:MAC_LENGTH]
        if destination == BROADCAST:
            return not self.no_broadcast
        if destination[0] & GROUP:
            wanted = self.all_multicast or self.multicast_overflow or destination in self.multicast
            return wanted and not self.no_multicast
        if self.no_unicast:
            return False
        if destination == self.mac or destination in self.unicast:
            return True
        return self.all_unicast or self.unicast_overflow

    def _takes_vlan(self, frame: bytes) -> bool:
        if len(frame) < TAGGED_HEADER:
            return False
        return int.from_bytes(frame[14:16], "big") & VLAN_MASK in self.vlans

    def with_tables(self, unicast: list[bytes], multicast: list[bytes]) -> Self:
        """With these addresses in its tables."""
        return replace(
            self,
            unicast=frozenset(unicast[:MAX_MAC_TABLE]),
            multicast=frozenset(multicast[:MAX_MAC_TABLE]),
            unicast_overflow=len(unicast) > MAX_MAC_TABLE,
            multicast_overflow=len(multicast) > MAX_MAC_TABLE,
        )

    def save(self) -> SavedState:
        """The filter as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS) | {
            "unicast": b"".join(sorted(self.unicast)),
            "multicast": b"".join(sorted(self.multicast)),
            "vlans": sorted(self.vlans),
        }

    @classmethod
    def restore(cls, state: SavedState) -> Self:
        """The filter that was saved. Raises SnapshotError."""
        saved = SimpleNamespace(**dict.fromkeys(_ALL_FIELDS))
        load_fields(saved, state, _DEVICE, _VERSION, _ALL_FIELDS)
        for table in ("unicast", "multicast"):
            addresses: bytes = getattr(saved, table)
            if len(addresses) % MAC_LENGTH:
                raise SnapshotError(f"{_DEVICE}: saved field {table!r} is no list of MAC addresses")
            setattr(saved, table, frozenset(split_addresses(addresses)))
        saved.vlans = frozenset(saved.vlans)
        return cls(**vars(saved))


def split_addresses(data: bytes) -> list[bytes]:
    """The MAC addresses that stand one behind the other in `data`."""
    return [data[start : start + MAC_LENGTH] for start in range(0, len(data), MAC_LENGTH)]
