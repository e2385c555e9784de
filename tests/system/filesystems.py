"""The host's programs for file systems: some go into a guest's initramfs, others look at its disks afterwards."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDevice
from emuvisor.images.cpio import CpioWriter
from emuvisor.units import MIB

LIBRARY = re.compile(r"(/\S+) \(0x")
PACKAGES = {"blkdiscard": "util-linux", "unshare": "util-linux"}


def tool(name: str) -> Path:
    path = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        package = PACKAGES.get(name, "e2fsprogs")
        pytest.skip(f"no {name} on this machine; on Debian: apt-get install {package}")
    return Path(path)


def with_programs(initrd: bytes, programs: Mapping[str, str]) -> bytes:
    """The initramfs with `programs` of the host's, by their paths in the guest, and their libraries."""
    files: dict[str, Path] = {}
    for place, name in programs.items():
        files[place] = tool(name)
        listed = subprocess.run(["ldd", files[place]], capture_output=True, text=True, check=True).stdout
        files |= {library.lstrip("/"): Path(library) for library in LIBRARY.findall(listed)}
    cpio = CpioWriter()
    for place, path in files.items():
        cpio.file(place, path.read_bytes(), 0o755)
    # Linux unpacks archives that follow one another.
    return initrd + cpio.finish()


def with_mke2fs(initrd: bytes) -> bytes:
    """busybox's own makes no ext4; the name says which kind."""
    return with_programs(initrd, {"sbin/mkfs.ext4": "mke2fs"})


def on_the_host(program: str, *arguments: str | Path) -> str:
    done = subprocess.run([tool(program), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def is_clean(image: Path) -> None:
    """Fail with what e2fsck says, unless the file system has no fault."""
    on_the_host("e2fsck", "-fn", image)


def read_file(image: Path, path: str) -> bytes:
    """A file of the file system in `image`."""
    return subprocess.run(
        [tool("debugfs"), "-R", f"cat {path}", image], capture_output=True, check=True
    ).stdout


def copy_out(disk: BlockDevice, path: Path) -> Path:
    """What a disk holds, as a raw image at `path`, for the host's programs."""
    step = MIB // SECTOR_SIZE
    with path.open("wb") as file:
        for lba in range(0, disk.sectors, step):
            file.write(disk.read(lba, min(step, disk.sectors - lba)))
    return path


def numbers(count: int) -> str:
    """What `seq COUNT | sha256sum` prints."""
    text = "".join(f"{i}\n" for i in range(1, count + 1))
    return f"{hashlib.sha256(text.encode()).hexdigest()}  -"
