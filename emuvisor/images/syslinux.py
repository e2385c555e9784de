"""SYSLINUX on a hard disk (disk.img) and a floppy (floppy.img), ISOLINUX on an ISO (cd.iso).

Disk and ISO ask at their prompt, on the screen and on the serial port, for `debian` (the `debian` image's
kernel) or `memtest`; the floppy has room for memtest86+ alone and boots it at once.
"""

import shutil
from pathlib import Path

from emuvisor.images import fat, iso, mbr, tools
from emuvisor.images.apt import Apt
from emuvisor.images.cache import Image, Recipe, install, work_folder
from emuvisor.images.payload import APPEND, MEMTEST_APPEND, payload
from emuvisor.images.progress import Progress

__all__ = ["pull_syslinux"]

LOADER_PACKAGES = ("syslinux-common", "isolinux")
MBR_CODE = "usr/lib/syslinux/mbr/mbr.bin"
ISOLINUX = "usr/lib/ISOLINUX/isolinux.bin"
LDLINUX = "usr/lib/syslinux/modules/bios/ldlinux.c32"

DISK_SIZE = 64 * 1024 * 1024
DISK_SIGNATURE = 0xE0A0B0C2
FLOPPY_SIZE = 1440 * 1024

MEMTEST = f"LABEL memtest\n    KERNEL /memtest\n    APPEND {MEMTEST_APPEND}\n"
PROMPT = f"""\
SERIAL 0 115200
PROMPT 1
TIMEOUT 0
SAY debian or memtest?
DEFAULT debian
LABEL debian
    KERNEL /vmlinuz
    INITRD /initrd.cpio
    APPEND {APPEND}
{MEMTEST}"""
AT_ONCE = f"SERIAL 0 115200\nDEFAULT memtest\n{MEMTEST}"


def pull_syslinux(name: str, progress: Progress) -> Image:
    """Build and install the image, and first those that it boots. Raises HostError and ImageError."""
    tools.require("syslinux", "xorriso", *fat.PROGRAMS)
    steps = 6
    progress("getting a kernel and memtest86+", 0, steps)
    boots = payload()
    with work_folder() as work:
        progress(f"downloading {' and '.join(LOADER_PACKAGES)}", 1, steps)
        packages = Apt().download(work, *LOADER_PACKAGES)
        common, isolinux = (packages[package] for package in LOADER_PACKAGES)

        progress("making the disk", 2, steps)
        prompt = work / "prompt.cfg"
        prompt.write_text(PROMPT)
        disk = work / "disk.img"
        _make_disk(disk, common.file(MBR_CODE), {**boots.files, "syslinux.cfg": prompt})

        progress("making the floppy", 3, steps)
        at_once = work / "at-once.cfg"
        at_once.write_text(AT_ONCE)
        floppy = work / "floppy.img"
        fat.make_floppy(floppy, FLOPPY_SIZE)
        fat.copy_in(floppy, 0, {"memtest": boots.files["memtest"], "syslinux.cfg": at_once})
        tools.run(["syslinux", "--install", floppy])

        progress("making the ISO", 4, steps)
        content = work / "content"
        content.mkdir()
        for file, source in {**boots.files, "isolinux.cfg": prompt}.items():
            shutil.copyfile(source, content / file)
        (content / "isolinux.bin").write_bytes(isolinux.file(ISOLINUX))
        (content / "ldlinux.c32").write_bytes(common.file(LDLINUX))
        cd = work / "cd.iso"
        iso.make(cd, content=content, boot_image="isolinux.bin", catalog="boot.cat", label="ISOLINUX")

        progress("installing", 5, steps)
        image = install(
            name,
            Recipe(
                files={"disk.img": disk, "floppy.img": floppy, "cd.iso": cd},
                disk="disk.img",
                firmware="seabios",
                packages={
                    **{package: deb.version for package, deb in packages.items()},
                    **boots.packages,
                },
            ),
        )
    progress("done", steps, steps)
    return image


def _make_disk(disk: Path, code: bytes, files: dict[str, Path]) -> None:
    start, sectors = mbr.PARTITION_START, DISK_SIZE // mbr.SECTOR - mbr.PARTITION_START
    with disk.open("wb") as file:
        file.write(mbr.boot_sector(code, mbr.Partition(mbr.FAT16_LBA, start, sectors), DISK_SIGNATURE))
        file.truncate(DISK_SIZE)
    fat.make_partition(disk, start=start, sectors=sectors)
    fat.copy_in(disk, start, files)
    tools.run(["syslinux", "--install", "--offset", str(start * mbr.SECTOR), disk])
