"""Stock Debian guests on a host with the virtual clock: they talk to each other, one has two processors, and every run
is the same, whatever the number of threads."""

from dataclasses import dataclass, replace

import pytest
from guests import BOOT_S, BOOTED, COMMAND_S, tail

from emuvisor.host import Guest, GuestState, Host
from emuvisor.host.scheduler.recording import Recorder, Stretch
from emuvisor.host.virtual_pcpus import VirtualPcpus
from emuvisor.images.cache import Image
from emuvisor.machine.config import GuestConfig, KernelConfig, NicConfig
from emuvisor.net.config import NetworkConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system

ADDRESS = "ip link set eth0 up; ip addr add 192.0.2.{}/24 dev eth0; "
COMMANDS = {
    "asks": ADDRESS.format(1) + "sleep 2; ping -c 5 -i 0.2 192.0.2.2; poweroff",
    "answers": ADDRESS.format(2) + "sleep 8; poweroff",
    "computes": "nproc; sha256sum /bin/busybox & sha256sum /bin/busybox; sleep 1; poweroff",
}


@dataclass(frozen=True)
class Found:
    schedule: list[Stretch]
    consoles: list[str]
    vcpus: list[str]
    now_ns: int


def run(image: Image, threads: int) -> Found:
    kernel = image.kernel
    assert kernel is not None
    boot = KernelConfig(kernel, image.initrd, image.append)
    nics = (NicConfig("lan"),)
    with Host(512 * MIB, pcpus=threads, clock="virtual") as host:
        assert isinstance(host.processors, VirtualPcpus)
        host.add_network(NetworkConfig("lan"))
        recorder = Recorder(host.processors.scheduler)
        host.processors.listeners.append(recorder.record)
        common = GuestConfig(memory=128 * MIB, clock="virtual", until=BOOTED, kernel=boot)
        guests = [
            host.create(replace(common, name="asks", nics=nics)),
            host.create(replace(common, name="answers", nics=nics, board="microvm")),
            host.create(replace(common, name="computes", vcpus=2, cpu_cap=50)),
        ]
        with host.lock:
            for guest in guests:
                guest.start()
        for guest in guests:
            assert guest.wait(BOOT_S), tail(guest)
            assert guest.state is GuestState.PAUSED, guest.reason
        with host.lock:  # nobody runs: it is the same time in each run
            for guest in guests:
                guest.type(COMMANDS[guest.name] + "\n")
                guest.resume()
        for guest in guests:
            wait_until_off(guest)
        return Found(
            list(recorder.stretches),
            [guest.console.text for guest in guests],
            [vcpu.digest() for guest in guests for vcpu in guest.machine.vcpus],
            host.processors.now_ns,
        )


def wait_until_off(guest: Guest) -> None:
    assert guest.wait(COMMAND_S), tail(guest)
    assert (guest.state, guest.reason) == (GuestState.DEFINED, "power-off")


def test_the_same_on_one_thread_and_on_two(debian: Image) -> None:
    one, two = run(debian, 1), run(debian, 2)
    for first, second in zip(one.schedule, two.schedule, strict=False):
        assert first == second
    assert one == two
    asks, _, computes = one.consoles
    assert "5 packets transmitted, 5 packets received, 0% packet loss" in asks
    assert "\n2\r\n" in computes
    assert computes.count("  /bin/busybox\r\n") == 2
