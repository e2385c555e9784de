"""A virtual network: a switch (the learning bridge of IEEE 802.1D, without spanning tree)."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from emuvisor.bus.ethernet import Offload
from emuvisor.errors import UsageError
from emuvisor.net.addresses import AddressBook
from emuvisor.net.capture import Capture
from emuvisor.net.config import UPLINK_USER, NetworkConfig
from emuvisor.net.frames import MAC_LENGTH
from emuvisor.net.guard import Guard
from emuvisor.net.mactable import MacTable
from emuvisor.net.offload import finish
from emuvisor.net.port import Port
from emuvisor.net.statistics import PortStatistics
from emuvisor.units import GIB

__all__ = ["MAX_PORTS", "Network"]

MAX_PORTS = 4096
CAPTURE_BYTES = GIB
"""How long a capture's file becomes if nobody says otherwise."""
_GROUP = 1
"""Bit of a MAC address's first byte: broadcast and multicast."""


class Network:
    """The stations of one virtual network, and nobody else, hear each other. Thread-safe.

    A frame goes to the port that its destination is known to be behind, and to all others if that is unknown or a
    group. Everything happens in the sender's thread. `now_ns` is for ageing, `wall_ns` (since 1970) for captures.
    """

    def __init__(
        self,
        config: NetworkConfig,
        *,
        now_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.config = config
        subnets = (config.subnet,) if config.subnet6 is None else (config.subnet, config.subnet6)
        self.addresses: AddressBook[Port] = AddressBook(subnets if config.uplink == UPLINK_USER else None)
        self._wall_ns = wall_ns
        self._macs: MacTable[Port] = MacTable(now_ns)
        self._lock = threading.Lock()
        # Tuples that are replaced as a whole: who forwards a frame takes no lock.
        self._ports: tuple[Port, ...] = ()
        self._captures: tuple[Capture, ...] = ()

    @property
    def ports(self) -> tuple[Port, ...]:
        """The ports, the oldest first."""
        return self._ports

    def statistics(self) -> dict[str, PortStatistics]:
        """Each port's counters now, by its name."""
        return {port.name: port.statistics for port in self._ports}

    def port(self, name: str, mac: bytes, *, isolated: bool = False, trusted: bool = False) -> Port:
        """A new port for the station with the address `mac`.

        Isolated ports reach only ports that are not. A `trusted` port's frames are not checked against spoofing: an
        uplink's. Raises UsageError for a MAC that is none, and a name or MAC that another port has.
        """
        if len(mac) != MAC_LENGTH or mac[0] & _GROUP or not any(mac):
            raise UsageError(
                f"network {self.config.name}: port {name} cannot have the MAC {mac.hex(':')!r}; "
                f"it takes {MAC_LENGTH} bytes, not all zero, of which the first is even"
            )
        with self._lock:
            if len(self._ports) == MAX_PORTS:
                raise UsageError(f"network {self.config.name}: has {MAX_PORTS} ports, and cannot have more")
            for other in self._ports:
                if other.name == name:
                    raise UsageError(f"network {self.config.name}: already has a port {name}")
                if other.mac == mac:
                    raise UsageError(
                        f"network {self.config.name}: port {name} cannot have the MAC {mac.hex(':')}; "
                        f"it is port {other.name}'s"
                    )
            guarded = self.config.anti_spoofing and not trusted
            guard = Guard(mac, lambda address: self.addresses.may_send(address, port)) if guarded else None
            port = Port(self, name, mac, isolated=isolated, guard=guard, mtu=self.config.mtu)
            self._macs.add(mac, port)
            self.addresses.add(port)
            self._ports = (*self._ports, port)
        return port

    def remove(self, port: Port) -> None:
        """Forget a port (`Port.close` calls this)."""
        with self._lock:
            self._ports = tuple(other for other in self._ports if other is not port)
            self._macs.remove(port)
            self.addresses.remove(port)

    def give_mac(self, mac: bytes, port: Port) -> bool:
        """`mac` is behind `port`, too, unless another port has it (`Port.tolerate` calls this)."""
        with self._lock:
            if any(other.mac == mac for other in self._ports if other is not port):
                return False
            self._macs.add(mac, port)
            return True

    def capture(self, path: Path, *, port: str | None = None, max_bytes: int = CAPTURE_BYTES) -> Capture:
        """Record what passes from now on into a pcapng file: all of the network, or what one port sends and receives.

        Raises UsageError for an unknown port, HostError if the file cannot be made.
        """
        if port is not None and all(other.name != port for other in self._ports):
            known = ", ".join(other.name for other in self._ports) or "none"
            raise UsageError(f"network {self.config.name}: has no port {port}; it has {known}")
        capture = Capture(
            path, max_bytes=max_bytes, port=port, now_ns=self._wall_ns, on_close=self._drop_capture
        )
        with self._lock:
            self._captures = (*self._captures, capture)
        return capture

    def _drop_capture(self, capture: Capture) -> None:
        with self._lock:
            self._captures = tuple(other for other in self._captures if other is not capture)

    def forward(self, source: Port, frame: bytes, offload: Offload | None) -> None:
        """Bring a frame that `source` has let pass to the ports that it is for (`Port.send` calls this)."""
        for capture in self._captures:
            capture.sent(source.name, frame, offload)
        sender = frame[MAC_LENGTH : 2 * MAC_LENGTH]
        if sender != source.mac:
            self._macs.learn(sender, source)
        owner = None if frame[0] & _GROUP else self._macs.lookup(frame[:MAC_LENGTH])
        targets = self._ports if owner is None else (owner,)
        # What several receivers need done alike is done once.
        finished: dict[int, list[tuple[bytes, Offload]]] = {}
        for target in targets:
            if target is source or (source.isolated and target.isolated):
                continue
            if offload is None or not offload.needs & ~target.accepts:
                self._deliver(target, frame, offload)
                continue
            missing = offload.needs & ~target.accepts
            pieces = finished.get(missing)
            if pieces is None:
                pieces = finished[missing] = finish(frame, offload, offload.needs & ~missing)
            for piece, left in pieces:
                self._deliver(target, piece, left)

    def _deliver(self, target: Port, frame: bytes, offload: Offload | None) -> None:
        for capture in self._captures:
            capture.received(target.name, frame, offload)
        target.deliver(frame, offload)
