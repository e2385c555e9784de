"""Giving the disk in an image another size."""

import os
from dataclasses import replace

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.qcow2.entries import Kind
from emuvisor.devices.storage.qcow2.header import check_size
from emuvisor.errors import ImageError

__all__ = ["resize", "resize_open"]


def resize(path: str | os.PathLike[str], size: int, *, shrink: bool = False) -> None:
    """Give the disk of the qcow2 image at `path` `size` bytes. What is new reads as zeros.

    An image with clusters behind the new end is only made smaller with `shrink`, which loses them. Raises ImageError
    for a size that the image cannot have, one with internal snapshots, and when the host cannot do it.
    """
    try:
        with Qcow2Disk(path) as disk:
            resize_open(disk, size, shrink=shrink)
    except OSError as error:
        raise ImageError(f"{path}: cannot resize the disk image: {error.strerror}") from error


def resize_open(disk: Qcow2Disk, size: int, *, shrink: bool = False) -> None:
    """The same for an open disk. Raises ImageError, OSError."""
    header = disk.image.header
    check_size(size, header.cluster_bits, disk.name)
    if header.nb_snapshots:
        raise ImageError(f"{disk.name}: a qcow2 image with internal snapshots cannot be resized")
    if size > header.size:
        _grow(disk, size)
    elif size < header.size:
        _shrink(disk, size, shrink=shrink)


def _grow(disk: Qcow2Disk, size: int) -> None:
    image, old = disk.image, disk.image.header.size
    entries = replace(image.header, size=size).l1_entries_needed
    if entries > image.header.l1_size:
        image.grow_l1(entries)
    disk.resized(size)
    # Behind the old end may be what the last cluster had there, and the rest of a longer backing file.
    rest = -(-old // disk.cluster_size) * disk.cluster_size
    below = 0 if disk.backing is None else disk.backing.sectors * SECTOR_SIZE
    stale = min(size, max(rest, below))
    try:
        disk.write_zeroes(old // SECTOR_SIZE, (stale - old) // SECTOR_SIZE, unmap=True)
        disk.flush()
        image.set_size(size)
    except OSError:
        disk.resized(old)
        raise


def _shrink(disk: Qcow2Disk, size: int, *, shrink: bool) -> None:
    header = disk.image.header
    first = -(-size // disk.cluster_size)
    start = min(first * disk.cluster_size, header.size)
    lost = sum(
        extent.length
        for extent in disk.extents(start, header.size - start)
        if extent.kind in (Kind.DATA, Kind.COMPRESSED)
    )
    if lost and not shrink:
        raise ImageError(
            f"{disk.name}: the disk has {lost} bytes in clusters behind byte {size}, which would be lost; "
            "shrink it explicitly to lose them"
        )
    disk.image.set_size(size)
    disk.forget(first, header.clusters)
    disk.resized(size)
    disk.flush()
