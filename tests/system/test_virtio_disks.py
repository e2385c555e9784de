"""Stock Debian kernels use virtio disks: raw images and qcow2, on PCI and as virtio-mmio."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from compatibility import Compatibility
from filesystems import copy_out, is_clean, numbers, read_file, tool, with_mke2fs, with_programs
from guests import command, power_off, reach_shell

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.devices.storage.qcow2.check import check
from emuvisor.devices.storage.qcow2.create import create
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.rawdisk import create_raw
from emuvisor.host import Guest, Host
from emuvisor.images.cache import Image
from emuvisor.machine.choices import BoardName, RingLayout
from emuvisor.machine.config import DiskConfig, GuestConfig, KernelConfig
from emuvisor.units import KIB, MIB

pytestmark = pytest.mark.system

DISK_SIZE = 64 * MIB
LINES = 50_000
JUNK = 8 * MIB
QUEUES = 4
FLUSH = "dd if=/dev/null conv=fsync,notrunc 2>/dev/null"
TRANSPORT = {"pc": "PCI, MSI-X", "microvm": "virtio-mmio"}


def boot(
    host: Host,
    image: Image,
    initrd: bytes,
    folder: Path,
    *disks: DiskConfig,
    board: BoardName = "pc",
    ring: RingLayout = "split",
    append: str = "",
) -> Guest:
    """A guest at its shell whose disks are on virtio."""
    path = folder / "initrd.cpio"
    path.write_bytes(initrd)
    kernel = KernelConfig(image.path / "vmlinuz", path, f"{image.append} {append}")
    guest = host.create(GuestConfig(board=board, memory=256 * MIB, ring=ring, kernel=kernel, disks=disks))
    guest.start()
    reach_shell(guest)
    return guest


def images(folder: Path) -> tuple[Path, Path]:
    """An empty raw image and an empty qcow2 image."""
    raw, qcow2 = folder / "disk.img", folder / "disk.qcow2"
    create_raw(raw, DISK_SIZE)
    create(qcow2, DISK_SIZE)
    return raw, qcow2


def on_virtio(*paths: Path, queues: int = 1, readonly: bool = False) -> list[DiskConfig]:
    return [DiskConfig(path, bus="virtio", queues=queues, readonly=readonly) for path in paths]


def allocated(path: Path) -> int:
    return path.stat().st_blocks * SECTOR_SIZE


def do(guest: Guest, line: str) -> None:
    """Commands that say nothing when they succeed."""
    assert command(guest, line) == ""


def use_ext4(guest: Guest, place: str, mount: str) -> None:
    """Write to the file system on `place`, and read it back from the disk."""
    do(guest, f"mkdir -p {mount}; mount -t ext4 /dev/{place} {mount}; mkdir {mount}/folder")
    do(guest, f"seq {LINES} > {mount}/folder/numbers; cp {mount}/folder/numbers {mount}/gone; sync")
    do(guest, f"rm {mount}/gone; umount {mount}; echo 3 > /proc/sys/vm/drop_caches")
    do(guest, f"mount -t ext4 /dev/{place} {mount}")
    assert command(guest, f"sha256sum < {mount}/folder/numbers") == numbers(LINES)


def trim(guest: Guest, mount: str, path: Path) -> None:
    """What files gave up goes back to the host."""
    command(guest, f"dd if=/dev/urandom of={mount}/junk bs=1M count={JUNK // MIB}; sync")
    before = allocated(path)
    assert before > JUNK
    # qcow2 gives clusters back when its table no longer names them on stable storage: at a flush.
    assert "trimmed" in command(
        guest, f"rm {mount}/junk; sync; fstrim -v {mount}; {FLUSH} of={mount}/flushed"
    )
    assert allocated(path) < before - JUNK * 9 // 10


def is_whole(image: Path) -> None:
    """The host finds the file system as the guest left it."""
    is_clean(image)
    digest = hashlib.sha256(read_file(image, "/folder/numbers")).hexdigest()
    assert f"{digest}  -" == numbers(LINES)


@pytest.mark.parametrize(
    ("board", "ring", "queues"),
    [
        ("pc", "split", 1),
        ("pc", "split", QUEUES),
        ("pc", "packed", 1),
        ("microvm", "split", 1),
        ("microvm", "packed", 1),
    ],
)
def test_ext4_made_written_trimmed_and_checked(
    host: Host,
    debian: Image,
    tmp_path: Path,
    compatibility: Compatibility,
    *,
    board: BoardName,
    ring: RingLayout,
    queues: int,
) -> None:
    assert debian.initrd is not None
    raw, qcow2 = images(tmp_path)
    guest = boot(
        host,
        debian,
        with_mke2fs(debian.initrd.read_bytes()),
        tmp_path,
        *on_virtio(raw, qcow2, queues=queues),
        board=board,
        ring=ring,
        append=f"possible_cpus={queues}",  # the driver takes no more queues than there could be CPUs
    )
    assert command(guest, "ls /sys/block/vda/mq | wc -l") == str(queues)
    if board == "pc":
        messages = command(guest, "grep -c 'PCI-MSI.*-req' /proc/interrupts")
        assert messages == str(2 * queues)
    for place, mount, path in (("vda", "/raw", raw), ("vdb", "/qcow2", qcow2)):
        made = command(guest, f"/sbin/mkfs.ext4 -q /dev/{place}; echo made=$?")
        assert made.endswith("made=0"), made
        use_ext4(guest, place, mount)
        trim(guest, mount, path)
        command(guest, f"umount {mount}")
    power_off(guest)
    guest.delete()

    is_whole(raw)
    assert check(qcow2).clean
    disk = Qcow2Disk(qcow2, read_only=True)
    is_whole(copy_out(disk, tmp_path / "copy.img"))
    disk.close()
    kind = f"{ring} rings" if queues == 1 else f"{queues} queues"
    compatibility.row(
        guest="Debian cloud kernel (amd64)",
        boots=f"directly on {board}, disks on virtio ({TRANSPORT[board]}, {kind})",
        checked="ext4 on raw and qcow2 made, written, read back; fstrim; e2fsck and checksum on the host",
    )


def test_ext4_of_a_32_bit_kernel(
    host: Host, debian_i386: Image, tmp_path: Path, compatibility: Compatibility
) -> None:
    assert debian_i386.initrd is not None
    raw, _ = images(tmp_path)
    subprocess.run([tool("mke2fs"), "-q", "-t", "ext4", raw], check=True)
    guest = boot(host, debian_i386, debian_i386.initrd.read_bytes(), tmp_path, *on_virtio(raw))
    use_ext4(guest, "vda", "/raw")
    trim(guest, "/raw", raw)
    command(guest, "umount /raw")
    power_off(guest)
    is_whole(raw)
    compatibility.row(
        guest="Debian 686 kernel (i386)",
        boots="directly on pc, a disk on virtio (PCI, MSI-X, split rings)",
        checked="ext4 written, read back; fstrim; e2fsck and checksum on the host",
    )


LIMITS = {
    "logical_block_size": SECTOR_SIZE,
    "physical_block_size": 4 * KIB,
    "minimum_io_size": 4 * KIB,
    "optimal_io_size": 64 * KIB,
    "max_segments": 126,
    "max_segment_size": 512 * KIB,
    "discard_granularity": 4 * KIB,
    "discard_max_hw_bytes": 1 << 30,
    "max_discard_segments": 32,
    "write_zeroes_max_bytes": 64 * MIB,
}


@pytest.mark.parametrize("board", ["pc", "microvm"])
def test_what_a_driver_can_do_beside_reading_and_writing(
    host: Host, debian: Image, tmp_path: Path, compatibility: Compatibility, board: BoardName
) -> None:
    assert debian.initrd is not None
    raw, qcow2 = images(tmp_path)
    still = tmp_path / "still.img"
    still.write_bytes(b"".join(i.to_bytes(4, "little") for i in range(MIB // 4)))
    guest = boot(
        host,
        debian,
        with_programs(debian.initrd.read_bytes(), {"sbin/util-linux-blkdiscard": "blkdiscard"}),
        tmp_path,
        *on_virtio(raw, qcow2),
        *on_virtio(still, readonly=True),
        board=board,
    )
    serials = "\n".join(f"EMUVISOR-VD{number}" for number in range(3))
    assert command(guest, "for d in a b c; do echo $(cat /sys/block/vd$d/serial); done") == serials
    limits = command(guest, f"cd /sys/block/vda/queue; cat {' '.join(LIMITS)}; cd")
    assert dict(zip(LIMITS, map(int, limits.split()), strict=True)) == LIMITS

    # The cache: what the driver chooses is what the device does.
    blk = guest.machine.virtio.disks[0]
    assert command(guest, "cat /sys/block/vda/cache_type") == "write back"
    flushes = blk.statistics.flushes
    command(guest, "dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync")
    assert blk.statistics.flushes == flushes + 1
    command(guest, "echo 'write through' > /sys/block/vda/cache_type")
    assert blk.write_through
    command(guest, "dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync")
    assert blk.statistics.flushes == flushes + 1
    command(guest, "echo 'write back' > /sys/block/vda/cache_type")

    # A read-only disk.
    assert command(guest, "cat /sys/block/vdc/ro") == "1"
    digest = hashlib.sha256(still.read_bytes()).hexdigest()
    assert command(guest, "sha256sum < /dev/vdc") == f"{digest}  -"
    assert "not permitted" in command(guest, "dd if=/dev/zero of=/dev/vdc bs=512 count=1")

    # Discard and write-zeroes, without and with giving the space back.
    for place, path in (("vda", raw), ("vdb", qcow2)):
        command(guest, f"dd if=/dev/urandom of=/dev/{place} bs=1M count=32 conv=fsync")
        full = allocated(path)
        assert full >= 32 * MIB
        command(guest, f"blkdiscard -o 0 -l {8 * MIB} /dev/{place}; {FLUSH} of=/dev/{place}")
        assert allocated(path) < full - 7 * MIB
        zero = f"util-linux-blkdiscard -z -o {16 * MIB} -l {8 * MIB} /dev/{place}; echo $?"
        assert command(guest, zero) == "0"
        command(guest, "echo 3 > /proc/sys/vm/drop_caches")
        zeros = hashlib.sha256(bytes(8 * MIB)).hexdigest()
        for skip in (0, 16):
            read = command(guest, f"dd if=/dev/{place} bs=1M skip={skip} count=8 2>/dev/null | sha256sum")
            assert read == f"{zeros}  -"
        read = command(guest, f"dd if=/dev/{place} bs=1M skip=8 count=8 2>/dev/null | sha256sum")
        assert read != f"{zeros}  -"
    power_off(guest)
    guest.delete()
    assert check(qcow2).clean
    compatibility.row(
        guest="Debian cloud kernel (amd64)",
        boots=f"directly on {board}, raw, qcow2 and read-only disks on virtio",
        checked="serial numbers, limits, write cache, read-only, discard, write-zeroes",
    )
