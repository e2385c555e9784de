"""UDP from the host's ports into guests and back.

libslirp forwards UDP too, but it remembers only the last of those who send to a forward, and without host
loopback it drops the guest's answers to all that come from there.
"""

import socket
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from emuvisor.net.frames import IPV4_HEADER, IPV6_HEADER, UDP_HEADER
from emuvisor.net.user.datagram import BROADCAST_MAC, Datagram, router_mac
from emuvisor.net.user.plan import Plan
from emuvisor.net.user.slirp import SocketAddress

__all__ = ["MAX_PEERS", "UdpForwards"]

MAX_PEERS = 1024
"""Who can wait for answers at once, over all forwards; the one that has been silent for longest makes room."""
DATAGRAMS_PER_TURN = 64
EPHEMERAL_PORTS = range(49152, 65536)
"""RFC 6335: for peers whose own port another peer has."""

Address = IPv4Address | IPv6Address
Key = tuple[Address, int, int]
"""The guest's address and port, and the gateway's port that stands for the peer."""


@dataclass(frozen=True, slots=True)
class _Peer:
    listener: socket.socket
    address: Any
    """As recvfrom() gives it."""


class UdpForwards:
    """All UDP forwards of a network; frames for guests go to `send`. One thread uses it, and polls `descriptors`."""

    def __init__(self, plan: Plan, *, mtu: int, send: Callable[[bytes], None]) -> None:
        self._plan = plan
        self._mtu = mtu
        self._send = send
        self._listeners: dict[int, tuple[socket.socket, SocketAddress]] = {}
        self._peers: OrderedDict[Key, _Peer] = OrderedDict()
        self._ports: dict[tuple[socket.socket, Any], Key] = {}

    @property
    def descriptors(self) -> list[int]:
        """What to poll for reading."""
        return list(self._listeners)

    def add(self, host: SocketAddress, guest: SocketAddress) -> int:
        """Listen at `host` for `guest`; returns the host's port, which matters if it was to be any. Raises OSError."""
        family = socket.AF_INET if host.address.version == 4 else socket.AF_INET6
        listener = socket.socket(family, socket.SOCK_DGRAM)
        try:
            listener.setblocking(False)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((str(host.address), host.port))
        except OSError:
            listener.close()
            raise
        self._listeners[listener.fileno()] = (listener, guest)
        port: int = listener.getsockname()[1]
        return port

    def remove(self, host: SocketAddress) -> None:
        """Listen at `host` no longer."""
        for descriptor, (listener, _) in list(self._listeners.items()):
            if listener.getsockname()[:2] == (str(host.address), host.port):
                del self._listeners[descriptor]
                for key in [key for key, peer in self._peers.items() if peer.listener is listener]:
                    self._forget(key)
                listener.close()

    def close(self) -> None:
        """Listen nowhere any more."""
        for listener, _ in self._listeners.values():
            listener.close()
        self._listeners.clear()

    def receive(self, descriptor: int) -> None:
        """Bring what has arrived at a descriptor to its guest; what is too long for one packet is dropped."""
        listener, guest = self._listeners[descriptor]
        header = IPV4_HEADER if guest.address.version == 4 else IPV6_HEADER
        longest = self._mtu - header - UDP_HEADER
        gateway = self._plan.gateway if guest.address.version == 4 else self._plan.gateway6
        if gateway is None:
            return
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                payload, address = listener.recvfrom(longest + 1)
            except OSError:
                return  # nothing more
            if len(payload) > longest:
                continue
            datagram = Datagram(
                source_mac=router_mac(gateway),
                destination_mac=self._plan.mac_of(guest.address) or BROADCAST_MAC,
                source=gateway,
                source_port=self._port(listener, address, guest),
                destination=guest.address,
                destination_port=guest.port,
                payload=payload,
            )
            self._send(datagram.frame())

    def answer(self, datagram: Datagram) -> bool:
        """Send a guest's datagram to the peer that the gateway's port stands for; False if it stands for none."""
        key = (datagram.source, datagram.source_port, datagram.destination_port)
        peer = self._peers.get(key)
        if peer is None:
            return False
        self._peers.move_to_end(key)
        with suppress(OSError):  # UDP may lose it
            peer.listener.sendto(datagram.payload, peer.address)
        return True

    def _port(self, listener: socket.socket, address: Any, guest: SocketAddress) -> int:
        """The gateway's port that stands for the peer: its own if that is free."""
        known = self._ports.get((listener, address))
        if known is not None:
            self._peers.move_to_end(known)
            return known[2]
        if len(self._peers) == MAX_PEERS:
            self._forget(next(iter(self._peers)))
        candidates = (address[1], *EPHEMERAL_PORTS)
        port: int = next(port for port in candidates if (guest.address, guest.port, port) not in self._peers)
        key = (guest.address, guest.port, port)
        self._peers[key] = _Peer(listener, address)
        self._ports[listener, address] = key
        return port

    def _forget(self, key: Key) -> None:
        peer = self._peers.pop(key)
        del self._ports[peer.listener, peer.address]
