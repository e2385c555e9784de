"""One instance of libslirp: frames go in and come out, sockets are polled, time passes."""

import ctypes
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from emuvisor.errors import HostError
from emuvisor.net.user import library
from emuvisor.net.user.plan import Plan
from emuvisor.units import NS_PER_MS

__all__ = ["MAX_MTU", "Slirp", "SocketAddress"]

MAX_MTU = 65521
"""IF_MTU_MAX of libslirp."""
FOREVER_MS = 0xFFFF_FFFF

_TO_POLL = (
    (library.POLL_IN, select.POLLIN),
    (library.POLL_OUT, select.POLLOUT),
    (library.POLL_PRI, select.POLLPRI),
    (library.POLL_ERR, select.POLLERR),
    (library.POLL_HUP, select.POLLHUP),
)
_EVENTS = [sum(there for here, there in _TO_POLL if mask & here) for mask in range(32)]
"""libslirp's set of events to poll()'s."""
_RESULTS = [sum(here for here, there in _TO_POLL if mask & there) for mask in range(64)]
"""And back; poll() has no event above 32 here."""


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """An IP address and a port."""

    address: IPv4Address | IPv6Address
    port: int

    def pack(self) -> bytes:
        """A sockaddr_in or sockaddr_in6."""
        if isinstance(self.address, IPv4Address):
            return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", self.port, self.address.packed)
        return struct.pack("=H", socket.AF_INET6) + struct.pack(
            "!HI16sI", self.port, 0, self.address.packed, 0
        )


class _Timer:
    """One of libslirp's timers; `due_ns` is None while it is not armed."""

    def __init__(self, fire: Callable[[int | None], None], argument: int | None) -> None:
        self.fire = fire
        self.argument = argument
        self.due_ns: int | None = None


