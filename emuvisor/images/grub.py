"""GRUB on a hard disk (disk.img) and on an ISO (cd.iso), which boots the `debian` image's kernel or memtest86+.

The disk's menu waits for a key, at the keyboard or on the serial port; the ISO boots at once.
"""

import shutil
from pathlib import Path

from emuvisor.images import ext4, iso, mbr, tools
from emuvisor.images.apt import Apt, Package
from emuvisor.images.cache import Image, Recipe, install, work_folder
from emuvisor.images.payload import APPEND, MEMTEST_APPEND, payload
from emuvisor.images.progress import Progress

__all__ = ["PACKAGE", "boot_disk", "pull_grub", "unpack_modules"]

PACKAGE = "grub-pc-bin"
MODULES = "usr/lib/grub/i386-pc/"
CORE_MODULES = ("biosdisk", "normal", "linux", "configfile", "serial", "terminal", "echo", "halt", "reboot")
DISK_MODULES = (*CORE_MODULES, "part_msdos", "ext2")
CD_MODULES = (*CORE_MODULES, "iso9660")

DISK_SIZE = 64 * 1024 * 1024
DISK_SIGNATURE = 0xE0A0B0C1
ELTORITO = "boot/grub/eltorito.img"

WAIT_FOR_A_KEY, AT_ONCE = -1, 0
CONFIGURATION = f"""\
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=%d
menuentry 'Debian' {{
    linux /boot/vmlinuz {APPEND}
    initrd /boot/initrd.cpio
}}
menuentry 'memtest86+' {{
    linux /boot/memtest {MEMTEST_APPEND}
}}
menuentry 'Power off' {{
    halt
}}
"""


def pull_grub(name: str, progress: Progress) -> Image:
    """Build and install the image, and first those that it boots. Raises HostError and ImageError."""
    tools.require("grub-mkimage", "mke2fs", "xorriso")
    steps = 5
    progress("getting a kernel and memtest86+", 0, steps)
    boots = payload()
    with work_folder() as work:
        progress(f"downloading {PACKAGE}", 1, steps)
        package = Apt().download(work, PACKAGE)[PACKAGE]
        modules = unpack_modules(package, work / "modules")
        content = work / "content"
        configuration = content / "boot/grub/grub.cfg"
        configuration.parent.mkdir(parents=True)
        for file, source in boots.files.items():
            shutil.copyfile(source, content / "boot" / file)

        progress("making the disk", 2, steps)
        configuration.write_text(CONFIGURATION % WAIT_FOR_A_KEY)
        disk = work / "disk.img"
        boot_disk(disk, modules, size=DISK_SIZE, signature=DISK_SIGNATURE)
        start = mbr.PARTITION_START * mbr.SECTOR
        ext4.make(disk, kind="ext2", content=content, offset=start, size=DISK_SIZE - start)

        progress("making the ISO", 3, steps)
        configuration.write_text(CONFIGURATION % AT_ONCE)
        _mkimage(modules, "i386-pc-eltorito", content / ELTORITO, "(cd)/boot/grub", CD_MODULES)
        cd = work / "cd.iso"
        iso.make(cd, content=content, boot_image=ELTORITO, catalog="boot/boot.cat", label="GRUB")

        progress("installing", 4, steps)
        image = install(
            name,
            Recipe(
                files={"disk.img": disk, "cd.iso": cd},
                disk="disk.img",
                firmware="seabios",
                packages={PACKAGE: package.version, **boots.packages},
            ),
        )
    progress("done", steps, steps)
    return image


def unpack_modules(package: Package, folder: Path) -> Path:
    """GRUB's modules and boot sectors for BIOS machines out of `package`, in the new folder `folder`."""
    folder.mkdir()
    for path, data in package.files(MODULES).items():
        (folder / Path(path).name).write_bytes(data)
    return folder


def boot_disk(disk: Path, modules: Path, *, size: int, signature: int) -> None:
    """A new disk image with GRUB in front of one Linux partition, where it looks for /boot/grub/grub.cfg.

    Raises HostError.
    """
    core = disk.with_name("core.img")
    _mkimage(modules, "i386-pc", core, "(hd0,msdos1)/boot/grub", DISK_MODULES)
    partition = mbr.Partition(mbr.LINUX, mbr.PARTITION_START, size // mbr.SECTOR - mbr.PARTITION_START)
    with disk.open("wb") as file:
        file.write(mbr.boot_sector((modules / "boot.img").read_bytes(), partition, signature))
        # boot.img loads sector 1, which says that the rest of the core follows: GRUB's defaults.
        file.write(core.read_bytes())
        file.truncate(size)


def _mkimage(modules: Path, target: str, output: Path, prefix: str, names: tuple[str, ...]) -> None:
    tools.run(["grub-mkimage", "-d", modules, "-O", target, "-o", output, "-p", prefix, *names])
