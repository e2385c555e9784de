"""Debian sees the limits of its disks: dd, by the guest's own clock, which is virtual: the same numbers every time.

Guests on the host's clock divide a backend.
"""

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from guests import BOOTED, command, power_off, reach_shell
from virtio_guests import until

from emuvisor.devices.limits import Rate
from emuvisor.devices.storage.rawdisk import create_raw
from emuvisor.host import Guest, Host
from emuvisor.images.cache import Image
from emuvisor.machine.choices import DiskBus
from emuvisor.machine.config import DiskConfig, GuestConfig, KernelConfig
from emuvisor.metrics import rates, take_sample
from emuvisor.metrics.exposition import exposition
from emuvisor.metrics.json_lines import line as json_line
from emuvisor.units import KIB, MIB

pytestmark = pytest.mark.system

RATE = 4 * MIB
BURST = MIB
IOPS = 200
SECONDS = 4
BLOCK = 64 * KIB
SMALL = 4 * KIB
TOLERANCE = 0.02
RUN_S = 360


def dd(source: str, target: str, size: int, block: int) -> str:
    return f"dd if={source} of={target} bs={block} count={size // block} 2>/dev/null"


def read(bus: DiskBus, size: int, block: int = BLOCK) -> str:
    return dd(DEVICES[bus], "/dev/null", size, block) + " iflag=direct"


DEVICES = {"virtio": "/dev/vda", "ide": "/dev/sda"}
BUSES: tuple[DiskBus, ...] = ("virtio", "ide")


def create(host: Host, image: Image, path: Path, bus: DiskBus = "virtio", **fields: Any) -> Guest:
    """A guest with `path` as its disk, made if it is not there."""
    if not path.exists():
        create_raw(path, 64 * MIB)
    kernel = KernelConfig(image.path / "vmlinuz", image.initrd, image.append)
    usual: dict[str, Any] = {"disks": (DiskConfig(path, bus=bus),)}
    return host.create(GuestConfig(memory=128 * MIB, kernel=kernel, **(usual | fields)))


def uptime(guest: Guest, line: str, first: str = ":") -> float:
    """The seconds on the guest's clock that `line` takes, right behind `first`."""
    now = "cut -d' ' -f1 /proc/uptime"
    first, last = re.findall(r"[0-9.]+", command(guest, f"{first}; {now}; {line}; {now}"))
    return float(last) - float(first)


@pytest.mark.parametrize("bus", BUSES)
def test_dd_has_the_rate_and_the_burst(host: Host, debian: Image, tmp_path: Path, bus: DiskBus) -> None:
    path = tmp_path / "disk.img"
    guest = create(host, debian, path, bus)
    guest.start()
    reach_shell(guest)
    device = DEVICES[bus]
    command(guest, f"cat {device} > /dev/null; echo 3 > /proc/sys/vm/drop_caches")

    guest.set_disk_limits(0, read_bytes=Rate(RATE, BURST), write_bytes=Rate(RATE, BURST))
    for line in (
        read(bus, RATE * SECONDS + BURST),
        dd("/dev/zero", device, RATE * SECONDS + BURST, BLOCK) + " oflag=direct",
    ):
        took = uptime(guest, line)
        assert took == pytest.approx(SECONDS, rel=TOLERANCE), line

    guest.set_disk_limits("disk.img", read_bytes=None, write_bytes=None, total_iops=Rate(IOPS, 1))
    line = read(bus, IOPS * SECONDS * SMALL, SMALL)
    assert uptime(guest, line) == pytest.approx(SECONDS, rel=TOLERANCE)
    guest.set_disk_limits(0, total_iops=None)
    assert uptime(guest, line) < SECONDS / 2

    (disk,) = guest.statistics().disks
    assert disk["name"] == str(path)
    assert disk["latency"]["read"]["count"] >= IOPS * SECONDS
    assert disk["latency"]["throttled"]["count"] >= IOPS * SECONDS - 2
    assert 0 < disk["latency"]["read"]["p50_ns"] <= disk["latency"]["read"]["p99_ns"]
    check_shown(host, guest)
    power_off(guest)


