"""Which format an image has is said, or follows from its name; its content never decides.

A guest writes the content of a raw disk: it could write a qcow2 header that names a file of the host's as backing
file, and would read that file as its disk once somebody opened the disk without saying its format.
"""

import os
from pathlib import Path
from typing import Literal, get_args, overload

from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.devices.storage.overlay import OverlayDisk
from emuvisor.devices.storage.overlay_file import read_base_file
from emuvisor.devices.storage.overlay_format import MAGIC as OVERLAY_MAGIC
from emuvisor.devices.storage.qcow2.backing import Chain
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.qcow2.header import MAGIC as QCOW2_MAGIC
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.errors import ImageError

__all__ = ["FORMATS", "DiskFormat", "ImageFormat", "format_of", "open_image", "refuse_other_format"]

ImageFormat = Literal["raw", "qcow2"]
FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)
DiskFormat = ImageFormat | Literal["overlay"]
"""What a guest's disk can be: an overlay needs its base, too."""

SUFFIXES: dict[str, ImageFormat] = {".qcow2": "qcow2", ".qcow": "qcow2"}
LOOKALIKES = {QCOW2_MAGIC: "a qcow2 image", OVERLAY_MAGIC: "an emuvisor overlay"}
"""Beginnings that a raw disk hardly has by chance."""


@overload
def format_of(path: str | os.PathLike[str], format: ImageFormat | None = None) -> ImageFormat: ...
@overload
def format_of(path: str | os.PathLike[str], format: DiskFormat | None) -> DiskFormat: ...
def format_of(path: str | os.PathLike[str], format: DiskFormat | None = None) -> DiskFormat:
    """`format`, or what the name of the file says: qcow2 if it ends in .qcow2, else raw."""
    return format or SUFFIXES.get(Path(path).suffix.lower(), "raw")


def open_image(
    path: str | os.PathLike[str], format: DiskFormat | None = None, *, read_only: bool = False
) -> BlockDevice:
    """The disk in the image file at `path`; the files below a qcow2 image or an overlay are opened with it, for reading
    only.

    Raises ImageError: for a file that cannot be opened, is in use, is not an image of its format, or when `format` is
    not given and the file begins like another format than its name says.
    """
    if format is None and format_of(path) == "raw":
        refuse_other_format(path)
    return _open(Path(path), format_of(path, format), read_only, Chain())


def _open(path: Path, form: DiskFormat, read_only: bool, chain: Chain) -> BlockDevice:
    """The disk at `path`, which is below the images in `chain`. Raises ImageError."""
    if form == "qcow2":
        return Qcow2Disk(path, read_only=read_only, chain=chain)
    if form == "raw":
        return RawDisk(path, read_only)
    chain.enter(path)
    base_file = read_base_file(path)
    if base_file is None:
        raise ImageError(
            f"{path}: the overlay does not say what its base is; give the base as the disk, and this as its overlay"
        )
    base = _open(base_file.path, base_file.format, True, chain)
    try:
        return OverlayDisk(base, path, read_only=read_only)
    except BaseException:
        base.close()
        raise


def refuse_other_format(path: str | os.PathLike[str]) -> None:
    """Refuse a file whose name says raw but that begins as an image of another format. Raises ImageError."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(max(map(len, LOOKALIKES)))
    except OSError:
        return  # opening it says what is wrong
    for magic, what in LOOKALIKES.items():
        if start.startswith(magic):
            raise ImageError(
                f"{path}: the file begins as {what} does, but its name says raw; say which format it is"
            )
