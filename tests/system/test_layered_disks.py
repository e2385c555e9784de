"""Debian's disks are frozen and moved while it writes to them: every moment stays what it was, and no write is lost."""

import hashlib
from contextlib import closing
from pathlib import Path

import pytest
from guests import command, reach_shell

from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.devices.storage.formats import open_image
from emuvisor.devices.storage.layered import Frozen, LayeredDisk
from emuvisor.devices.storage.rawdisk import create_raw
from emuvisor.host import Guest, Host
from emuvisor.images.cache import Image
from emuvisor.machine.config import DiskConfig, GuestConfig, KernelConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system

SIZE = 16 * MIB
MOMENTS = 2
WRITE = (
    "n=0; while [ ! -e /stop ]; do n=$((n+1)); for d in {disks}; do "
    "seq $n $((n+3000)) | dd of=/dev/$d bs=4k seek=$((n*37%4000)) conv=notrunc,fsync 2>/dev/null; "
    "done; echo $n > /written; done & true"
)
"""Some 15 KB at another place each time, on stable storage."""


def sha256(disk: BlockDevice) -> str:
    return hashlib.sha256(disk.read(0, disk.sectors)).hexdigest()


def disks_of(guest: Guest) -> list[LayeredDisk]:
    disks = [drive.image for drive in guest.machine.drives]
    assert all(isinstance(disk, LayeredDisk) for disk in disks)
    return disks  # type: ignore[return-value]


def until_more_is_written(guest: Guest) -> None:
    command(guest, "w=$(cat /written); while [ $(cat /written) -lt $((w+3)) ]; do sleep 0.05; done")


def test_frozen_and_moved_while_debian_writes(host: Host, debian: Image, tmp_path: Path) -> None:
    assert debian.kernel is not None
    paths = [tmp_path / "virtio.img", tmp_path / "ide.img"]
    for path in paths:
        create_raw(path, SIZE)
    config = GuestConfig(
        memory=256 * MIB,
        kernel=KernelConfig(debian.kernel, debian.initrd, debian.append),
        disks=(DiskConfig(paths[0], bus="virtio"), DiskConfig(paths[1])),
    )
    guest = host.create(config)
    guest.start()
    reach_shell(guest)
    names = command(guest, "cd /sys/block; echo [sv]da").split()
    assert names == ["sda", "vda"]
    command(guest, "echo 0 > /written; " + WRITE.format(disks="vda sda"))
    until_more_is_written(guest)

    disks = disks_of(guest)
    moments: list[tuple[Frozen, str]] = []
    for number in range(MOMENTS):
        overlay = tmp_path / "top" if number == 1 else None
        for frozen in guest.between_runs(
            lambda overlay=overlay: [disks[0].freeze(overlay), disks[1].freeze()]  # type: ignore[misc]
        ):
            moments.append((frozen, sha256(frozen)))
        until_more_is_written(guest)
    assert len({digest for _, digest in moments}) >= MOMENTS  # both disks get the same

    moved = [guest.move_disk(0, tmp_path / "virtio.qcow2"), guest.move_disk(1, tmp_path / "moved.img")]
    until_more_is_written(guest)
    for frozen, digest in moments:
        assert sha256(frozen) == digest
        with closing(frozen.open()) as clone:
            assert sha256(clone) == digest
        frozen.close()
    command(guest, "touch /stop; wait; sync; echo 3 > /proc/sys/vm/drop_caches")
    digests = [command(guest, f"sha256sum < /dev/{name}").split()[0] for name in ("vda", "sda")]
    assert [sha256(disk) for disk in disks] == digests
    guest.delete()
    for move, digest in zip(moved, digests, strict=True):
        with closing(open_image(move.path, move.format, read_only=True)) as disk:
            assert sha256(disk) == digest
    for path in paths:
        with closing(open_image(path, read_only=True)) as disk:
            assert sha256(disk) not in digests
