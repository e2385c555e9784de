import queue
import socket
import threading
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from wire_client import PATIENCE, dns_addresses, dns_query

from emuvisor.net.user import dns, resolver
from emuvisor.net.user.resolver import HostLookup, Resolver, host_addresses, host_nameserver


class Answers:
    """Collects what is replied; from any thread."""

    def __init__(self) -> None:
        self.queue: queue.Queue[bytes] = queue.Queue()

    def next(self) -> bytes:
        return self.queue.get(timeout=PATIENCE)


@pytest.fixture
def answers() -> Answers:
    return Answers()


def make(lookup: HostLookup | None = None) -> Resolver:
    return Resolver(
        domain="lab",
        names={"Mirror": IPv4Address("192.0.2.1"), "web.lab": IPv4Address("192.0.2.2")},
        guests=lambda: {"web": [IPv4Address("10.0.2.15")]},
        lookup=lookup,
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mirror", (0, [IPv4Address("192.0.2.1")])),
        ("MIRROR.LAB", (0, [IPv4Address("192.0.2.1")])),
        ("web", (0, [IPv4Address("10.0.2.15")])),
        ("web.lab", (0, [IPv4Address("192.0.2.2")])),  # the configuration is asked first
        ("db.lab", (3, [])),
        ("elsewhere", (5, [])),
    ],
)
def test_own_names(name: str, expected: tuple[int, list[IPv4Address]], answers: Answers) -> None:
    make().ask(dns_query(name), answers.queue.put)
    assert dns_addresses(answers.next()) == expected


def test_hostile_messages(answers: Answers) -> None:
    server = make()
    server.ask(b"", answers.queue.put)
    server.ask(dns_query("a b"), answers.queue.put)
    assert answers.next() == bytes.fromhex("1234 8101 0000 0000 0000 0000")
    assert answers.queue.empty()
    server.close()


@pytest.mark.parametrize(
    ("outcome", "code"),
    [([], 0), (None, 3), (OSError("down"), 2)],
)
def test_what_the_host_says(outcome: object, code: int, answers: Answers) -> None:
    def addresses(name: str) -> list[IPv4Address | IPv6Address] | None:
        assert name == "example.org"
        if isinstance(outcome, OSError):
            raise outcome
        return outcome  # type: ignore[return-value]

    lookup = HostLookup(addresses)
    make(lookup).ask(dns_query("example.org"), answers.queue.put)
    assert dns_addresses(answers.next()) == (code, [])
    lookup.close()


def test_who_asks_too_much_is_told_at_once(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "WORKERS", 1)
    go, begun = threading.Event(), threading.Event()

    def slow(name: str) -> None:
        begun.set()
        assert go.wait(PATIENCE)

    lookup = HostLookup(slow)
    server = make(lookup)
    server.ask(dns_query("first.org"), answers.queue.put)
    assert begun.wait(PATIENCE)
    for _ in range(resolver.MAX_WAITING):
        server.ask(dns_query("example.org"), answers.queue.put)
    assert answers.queue.empty()
    server.ask(dns_query("example.org"), answers.queue.put)
    assert dns_addresses(answers.next()) == (2, [])
    server.close()  # what waits is forgotten; what is under way is answered
    go.set()
    assert dns_addresses(answers.next()) == (3, [])
    assert answers.queue.empty()


@pytest.mark.parametrize("length", [0, resolver.MAX_RELAYED])
def test_other_types_go_to_a_name_server(
    length: int, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "RELAY_SECONDS", PATIENCE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nameserver:
        nameserver.settimeout(PATIENCE)
        nameserver.bind(("127.0.0.1", 0))
        lookup = HostLookup(nameserver=lambda: "127.0.0.1", port=nameserver.getsockname()[1])
        message = dns_query("example.org", 16)
        make(lookup).ask(message, answers.queue.put)
        asked, client = nameserver.recvfrom(512)
        assert asked == message
        nameserver.sendto(b"answer" + bytes(length), client)
        query = dns.parse(message)
        assert isinstance(query, dns.Query)
        assert answers.next() == (dns.truncated(query) if length else b"answer")
        lookup.close()


@pytest.mark.parametrize(("nameserver", "code"), [(None, 4), ("not an address", 2), ("\udcff", 2)])
def test_without_a_name_server_that_works(nameserver: str | None, code: int, answers: Answers) -> None:
    lookup = HostLookup(nameserver=lambda: nameserver)
    make(lookup).ask(dns_query("example.org", 16), answers.queue.put)
    assert dns_addresses(answers.next()) == (code, [])
    lookup.close()


def test_name_server_of_the_host(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    assert host_nameserver(conf) is None
    conf.write_text("# nameserver 192.0.2.9\noptions edns0\nnameserver\n")
    assert host_nameserver(conf) is None
    conf.write_text("search lab\nnameserver 192.0.2.53 # first\nnameserver 192.0.2.54\n")
    assert host_nameserver(conf) == "192.0.2.53"


def test_addresses_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(name: str, *_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        if name == "none":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        if name == "down":
            raise socket.gaierror(socket.EAI_AGAIN, "later")
        if name == "xn--":
            raise UnicodeError
        return [(2, 1, 6, "", ("192.0.2.1", 0)), (10, 1, 6, "", ("fe80::1%eth0", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert host_addresses("example.org") == [IPv4Address("192.0.2.1"), IPv6Address("fe80::1")]
    assert host_addresses("none") is None
    assert host_addresses("xn--") is None
    with pytest.raises(OSError, match="later"):
        host_addresses("down")
