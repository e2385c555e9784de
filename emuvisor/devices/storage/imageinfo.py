"""What an image file is: format, sizes, users and backing files. Nothing of the disk's content is read."""

import fcntl
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from emuvisor.devices.storage.formats import DiskFormat, ImageFormat, format_of, refuse_other_format
from emuvisor.devices.storage.imagefile import STAT_BLOCK
from emuvisor.devices.storage.overlay_format import HEADER_SIZE, BaseFile, Layout
from emuvisor.devices.storage.qcow2.backing import Chain, backing_path
from emuvisor.devices.storage.qcow2.header import Header
from emuvisor.errors import ImageError
from emuvisor.units import MIB

__all__ = ["ImageInfo", "Use", "image_info"]

MAX_HEADER = 2 * MIB
"""A qcow2 header fits into a cluster, and none is larger."""
Use = Literal["no", "reading", "writing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """One image file. Sizes are in bytes; what the format does not have is None."""

    path: Path
    format: DiskFormat
    virtual_size: int
    """Of the disk."""
    file_size: int
    allocated: int
    """What the file takes on the host's file system."""
    in_use: Use
    """What others do with it at this moment, as far as they lock it."""
    cluster_size: int | None = None
    version: int | None = None
    compression: str | None = None
    backing_file: str | None = None
    """As the image names it."""
    backing_format: str | None = None
    backing: "ImageInfo | None" = None
    backing_error: str | None = None
    """Why `backing` is not known."""


def image_info(path: Path, format: DiskFormat | None = None) -> ImageInfo:
    """What the image at `path` is, by the format that is given or follows from its name; it may be in use.

    Backing files that cannot be looked at are no error. Raises ImageError for an image that cannot be read or is not of
    its format.
    """
    return _image_info(path, format, Chain())


def _image_info(path: Path, format: DiskFormat | None, chain: Chain) -> ImageInfo:
    """As `image_info`; the images in `chain` are on top of this one."""
    chain.enter(path)
    form = format_of(path, format)
    if format is None and form == "raw":
        refuse_other_format(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            start = b"" if form == "raw" else file.read(MAX_HEADER)
            allocated = os.fstat(file.fileno()).st_blocks * STAT_BLOCK
            in_use = _use_of(file.fileno())
    except OSError as error:
        raise ImageError(f"{path}: cannot read the disk image: {error.strerror}") from error
    info = ImageInfo(
        path=path, format=form, virtual_size=size, file_size=size, allocated=allocated, in_use=in_use
    )
    if form == "overlay":
        layout = Layout.decode(start[:HEADER_SIZE], str(path))
        info = replace(info, virtual_size=layout.base_size, cluster_size=layout.cluster_size)
        base = layout.base_file(path)
        return info if base is None else _with_base(info, layout.base_name, base, chain)
    if form == "qcow2":
        return _with_qcow2(info, Header.decode(start, size, str(path)), chain)
    return info


def _use_of(fd: int) -> Use:
    """How others lock the file `fd`: tried by locking it, for an instant. Raises OSError."""
    attempts: tuple[tuple[int, Use], ...] = ((fcntl.LOCK_SH, "writing"), (fcntl.LOCK_EX, "reading"))
    for how, use in attempts:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return use
    return "no"


def _with_base(info: ImageInfo, name: str, base: BaseFile, chain: Chain) -> ImageInfo:
    info = replace(info, backing_file=name, backing_format=base.format)
    try:
        return replace(info, backing=_image_info(base.path, base.format, chain))
    except ImageError as error:
        return replace(info, backing_error=str(error))


def _with_qcow2(info: ImageInfo, header: Header, chain: Chain) -> ImageInfo:
    info = replace(
        info,
        virtual_size=header.size,
        cluster_size=header.cluster_size,
        version=header.version,
        compression=header.compression,
        backing_file=header.backing_file,
        backing_format=header.backing_format,
    )
    if header.backing_file is None:
        return info
    try:
        path = backing_path(info.path, header)
        assert path is not None
        form: ImageFormat = "qcow2" if header.backing_format == "qcow2" else "raw"
        return replace(info, backing=_image_info(path, form, chain))
    except ImageError as error:
        return replace(info, backing_error=str(error))