def check_shown(host: Host, guest: Guest) -> None:
    """The latencies of its disk are where people look: the Prometheus page, JSON lines and what `top` shows."""
    sample = take_sample(host)
    (latency,) = [disk["latency"] for disk in sample.guests[0].statistics.disks]
    page = exposition(sample)
    family = "emuvisor_guest_disk_latency_seconds"
    for kind, summary in latency.items():
        found = re.findall(rf'^{family}_count{{.*kind="{kind}"}} (\d+)$', page, re.MULTILINE)
        assert found == [str(summary["count"])], page
        assert len(re.findall(rf'^{family}{{.*kind="{kind}".*}} ', page, re.MULTILINE)) == 3
    seen = rates(None, sample)
    (shown,) = json.loads(json_line(sample, seen))["guests"]
    assert shown["totals"]["disks"][0]["latency"] == latency
    assert shown["disk_latency"] == {f"{kind}_ns": latency[kind]["p99_ns"] for kind in ("read", "write")}


@pytest.mark.parametrize("bus", BUSES)
def test_a_full_bucket_passes_at_once(host: Host, debian: Image, tmp_path: Path, bus: DiskBus) -> None:
    """The burst is as large as was said, comes back as fast as the rate is, and what is there once is there once."""
    rate, burst, once = MIB, 4 * MIB, 2 * MIB
    slack = TOLERANCE * burst / rate
    guest = create(host, debian, tmp_path / "disk.img", bus)
    guest.start()
    reach_shell(guest)
    guest.set_disk_limits(0, read_bytes=Rate(rate, burst, once))
    assert uptime(guest, read(bus, burst + once)) < slack
    empty = read(bus, burst + rate)
    assert uptime(guest, read(bus, 2 * rate), empty) == pytest.approx(2, rel=TOLERANCE)
    for idle, passes in ((2, 2 * rate), (2 * burst // rate, burst)):
        line = f"sleep {idle}; {read(bus, passes + rate)}"
        assert uptime(guest, line, empty) == pytest.approx(idle + 1, abs=slack)
    guest.set_disk_limits(0, read_bytes=None, total_bytes=Rate(rate, BLOCK))
    both = f"{dd('/dev/zero', DEVICES[bus], rate, BLOCK)} oflag=direct & {read(bus, rate)}; wait"
    assert uptime(guest, both) == pytest.approx(2 - BLOCK / rate, rel=TOLERANCE)
    power_off(guest)


@pytest.mark.parametrize("bus", BUSES)
def test_a_throttled_run_repeats_exactly(debian: Image, tmp_path: Path, bus: DiskBus) -> None:
    """Its script is at the beginning of its disk: what is typed has to fit into the serial port's FIFO."""
    device = DEVICES[bus]
    script = (
        f"{read(bus, 2 * MIB)}; cut -d' ' -f1 /proc/uptime;"
        f"dd if=/proc/interrupts of={device} bs=64k seek=9 conv=sync; sync;"
        f"{read(bus, 50 * SMALL, SMALL)}; cut -d' ' -f1 /proc/uptime; poweroff -f\n"
    )
    found = set()
    for pcpus, slice_work in ((1, 5_000_000), (2, 333_333)):
        path = tmp_path / f"{pcpus}.img"
        create_raw(path, 64 * MIB)
        with path.open("r+b") as file:
            file.write(script.encode())
        limited = DiskConfig(
            path, bus=bus, read_bytes=Rate(MIB), total_iops=Rate(50, 5), write_bytes=Rate(20_000)
        )
        with Host(256 * MIB, pcpus=pcpus, slice_work=slice_work) as host:
            guest = create(host, debian, path, bus, name="throttled", disks=(limited,))
            type_when_booted(guest, f"sh {device}\n".encode())
            guest.start()
            assert guest.wait(RUN_S), guest.console.text[-2000:]
            machine = guest.machine
            waits = guest.statistics().disks[0]["latency"]["throttled"]
            assert waits["count"] > 40
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found.add((guest.console.text, machine.vcpu.digest(), machine.clock.now_ns(), digest, str(waits)))
    assert len(found) == 1


def type_when_booted(guest: Guest, line: bytes) -> None:
    """In the guest's thread, at the same point of its run each time."""

    def type_it() -> None:
        guest.console.feed(line)
        guest.machine.stop()  # what is typed is taken between two slices

    guest.console.watch(BOOTED, type_it)


@pytest.mark.parametrize("bus", BUSES)
def test_limits_change_while_requests_wait(host: Host, debian: Image, tmp_path: Path, bus: DiskBus) -> None:
    guest = create(host, debian, tmp_path / "disk.img", bus, clock="host")
    guest.start()
    reach_shell(guest)
    guest.set_disk_limits(0, read_iops=Rate(1, 1))
    guest.type(f"{read(bus, 300 * SMALL, SMALL)}; echo '<do''ne>'\n")  # five minutes
    before = reads(guest)
    until(guest, lambda: reads(guest) > before, "read")
    guest.set_disk_limits(0, read_iops=Rate(1000, 1))
    until(guest, lambda: "<done>" in guest.console.text, "end of dd")
    assert reads(guest) >= before + 300
    power_off(guest)


def reads(guest: Guest) -> int:
    count: int = guest.statistics().disks[0]["reads"]
    return count


def read_bytes(guest: Guest) -> int:
    count: int = guest.statistics().disks[0]["read_bytes"]
    return count


def test_guests_divide_a_backend(host: Host, debian: Image, tmp_path: Path) -> None:
    """By weight, whatever they do besides; weights change, and who is away leaves its part to the others."""
    guests = [
        create(host, debian, tmp_path / f"{name}.img", name=name, board="microvm", clock="host")
        for name in ("light", "heavy")
    ]
    light, heavy = guests
    for guest in guests:
        guest.start()
    for guest in guests:
        reach_shell(guest)
    rate = MIB
    host.set_backend_limit(tmp_path, bytes=Rate(rate, BLOCK))
    for guest in guests:
        command(guest, f"(while :; do {read('virtio', 64 * MIB)}; done) & true")

    def divided(size: int) -> list[int]:
        """What each reads while all together read `size`."""
        start = time.monotonic()
        before = [read_bytes(guest) for guest in guests]

        def have() -> list[int]:
            return [read_bytes(guest) - was for guest, was in zip(guests, before, strict=True)]

        until(heavy, lambda: sum(have()) >= size, f"{size} bytes read")
        got = have()
        assert sum(got) <= rate * (time.monotonic() - start) + 4 * BLOCK
        return got

    for shares, part in ((3000, 3), (1000, 1)):
        heavy.set_disk_shares(0, shares)
        divided(BLOCK * 4)  # what was asked for before
        one, other = divided(4 * MIB)
        # Who is kept from asking by a busy machine leaves its part to the other; exact parts are for unit tests.
        assert other / one == pytest.approx(part, rel=0.25)
    light.pause()
    divided(BLOCK * 4)
    assert divided(2 * MIB)[0] <= BLOCK
    light.resume()
    host.set_backend_limit(tmp_path)

    def further(size: int) -> list[int]:
        """How many reads of each have waited by the time that `heavy` has read `size` more."""
        most = read_bytes(heavy) + size
        until(heavy, lambda: read_bytes(heavy) >= most, f"{size} bytes read")
        return [guest.statistics().disks[0]["latency"]["throttled"]["count"] for guest in guests]

    waited = further(BLOCK * 4)  # what was asked for before
    assert further(8 * MIB) == waited
