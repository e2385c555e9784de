"""Stock Debian guests on virtual networks: they reach who they should, and pose as nobody else."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from compatibility import Compatibility
from guests import command, expect
from network_guests import answers, boot, create, is_silent, serve_sums, set_address, transfer

from emuvisor.devices.virtio.net.features import NetFeature
from emuvisor.host import Guest, Host
from emuvisor.images.cache import Image
from emuvisor.machine.choices import BoardName, RingLayout
from emuvisor.machine.config import NicConfig
from emuvisor.net.config import NetworkConfig
from emuvisor.net.statistics import Drop
from emuvisor.units import MIB

pytestmark = pytest.mark.system

FIRST, SECOND, THIRD = "192.0.2.1", "192.0.2.2", "192.0.2.3"
CLOUD, I686 = "Debian cloud kernel (amd64)", "Debian 686 kernel (i386)"


@dataclass(frozen=True)
class Side:
    """One of two guests that talk."""

    board: BoardName
    ring: RingLayout = "split"
    fixture: str = "debian"
    queues: int = 1

    def __str__(self) -> str:
        system = "" if self.fixture == "debian" else "i386-"
        return f"{system}{self.board}-{self.ring}"

    @property
    def title(self) -> str:
        transport = "PCI" if self.board == "pc" else "MMIO"
        system = "" if self.fixture == "debian" else " (i386)"
        return f"virtio-net over {transport} with {self.ring} rings{system}"


PAIRS = [
    (1, Side("pc", queues=2), Side("pc")),
    (2, Side("pc"), Side("microvm")),
    (1, Side("microvm", "packed"), Side("microvm")),
    (2, Side("pc", "packed"), Side("pc", fixture="debian_i386")),
]


@pytest.mark.parametrize(("pcpus", "one", "other"), PAIRS, ids=str)
def test_two_guests(
    pcpus: int, one: Side, other: Side, request: pytest.FixtureRequest, compatibility: Compatibility
) -> None:
    images: list[Image] = [request.getfixturevalue(side.fixture) for side in (one, other)]
    with Host(512 * MIB, pcpus=pcpus) as host:
        host.add_network(NetworkConfig("lan"))
        first, second = (
            create(host, image, name, NicConfig("lan", queues=side.queues), board=side.board, ring=side.ring)
            for image, name, side in zip(images, ("first", "second"), (one, other), strict=True)
        )
        boot(first, second)
        set_address(first, FIRST)
        set_address(second, SECOND)
        pinged = command(first, f"ping -c 10 -i 0.01 -s 1400 {SECOND}")
        assert "10 packets transmitted, 10 packets received, 0% packet loss" in pinged
        assert first.machine.virtio is not None
        assert first.machine.virtio.nics[0].has(NetFeature.MQ) == (one.queues > 1)
        if one.board == "pc":
            assert "PCI-MSI" in command(first, "grep virtio0-input.0 /proc/interrupts")
        serve_sums(first)
        serve_sums(second)
        transfer(first, SECOND)
        transfer(second, FIRST)
    compatibility.row(
        guest=CLOUD,
        boots=f"{one.title}, with another guest: {other.title}, on {pcpus} pCPU{'s'[: pcpus - 1]}",
        checked="ping; 4 MiB by TCP each way, with checksums",
    )


@dataclass
class Lan:
    """`first` and `second` are on one network, `third` on another."""

    host: Host
    first: Guest
    second: Guest
    third: Guest


@pytest.fixture(scope="module")
def lan(debian: Image) -> Iterator[Lan]:
    with Host(512 * MIB, pcpus=2) as host:
        host.add_network(NetworkConfig("lan"))
        host.add_network(NetworkConfig("other"))
        guests = (
            create(host, debian, "first", NicConfig("lan")),
            create(host, debian, "second", NicConfig("lan"), board="microvm", ring="packed"),
            create(host, debian, "third", NicConfig("other")),
        )
        boot(*guests)
        for guest, address in zip(guests, (FIRST, SECOND, THIRD), strict=True):
            set_address(guest, address)
        lan = Lan(host, *guests)
        assert answers(lan.first, SECOND)
        yield lan


def test_networks_are_apart(lan: Lan, compatibility: Compatibility) -> None:
    assert answers(lan.first, SECOND)
    assert is_silent(lan.first, THIRD)
    assert is_silent(lan.third, SECOND)
    statistics = lan.host.networks["other"].statistics()
    assert statistics["third"].sent_frames > 0
    assert statistics["third"].received_frames == 0
    compatibility.row(
        guest=CLOUD,
        boots="three guests on two networks",
        checked="those of one network ping each other; no frame reaches the other network",
    )


def test_nobody_takes_anothers_address(lan: Lan, tmp_path: Path, compatibility: Compatibility) -> None:
    port = lan.first.nics[0]
    before = port.statistics.sent_dropped
    capture = lan.host.networks["lan"].capture(tmp_path / "second.pcapng", port="second")
    # Its neighbours would learn from ARP, or from a packet.
    command(lan.first, f"ip addr add {SECOND}/32 dev eth0")
    told = command(lan.first, f"arping -U -c 3 -w 50 -s {SECOND} {SECOND}")
    assert "Sent 3 probe(s)" in told, told
    command(lan.first, f"arp -s {THIRD} 02:00:00:00:00:03")
    assert is_silent(lan.first, THIRD, f"-I {SECOND}")
    command(lan.first, f"ip addr del {SECOND}/32 dev eth0; arp -d {THIRD}; ip neigh flush dev eth0")
    assert answers(lan.first, SECOND)
    capture.close()
    dropped = port.statistics.sent_dropped
    assert dropped[Drop.NEIGHBOUR] >= before.get(Drop.NEIGHBOUR, 0) + 3
    assert dropped[Drop.SOURCE_ADDRESS] == before.get(Drop.SOURCE_ADDRESS, 0) + 1
    # In ARP the sender's addresses stand side by side.
    heard = capture.path.read_bytes()
    assert port.mac + IPv4Address(FIRST).packed in heard
    assert port.mac + IPv4Address(SECOND).packed not in heard
    compatibility.row(
        guest=CLOUD,
        boots="a guest that takes its neighbour's IP address",
        checked="its ARP and its packets are dropped and counted; with its own address it is heard again",
    )


def test_nobody_takes_anothers_mac(lan: Lan, compatibility: Compatibility) -> None:
    port = lan.first.nics[0]
    stolen, own = lan.second.nics[0].mac.hex(":"), port.mac.hex(":")
    command(lan.first, f"ip link set eth0 down; ip link set eth0 address {stolen}; ip link set eth0 up")
    before = port.statistics.sent_dropped
    assert command(lan.first, "cat /sys/class/net/eth0/address") == stolen
    assert is_silent(lan.first, SECOND)
    assert port.statistics.sent_dropped[Drop.SOURCE_MAC] > before.get(Drop.SOURCE_MAC, 0)
    command(lan.first, f"ip link set eth0 down; ip link set eth0 address {own}; ip link set eth0 up")
    assert answers(lan.first, SECOND)
    compatibility.row(
        guest=CLOUD,
        boots="a guest that takes its neighbour's MAC address",
        checked="its frames are dropped and counted; with its own address it is heard again",
    )


@pytest.mark.parametrize("which", ["first", "second"])
def test_unplugged_and_plugged_in_again(lan: Lan, which: str, compatibility: Compatibility) -> None:
    guest: Guest = getattr(lan, which)
    port = guest.nics[0]
    carrier = "until [ $(cat /sys/class/net/eth0/carrier) = {} ]; do :; done; echo see''n\n"
    port.up = False
    expect(guest, "seen", send=carrier.format(0))
    assert is_silent(lan.first, SECOND)
    port.up = True
    expect(guest, "seen", send=carrier.format(1))
    assert answers(lan.first, SECOND)
    compatibility.row(
        guest=CLOUD,
        boots=f"virtio-net over {'PCI' if which == 'first' else 'MMIO'}, its cable unplugged and plugged in again",
        checked="the guest sees the link go and come; no traffic while it is down, then again",
    )
