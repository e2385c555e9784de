"""Which format an image has is said, or follows from its name; its content never decides.

A guest writes the content of a raw disk: it could write a qcow2 header that names a file of the host's as backing
file, and would read that file as its disk once somebody opened the disk without saying its format.
"""

import os
from pathlib import Path
from typing import Literal, get_args

from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.devices.storage.overlay_format import MAGIC as OVERLAY_MAGIC
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.qcow2.header import MAGIC as QCOW2_MAGIC
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.errors import ImageError

__all__ = ["FORMATS", "ImageFormat", "format_of", "open_image", "refuse_other_format"]

ImageFormat = Literal["raw", "qcow2"]
FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)

SUFFIXES: dict[str, ImageFormat] = {".qcow2": "qcow2", ".qcow": "qcow2"}
LOOKALIKES = {QCOW2_MAGIC: "a qcow2 image", OVERLAY_MAGIC: "an emuvisor overlay"}
"""Beginnings that a raw disk hardly has by chance."""


def format_of(path: str | os.PathLike[str], format: ImageFormat | None = None) -> ImageFormat:
    """`format`, or what the name of the file says: qcow2 if it ends in .qcow2, else raw."""
    return format or SUFFIXES.get(Path(path).suffix.lower(), "raw")


def open_image(
    path: str | os.PathLike[str], format: ImageFormat | None = None, *, read_only: bool = False
) -> BlockDevice:
    """The disk in the image file at `path`; a qcow2 image's backing files are opened with it, for reading only.

    Raises ImageError: for a file that cannot be opened, is in use, is not an image of its format, or when `format` is
    not given and the file begins like another format than its name says.
    """
    if format_of(path, format) == "qcow2":
        return Qcow2Disk(path, read_only=read_only)
    if format is None:
        refuse_other_format(path)
    return RawDisk(path, read_only)


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
