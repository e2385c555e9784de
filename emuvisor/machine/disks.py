"""Opens what a guest's configuration calls a disk."""

from pathlib import Path

from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.devices.storage.cdimage import CdImage
from emuvisor.devices.storage.formats import format_of, open_image
from emuvisor.devices.storage.layered import LayeredDisk
from emuvisor.devices.storage.overlay import OverlayDisk, TemporaryOverlay
from emuvisor.devices.storage.overlay_format import BaseFile
from emuvisor.machine.config import DiskConfig

__all__ = ["open_disk"]


def open_disk(disk: DiskConfig) -> BlockDevice:
    """The block device that `disk` describes, one that can be frozen if it can be written; an overlay that does not
    exist is made.

    Raises ImageError naming the file.
    """
    if disk.kind == "cdrom":
        return CdImage(disk.path)
    image = _open_image(disk)
    return image if image.read_only else LayeredDisk(image)


def _open_image(disk: DiskConfig) -> BlockDevice:
    base = open_image(disk.path, disk.format, read_only=disk.readonly or disk.overlay is not None)
    if disk.overlay is None:
        return base
    try:
        if disk.overlay == "temporary":
            return TemporaryOverlay(base)
        path = Path(disk.overlay)
        file = BaseFile(Path(disk.path), format_of(disk.path, disk.format))
        return (
            OverlayDisk(base, path, file=file) if path.exists() else OverlayDisk.create(base, path, file=file)
        )
    except BaseException:
        base.close()
        raise
