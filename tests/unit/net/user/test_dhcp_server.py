from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_client import dhcp_message, dhcp_options

from emuvisor.net.user.datagram import BROADCAST_MAC, Datagram
from emuvisor.net.user.dhcp import DhcpServer, MessageType, Option
from emuvisor.net.user.plan import Plan

MAC = bytes.fromhex("525400aabb01")
STRANGER = bytes.fromhex("525400aabb02")
BROADCAST = IPv4Address("255.255.255.255")
ADDRESS = IPv4Address("10.0.2.15")


def server(strangers: bool = False, name: str = "web") -> DhcpServer:
    plan = Plan(IPv4Network("10.0.2.0/24"), IPv6Network("fec0::/64"))
    plan.join(name, MAC)
    return DhcpServer(plan, domain="lab", mtu=1400, strangers=strangers)


def request(message: bytes, mac: bytes = MAC) -> Datagram:
    return Datagram(mac, BROADCAST_MAC, IPv4Address(0), 68, BROADCAST, 67, message)


def option(code: int, value: bytes) -> bytes:
    return bytes((code, len(value))) + value


def test_offer() -> None:
    offer = server().answer(request(dhcp_message(MAC, MessageType.DISCOVER)))
    assert offer is not None
    assert (offer.destination, offer.destination_port, offer.destination_mac) == (ADDRESS, 68, MAC)
    assert (offer.source, offer.source_port) == (IPv4Address("10.0.2.2"), 67)
    assert len(offer.payload) >= 300
    options = dhcp_options(offer.payload)
    assert options[Option.MESSAGE_TYPE] == bytes((MessageType.OFFER,))
    assert options[Option.LEASE_TIME] == (86400).to_bytes(4, "big")
    assert options[Option.INTERFACE_MTU] == (1400).to_bytes(2, "big")
    assert Option.BOOTFILE_NAME not in options


def test_clients_that_cannot_hear_unicast_yet() -> None:
    offer = server().answer(request(dhcp_message(MAC, MessageType.DISCOVER, flags=0x8000)))
    assert offer is not None
    assert (offer.destination, offer.destination_mac) == (BROADCAST, BROADCAST_MAC)


def test_renewal_goes_to_the_address_that_the_client_has() -> None:
    ack = server().answer(request(dhcp_message(MAC, MessageType.REQUEST, ciaddr=ADDRESS.packed)))
    assert ack is not None
    assert ack.destination == ADDRESS
    assert dhcp_options(ack.payload)[Option.MESSAGE_TYPE] == bytes((MessageType.ACK,))


def test_request_of_another_address_is_denied() -> None:
    wrong = option(Option.REQUESTED_ADDRESS, bytes((10, 0, 2, 77)))
    nak = server().answer(request(dhcp_message(MAC, MessageType.REQUEST, wrong)))
    assert nak is not None
    assert nak.destination == BROADCAST
    assert nak.payload[16:20] == bytes(4)
    assert set(dhcp_options(nak.payload)) == {Option.MESSAGE_TYPE, Option.SERVER_IDENTIFIER}


def test_information_without_an_address() -> None:
    ack = server().answer(request(dhcp_message(MAC, MessageType.INFORM, ciaddr=ADDRESS.packed)))
    assert ack is not None
    assert ack.payload[16:20] == bytes(4)
    assert Option.LEASE_TIME not in dhcp_options(ack.payload)


def test_a_name_that_is_no_host_name_is_not_told() -> None:
    offer = server(name="my guest").answer(request(dhcp_message(MAC, MessageType.DISCOVER)))
    assert offer is not None
    assert Option.HOST_NAME not in dhcp_options(offer.payload)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        dhcp_message(MAC, MessageType.DISCOVER)[:239],
        b"\2" + dhcp_message(MAC, MessageType.DISCOVER)[1:],  # an answer
        dhcp_message(STRANGER, MessageType.DISCOVER),  # for another MAC than the frame's
        dhcp_message(MAC, MessageType.DISCOVER)[:24]
        + b"\1"
        + dhcp_message(MAC, MessageType.DISCOVER)[25:],  # relayed
        dhcp_message(MAC, MessageType.RELEASE),
        dhcp_message(MAC, MessageType.REQUEST, option(Option.SERVER_IDENTIFIER, bytes(4))),
        dhcp_message(MAC, MessageType.DISCOVER)[:240],  # BOOTP
        dhcp_message(MAC, MessageType.DISCOVER)[:240] + b"\0\0\x35",
        dhcp_message(MAC, MessageType.DISCOVER)[:240] + b"\0\0\x35\2\1",
    ],
)
def test_what_gets_no_answer(message: bytes) -> None:
    assert server().answer(request(message)) is None


def test_strangers_get_addresses_only_where_they_may() -> None:
    message = request(dhcp_message(STRANGER, MessageType.DISCOVER), STRANGER)
    assert server().answer(message) is None
    offer = server(strangers=True).answer(message)
    assert offer is not None
    assert offer.destination == IPv4Address("10.0.2.16")


@given(st.binary(max_size=60))
def test_any_options(options: bytes) -> None:
    server().answer(request(dhcp_message(MAC, MessageType.DISCOVER)[:240] + options))
