"""The files below a disk."""

from pathlib import Path

from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.devices.storage.moment import Moment
from emuvisor.devices.storage.overlay import CopyOnWriteDisk, OverlayDisk, TemporaryOverlay
from emuvisor.devices.storage.overlay_format import BaseFile
from emuvisor.devices.storage.qcow2.backing import MAX_CHAIN
from emuvisor.devices.storage.qcow2.reader import Qcow2Reader
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.errors import ImageError, StateError

__all__ = ["MAX_LAYERS", "base_file", "depth_of", "files_of"]

MAX_LAYERS = MAX_CHAIN - 1
"""Below a disk, so that it can be opened from its files."""


Layered = BlockDevice | Qcow2Reader


def below(disk: Layered) -> Layered | None:
    """What `disk` shows where it has nothing itself."""
    if isinstance(disk, CopyOnWriteDisk):
        return disk.base
    if isinstance(disk, Qcow2Reader):
        return disk.backing
    return None


def base_file(disk: BlockDevice, overlay: Path) -> BaseFile:
    """The file that has what `disk` has, as the base of the new `overlay`. Raises ImageError when there is none."""
    if isinstance(disk, Moment) and disk.saved is None:
        return base_file(disk.layer.disk, overlay)
    if isinstance(disk, RawDisk):
        return BaseFile(disk.host_path, "raw")
    if isinstance(disk, Qcow2Reader):
        return BaseFile(disk.host_path, "qcow2")
    if isinstance(disk, OverlayDisk) and disk.file is not None:
        return BaseFile(disk.host_path, "overlay")
    what = "does not say what its base is" if isinstance(disk, OverlayDisk) else "is temporary"
    raise ImageError(f"{overlay}: disk {disk.name} {what}, and can be no file's base")


def files_of(disk: BlockDevice) -> list[Path]:
    """The files that have what `disk` has, the top one first. Raises StateError when it needs more than files."""
    found = []
    at: Layered | None = disk
    while at is not None:
        if isinstance(at, Moment):
            if at.saved is not None:
                raise StateError(
                    f"disk {at.name} was frozen without an overlay file: no file has what it was"
                )
            at = at.layer.disk
            continue
        if isinstance(at, TemporaryOverlay):
            raise StateError(f"disk {at.name} has a temporary layer: no file has what it is")
        found.append(at.host_path)
        at = below(at)
    return found


def depth_of(disk: BlockDevice) -> int:
    """How many layers `disk` has, itself included."""
    depth = 0
    at: Layered | None = disk
    while at is not None:
        if isinstance(at, Moment):
            at = at.layer.disk
            continue
        depth += 1
        at = below(at)
    return depth
