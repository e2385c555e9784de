"""Moving what an image has into its backing file."""

import os

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.devices.storage.qcow2.backing import Chain, backing_path
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.qcow2.entries import Kind
from emuvisor.devices.storage.qcow2.resize import resize_open
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.errors import ImageError
from emuvisor.units import MIB

__all__ = ["commit"]

CHUNK_SECTORS = MIB // SECTOR_SIZE


def commit(path: str | os.PathLike[str]) -> None:
    """Write what the qcow2 image at `path` has to its backing file, which grows if it is shorter; the image is then
    empty and reads as before.

    A host that stops at any moment leaves the image as it reads now, and it can be done again. Raises ImageError for
    an image without a backing file, one of the two that cannot be opened for writing, and when the host cannot do it.
    """
    try:
        _commit(path, Chain())
    except OSError as error:
        raise ImageError(f"{path}: cannot commit the qcow2 image: {error.strerror}") from error


def _commit(path: str | os.PathLike[str], chain: Chain) -> None:
    with Qcow2Disk(path, backing=None, chain=chain) as top:
        place = backing_path(path, top.image.header)
        if place is None:
            raise ImageError(f"{path}: the qcow2 image has no backing file to commit to")
        if top.image.header.backing_format == "qcow2":
            with Qcow2Disk(place, chain=chain) as base:
                if base.sectors < top.sectors:
                    resize_open(base, top.sectors * SECTOR_SIZE)
                _copy(top, base)
        else:
            chain.enter(place)
            with RawDisk(place) as raw:
                short = raw.sectors < top.sectors
            if short:
                os.truncate(place, top.sectors * SECTOR_SIZE)
            with RawDisk(place) as raw:
                _copy(top, raw)
        top.forget(0, top.image.header.clusters)
        top.flush()


def _copy(top: Qcow2Disk, base: Qcow2Disk | RawDisk) -> None:
    for extent in top.extents():
        lba, end = extent.start // SECTOR_SIZE, (extent.start + extent.length) // SECTOR_SIZE
        if extent.kind is Kind.ZERO:
            base.write_zeroes(lba, end - lba, unmap=True)
        elif extent.kind is not Kind.BACKING:
            for start in range(lba, end, CHUNK_SECTORS):
                base.write(start, top.read(start, min(CHUNK_SECTORS, end - start)))
    base.flush()
