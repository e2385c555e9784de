"""The MAC table and the address book, of which ports are just names here."""

from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest
from packets import IP_A, IP_B, MAC_A, MAC_B, MAC_C

from emuvisor.net.addresses import CLAIMS_PER_PORT, AddressBook
from emuvisor.net.mactable import AGE_NS, LEARNED_PER_PORT, MacTable
from emuvisor.net.user.plan import Plan


class Now:
    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def macs(now: Now) -> MacTable[str]:
    table: MacTable[str] = MacTable(now)
    table.add(MAC_A, "a")
    table.add(MAC_B, "b")
    return table


def mac(number: int) -> bytes:
    return b"\x02" + number.to_bytes(5, "big")


def test_a_learned_station_moves_with_its_frames(macs: MacTable[str]) -> None:
    macs.learn(MAC_C, "a")
    assert macs.lookup(MAC_C) == "a"
    macs.learn(MAC_C, "b")
    assert macs.lookup(MAC_C) == "b"
    assert len(macs) == 3


def test_a_learned_station_is_forgotten_with_time(macs: MacTable[str], now: Now) -> None:
    macs.learn(MAC_C, "a")
    now.ns = AGE_NS - 1
    assert macs.lookup(MAC_C) == "a"
    now.ns = AGE_NS
    assert macs.lookup(MAC_C) is None
    assert len(macs) == 2
    assert macs.lookup(MAC_A) == "a"


def test_a_ports_own_address_is_never_learned_elsewhere(macs: MacTable[str]) -> None:
    macs.learn(MAC_A, "b")
    assert macs.lookup(MAC_A) == "a"
    macs.learn(MAC_C, "b")
    macs.add(MAC_C, "c")
    assert macs.lookup(MAC_C) == "c"
    assert len(macs) == 3


def test_groups_are_not_learned(macs: MacTable[str]) -> None:
    macs.learn(b"\xff" * 6, "a")
    assert macs.lookup(b"\xff" * 6) is None


def test_who_invents_stations_loses_the_oldest_of_them_and_nobody_elses(macs: MacTable[str]) -> None:
    macs.learn(MAC_C, "b")
    for number in range(LEARNED_PER_PORT + 10):
        macs.learn(mac(number), "a")
        macs.learn(mac(10), "a")
    assert len(macs) == 2 + 1 + LEARNED_PER_PORT
    assert macs.lookup(MAC_C) == "b"
    assert macs.lookup(mac(0)) is None
    assert macs.lookup(mac(10)) == "a"
    assert macs.lookup(mac(LEARNED_PER_PORT + 9)) == "a"


def test_a_removed_port_has_no_stations_and_gets_none(macs: MacTable[str]) -> None:
    macs.learn(MAC_C, "a")
    macs.remove("a")
    macs.learn(MAC_C, "a")
    assert (macs.lookup(MAC_A), macs.lookup(MAC_C), len(macs)) == (None, None, 1)


SUBNETS = IPv4Network("10.0.2.0/24"), IPv6Network("fec0::/64")


def packed(address: str) -> bytes:
    return ip_address(address).packed


@pytest.fixture
def book() -> AddressBook[str]:
    book: AddressBook[str] = AddressBook()
    book.add("a")
    book.add("b")
    return book


def test_first_come_first_served(book: AddressBook[str]) -> None:
    assert book.may_send(packed(IP_A), "a")
    assert book.may_send(packed(IP_A), "a")
    assert not book.may_send(packed(IP_A), "b")
    assert book.of("a") == (ip_address(IP_A),)


def test_who_was_given_an_address_has_no_other_of_the_family(book: AddressBook[str]) -> None:
    book.give(ip_address(IP_A), "a")
    assert book.may_send(packed(IP_A), "a")
    assert not book.may_send(packed(IP_A), "b")
    assert not book.may_send(packed(IP_B), "a")
    assert book.may_send(packed("fec0::1"), "a")
    assert book.may_send(packed("fe80::1"), "a")


def test_a_link_local_address_goes_beside_given_ones(book: AddressBook[str]) -> None:
    book.give(ip_address("fec0::1"), "a")
    assert book.may_send(packed("fe80::1"), "a")
    assert not book.may_send(packed("fe80::1"), "b")
    assert not book.may_send(packed("fec0::2"), "a")


def test_what_is_given_is_taken_from_who_had_claimed_it(book: AddressBook[str]) -> None:
    assert book.may_send(packed(IP_A), "b")
    book.give(ip_address(IP_A), "a")
    assert not book.may_send(packed(IP_A), "b")
    assert book.of("b") == ()
    book.give(ip_address(IP_A), "b")
    assert book.of("a") == ()


def test_a_port_keeps_its_last_addresses(book: AddressBook[str]) -> None:
    hosts = list(SUBNETS[0].hosts())[: CLAIMS_PER_PORT + 1]
    for host in hosts:
        assert book.may_send(host.packed, "a")
    assert book.of("a") == tuple(hosts[1:])
    assert book.may_send(hosts[0].packed, "b")
    for host in hosts:
        book.give(host, "b")
    assert book.of("b") == tuple(hosts[1:])
    assert book.of("a") == ()


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_the_unspecified_address_is_everybodys(book: AddressBook[str], address: str) -> None:
    assert book.may_send(packed(address), "a")
    assert book.may_send(packed(address), "b")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "224.0.0.1", "ff02::1", "255.255.255.255"])
def test_some_addresses_are_nobodys(book: AddressBook[str], address: str) -> None:
    assert not book.may_send(packed(address), "a")


@pytest.mark.parametrize(
    ("address", "expected"),
    [(IP_A, True), ("fec0::1", True), ("fe80::1", True), ("10.0.3.1", False), ("10.0.2.255", False)],
)
def test_with_subnets_only_their_addresses_can_be_claimed(address: str, expected: bool) -> None:
    book: AddressBook[str] = AddressBook(SUBNETS)
    book.add("a")
    assert book.may_send(packed(address), "a") is expected


def test_a_removed_port_has_no_addresses_and_gets_none(book: AddressBook[str]) -> None:
    assert book.may_send(packed(IP_A), "a")
    book.remove("a")
    assert not book.may_send(packed(IP_A), "a")
    book.give(ip_address(IP_A), "a")
    assert book.of("a") == ()
    assert book.may_send(packed(IP_A), "b")


def test_an_address_that_was_claimed_meanwhile_is_the_others() -> None:
    class Racing(AddressBook[str]):
        def _claimable(self, address: object) -> bool:
            self._owner[packed(IP_A)] = "b"  # as another thread does between the first look and the lock
            return True

    book = Racing()
    book.add("a")
    assert not book.may_send(packed(IP_A), "a")


def test_a_user_uplink_has_addresses_that_no_guest_gets() -> None:
    assert [str(address) for address in Plan(*SUBNETS).routers] == [
        "10.0.2.2",
        "10.0.2.3",
        "fec0::2",
        "fec0::3",
        "fe80::2",
        "fe80::3",
    ]
    assert [str(address) for address in Plan(SUBNETS[0], None).routers] == ["10.0.2.2", "10.0.2.3"]
