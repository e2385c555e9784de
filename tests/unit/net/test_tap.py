"""TAP interfaces: the real ones where that is allowed, with the kernel's own answer to ARP."""

import os
import queue
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from emuvisor.bus.ethernet import Offload
from emuvisor.errors import HostError
from emuvisor.net.config import NetworkConfig
from emuvisor.net.inbox import BACKLOG
from emuvisor.net.network import Network
from emuvisor.net.port import Port
from emuvisor.net.tap import Tap

MAC = bytes.fromhex("525400aabb01")
NAME = f"emu{os.getpid()}"
PATIENCE = 60  # seconds


class Station:
    accepts = 0

    def __init__(self) -> None:
        self.frames: queue.Queue[bytes] = queue.Queue()

    def receive(self, frame: bytes, offload: Offload | None) -> bool:
        self.frames.put(frame)
        return True

    def link_changed(self) -> None: ...


@pytest.fixture
def interface() -> Iterator[Tap]:
    try:
        opened = Tap(NAME)
    except HostError as error:
        pytest.skip(str(error))
    with_ip = subprocess.run(
        ["ip", "addr", "add", "192.0.2.1/24", "dev", NAME], capture_output=True, check=False
    )
    if with_ip.returncode:
        opened.close()
        pytest.skip(with_ip.stderr.decode())
    subprocess.run(["ip", "link", "set", NAME, "up"], check=True)
    yield opened
    opened.close()
    assert not Path("/sys/class/net", NAME).exists()


@pytest.fixture
def guest(interface: Tap) -> tuple[Port, Station]:
    network = Network(NetworkConfig("lab", uplink=f"tap:{NAME}"))
    interface.start(network.port("uplink", interface.mac, trusted=True))
    port, station = network.port("web", MAC), Station()
    port.attach(station)
    interface.joined("web", port)
    return port, station


def arp_request() -> bytes:
    asked = bytes((192, 0, 2, 1))
    body = bytes.fromhex("0001080006040001") + MAC + bytes((192, 0, 2, 7)) + bytes(6) + asked
    return b"\xff" * 6 + MAC + b"\x08\x06" + body


def test_the_hosts_kernel_answers_arp(interface: Tap, guest: tuple[Port, Station]) -> None:
    port, station = guest
    port.send(arp_request())
    while True:
        frame = station.frames.get(timeout=PATIENCE)
        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2":
            break
    assert frame[:6] == MAC
    assert frame[28:32] == bytes((192, 0, 2, 1))
    interface.left("web", port)
    interface.link_changed()


def test_an_interface_that_is_down_takes_nothing(interface: Tap, guest: tuple[Port, Station]) -> None:
    port, station = guest
    subprocess.run(["ip", "link", "set", NAME, "down"], check=True)
    port.send(arp_request())
    subprocess.run(["ip", "link", "set", NAME, "up"], check=True)
    port.send(arp_request())
    while station.frames.get(timeout=PATIENCE)[20:22] != b"\0\2":
        pass


def test_a_bounded_backlog(interface: Tap) -> None:
    assert all(interface.receive(bytes(60), None) for _ in range(BACKLOG))
    assert not interface.receive(bytes(60), None)
    interface.close()
    assert not interface.receive(bytes(60), None)


def test_an_interface_that_somebody_has(interface: Tap) -> None:
    with pytest.raises(HostError) as raised:
        Tap(NAME)
    assert str(raised.value) == f"uplink tap:{NAME}: another process has it"


def test_an_interface_of_another_kind() -> None:
    try:
        Tap(NAME).close()
    except HostError as error:
        pytest.skip(str(error))
    with pytest.raises(HostError) as raised:
        Tap("lo")
    assert str(raised.value) == "uplink tap:lo: an interface of this name is no TAP interface"


def test_no_device(tmp_path: Path) -> None:
    missing = tmp_path / "tun"
    with pytest.raises(HostError) as raised:
        Tap("tap0", device=missing)
    assert (
        str(raised.value)
        == f"uplink tap:tap0: {missing} does not exist; the kernel's module tun is not loaded"
    )


def test_a_file_that_is_no_tun_device(tmp_path: Path) -> None:
    other = tmp_path / "tun"
    other.touch()
    with pytest.raises(HostError) as raised:
        Tap("tap0", device=other)
    assert str(raised.value) == "uplink tap:tap0: Inappropriate ioctl for device"


def test_the_name_that_no_interface_can_have() -> None:
    with pytest.raises(HostError) as raised:
        Tap("a" * 16)
    assert str(raised.value) == f"uplink tap:{'a' * 16}: the name of an interface has 1 to 15 bytes"
