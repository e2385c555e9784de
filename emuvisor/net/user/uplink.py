"""The user-mode uplink: a thread between a network's port and the host's sockets."""

import select
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from emuvisor.bus.ethernet import TSO4, TSO6, Link, Offload
from emuvisor.errors import ConfigError, HostError, StateError
from emuvisor.net.config import NetworkConfig
from emuvisor.net.forward import Forward
from emuvisor.net.frames import (
    ETHERNET_HEADER,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    MAC_LENGTH,
    PROTOCOL_UDP,
    word,
)
from emuvisor.net.inbox import Inbox
from emuvisor.net.port import Port
from emuvisor.net.user import datagram, dhcp, resolver, segments
from emuvisor.net.user.datagram import Datagram
from emuvisor.net.user.egress import (
    IPV4_DESTINATION,
    IPV4_PROTOCOL,
    IPV6_DESTINATION,
    IPV6_NEXT,
    Egress,
    Refusal,
)
from emuvisor.net.user.plan import Plan
from emuvisor.net.user.slirp import Slirp, SocketAddress
from emuvisor.net.user.udp_forward import UdpForwards

__all__ = ["UserUplink"]

ADDRESS_LENGTH = 4
ADDRESS6_LENGTH = 16

T = TypeVar("T")


class UserUplink:
    """A `Station` for a trusted port of the network that `config` describes.

    `start` it with its port, and tell it of each guest's port by `joined` and `left`. All methods can be called from
    any thread; nothing that a guest sends raises.

    Raises HostError without a usable libslirp.
    """

    accepts = TSO4 | TSO6
    """libslirp takes TCP segments of any length, if their checksums are complete."""

    def __init__(self, config: NetworkConfig, *, lookup: resolver.HostLookup | None = None) -> None:
        self._config = config
        self._plan = Plan(config.subnet, config.subnet6)
        self.mac = datagram.router_mac(self._plan.gateway)
        self.refused: Counter[Refusal] = Counter()
        """Frames of guests that did not leave the network, by reason."""
        self._port: Link | None = None
        self._thread: threading.Thread | None = None
        self._inbox = Inbox()
        self._jobs: deque[Callable[[], None]] = deque()
        """For the thread; appended under the inbox's lock, so that none comes behind the last."""
        self._poller = select.poll()
        self._polled: dict[int, int] = {}
        self._forwards: dict[Forward, Forward] = {}
        """What was asked for, and what became of it."""
        self._waiting: list[Forward] = []
        """Those that lead to the IPv6 address of a guest whose MAC is not known yet."""
        self._slirp = Slirp(
            self._plan,
            mtu=segments.slirp_mtu(config.mtu),
            restrict=config.restrict,
            host_loopback=config.host_loopback,
            send=self._send_from_slirp,
        )
        self._egress = Egress(self._plan, self._slirp.sockets)
        self._udp = UdpForwards(self._plan, mtu=config.mtu, send=self._send)
        self._dhcp = dhcp.DhcpServer(
            self._plan,
            domain=config.name,
            mtu=config.mtu,
            bootfile=config.bootfile,
            strangers=not config.anti_spoofing,
        )
        outside = None if config.restrict else lookup or resolver.HostLookup()
        self._resolver = resolver.Resolver(
            domain=config.name, names=config.names, guests=self._guest_names, lookup=outside
        )
        own = (self._plan.gateway, self._plan.nameserver, IPv4Address("255.255.255.255"))
        self._own = {address.packed for address in own}
        self._own |= {address.packed for address in (self._plan.gateway6, self._plan.nameserver6) if address}

    # The network's side.

    def start(self, port: Port) -> None:
        """Open the configuration's forwards, plug into `port`, and begin.

        Raises ConfigError or HostError for a forward that is impossible; then nothing runs.
        """
        self._port = port
        for address in self._plan.routers:
            port.allow(address)  # no guest's then, whatever it sends
        try:
            for forward in self._config.forwards:
                self._open(forward)
        except (ConfigError, HostError):
            self._shut()
            raise
        self._thread = threading.Thread(target=self._run, name=f"uplink {self._config.name}", daemon=True)
        self._thread.start()
        port.attach(self)

    def joined(self, name: str, port: Port) -> None:
        """The guest `name` has been plugged into `port`: choose its address, the same for the same MAC.

        Raises ConfigError when the subnet is full; HostError if a forward that waited for this guest cannot be opened.
        """
        port.allow(self._plan.join(name, port.mac))
        self._call(self._open_waiting)

    def left(self, name: str, port: Port) -> None:
        """There is no guest at `port` any more; its MAC keeps its address."""
        self._plan.leave(name, port.mac)

    def tolerates(self, port: Port, mac: bytes) -> None:
        """The guest at `port` may go on with `mac`, an address that it had before it was plugged in."""
        self._plan.alias(port.mac, mac)

    def receive(self, frame: bytes, _offload: Offload | None, /) -> bool:
        """A frame from a guest, its checksums complete; False if there are too many already."""
        return self._inbox.put(frame)

    def link_changed(self) -> None:
        """Nothing to do: the port drops what is sent while the link is down."""

    def close(self) -> None:
        """Close all connections and forwards, and end the thread."""
        self._inbox.end(self._thread)
        self._shut()

    # Forwards.

    @property
    def forwards(self) -> tuple[Forward, ...]:
        """Those that are open, with the ports of the host that they got."""
        return tuple(self._forwards.values())

    def address(self, name: str) -> IPv4Address:
        """The address that the guest `name` has or will have. Raises ConfigError when the subnet is full."""
        return self._plan.reserve(name)

    def add_forward(self, forward: Forward) -> Forward:
        """Open a forward; returns it with the host's port that it got.

        Raises ConfigError for a guest that cannot be reached, HostError if the host cannot listen there.
        """
        return self._call(partial(self._open, forward)) or forward

    def remove_forward(self, forward: Forward) -> None:
        """Close a forward, as it was asked for or as it was opened; connections that exist go on."""
        self._call(partial(self._close_forward, forward))

    def _open(self, forward: Forward) -> Forward | None:
        """None if the forward has to wait for its guest."""
        guest = self._guest_address(forward)
        if guest is None:
            self._waiting.append(forward)
            return None
        host = SocketAddress(forward.host_address, forward.host_port)
        there = SocketAddress(guest, forward.guest_port)
        try:
            port = (
                self._slirp.forward(host, there) if forward.protocol == "tcp" else self._udp.add(host, there)
            )
        except OSError as error:
            raise HostError(f"forward {forward}: cannot listen on the host: {error.strerror}") from None
        opened = replace(forward, host_port=port)
        self._forwards = {**self._forwards, forward: opened}
        return opened

    def _open_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for forward in waiting:
            self._open(forward)

    def _close_forward(self, forward: Forward) -> None:
        self._waiting = [other for other in self._waiting if other != forward]
        for asked, opened in self._forwards.items():
            if forward in (asked, opened):
                self._forwards = {key: value for key, value in self._forwards.items() if key != asked}
                host = SocketAddress(opened.host_address, opened.host_port)
                (self._slirp.unforward if opened.protocol == "tcp" else self._udp.remove)(host)
                return

    def _guest_address(self, forward: Forward) -> IPv4Address | IPv6Address | None:
        guest = forward.guest
        six = forward.host_address.version == 6
        if six and self._plan.subnet6 is None:
            raise ConfigError(f"forward {forward}: network {self._config.name} has no IPv6 (subnet6)")
        if isinstance(guest, IPv4Address | IPv6Address):
            subnet = self._plan.subnet6 if six else self._plan.subnet
            if subnet is None or guest not in subnet:
                raise ConfigError(f"forward {forward}: {guest} is not in the network's {subnet}")
            return guest
        address = self._plan.first_guest if guest is None else self._plan.reserve(guest)
        return self._plan.address6(address) if six else address

    def _guest_names(self) -> dict[str, list[IPv4Address | IPv6Address]]:
        names: dict[str, list[IPv4Address | IPv6Address]] = {}
        for name, address in self._plan.names().items():
            address6 = self._plan.address6(address)
            names[name] = [address] if address6 is None else [address, address6]
        return names

    # The thread.

    def _call(self, function: Callable[[], T]) -> T:
        """Run `function` in the uplink's thread, where libslirp is; before there is one, here."""
        if self._thread is None and not self._inbox.closing:
            return function()
        future: Future[T] = Future()

        def job() -> None:
            try:
                future.set_result(function())
            except (ConfigError, HostError) as error:
                future.set_exception(error)

        with self._inbox.lock:
            if self._inbox.closed:
                raise StateError(f"network {self._config.name}: its uplink is closed")
            self._jobs.append(job)
        self._inbox.wake()
        return future.result()

    def _run(self) -> None:
        try:
            while not self._inbox.closing:
                self._turn()
        finally:
            self._shut()

    def _turn(self) -> None:
        wanted, wait = self._slirp.wanted()
        self._register(
            {
                **wanted,
                **dict.fromkeys(self._udp.descriptors, select.POLLIN),
                self._inbox.descriptor: select.POLLIN,
            }
        )
        ready = dict(self._poller.poll(wait if self._inbox.may_sleep() and not self._jobs else 0))
        self._inbox.awake(woken=bool(ready.pop(self._inbox.descriptor, 0)))
        while self._jobs:
            self._jobs.popleft()()
        for frame in self._inbox.frames():
            self._take(frame)
        self._slirp.polled(ready)  # last: it also sends what waited for an answer to ARP that has just come
        for descriptor in self._udp.descriptors:
            if descriptor in ready:
                self._udp.receive(descriptor)

    def _register(self, wanted: dict[int, int]) -> None:
        """Tell the poller what has changed."""
        for descriptor in self._polled.keys() - wanted.keys():
            self._poller.unregister(descriptor)
        for descriptor, events in wanted.items():
            if self._polled.get(descriptor) != events:
                self._poller.register(descriptor, events)
        self._polled = wanted

    def _take(self, frame: bytes) -> None:
        """A frame from a guest: answer it here, give it to libslirp, or refuse it."""
        if self._is_own_udp(frame):
            found = datagram.parse(frame)
            if found is not None and self._answer(found):
                return
        reason = self._egress.refuse(frame)
        if reason is None:
            self._slirp.input(segments.widen_mss(frame, self._config.mtu))
        else:
            self.refused[reason] += 1

    def _is_own_udp(self, frame: bytes) -> bool:
        """Whether the uplink itself could be meant; a quick look."""
        if len(frame) < IPV4_DESTINATION + ADDRESS_LENGTH:
            return False
        ethertype = word(frame, 2 * MAC_LENGTH)
        if ethertype == ETHERTYPE_IPV4:
            return (
                frame[IPV4_PROTOCOL] == PROTOCOL_UDP
                and frame[IPV4_DESTINATION : IPV4_DESTINATION + ADDRESS_LENGTH] in self._own
            )
        return (
            ethertype == ETHERTYPE_IPV6
            and frame[IPV6_NEXT] == PROTOCOL_UDP
            and frame[IPV6_DESTINATION : IPV6_DESTINATION + ADDRESS6_LENGTH] in self._own
        )

    def _answer(self, request: Datagram) -> bool:
        """Serve a datagram to one of our own addresses; False if it is not for us after all."""
        if request.destination.version == 4 and request.destination_port == dhcp.SERVER_PORT:
            answer = self._dhcp.answer(request)
            if answer is not None:
                self._send(answer.frame())
            return True
        if request.destination in (self._plan.nameserver, self._plan.nameserver6):
            if request.destination_port == resolver.PORT:
                self._resolver.ask(request.payload, partial(self._answer_later, request))
            return True
        return self._udp.answer(request)

    def _answer_later(self, request: Datagram, payload: bytes) -> None:
        """From any thread."""
        self._send(request.reply(payload).frame())

    def _send(self, frame: bytes, offload: Offload | None = None) -> None:
        if self._port is not None and not self._inbox.closing:
            self._port.send(frame, offload)

    def _send_from_slirp(self, frame: bytes) -> None:
        mtu = self._config.mtu
        if len(frame) <= ETHERNET_HEADER + mtu:
            self._send(frame)
        elif (cut := segments.cut_by_cards(frame, mtu)) is not None:
            self._send(*cut)

    def _shut(self) -> None:
        if not self._inbox.close():
            return
        while self._jobs:
            self._jobs.popleft()()
        self._slirp.close()
        self._udp.close()
        self._resolver.close()
        self._forwards = {}
