"""A host's networks: cards are connected while their guest exists, and everything goes with it."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from emuvisor.errors import ConfigError, HostError, UsageError
from emuvisor.host import Host, networks
from emuvisor.host.networks import Networks
from emuvisor.machine.config import GuestConfig, KernelConfig, NicConfig
from emuvisor.net.config import NetworkConfig
from emuvisor.net.forward import Forward
from emuvisor.net.port import Port
from emuvisor.units import MIB

FREE_PORT = 49152
PATIENCE_S = 60


class FakeUplink:
    """Notes what is asked of it; port 1 of the host is always taken."""

    mac = bytes.fromhex("525500000002")

    def __init__(self, config: NetworkConfig) -> None:
        self.config = config
        self.log: list[str] = []

    def start(self, port: Port) -> None:
        self.log.append(f"start at {port.name}")

    def joined(self, name: str, port: Port) -> None:
        self.log.append(f"joined {name}")

    def left(self, name: str, port: Port) -> None:
        self.log.append(f"left {name}")

    def close(self) -> None:
        self.log.append("close")

    def add_forward(self, forward: Forward) -> Forward:
        if forward.host_port == 1:
            raise HostError(f"forward {forward}: cannot listen on the host: Permission denied")
        self.log.append(f"add {forward}")
        return forward if forward.host_port else replace(forward, host_port=FREE_PORT)

    def remove_forward(self, forward: Forward) -> None:
        self.log.append(f"remove {forward}")


@pytest.fixture
def uplinks(monkeypatch: pytest.MonkeyPatch) -> list[FakeUplink]:
    made: list[FakeUplink] = []

    def make(config: NetworkConfig) -> FakeUplink | None:
        if config.uplink == "none":
            return None
        made.append(FakeUplink(config))
        return made[-1]

    monkeypatch.setattr(networks, "_uplink", make)
    return made


@pytest.fixture
def plain() -> Iterator[Networks]:
    networks = Networks()
    networks.add(NetworkConfig("lab"))
    yield networks
    networks.close()
    assert list(networks) == []


def guest(name: str, *nics: NicConfig) -> GuestConfig:
    return GuestConfig(name=name, clock="host", nics=nics, kernel=KernelConfig(Path("k")))


def test_cards_of_two_guests_meet_on_a_network(plain: Networks) -> None:
    (a,) = plain.connect(guest("a", NicConfig("lab", "52:54:00:00:00:0a")))
    first, second = plain.connect(guest("b", NicConfig("lab", "52:54:00:00:00:0b"), NicConfig("lab")))
    assert [port.name for port in plain["lab"].ports] == ["a", "b", "b.1"]
    got: list[bytes] = []
    first.connect(lambda frame: not got.append(frame))
    second.connect(lambda frame: True)
    frame = b"\xff" * 6 + a.mac + b"\x88\xb5" + bytes(46)
    a.send(frame)
    assert got == [frame]
    plain.disconnect("b")
    assert [port.name for port in plain["lab"].ports] == ["a"]
    plain.disconnect("b")  # once is enough, twice does no harm


def test_a_network_that_is_not_there(plain: Networks) -> None:
    with pytest.raises(UsageError) as error:
        plain.connect(guest("a", NicConfig("lab"), NicConfig("lbb")))
    assert str(error.value) == "guest 'a': there is no network 'lbb'; there are: lab, user"
    assert plain["lab"].ports == ()


@pytest.mark.parametrize("name", ["lab", "user"])
def test_a_name_that_is_taken(name: str, plain: Networks) -> None:
    with pytest.raises(UsageError) as error:
        plain.add(NetworkConfig(name))
    assert str(error.value) == f"there is a network {name!r} already"


def test_forwards_need_a_way_in(plain: Networks) -> None:
    with pytest.raises(UsageError) as error:
        plain.connect(guest("a", NicConfig("lab", forwards=("tcp:8080:80",))))
    assert str(error.value) == "guest 'a': network 'lab' has no user uplink for forward tcp:8080:80"
    assert plain["lab"].ports == ()


def test_a_user_network_comes_and_goes_with_its_guest(uplinks: list[FakeUplink]) -> None:
    networks = Networks()
    ports = networks.connect(guest("web", NicConfig(forwards=("tcp:0:80",)), NicConfig()))
    assert [port.name for port in ports] == ["web", "web.1"]
    assert list(networks) == ["web-nic0", "web-nic1"]
    assert networks.uplink("web-nic0") is uplinks[0]  # type: ignore[comparison-overlap]
    assert networks.forwards("web") == [Forward("tcp", FREE_PORT, 80, guest="web")]
    networks.disconnect("web")
    assert list(networks) == []
    assert uplinks[0].log == [
        "start at uplink",
        "joined web",
        "add tcp:127.0.0.1:0:web:80",
        f"remove tcp:127.0.0.1:{FREE_PORT}:web:80",
        "left web",
        "close",
    ]
    assert uplinks[1].log == ["start at uplink", "joined web.1", "left web.1", "close"]


def test_a_port_of_the_host_that_is_taken(uplinks: list[FakeUplink]) -> None:
    networks = Networks()
    with pytest.raises(HostError) as error:
        networks.connect(guest("web", NicConfig(forwards=("tcp:0:80", "tcp:1:81"))))
    assert str(error.value) == (
        "forward tcp:127.0.0.1:1:web:81: cannot listen on the host: Permission denied"
    )
    assert list(networks) == []
    assert uplinks[0].log[-3:] == [
        f"remove tcp:127.0.0.1:{FREE_PORT}:web:80",
        "left web",
        "close",
    ]


def test_a_guest_is_connected_once(plain: Networks) -> None:
    plain.connect(guest("a"))
    with pytest.raises(UsageError) as error:
        plain.connect(guest("a"))
    assert str(error.value) == "guest 'a' is connected already"


def test_uplinks_are_waited_for_without_the_hosts_lock(
    uplinks: list[FakeUplink], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their threads wake guests, which takes it."""
    got: list[bool] = []
    with Host(8 * MIB) as host:

        def take_the_lock(*_: object) -> None:
            def take() -> None:
                got.append(host.lock.acquire(timeout=PATIENCE_S))
                if got[-1]:
                    host.lock.release()

            thread = threading.Thread(target=take)
            thread.start()
            thread.join()

        for method in ("start", "joined", "left", "close"):
            monkeypatch.setattr(FakeUplink, method, take_the_lock)
        host.add_network(NetworkConfig("out", uplink="user"))
        config = replace(guest("a", NicConfig("out"), NicConfig("user")), memory=MIB)
        host.create(config).delete()
        host.create(config)
    assert got == [True] * (1 + 3 + 3 + 3 + 3 + 1)


def test_a_guest_that_cannot_be_made_is_not_connected(tmp_path: Path) -> None:
    with Host(8 * MIB) as host:
        network = host.add_network(NetworkConfig("lab"))
        config = replace(guest("a", NicConfig("lab")), memory=MIB, devices=("nowhere:Device",))
        with pytest.raises(ConfigError):
            host.create(config)
        assert network.ports == ()
        made = host.create(replace(config, devices=()))
        assert [port.name for port in network.ports] == ["a"]
        assert made.forwards == []
        statistics = made.statistics()
        assert [nic["sent_frames"] for nic in statistics.nics] == [0]
        json.dumps(statistics.as_dict())
        made.delete()
        assert network.ports == ()
