import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_client import dns_addresses, dns_query

from emuvisor.net.user import dns


def test_query_is_read() -> None:
    query = dns.parse(dns_query("Web-1.Example.ORG", 28))
    assert isinstance(query, dns.Query)
    assert (query.identifier, query.name, query.type) == (0x1234, "web-1.example.org", 28)
    assert query.recursion_desired


def test_additional_records_of_a_query_do_not_matter() -> None:
    with_options = (
        dns_query("a.b")[:10] + b"\0\1" + dns_query("a.b")[12:] + bytes.fromhex("00002904d000000000 0000")
    )
    assert dns.parse(with_options) == dns.parse(dns_query("a.b"))


@pytest.mark.parametrize(
    ("message", "verdict"),
    [
        (b"", None),
        (bytes(11), None),
        (dns_query("a")[:2] + b"\x81" + dns_query("a")[3:], None),  # a response
        (dns_query("a")[:2] + b"\x28" + dns_query("a")[3:], dns.Code.NOT_IMPLEMENTED),  # UPDATE
        (dns_query("a")[:4] + b"\0\2" + dns_query("a")[6:], dns.Code.FORMAT_ERROR),
        (dns_query("a")[:6] + b"\0\1" + dns_query("a")[8:], dns.Code.FORMAT_ERROR),
        (dns_query("a")[:-1], dns.Code.FORMAT_ERROR),
        (dns_query("a")[:13], dns.Code.FORMAT_ERROR),
        (dns_query("a")[:12] + b"\xc0\x0c\0\1\0\1", dns.Code.FORMAT_ERROR),  # a pointer to itself
        (dns_query("a b"), dns.Code.FORMAT_ERROR),
        (dns_query("a\0b"), dns.Code.FORMAT_ERROR),
        (dns_query(".".join(["a" * 63] * 4)), dns.Code.FORMAT_ERROR),
        (dns_query("a")[:12] + b"\0\0\1\0\1", dns.Code.FORMAT_ERROR),  # the root
        (dns_query("a")[:-1] + b"\3", dns.Code.NOT_IMPLEMENTED),  # class CHAOS
    ],
)
def test_what_is_no_query_of_ours(message: bytes, verdict: dns.Code | None) -> None:
    assert dns.parse(message) == verdict


def query(kind: int = 1) -> dns.Query:
    parsed = dns.parse(dns_query("example.org", kind))
    assert isinstance(parsed, dns.Query)
    return parsed


def test_answer_has_the_addresses_of_the_asked_family() -> None:
    both = [IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"), IPv4Address("192.0.2.2")]
    assert dns_addresses(dns.answer(query(1), both)) == (0, [both[0], both[2]])
    assert dns_addresses(dns.answer(query(28), both)) == (0, [both[1]])
    assert dns_addresses(dns.answer(query(16), both)) == (0, [])
    assert dns_addresses(dns.answer(query(1), code=dns.Code.NAME_ERROR)) == (3, [])


def test_answer_has_as_many_as_fit() -> None:
    many = [IPv6Address(number) for number in range(1, 100)]
    answer = dns.answer(query(28), many)
    assert dns_addresses(answer) == (0, many[:17])
    assert len(answer) + 28 > dns.MAX_MESSAGE >= len(answer)


def test_answer_repeats_identifier_and_wish_for_recursion() -> None:
    message = dns_query("a")
    parsed = dns.parse(message[:2] + b"\0" + message[3:])
    assert isinstance(parsed, dns.Query)
    assert struct.unpack_from("!HH", dns.answer(parsed)) == (0x1234, 0x8080)
    assert struct.unpack_from("!HH", dns.answer(query())) == (0x1234, 0x8180)


def test_refusal_and_truncation() -> None:
    assert dns.refuse(dns_query("a"), dns.Code.FORMAT_ERROR) == bytes.fromhex("1234 8101 0000 0000 0000 0000")
    assert dns.truncated(query()) == bytes.fromhex("1234 8380 0001 0000 0000 0000") + query().question


@given(st.binary(max_size=80))
def test_any_message_is_a_query_or_is_refused(message: bytes) -> None:
    parsed = dns.parse(message)
    if isinstance(parsed, dns.Query):
        assert dns.parse(dns.answer(parsed)) is None  # an answer is no query
    elif parsed is not None:
        assert len(dns.refuse(message, parsed)) == 12
