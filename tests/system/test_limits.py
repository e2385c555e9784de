"""Debian sees the limits of its disks: dd, by the guest's own clock, which is virtual: the same numbers every time."""

import re
from pathlib import Path

import pytest
from guests import command, power_off, reach_shell

from emuvisor.devices.limits import Rate
from emuvisor.devices.storage.rawdisk import create_raw
from emuvisor.host import Guest, Host
from emuvisor.images.cache import Image
from emuvisor.machine.choices import DiskBus
from emuvisor.machine.config import DiskConfig, GuestConfig, KernelConfig
from emuvisor.units import KIB, MIB

pytestmark = pytest.mark.system

RATE = 4 * MIB
BURST = MIB
IOPS = 200
SECONDS = 4
BLOCK = 64 * KIB
SMALL = 4 * KIB
TOLERANCE = 0.02


def uptime(guest: Guest, line: str) -> float:
    """The seconds on the guest's clock that `line` takes."""
    now = "cut -d' ' -f1 /proc/uptime"
    first, last = re.findall(r"[0-9.]+", command(guest, f"{now}; {line}; {now}"))
    return float(last) - float(first)


def dd(source: str, target: str, size: int, block: int) -> str:
    return f"dd if={source} of={target} bs={block} count={size // block} 2>/dev/null"


@pytest.mark.parametrize("bus", ["virtio", "ide"])
def test_dd_has_the_rate_and_the_burst(host: Host, debian: Image, tmp_path: Path, bus: DiskBus) -> None:
    path = tmp_path / "disk.img"
    create_raw(path, 64 * MIB)
    config = GuestConfig(
        memory=128 * MIB,
        kernel=KernelConfig(debian.path / "vmlinuz", debian.initrd, debian.append),
        disks=(DiskConfig(path, bus=bus),),
    )
    guest = host.create(config)
    guest.start()
    reach_shell(guest)
    device = {"virtio": "/dev/vda", "ide": "/dev/sda"}[bus]
    command(guest, f"cat {device} > /dev/null; echo 3 > /proc/sys/vm/drop_caches")

    guest.set_disk_limits(0, read_bytes=Rate(RATE, BURST), write_bytes=Rate(RATE, BURST))
    for line in (
        dd(device, "/dev/null", RATE * SECONDS + BURST, BLOCK) + " iflag=direct",
        dd("/dev/zero", device, RATE * SECONDS + BURST, BLOCK) + " oflag=direct",
    ):
        took = uptime(guest, line)
        assert took == pytest.approx(SECONDS, rel=TOLERANCE), line

    guest.set_disk_limits("disk.img", read_bytes=None, write_bytes=None, total_iops=Rate(IOPS, 1))
    line = dd(device, "/dev/null", IOPS * SECONDS * SMALL, SMALL) + " iflag=direct"
    assert uptime(guest, line) == pytest.approx(SECONDS, rel=TOLERANCE)
    guest.set_disk_limits(0, total_iops=None)
    assert uptime(guest, line) < SECONDS / 2

    (disk,) = guest.statistics().disks
    assert disk["name"] == str(path)
    assert disk["latency"]["read"]["count"] >= IOPS * SECONDS
    assert disk["latency"]["throttled"]["count"] >= IOPS * SECONDS - 2
    assert 0 < disk["latency"]["read"]["p50_ns"] <= disk["latency"]["read"]["p99_ns"]
    power_off(guest)