class Slirp:
    """The gateway of the network that `plan` describes; frames for the guests go to `send`.

    libslirp is not thread-safe: one thread makes all calls. `restrict` refuses all ways out,
    and without `host_loopback` guests do not reach what listens on the host's loopback addresses.
    Neither touches `forward`. libslirp sends no IP packets longer than `mtu` bytes, from 68 to MAX_MTU.

    Raises HostError without a usable libslirp.
    """

    def __init__(
        self, plan: Plan, *, mtu: int, restrict: bool, host_loopback: bool, send: Callable[[bytes], None]
    ) -> None:
        self._library = library.load()
        self._send = send
        self._timers: dict[int, _Timer] = {}
        self._next_timer = 1
        self._wanted: dict[int, int] = {}
        self._ready: Mapping[int, int] = {}
        self.sockets: set[int] = set()
        """File descriptors of all connections and flows that exist now."""
        self.guest_errors = 0
        """Packets that libslirp complained about."""
        self._callbacks = self._make_callbacks()  # libslirp keeps a pointer to it
        self._add_poll = library.AddPoll(self._want)
        self._get_events = library.GetEvents(self._events_of)
        config = _config(plan, mtu)
        config.restricted = restrict
        config.disable_host_loopback = not host_loopback
        self._slirp: int | None = self._library.slirp_new(
            ctypes.byref(config), ctypes.byref(self._callbacks), None
        )
        if not self._slirp:
            raise HostError(f"libslirp refused subnet {plan.subnet} with an MTU of {mtu}")

    def close(self) -> None:
        """Close all connections and forwards."""
        if self._slirp is not None:
            self._library.slirp_cleanup(self._slirp)
            self._slirp = None

    def input(self, frame: bytes) -> None:
        """A frame from a guest."""
        self._library.slirp_input(self._slirp, frame, len(frame))

    def wanted(self) -> tuple[Mapping[int, int], float | None]:
        """What to poll for: events by file descriptor, and for how many milliseconds at most (None: for ever)."""
        self._wanted = {}
        timeout = ctypes.c_uint32(FOREVER_MS)
        self._library.slirp_pollfds_fill(self._slirp, ctypes.byref(timeout), self._add_poll, None)
        wait = None if timeout.value == FOREVER_MS else float(timeout.value)
        due = [timer.due_ns for timer in self._timers.values() if timer.due_ns is not None]
        if due:
            until_timer = max(0.0, (min(due) - time.monotonic_ns()) / NS_PER_MS)
            wait = until_timer if wait is None else min(wait, until_timer)
        return self._wanted, wait

    def polled(self, ready: Mapping[int, int]) -> None:
        """Serve the file descriptors in `ready` (events by descriptor), and all timers that are due."""
        self._ready = ready
        self._library.slirp_pollfds_poll(self._slirp, 0, self._get_events, None)
        now = time.monotonic_ns()
        for timer in list(self._timers.values()):
            if timer.due_ns is not None and timer.due_ns <= now:
                timer.due_ns = None
                timer.fire(timer.argument)

    def forward(self, host: SocketAddress, guest: SocketAddress) -> int:
        """Forward TCP connections to `host` to `guest`; returns the host's port, which matters if it was to be any.

        Raises OSError if it cannot listen there.
        """
        before = set(self.wanted()[0])
        here, there = host.pack(), guest.pack()
        flags = library.HOSTFWD_V6ONLY if isinstance(host.address, IPv6Address) else 0
        if self._library.slirp_add_hostxfwd(self._slirp, here, len(here), there, len(there), flags):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        # libslirp does not tell its sockets; but it wants each one that listens to be polled.
        (descriptor,) = self.wanted()[0].keys() - before
        with socket.socket(fileno=os.dup(descriptor)) as listener:
            port: int = listener.getsockname()[1]
        return port

    def unforward(self, host: SocketAddress) -> None:
        """Listen at `host` no longer; connections that exist go on."""
        here = host.pack()
        self._library.slirp_remove_hostxfwd(self._slirp, here, len(here), 0)

    def _make_callbacks(self) -> library.Callbacks:
        kinds = dict(library.Callbacks._fields_)
        functions: dict[str, Callable[..., object]] = {
            "send_packet": self._send_packet,
            "guest_error": self._guest_error,
            "clock_get_ns": lambda _opaque: time.monotonic_ns(),
            "timer_new": self._timer_new,
            "timer_free": lambda timer, _opaque: self._timers.pop(timer),
            "timer_mod": self._timer_mod,
            "register_poll_fd": lambda descriptor, _opaque: self.sockets.add(descriptor),
            "unregister_poll_fd": lambda descriptor, _opaque: self.sockets.discard(descriptor),
            "notify": lambda _opaque: None,  # every turn of the uplink's thread asks for everything
        }
        return library.Callbacks(**{name: kinds[name](function) for name, function in functions.items()})

    def _send_packet(self, buffer: int, length: int, _opaque: int | None) -> int:
        self._send(ctypes.string_at(buffer, length))
        return length

    def _guest_error(self, _message: bytes, _opaque: int | None) -> None:
        self.guest_errors += 1

    def _timer_new(
        self, fire: Callable[[int | None], None], argument: int | None, _opaque: int | None
    ) -> int:
        handle = self._next_timer
        self._next_timer += 1
        self._timers[handle] = _Timer(fire, argument)
        return handle

    def _timer_mod(self, handle: int, due_ms: int, _opaque: int | None) -> None:
        self._timers[handle].due_ns = due_ms * NS_PER_MS

    def _want(self, descriptor: int, events: int, _opaque: int | None) -> int:
        self._wanted[descriptor] = _EVENTS[events]
        return descriptor  # the index by which libslirp asks for the result

    def _events_of(self, descriptor: int, _opaque: int | None) -> int:
        return _RESULTS[self._ready.get(descriptor, 0)]


def _config(plan: Plan, mtu: int) -> library.Config:
    config = library.Config(
        version=library.CONFIG_VERSION,
        in_enabled=True,
        vnetwork=_in_addr(plan.subnet.network_address),
        vnetmask=_in_addr(plan.subnet.netmask),
        vhost=_in_addr(plan.gateway),
        vnameserver=_in_addr(plan.nameserver),
        if_mtu=mtu,
        if_mru=mtu,
    )
    if plan.subnet6 is not None and plan.gateway6 is not None and plan.nameserver6 is not None:
        config.in6_enabled = True
        config.vprefix_addr6 = _in6_addr(plan.subnet6.network_address)
        config.vprefix_len = plan.subnet6.prefixlen
        config.vhost6 = _in6_addr(plan.gateway6)
        config.vnameserver6 = _in6_addr(plan.nameserver6)
    return config


def _in_addr(address: IPv4Address) -> library.InAddr:
    return library.InAddr.from_buffer_copy(address.packed)


def _in6_addr(address: IPv6Address) -> library.In6Addr:
    return library.In6Addr.from_buffer_copy(address.packed)
