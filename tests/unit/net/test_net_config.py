from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any

import pytest

from emuvisor.errors import ConfigError
from emuvisor.net.config import NetworkConfig


def test_a_name_is_enough() -> None:
    config = NetworkConfig("lan")
    assert (config.uplink, config.tap, config.mtu, config.anti_spoofing) == ("none", None, 1500, True)


def test_a_tap_uplink_names_the_interface() -> None:
    assert NetworkConfig("lan", uplink="tap:tap0").tap == "tap0"


def test_names_need_a_user_uplink() -> None:
    names = {"web.test": IPv4Address("10.0.2.2")}
    assert NetworkConfig("lan", uplink="user", names=names).names == names
    with pytest.raises(ConfigError) as error:
        NetworkConfig("lan", names=names)
    assert str(error.value) == "network.names: need uplink 'user'; this network's is 'none'"


def test_a_small_mtu_is_fine_without_ipv6() -> None:
    assert NetworkConfig("lan", uplink="user", mtu=576, subnet6=None).mtu == 576


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "a b"}, "network.name: 'a b' is not 1 to 64 letters, digits, '-', '_' or '.'"),
        ({"mtu": 575}, "network.mtu: 575 is outside 576 to 65535"),
        ({"mtu": 65536}, "network.mtu: 65536 is outside 576 to 65535"),
        ({"uplink": "bridge"}, "network.uplink: 'bridge' is not one of none, user, tap:NAME"),
        (
            {"uplink": "tap:"},
            "network.uplink: '' is no name of an interface (1 to 15 characters without '/', ':' and spaces)",
        ),
        (
            {"uplink": "tap:.."},
            "network.uplink: '..' is no name of an interface (1 to 15 characters without '/', ':' and spaces)",
        ),
        (
            {"subnet": IPv4Network("10.0.2.0/28")},
            "network.subnet: 10.0.2.0/28 has a prefix length outside 8 to 27",
        ),
        ({"subnet6": IPv6Network("fec0::/56")}, "network.subnet6: fec0::/56 is not a /64"),
        (
            {"uplink": "user", "mtu": 1000},
            "network.mtu: 1000 is too small for IPv6, which needs 1280; set subnet6 to nothing",
        ),
        (
            {"uplink": "user", "names": {"-x": IPv4Address("10.0.2.2")}},
            "network.names: '-x' is no host name",
        ),
        (
            {"uplink": "user", "bootfile": "a b"},
            "network.bootfile: 'a b' is not 1 to 127 characters of ASCII without spaces",
        ),
    ],
)
def test_what_cannot_be_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        NetworkConfig(**{"name": "lan", **keys})
    assert str(error.value) == message
