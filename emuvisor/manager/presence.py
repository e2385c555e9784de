"""Whether what a definition names is there: said when the guest is defined, not first when it is started."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from emuvisor.errors import ConfigError, ImageError
from emuvisor.machine.config import GuestConfig

__all__ = ["require_files"]


def require_files(config: GuestConfig) -> None:
    """Raises ConfigError, or ImageError for a disk, when a file or folder that `config` names cannot be read. What is
    in them shows when the guest is started. Variables of firmware and overlays are made when there are none."""
    for path in _files(config):
        if why := _refusal(path, folder=False):
            raise ConfigError(f"{path}: cannot be read: {why}")
    for disk in config.disks:
        if why := _refusal(disk.path, folder=False):
            kind = "CD" if disk.kind == "cdrom" else "disk"
            raise ImageError(f"{disk.path}: cannot open the {kind} image: {why}")
    for share in config.shares:
        if why := _refusal(share.path, folder=True):
            raise ConfigError(f"virtio-fs {share.tag}: cannot share the folder {share.path}: {why}")


def _files(config: GuestConfig) -> Iterator[Path]:
    if config.kernel is not None:
        yield config.kernel.path
        if config.kernel.initrd is not None:
            yield config.kernel.initrd
    if config.flat is not None:
        yield config.flat.path
    if isinstance(config.firmware, Path):
        yield config.firmware
    yield from config.option_roms


def _refusal(path: Path, *, folder: bool) -> str:
    """Why it cannot be used, in the system's words; empty when it can."""
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        return error.strerror or str(error)
    if is_folder != folder:
        return os.strerror(errno.ENOTDIR if folder else errno.EISDIR)
    return "" if os.access(path, os.R_OK) else os.strerror(errno.EACCES)
