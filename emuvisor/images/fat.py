"""Makes FAT file systems in image files with mtools, without root."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from emuvisor.images import tools
from emuvisor.images.ext4 import BUILD_TIME_S

__all__ = ["PROGRAMS", "copy_in", "make_floppy", "make_partition"]

PROGRAMS = ("mcopy", "mformat", "mmd")
"""What this module runs, for `tools.require`."""

HEADS, SECTORS_PER_TRACK = 255, 63
"""The geometry that a BIOS gives a disk in LBA mode."""
FIXED_SERIAL = "e0a0b0c0"
ENVIRONMENT = {"SOURCE_DATE_EPOCH": str(BUILD_TIME_S), "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1"}


def make_floppy(image: Path, size: int) -> None:
    """A FAT12 file system that fills the new file `image`. Raises HostError."""
    with image.open("wb") as file:
        file.truncate(size)
    _mtools("mformat", "-i", image, "-f", str(size // 1024), "-N", FIXED_SERIAL, "::")


def make_partition(image: Path, *, start: int, sectors: int) -> None:
    """A FAT file system in the `sectors` sectors from LBA `start` of the file `image`. Raises HostError."""
    _mtools(
        "mformat",
        *("-i", f"{image}@@{start}s", "-T", str(sectors), "-H", str(start)),
        *("-h", str(HEADS), "-s", str(SECTORS_PER_TRACK), "-N", FIXED_SERIAL, "::"),
    )


def copy_in(image: Path, start: int, files: Mapping[str, Path]) -> None:
    """Copy files into the file system at LBA `start`, each to its path there. Raises HostError."""
    drive = f"{image}@@{start}s"
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents if str(parent) != "."}
    for folder in sorted(folders):
        _mtools("mmd", "-i", drive, f"::{folder}")
    for name, path in files.items():
        _mtools("mcopy", "-i", drive, path, f"::{name}")


def _mtools(program: str, *arguments: str | Path) -> None:
    tools.run([program, *arguments], environment=ENVIRONMENT)
