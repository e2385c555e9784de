"""Limits of disks and cards through guests and hosts: changed while they run, shares on a backend, statistics."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emuvisor.devices.fair_share import Flow
from emuvisor.devices.limits import DiskLimits, NicLimits, Rate
from emuvisor.devices.storage.rawdisk import create_raw
from emuvisor.errors import ConfigError, UsageError
from emuvisor.host import Guest, Host
from emuvisor.machine.choices import ClockMode
from emuvisor.machine.config import DiskConfig, FlatConfig, GuestConfig, NicConfig
from emuvisor.machine.config_file import from_mapping
from emuvisor.units import MIB


@pytest.fixture
def host() -> Iterator[Host]:
    with Host(memory=64 * MIB) as host:
        yield host


def make(host: Host, folder: Path, name: str = "a", clock: ClockMode = "host", **disk: Any) -> Guest:
    (folder / "halt.bin").write_bytes(b"\xf4")
    for image in ("ide.img", "virtio.img"):
        create_raw(folder / f"{name}-{image}", MIB)
    return host.create(
        GuestConfig(
            name=name,
            memory=4 * MIB,
            clock=clock,
            flat=FlatConfig(folder / "halt.bin", 0x8000),
            disks=(
                DiskConfig(folder / f"{name}-ide.img"),
                DiskConfig(folder / f"{name}-virtio.img", bus="virtio", **disk),
            ),
        )
    )


def limits_of(guest: Guest, number: int) -> DiskLimits:
    limits = guest.machine.drives[number].meter.throttle.limits
    assert isinstance(limits, DiskLimits)
    return limits


def test_limits_come_from_the_configuration_and_are_changed(host: Host, tmp_path: Path) -> None:
    guest = make(host, tmp_path, read_bytes=Rate(MIB), total_iops=Rate(7, 9))
    guest.set_disk_limits(1, read_bytes="2M:3M", write_iops=5, total_iops=None)
    assert limits_of(guest, 1) == DiskLimits(read_bytes=Rate(2 * MIB, 3 * MIB), write_iops=Rate(5))
    for number, name in enumerate(("a-ide.img", str(tmp_path / "a-ide.img"))):
        guest.set_disk_limits(name, read_iops=number + 1)
        assert limits_of(guest, 0) == DiskLimits(read_iops=Rate(number + 1))
    for disk in (2, "b.img"):
        with pytest.raises(UsageError) as error:
            guest.set_disk_limits(disk, read_iops=1)
        assert str(error.value) == f"guest 'a' has no hard disk {disk!r}"
    with pytest.raises(UsageError) as error:
        guest.set_nic_limits(0, in_bytes=1)
    assert str(error.value) == "guest 'a' has no network card 0; it has 0"


def test_statistics_are_plain_data(host: Host, tmp_path: Path) -> None:
    guest = make(host, tmp_path)
    statistics = json.loads(json.dumps(guest.statistics().as_dict()))
    assert [disk["name"] for disk in statistics["disks"]] == [
        str(tmp_path / f"a-{image}") for image in ("ide.img", "virtio.img")
    ]
    nothing = {"count": 0, "total_ns": 0, "mean_ns": 0, "p50_ns": 0, "p90_ns": 0, "p99_ns": 0, "max_ns": 0}
    assert statistics["disks"][0]["latency"] == dict.fromkeys(
        ("read", "write", "flush", "throttled"), nothing
    )


def test_a_card_has_limits(host: Host, tmp_path: Path) -> None:
    (tmp_path / "halt.bin").write_bytes(b"\xf4")
    guest = host.create(
        GuestConfig(
            memory=4 * MIB,
            clock="host",
            flat=FlatConfig(tmp_path / "halt.bin", 0x8000),
            nics=(NicConfig("user", out_packets=Rate(3)),),
        )
    )
    guest.set_nic_limits(0, in_bytes="1M")
    (card,) = guest._cards
    assert card.meter.throttle.limits == NicLimits(in_bytes=Rate(MIB), out_packets=Rate(3))
    (nic,) = guest.statistics().nics
    assert set(nic["latency"]) == {"sent", "received", "throttled"}
    assert nic["card_dropped"] == {}


def test_guests_divide_a_backend(host: Host, tmp_path: Path) -> None:
    first = make(host, tmp_path, "a", shares=500)
    virtual = make(host, tmp_path, "v", clock="virtual")
    host.set_backend_limit(tmp_path, bytes="1M", iops=100)
    second = make(host, tmp_path, "b")

    def flows(guest: Guest) -> list[int]:
        shares = [drive.meter.throttle.share for drive in guest.machine.drives]
        return [flow.shares for flow in shares if isinstance(flow, Flow)]

    assert (flows(first), flows(virtual), flows(second)) == ([1000, 500], [], [1000, 1000])
    first.set_disk_shares(1, 9)
    assert flows(first) == [1000, 9]
    virtual.set_disk_shares(1, 9)
    with pytest.raises(UsageError) as error:
        first.set_disk_shares(0, 0)
    assert str(error.value) == "guest 'a': 0 shares; 1 to 1000000 are allowed"
    second.delete()
    host.set_backend_limit(str(tmp_path))
    assert flows(first) == []
    host.set_backend_limit(tmp_path, iops=1)
    assert flows(first) == [1000, 9]
    with pytest.raises(UsageError) as error:
        host.set_backend_limit(tmp_path / "none")
    assert str(error.value) == f"{tmp_path / 'none'}: No such file or directory"


def test_limits_in_toml() -> None:
    config = from_mapping(
        {
            "disks": [{"path": "a.img", "read_bytes": "1M:2M:3M", "write_iops": 5, "shares": 7}],
            "nics": [{"network": "lab", "in_bytes": "1M", "out_packets": 9}],
            "clock": "host",
        },
        "test",
    )
    (disk,), (nic,) = config.disks, config.nics
    assert disk.limits == DiskLimits(read_bytes=Rate(MIB, 2 * MIB, 3 * MIB), write_iops=Rate(5))
    assert disk.shares == 7
    assert nic.limits == NicLimits(in_bytes=Rate(MIB), out_packets=Rate(9))


@pytest.mark.parametrize(
    ("disk", "message"),
    [
        ({"read_bytes": "x"}, "test: disks[0].read_bytes: 'x' is not RATE[:BURST[:ONCE]], such as 10M:64M: 'x' is not "
         "a size; write a whole number with K, M, G or T, such as 256M"),
        ({"read_bytes": True}, 'test: disks[0].read_bytes: True is not a rate, such as 1000 or "10M:64M"'),
        ({"read_iops": 0}, "test: disks[0].read_iops: a rate of 0; 1 to 1125899906842624 is allowed"),
        ({"shares": 0}, "test: disks.shares: 0 is outside 1 to 1000000"),
        ({"kind": "cdrom", "read_iops": 1}, "test: disks.read_iops: a cdrom has no limits"),
    ],
)  # fmt: skip
def test_limits_that_cannot_be(disk: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_mapping({"disks": [{"path": "a.img", **disk}]}, "test")
    assert str(error.value) == message
