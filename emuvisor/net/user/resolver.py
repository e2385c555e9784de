"""The name server that guests see: names of the configuration, names of guests, and what the host's resolver knows.

libslirp would hand queries to the first name server of resolv.conf, which knows neither the network's names nor what
the host finds in other ways (/etc/hosts, mDNS, several name servers). Queries for types other than addresses do go to a
name server, as they are.
"""

import queue
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from emuvisor.net.user import dns

__all__ = ["PORT", "HostLookup", "Resolver", "host_addresses", "host_nameserver"]

PORT = 53
WORKERS = 4
MAX_WAITING = 64
"""Queries that wait for a worker; who asks more gets "server failure" at once."""
RELAY_SECONDS = 5
MAX_RELAYED = 1232
"""Bytes of an answer that fits one frame on any path (DNS flag day 2020)."""
RESOLV_CONF = Path("/etc/resolv.conf")

Address = IPv4Address | IPv6Address


class Resolver:
    """Answers DNS messages in the network `domain`.

    `names` are the configuration's, `guests()` those of the network; both are known with and without `.domain`. All
    other names go to `lookup`; without one they are refused.
    """

    def __init__(
        self,
        *,
        domain: str,
        names: Mapping[str, Address],
        guests: Callable[[], Mapping[str, Sequence[Address]]],
        lookup: "HostLookup | None",
    ) -> None:
        self._suffix = f".{domain.lower()}"
        self._names = {name.lower(): (address,) for name, address in names.items()}
        self._guests = guests
        self._lookup = lookup

    def ask(self, message: bytes, reply: Callable[[bytes], None]) -> None:
        """Call `reply(answer)`, now or later in another thread, or not at all for what is no query."""
        query = dns.parse(message)
        if query is None:
            return
        if isinstance(query, dns.Code):
            reply(dns.refuse(message, query))
            return
        addresses = self._own(query.name)
        if addresses is not None:
            reply(dns.answer(query, addresses))
        elif query.name.endswith(self._suffix):
            reply(dns.answer(query, code=dns.Code.NAME_ERROR))
        elif self._lookup is None:
            reply(dns.answer(query, code=dns.Code.REFUSED))
        else:
            self._lookup.submit(query, message, reply)

    def close(self) -> None:
        """Ask the host nothing more."""
        if self._lookup is not None:
            self._lookup.close()

    def _own(self, name: str) -> Sequence[Address] | None:
        short = name.removesuffix(self._suffix)
        for known in (self._names, {guest.lower(): held for guest, held in self._guests().items()}):
            for candidate in (name, short):
                if candidate in known:
                    return known[candidate]
        return None


def host_addresses(name: str) -> list[Address] | None:
    """What the host's resolver says of `name`; None if there is no such name. Raises OSError if it cannot say.

    Both families are asked at once: that a name has no address of one family does not mean that there is no such name.
    """
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            return None
        raise
    except UnicodeError:  # a label that IDNA refuses, such as an "xn--" that decodes to nothing
        return None
    return [ip_address(str(where[0]).partition("%")[0]) for *_, where in found]


def host_nameserver(resolv_conf: Path = RESOLV_CONF) -> str | None:
    """The first name server of the host's configuration."""
    try:
        lines = resolv_conf.read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        match line.split():
            case ["nameserver", address, *_]:
                return address
    return None


class HostLookup:
    """Asks the host, in a few daemon threads, because the host's resolver blocks."""

    def __init__(
        self,
        addresses: Callable[[str], list[Address] | None] = host_addresses,
        nameserver: Callable[[], str | None] = host_nameserver,
        port: int = PORT,
    ) -> None:
        self._addresses = addresses
        self._nameserver = nameserver
        self._port = port
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(MAX_WAITING)
        self._workers = 0
        self._closed = False

    def submit(self, query: dns.Query, message: bytes, reply: Callable[[bytes], None]) -> None:
        """Answer `query`, which came as `message`. One thread submits and closes."""
        if query.type in (dns.RecordType.A, dns.RecordType.AAAA):
            work = partial(self._look_up, query, reply)
        else:
            work = partial(self._relay, query, message, reply)
        try:
            self._waiting.put_nowait(work)
        except queue.Full:
            reply(dns.answer(query, code=dns.Code.SERVER_FAILURE))
            return
        if self._workers < WORKERS:
            self._workers += 1
            threading.Thread(target=self._work, name=f"resolver {self._workers}", daemon=True).start()

    def close(self) -> None:
        """Let the threads end when what they are asking has been answered; nobody waits for that."""
        self._closed = True
        while not self._waiting.empty():
            self._waiting.get_nowait()
        for _ in range(self._workers):
            self._waiting.put_nowait(None)

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            work()

    def _look_up(self, query: dns.Query, reply: Callable[[bytes], None]) -> None:
        try:
            found = self._addresses(query.name)
        except OSError:
            reply(dns.answer(query, code=dns.Code.SERVER_FAILURE))
            return
        if found is None:
            reply(dns.answer(query, code=dns.Code.NAME_ERROR))
        else:
            reply(dns.answer(query, found))

    def _relay(self, query: dns.Query, message: bytes, reply: Callable[[bytes], None]) -> None:
        nameserver = self._nameserver()
        if nameserver is None:
            reply(dns.answer(query, code=dns.Code.NOT_IMPLEMENTED))
            return
        try:
            reply(_exchange(message, query, nameserver, self._port))
        except (OSError, UnicodeError):  # UnicodeError: what resolv.conf names is no address at all
            reply(dns.answer(query, code=dns.Code.SERVER_FAILURE))


def _exchange(message: bytes, query: dns.Query, nameserver: str, port: int) -> bytes:
    """The name server's answer; a truncated one if it is too long. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(nameserver, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as asking:
        asking.settimeout(RELAY_SECONDS)
        asking.connect(address)
        asking.send(message)
        answer = asking.recv(0xFFFF)
    return answer if len(answer) <= MAX_RELAYED else dns.truncated(query)
