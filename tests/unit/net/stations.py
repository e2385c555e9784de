"""A station that keeps what it is given, and a network with some of them."""

from collections.abc import Callable

from emuvisor.bus.ethernet import Offload
from emuvisor.net.config import NetworkConfig
from emuvisor.net.network import Network
from emuvisor.net.port import Port


class FakeStation:
    def __init__(self, accepts: int = 0, room: int = 1000) -> None:
        self.accepts = accepts
        self.room = room
        self.got: list[tuple[bytes, Offload | None]] = []
        self.link_changes = 0

    @property
    def frames(self) -> list[bytes]:
        return [frame for frame, _ in self.got]

    def receive(self, frame: bytes, offload: Offload | None) -> bool:
        if len(self.got) >= self.room:
            return False
        self.got.append((frame, offload))
        return True

    def link_changed(self) -> None:
        self.link_changes += 1


class Time:
    def __init__(self, ns: int) -> None:
        self.ns = ns

    def __call__(self) -> int:
        return self.ns


def make_network(
    *macs: bytes,
    accepts: int = 0,
    anti_spoofing: bool = True,
    mtu: int = 1500,
    wall_ns: Callable[[], int] = lambda: 0,
) -> tuple[Network, list[Port], list[FakeStation]]:
    """A network with a port and a station for each of `macs`, named a, b, ..."""
    network = Network(
        NetworkConfig("lan", anti_spoofing=anti_spoofing, mtu=mtu), now_ns=Time(0), wall_ns=wall_ns
    )
    ports = [network.port(chr(ord("a") + number), mac) for number, mac in enumerate(macs)]
    stations = [FakeStation(accepts) for _ in macs]
    for port, station in zip(ports, stations, strict=True):
        port.attach(station)
    return network, ports, stations
