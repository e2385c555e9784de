"""A full file system of the host pauses a guest instead of breaking it: the guest goes on when there is room again."""

import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from compatibility import Compatibility
from filesystems import copy_out, is_clean, numbers, on_the_host, tool
from guests import command, expect, power_off, reach_shell, tail

from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.devices.storage.qcow2.check import check
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.devices.storage.scatter import Buffers
from emuvisor.host import GuestState, Host
from emuvisor.images.cache import Image
from emuvisor.machine import machine
from emuvisor.machine.choices import DiskBus
from emuvisor.machine.config import DiskConfig, GuestConfig, KernelConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system

DISK_SIZE = 32 * MIB
LINES = 50_000
WAIT_S = 240
FULL = "the host's file system is full (No space left on device); make room, then resume the guest"


class TightDisk(RawDisk):
    """On a host that has room for `room` writes; every write when it is None."""

    room: int | None = None

    def _take(self) -> None:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.room is not None:
            self.room -= 1

    def write(self, lba: int, data: bytes) -> None:
        self._take()
        super().write(lba, data)

    def write_from(self, lba: int, views: Buffers) -> None:
        self._take()
        super().write_from(lba, views)


@pytest.mark.parametrize("bus", ["virtio", "ide"])
def test_a_guest_waits_for_room(
    host: Host,
    debian: Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    compatibility: Compatibility,
    bus: DiskBus,
) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(DISK_SIZE))
    on_the_host("mke2fs", "-q", "-t", "ext4", path)
    disks: list[TightDisk] = []

    def open_disk(config: DiskConfig) -> BlockDevice:
        disks.append(TightDisk(config.path))
        return disks[-1]

    monkeypatch.setattr(machine, "open_disk", open_disk)
    guest = host.create(
        GuestConfig(
            memory=256 * MIB,
            kernel=KernelConfig(debian.path / "vmlinuz", debian.initrd, debian.append),
            disks=(DiskConfig(path, bus=bus),),
        )
    )
    (disk,) = disks
    guest.start()
    reach_shell(guest)
    place = {"virtio": "vda", "ide": "sda"}[bus]
    command(guest, f"mkdir -p /mnt; mount -t ext4 /dev/{place} /mnt; sync")
    for room in (3, 0):  # the host fills up while the guest writes, and is still full when it tries again
        disk.room = room
        if room:
            guest.type(f"seq {LINES} > /mnt/numbers; sync; echo wri''tten\n")
        else:
            guest.resume()
        assert guest.wait(WAIT_S), tail(guest)
        assert (guest.state, guest.suspended) == (GuestState.PAUSED, True)
        assert guest.reason == f"disk {path}: {FULL}"
    disk.room = None
    guest.resume()
    expect(guest, "written", WAIT_S)
    assert command(guest, "umount /mnt; dmesg | grep -ci error") == "0"
    power_off(guest)
    assert [event.reason for event in host.events].count("resumed") == 2
    is_clean(path)
    digest = on_the_host("sh", "-c", f"debugfs -R 'cat /numbers' {path} 2>/dev/null | sha256sum").strip()
    assert digest == numbers(LINES)
    compatibility.row(
        guest="Debian cloud kernel (amd64)",
        boots=f"directly on pc, a disk on {bus} whose host is full",
        checked="paused with the reason, resumed when there is room; ext4 clean, checksum",
    )


TMPFS_SIZE = 64 * MIB
BALLAST = 56 * MIB
"""What is left holds the images as they are, and not what the guest writes."""
RUN = """\
mount -t tmpfs -o size={size} tmpfs {small}
cp --sparse=always {images}/* {small}
{command}
status=$?
cp --sparse=always {small}/disk.* {images}
exit $status
"""
WORK = f"""\
dmesg -n 1; mkdir /raw /qcow2; mount -t ext4 /dev/vda /raw; mount -t ext4 /dev/vdb /qcow2
for disk in raw qcow2; do dd if=/dev/urandom of=/$disk/junk bs=1M count=8; seq {LINES} > /$disk/numbers; done
sync; echo 3 > /proc/sys/vm/drop_caches
for disk in raw qcow2; do echo "$disk: $(sha256sum < /$disk/numbers)"; umount /$disk; done; poweroff
"""


def namespace(script: str) -> list[str]:
    """A command that runs `script` where mounts are its own: a small file system is gone with it."""
    rights = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    return [str(tool("unshare")), *rights, "sh", "-c", script]


@pytest.fixture
def may_mount(tmp_path: Path) -> None:
    attempt = namespace(f"mount -t tmpfs tmpfs {tmp_path}")
    if subprocess.run(attempt, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a tmpfs, not even in a namespace")


@pytest.mark.usefixtures("may_mount")
def test_run_goes_on_by_itself(debian: Image, tmp_path: Path, compatibility: Compatibility) -> None:
    small, images = tmp_path / "small", tmp_path / "images"
    small.mkdir()
    images.mkdir()
    raw, qcow2, ballast = images / "disk.img", images / "disk.qcow2", images / "ballast"
    with raw.open("wb") as file:
        file.truncate(DISK_SIZE)
    on_the_host("mke2fs", "-q", "-t", "ext4", raw)
    on_the_host(sys.executable, "-m", "emuvisor", "disk", "convert", raw, qcow2)
    ballast.write_bytes(b"x" * BALLAST)
    disks = [part for name in (raw.name, qcow2.name) for part in ("--disk", f"{small / name},bus=virtio")]
    run = shlex.join([sys.executable, "-m", "emuvisor", "run", "--image", "debian", *disks])
    command = namespace(RUN.format(size=TMPFS_SIZE, small=small, images=images, command=run))
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(WORK)
        process.stdin.flush()
        told = []
        for line in process.stderr:
            told.append(line)
            if "paused" in line:  # make room, in its namespace
                Path(f"/proc/{process.pid}/root{small}/{ballast.name}").unlink()
        printed = process.stdout.read()
    assert process.returncode == 0, "".join(told)
    paused = [line for line in told if "paused" in line]
    assert paused in (
        [f"emuvisor: guest: paused: disk {small / name}: {FULL}\n"] for name in (raw.name, qcow2.name)
    )
    assert printed.count(numbers(LINES)) == 2, printed
    is_clean(raw)
    assert check(qcow2).corruptions == 0
    disk = Qcow2Disk(qcow2, read_only=True)
    is_clean(copy_out(disk, tmp_path / "copy.img"))
    disk.close()
    compatibility.row(
        guest="Debian cloud kernel (amd64)",
        boots="directly on pc by `emuvisor run`, raw and qcow2 on a small tmpfs",
        checked="paused when the tmpfs is full, goes on when there is room; ext4 clean, checksums",
    )
