"""A guest has the same claims on the other side as it had last, not as it was made with."""

from dataclasses import replace
from pathlib import Path

import pytest
from migrating_guests import guest_config

from emuvisor.devices.limits import Rate
from emuvisor.errors import MigrationError
from emuvisor.host import Host
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.machine.config import DiskConfig, NicConfig
from emuvisor.migration import Options, Source, Target
from emuvisor.migration.claims import present_config
from emuvisor.net.config import NetworkConfig
from emuvisor.units import MIB


def test_a_guest_that_nobody_changed_is_as_it_was_made(tmp_path: Path) -> None:
    disks = (DiskConfig(tmp_path / "disk.img", bus="virtio"),)
    disks[0].path.write_bytes(bytes(MIB))
    config = replace(guest_config(tmp_path, disk=disks[0]), cpu_affinity=(0,), memory_limit=2 * MIB)
    with Host(16 * MIB) as host:
        assert present_config(host.create(config)) == config


def test_live_changes_go_along(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(MIB))
    config = replace(
        guest_config(tmp_path, disk=DiskConfig(path, bus="virtio")),
        clock="host",
        nics=(NicConfig("lan"),),
        disks=(DiskConfig(path, bus="virtio"),),
        memory_max=6 * MIB,
    )
    with Host(32 * MIB) as here, Host(32 * MIB) as there, Target(there) as listening:
        for host in (here, there):
            host.add_network(NetworkConfig("lan", uplink="none"))
        guest = here.create(config)
        with here.lock:
            guest.start()
            guest.pause()
        guest.set_cpu(
            weight=7,
            cap=60.0,
            reservation=20.0,
            limit=10**9,
            affinity={0},
            period_us=5_000,
            latency_us=900,
        )
        guest.set_memory(reservation=MIB, limit=3 * MIB, shares=5, priority=-4)
        guest.resize(6 * MIB)
        guest.set_disk_limits(0, write_iops="50:100:7", total_bytes="1M")
        guest.set_disk_shares(0, 44)
        guest.set_nic_limits(0, in_bytes="2M")
        claim, contract = guest.cpu_claim, guest.contract
        Source(guest, listening.address, Options()).run()
        moved = listening.receive(10)
        assert (moved.cpu_claim, moved.contract) == (claim, contract)
        assert moved.memory_device.requested_size == 2 * MIB
        assert moved.config.disks[0] == DiskConfig(
            path, bus="virtio", write_iops=Rate(50, 100, 7), total_bytes=Rate(MIB), shares=44
        )
        assert moved.config.nics[0] == NicConfig("lan", in_bytes=Rate(2 * MIB))


def test_a_host_that_cannot_promise_the_present_size(tmp_path: Path) -> None:
    config = replace(guest_config(tmp_path), memory_max=6 * MIB)
    with (
        Host(32 * MIB) as here,
        Host(5 * MIB, memory_policy=MemoryPolicy(overcommit=1.0)) as there,
        Target(there) as listening,
    ):
        guest = here.create(config)
        with here.lock:
            guest.start()
            guest.pause()
        guest.resize(6 * MIB)
        with pytest.raises(MigrationError) as caught:
            Source(guest, listening.address).run()
        assert str(caught.value) == (
            "guest 'guest' stays: guest 'guest': a size of 6 MiB is too much: 0 guests have 0 B, and the host's 5 MiB "
            "may be overcommitted 1 times, to 5 MiB; 5 MiB are left"
        )
        assert there.guests == {}
