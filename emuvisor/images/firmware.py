"""Firmware from Debian's packages, unmodified.

seabios  the 256 KiB BIOS (bios.bin) and the video BIOS of QEMU's standard VGA (vgabios.bin)
ovmf     UEFI: code and variables in one image of 2 or 4 MiB (ovmf.fd)
"""

from pathlib import Path

from emuvisor.errors import UsageError
from emuvisor.images.apt import Apt
from emuvisor.images.cache import Image, Recipe, find, install, work_folder
from emuvisor.images.progress import Progress

__all__ = ["FILES", "firmware_file", "pull_firmware", "video_bios_file"]

FILES = {
    "seabios": {
        "bios.bin": "usr/share/seabios/bios-256k.bin",
        "vgabios.bin": "usr/share/seabios/vgabios-stdvga.bin",
    },
    "ovmf": {"ovmf.fd": "usr/share/ovmf/OVMF.fd"},
}
"""What each package has: our name and its path in the package."""


def pull_firmware(name: str, progress: Progress) -> Image:
    """Fetch and install the firmware `name`, which is also its package's. Raises HostError and ImageError."""
    steps = 2
    with work_folder() as work:
        progress(f"downloading {name}", 0, steps)
        package = Apt().download(work, name)[name]
        progress("installing", 1, steps)
        files = {file: package.file(path) for file, path in FILES[name].items()}
    image = install(name, Recipe(files=files, packages={name: package.version}))
    progress("done", steps, steps)
    return image


def firmware_file(name: str) -> Path:
    """The image that is mapped below 4 GiB for the firmware "seabios" or "ovmf".

    Raises UsageError if it is not in the cache.
    """
    return _file(name, next(iter(FILES[name])))


def video_bios_file() -> Path:
    """The VGA BIOS: an option ROM for the VGA's ROM BAR or C0000h. Raises UsageError as `firmware_file`."""
    return _file("seabios", "vgabios.bin")


def _file(name: str, file: str) -> Path:
    image = find(name)
    if image is None:
        raise UsageError(f"the firmware {name!r} is not here yet; get it with: emuvisor images pull {name}")
    return image.path / file
