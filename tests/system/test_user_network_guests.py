"""Stock Debian guests on a network with a user uplink: DHCP, DNS, the gateway, HTTP out and in."""

import hashlib
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from random import Random

import pytest
from compatibility import Compatibility
from guests import command, expect
from network_guests import GATEWAY, GATEWAY6, answers, boot, create, lease, web_server

from emuvisor.host import Guest, Host
from emuvisor.images.cache import Image
from emuvisor.machine.config import NicConfig
from emuvisor.net.config import NetworkConfig
from emuvisor.net.network import Network
from emuvisor.units import MIB

pytestmark = pytest.mark.system

CLOUD = "Debian cloud kernel (amd64)"
ON_PCI, ON_MMIO = "virtio-net over PCI, user network", "virtio-net over MMIO with packed rings, user network"
CONFIGURED_NAME, CONFIGURED_ADDRESS = "mirror.test", "192.0.2.80"
FILE = Random(4).randbytes(4 * MIB)
FILE_SHA256 = hashlib.sha256(FILE).hexdigest()
TIMEOUT_S = 240


@dataclass
class Lan:
    """Two guests with leases. `pci` has forwards to its port 80 from IPv4 and IPv6."""

    network: Network
    pci: Guest
    mmio: Guest
    addresses: tuple[str, str]

    def guest(self, boots: str) -> Guest:
        return self.pci if boots is ON_PCI else self.mmio


@pytest.fixture(scope="module")
def lan(debian: Image) -> Iterator[Lan]:
    config = NetworkConfig(
        "lan",
        uplink="user",
        host_loopback=True,
        names={CONFIGURED_NAME: IPv4Address(CONFIGURED_ADDRESS)},
    )
    with Host(512 * MIB, pcpus=2) as host:
        network = host.add_network(config)
        forwards = ("tcp:0:80", "tcp:[::1]:0:80")
        pci = create(host, debian, "pci", NicConfig("lan", forwards=forwards))
        mmio = create(host, debian, "mmio", NicConfig("lan"), board="microvm", ring="packed")
        boot(pci, mmio)
        addresses = (lease(pci), lease(mmio))
        yield Lan(network, pci, mmio, addresses)


@pytest.fixture(scope="module")
def www(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in this process, as guests see it."""
    folder = tmp_path_factory.mktemp("www")
    (folder / "file").write_bytes(FILE)
    with web_server(folder) as port:
        yield f"http://{GATEWAY}:{port}/file"


@pytest.mark.parametrize("boots", [ON_PCI, ON_MMIO], ids=["pci", "mmio"])
def test_addresses_names_and_http(lan: Lan, boots: str, www: str, compatibility: Compatibility) -> None:
    guest = lan.guest(boots)
    own, other = lan.addresses if guest is lan.pci else reversed(lan.addresses)
    assert lan.addresses == ("10.0.2.15", "10.0.2.16")
    assert f"inet {own}/24 brd 10.0.2.255 " in command(guest, "ip -4 addr show eth0")
    assert command(guest, "ip route") == (
        f"default via {GATEWAY} dev eth0 \n10.0.2.0/24 dev eth0 scope link  src {own}"
    )
    assert command(guest, "cat /etc/resolv.conf") == "search lan\nnameserver 10.0.2.3"

    neighbour = "mmio" if guest is lan.pci else "pci"
    assert f"Address: {other}\n" in command(guest, f"nslookup {neighbour}.lan") + "\n"
    assert f"Address: {CONFIGURED_ADDRESS}\n" in command(guest, f"nslookup {CONFIGURED_NAME}") + "\n"
    assert "NXDOMAIN" in command(guest, "nslookup nobody.lan")

    assert answers(guest, GATEWAY)
    assert answers(guest, neighbour)
    # The address comes by a router advertisement, and is tentative for a second.
    expect(guest, "seen", send="until ip -6 route | grep -q ^default; do :; done; echo see''n\n")
    expect(guest, "seen", send="while ip -6 addr show eth0 | grep -q tentative; do :; done; echo see''n\n")
    assert "inet6 fec0::" in command(guest, "ip -6 addr show eth0")
    assert answers(guest, GATEWAY6, "-6")

    assert command(guest, f"wget -q -O - {www} | sha256sum") == f"{FILE_SHA256}  -"
    compatibility.row(
        guest=CLOUD,
        boots=boots,
        checked="udhcpc; nslookup; IPv6 by router advertisement; pings; wget of 4 MiB from the host, with checksum",
    )


def test_http_into_a_guest(lan: Lan, compatibility: Compatibility) -> None:
    forwards = lan.pci.forwards
    assert [(str(f.host_address), f.guest, f.guest_port) for f in forwards] == [
        ("127.0.0.1", "pci", 80),
        ("::1", "pci", 80),
    ]
    command(lan.pci, "mkdir /www; dd if=/dev/urandom of=/www/file bs=64k count=64 2>/dev/null")
    command(lan.pci, "httpd -p 80 -h /www; until netstat -ltn | grep -q :80; do :; done")
    sha256 = command(lan.pci, "sha256sum < /www/file").split()[0]
    for url in (f"http://127.0.0.1:{forwards[0].host_port}", f"http://[::1]:{forwards[1].host_port}"):
        with urllib.request.urlopen(f"{url}/file", timeout=TIMEOUT_S) as answer:
            data: bytes = answer.read()
        assert len(data) == 4 * MIB
        assert hashlib.sha256(data).hexdigest() == sha256
    compatibility.row(
        guest=CLOUD,
        boots=f"{ON_PCI} with forwards",
        checked="4 MiB from its httpd to the host by forwards from 127.0.0.1 and ::1, with checksum",
    )


def test_a_capture_that_tshark_reads(
    lan: Lan, www: str, tmp_path: Path, compatibility: Compatibility
) -> None:
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("no tshark on this machine; on Debian: apt-get install tshark")
    capture = lan.network.capture(tmp_path / "session.pcapng")
    assert answers(lan.pci, GATEWAY)
    assert command(lan.pci, f"wget -q -O - {www} | wc -c") == str(len(FILE))
    capture.close()
    assert capture.missed == 0

    def read(packets: str, *fields: str) -> list[str]:
        options = ("-2", "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-T", "fields")
        columns = [argument for field in fields for argument in ("-e", field)]
        done = subprocess.run(
            [tshark, "-n", "-r", capture.path, *options, "-Y", packets, *columns],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    assert read("icmp", "icmp.type") == ["8", "0"]
    assert read("http.request", "http.request.uri") == ["/file"]
    assert read("http.response", "http.response.code", "http.content_length") == [f"200\t{len(FILE)}"]
    assert read("_ws.malformed or tcp.checksum.status == 0 or ip.checksum.status == 0", "frame.number") == []
    compatibility.row(
        guest=CLOUD,
        boots=f"{ON_PCI}, captured to pcapng",
        checked="tshark reads the ping and the HTTP session, with good checksums",
    )
