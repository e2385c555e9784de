from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from emuvisor.errors import ConfigError
from emuvisor.net.user.plan import Plan

SMALL = IPv4Network("192.0.2.32/27")


def mac(number: int) -> bytes:
    return b"\x52\x54\0" + number.to_bytes(3, "big")


def test_addresses_go_out_in_order_and_stay() -> None:
    plan = Plan(IPv4Network("10.0.2.0/24"), IPv6Network("fec0::/64"))
    assert [str(plan.join(f"g{number}", mac(number))) for number in range(3)] == [
        "10.0.2.15",
        "10.0.2.16",
        "10.0.2.17",
    ]
    plan.leave("g1", mac(1))
    assert plan.names() == {"g0": IPv4Address("10.0.2.15"), "g2": IPv4Address("10.0.2.17")}
    assert plan.join("other", mac(1)) == IPv4Address("10.0.2.16")
    assert plan.name_of(IPv4Address("10.0.2.16")) == "other"
    assert plan.name_of(IPv4Address("10.0.2.99")) is None
    assert plan.mac_of(IPv4Address("10.0.2.16")) == mac(1)
    assert plan.address6(IPv4Address("10.0.2.16")) == IPv6Address("fec0::5054:ff:fe00:1")
    assert plan.mac_of(IPv6Address("fec0::5054:ff:fe00:1")) == mac(1)
    assert plan.address6(IPv4Address("10.0.2.99")) is None


def test_a_card_with_a_second_mac_has_one_address() -> None:
    plan = Plan(IPv4Network("10.0.2.0/24"), None)
    address = plan.join("clone", mac(1))
    plan.alias(mac(1), mac(2))
    assert plan.lease(mac(2), strangers=False) == plan.lease(mac(1), strangers=False) == address
    assert plan.mac_of(address) == mac(1)
    other = plan.join("other", mac(3))
    plan.alias(mac(1), mac(3))
    assert plan.lease(mac(3), strangers=False) == other


def test_an_address_that_was_promised() -> None:
    plan = Plan(IPv4Network("10.0.2.0/24"), None)
    promised = plan.reserve("web")
    assert plan.join("db", mac(1)) == IPv4Address("10.0.2.16")
    assert plan.join("web", mac(2)) == promised == plan.reserve("web") == plan.first_guest
    assert plan.address6(promised) is None


def test_a_guest_with_two_cards_has_two_addresses() -> None:
    plan = Plan(IPv4Network("10.0.2.0/24"), None)
    first, second = plan.join("web", mac(1)), plan.join("web", mac(2))
    assert first != second
    assert plan.names() == {"web": first}
    plan.leave("web", mac(2))
    assert plan.names() == {"web": first}
    plan.leave("web", mac(1))
    assert plan.names() == {}


def test_a_subnet_that_is_full() -> None:
    plan = Plan(SMALL, None)
    last = [plan.join(f"g{number}", mac(number)) for number in range(16)][-1]
    assert last == IPv4Address("192.0.2.62")
    assert plan.lease(mac(99), strangers=True) is None
    for take in (lambda: plan.join("web", mac(99)), lambda: plan.reserve("web")):
        with pytest.raises(ConfigError) as raised:
            take()
        assert str(raised.value) == "network: subnet 192.0.2.32/27 has no address left for web"
    assert plan.join("g3", mac(3)) == plan.lease(mac(3), strangers=False)


def test_strangers() -> None:
    plan = Plan(SMALL, None)
    assert plan.lease(mac(1), strangers=False) is None
    address = plan.lease(mac(1), strangers=True)
    assert address == plan.first_guest
    assert plan.lease(mac(1), strangers=False) == address
