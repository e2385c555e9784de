"""Image files as a whole, in each format: made, resized, opened for one after the other."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.devices.storage.formats import ImageFormat, format_of, open_image
from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.imageinfo import image_info
from emuvisor.devices.storage.overlay_file import read_store
from emuvisor.devices.storage.qcow2.create import CLUSTER_SIZE, create
from emuvisor.devices.storage.qcow2.resize import resize
from emuvisor.devices.storage.rawdisk import create_raw
from emuvisor.errors import ImageError

__all__ = ["Preallocation", "check_overlay", "create_image", "resize_image"]

Preallocation = Literal["off", "metadata", "falloc", "full"]
MAX_FILE_SIZE = (1 << 63) - SECTOR_SIZE
"""Bytes: what the host's system calls can say, in whole sectors."""


def create_image(
    path: Path,
    size: int | None,
    format: ImageFormat | None = None,
    *,
    backing: str | None = None,
    backing_format: ImageFormat | None = None,
    preallocation: Preallocation = "off",
    cluster_size: int | None = None,
    compression: Literal["zlib", "zstd"] = "zlib",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Make an image of `size` bytes that reads as zeros, or as its `backing` file, whose size is the default.

    `backing` is kept as it is written, and a relative one counts from the folder of the new image. Returns the size.
    Raises ImageError, also for what the format does not have.
    """
    form = format_of(path, format)
    if form == "raw":
        for what, given in (
            ("backing file", backing),
            ("cluster size", cluster_size),
            ("metadata to preallocate", preallocation == "metadata"),
        ):
            if given:
                raise ImageError(f"{path}: a raw image has no {what}; a qcow2 image has")
    if backing is not None:
        place = path.parent / backing
        backing_format = format_of(place, backing_format)
        with closing(open_image(place, backing_format, read_only=True)) as disk:
            size = disk.sectors * SECTOR_SIZE if size is None else size
    if size is None:
        raise ImageError(f"{path}: the image needs a size, or a backing file to take it from")
    _check_limit(path, size)
    if form == "raw":
        assert preallocation != "metadata"
        create_raw(path, size, preallocation, progress)
    else:
        create(
            path,
            size,
            cluster_size=cluster_size or CLUSTER_SIZE,
            backing=backing,
            backing_format=backing_format,
            preallocation=preallocation,
            compression=compression,
        )
    return size


def resize_image(path: Path, size: int, format: ImageFormat | None = None, *, shrink: bool = False) -> None:
    """Give the image another size; what is new reads as zeros. Only with `shrink` it may lose its end.

    Raises ImageError, also for an image that is in use.
    """
    before = image_info(path, format).virtual_size
    if size <= 0 or size % SECTOR_SIZE:
        raise ImageError(
            f"{path}: a disk image cannot have {size} bytes; "
            f"a positive multiple of the {SECTOR_SIZE}-byte sector is allowed"
        )
    _check_limit(path, size)
    if size < before and not shrink:
        raise ImageError(
            f"{path}: {size} bytes are fewer than the image has ({before}); "
            "its end would be lost, and shrinking was not allowed"
        )
    if format_of(path, format) == "qcow2":
        resize(path, size, shrink=shrink)
        return
    file = ImageFile(path, read_only=False)
    try:
        os.ftruncate(file.fd, size)
        file.flush()
    except OSError as error:
        raise ImageError(f"{path}: cannot resize the image: {error.strerror}") from error
    finally:
        file.close()


def _check_limit(path: Path, size: int) -> None:
    if size > MAX_FILE_SIZE:
        raise ImageError(f"{path}: a disk image cannot have {size} bytes; {MAX_FILE_SIZE} are the most")


def check_overlay(path: Path) -> None:
    """Look whether an overlay file is whole; its base is not needed. Raises ImageError that says what is wrong."""
    store = ImageFile(path, read_only=True, kind="overlay")
    try:
        read_store(store)
    except OSError as error:
        raise ImageError(f"{path}: cannot read the overlay: {error.strerror}") from error
    finally:
        store.close()
