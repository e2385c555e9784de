"""A port of a virtual network: where one guest's card, or an uplink, is plugged in."""

import threading
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from emuvisor.bus.ethernet import SEGMENTATION, Offload, Station
from emuvisor.net.frames import ETHERNET_HEADER, MAX_VLAN_TAGS, VLAN_TAG, network_header
from emuvisor.net.guard import Guard
from emuvisor.net.offload import fits
from emuvisor.net.statistics import Drop, Flow, PortStatistics

if TYPE_CHECKING:
    from emuvisor.net.network import Network

__all__ = ["Port"]


class _Plain:
    """A station that is a function and takes finished frames only."""

    accepts = 0

    def __init__(self, take: Callable[[bytes], bool]) -> None:
        self._take = take

    def receive(self, frame: bytes, _offload: Offload | None, /) -> bool:
        return self._take(frame)

    def link_changed(self) -> None:
        """Nothing to do: `Port.send` drops what is sent while the link is down."""


class Port:
    """One station's connection to a network; a `Link`. Made by `Network.port`. Everything is thread-safe.

    A frame may come with an `Offload`. It reaches each receiver with the needs that its `Station.accepts`; for others
    it is finished here. A receiver that accepts segmentation but not CHECKSUM gets one long frame with a complete
    checksum, which is a valid IP packet, only longer than the MTU.
    """

    def __init__(
        self, network: "Network", name: str, mac: bytes, *, isolated: bool, guard: Guard | None, mtu: int
    ) -> None:
        self.name = name
        self.mac = mac
        self.isolated = isolated
        self._network = network
        self._guard = guard
        self.mtu = mtu
        self._longest = ETHERNET_HEADER + mtu
        self._station: Station | None = None
        self._up = True
        self._lock = threading.Lock()
        self._sent = Flow()
        self._received = Flow()

    def __repr__(self) -> str:
        return f"<Port {self.name} of {self._network.config.name}>"

    @property
    def up(self) -> bool:
        """Whether the cable is plugged in; nothing passes otherwise. Settable."""
        return self._up

    @up.setter
    def up(self, up: bool) -> None:
        if up != self._up:
            self._up = up
            station = self._station
            if station is not None:
                station.link_changed()

    def attach(self, station: Station) -> None:
        """From now on frames go to `station`."""
        self._station = station

    def connect(self, receive: Callable[[bytes], bool]) -> None:
        """From now on frames go to `receive(frame)`, finished; it returns False if it has no room, and never blocks.

        It is called in the senders' threads.
        """
        self._station = _Plain(receive)

    def allow(self, address: IPv4Address | IPv6Address) -> None:
        """`address` is this port's from now on, and no other's: by configuration, or because DHCP has given it.

        From then on the port may send only from addresses that it was given, among those of the same family.
        """
        self._network.addresses.give(address, self)

    def tolerate(self, mac: bytes) -> bool:
        """Let the station go on with `mac`, an address that it had before it came here, besides the port's own. False
        when another port has it."""
        if not self._network.give_mac(mac, self):
            return False
        if self._guard is not None:
            self._guard.allow(mac)
        return True

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """Those that were given to the port, and those that it is known to use."""
        return self._network.addresses.of(self)

    @property
    def statistics(self) -> PortStatistics:
        """The counters now."""
        with self._lock:
            return PortStatistics(
                sent_frames=self._sent.frames,
                sent_bytes=self._sent.bytes,
                received_frames=self._received.frames,
                received_bytes=self._received.bytes,
                sent_dropped=Counter(self._sent.dropped),
                received_dropped=Counter(self._received.dropped),
            )

    def close(self) -> None:
        """Unplug the station and give its MAC and addresses back."""
        self._up = False
        self._station = None
        self._network.remove(self)

    def send(self, frame: bytes, offload: Offload | None = None) -> None:
        """Put a frame on the wire: to the station that it is for, or to all. Never blocks, never raises."""
        drop = self._refuse(frame, offload)
        with self._lock:
            if drop is not None:
                self._sent.dropped[drop] += 1
                return
            self._sent.frames += 1
            self._sent.bytes += len(frame)
        self._network.forward(self, frame, offload)

    def drop(self, reason: Drop) -> None:
        """A frame of the station's got lost on its way here, for `reason`."""
        with self._lock:
            self._sent.dropped[reason] += 1

    def deliver(self, frame: bytes, offload: Offload | None) -> None:
        """Give the station a frame that it accepts."""
        station = self._station
        if not self._up:
            drop = Drop.LINK_DOWN
        elif station is None:
            drop = Drop.NOBODY
        elif station.receive(frame, offload):
            with self._lock:
                self._received.frames += 1
                self._received.bytes += len(frame)
            return
        else:
            drop = Drop.NOT_TAKEN
        with self._lock:
            self._received.dropped[drop] += 1

    @property
    def accepts(self) -> int:
        """The needs that frames for the station may come with."""
        station = self._station
        return 0 if station is None else station.accepts

    def _refuse(self, frame: bytes, offload: Offload | None) -> Drop | None:
        if not self._up:
            return Drop.LINK_DOWN
        if len(frame) < ETHERNET_HEADER:
            return Drop.TOO_SHORT
        if offload is not None and not fits(frame, offload, self.mtu):
            return Drop.BAD_OFFLOAD
        if (
            len(frame) > self._longest
            and (offload is None or not offload.needs & SEGMENTATION)
            and self._too_long(frame)
        ):
            return Drop.TOO_LONG
        return None if self._guard is None else self._guard.refuse(frame)

    def _too_long(self, frame: bytes) -> bool:
        """VLAN tags do not count."""
        if len(frame) > self._longest + MAX_VLAN_TAGS * VLAN_TAG:
            return True
        found = network_header(frame)
        return found is None or len(frame) - found[1] > self.mtu
