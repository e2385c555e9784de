"""Reading overlay files, and telling whether they belong to a base."""

import os
from pathlib import Path

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDevice
from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.overlay_format import (
    BITMAP_SECTOR,
    COMMITTING,
    HEADER_SIZE,
    UNBOUND,
    BaseFile,
    Layout,
    decode_bitmap,
    identity_of,
)
from emuvisor.errors import ImageError

__all__ = ["changed_ns", "read_base_file", "read_overlay", "read_store"]


def read_base_file(path: Path) -> BaseFile | None:
    """The base's file, as the overlay at `path` says; None when it does not. It may be in use. Raises ImageError."""
    try:
        with path.open("rb") as file:
            layout = Layout.decode(file.read(HEADER_SIZE), str(path))
    except OSError as error:
        raise ImageError(f"{path}: cannot open the overlay: {error.strerror}") from error
    return layout.base_file(path)


def read_store(store: ImageFile) -> tuple[Layout, bytearray]:
    """The layout of an overlay file, and a byte of 0 or 1 for each cluster: whether the overlay has it.

    Raises ImageError for a file that is not an overlay, or is damaged or cut short; OSError.
    """
    name = str(store.path)
    layout = Layout.decode(store.read(0, min(HEADER_SIZE, store.size)), name)
    if store.size != layout.file_size:
        raise ImageError(
            f"{name}: the overlay has {store.size} bytes instead of {layout.file_size}; it was cut short or extended"
        )
    bitmap = store.read(HEADER_SIZE, layout.bitmap_sectors * BITMAP_SECTOR)
    return layout, decode_bitmap(bitmap, layout.clusters, name)


def read_overlay(base: BlockDevice, store: ImageFile, *, to_commit: bool = False) -> tuple[Layout, bytearray]:
    """As `read_store`, of an overlay for `base`; with `to_commit` the base may have got a part of its clusters already.

    Raises ImageError also for an overlay of another base; OSError.
    """
    layout, present = read_store(store)
    name = str(store.path)
    if layout.base_size != base.sectors * SECTOR_SIZE:
        raise ImageError(
            f"{name}: the overlay is of a disk with {layout.base_size} bytes; "
            f"{base.name} has {base.sectors * SECTOR_SIZE}"
        )
    if layout.identity == COMMITTING:
        if not to_commit:
            raise ImageError(f"{name}: a commit of the overlay into its base did not end; commit it again")
    elif layout.identity == UNBOUND:
        if 1 in present:
            raise ImageError(
                f"{name}: the overlay is damaged: it has clusters, but does not know of which base"
            )
    elif not _is_base(layout, base, os.fstat(store.fd).st_ino):
        raise ImageError(
            f"{name}: the overlay is of another base, or {base.name} was changed after it was made"
        )
    return layout, present


def _is_base(layout: Layout, base: BlockDevice, inode: int) -> bool:
    """Whether `base` is what the overlay with this inode number was made for. Raises OSError.

    A base that has the same time of change is believed; one that has another was changed, unless it may have been
    copied: then the overlay was too, and has another inode number.
    """
    if layout.base_changed_ns and layout.inode == inode:
        return layout.base_changed_ns == changed_ns(base)
    return layout.identity == identity_of(base)


def changed_ns(base: BlockDevice) -> int:
    """When the base's file was last changed. Raises OSError."""
    return base.host_path.stat().st_mtime_ns
