"""A hard disk with an EFI system partition (disk.img), from which UEFI firmware boots the `debian` image's kernel.

There is no boot loader: the firmware's shell runs startup.nsh, which starts the kernel, itself an EFI program.
"""

from pathlib import Path

from emuvisor.images import fat, mbr, tools
from emuvisor.images.cache import Image, Recipe, install, work_folder
from emuvisor.images.payload import APPEND, payload
from emuvisor.images.progress import Progress

__all__ = ["pull_efi"]

DISK_SIZE = 64 * 1024 * 1024
DISK_SIGNATURE = 0xE0A0B0C4
STARTUP = f"fs0:\r\nvmlinuz initrd=\\initrd.cpio {APPEND}\r\n"


def pull_efi(name: str, progress: Progress) -> Image:
    """Build and install the image, and first the one that it boots. Raises HostError and ImageError."""
    tools.require(*fat.PROGRAMS)
    steps = 3
    progress("getting a kernel", 0, steps)
    boots = payload(memtest=False)
    with work_folder() as work:
        progress("making the disk", 1, steps)
        startup = work / "startup.nsh"
        startup.write_text(STARTUP, newline="")
        disk = work / "disk.img"
        _make_disk(disk, {**boots.files, "startup.nsh": startup})
        progress("installing", 2, steps)
        image = install(
            name,
            Recipe(files={"disk.img": disk}, disk="disk.img", firmware="ovmf", packages=boots.packages),
        )
    progress("done", steps, steps)
    return image


def _make_disk(disk: Path, files: dict[str, Path]) -> None:
    start, sectors = mbr.PARTITION_START, DISK_SIZE // mbr.SECTOR - mbr.PARTITION_START
    with disk.open("wb") as file:
        file.write(mbr.boot_sector(b"", mbr.Partition(mbr.EFI_SYSTEM, start, sectors), DISK_SIGNATURE))
        file.truncate(DISK_SIZE)
    fat.make_partition(disk, start=start, sectors=sectors)
    fat.copy_in(disk, start, files)
