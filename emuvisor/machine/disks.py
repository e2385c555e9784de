"""Opens what a guest's configuration calls a disk."""

from pathlib import Path

from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.devices.storage.cdimage import CdImage
from emuvisor.devices.storage.formats import open_image
from emuvisor.devices.storage.overlay import OverlayDisk, TemporaryOverlay
from emuvisor.machine.config import DiskConfig

__all__ = ["open_disk"]


def open_disk(disk: DiskConfig) -> BlockDevice:
    """The block device that `disk` describes; an overlay that does not exist is made.

    Raises ImageError naming the file.
    """
    if disk.kind == "cdrom":
        return CdImage(disk.path)
    base = open_image(disk.path, disk.format, read_only=disk.readonly or disk.overlay is not None)
    if disk.overlay is None:
        return base
    try:
        if disk.overlay == "temporary":
            return TemporaryOverlay(base)
        path = Path(disk.overlay)
        return OverlayDisk(base, path) if path.exists() else OverlayDisk.create(base, path)
    except BaseException:
        base.close()
        raise
