"""What a definition may name: everything over the Unix socket, whose clients are the user himself; over TCP files below
certain folders, so that a token does not open the host's other files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emuvisor.daemon.faults import Forbidden
from emuvisor.devices.storage.formats import DiskFormat, format_of
from emuvisor.devices.storage.imageinfo import ImageInfo, image_info
from emuvisor.errors import ImageError, UsageError
from emuvisor.machine.config import DiskConfig, GuestConfig

__all__ = ["Access"]


@dataclass(frozen=True, slots=True)
class Access:
    """`token`: what clients must know; None for a Unix socket. `folders`: below which the files lie that they may name;
    None are all files there are."""

    token: str | None = None
    folders: Sequence[Path] | None = None
    _real: tuple[Path, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "_real", tuple(folder.resolve() for folder in self.folders or ()))

    @property
    def is_local(self) -> bool:
        """The clients are the user himself."""
        return self.folders is None

    def covers(self, folder: Path) -> bool:
        """Whether clients may name files in `folder`."""
        real = folder.resolve()
        return self.is_local or any(real.is_relative_to(known) for known in self._real)

    def check(
        self, config: GuestConfig, before: GuestConfig | None = None, disks: Path | None = None
    ) -> None:
        """Raises Forbidden when the guest would use a file that is not below the folders, or what could make it do so
        later: a shared folder that it can write to, where it could put links; an image by another format than its name
        says, whose header a guest could have written; and devices of the user's, which are code of the daemon's.

        What it used `before` it may use. An imported guest has its disks in the folder `disks`.
        """
        if self.is_local:
            return
        known = set() if before is None else {*before.devices, *before.shares, *_paths(before), *before.disks}
        for device in config.devices:
            if device not in known:
                raise Forbidden(f"devices: {device!r} can be given over the Unix socket only")
        for share in config.shares:
            if not share.readonly and share not in known:
                raise Forbidden(f"shares: {share.tag!r} can be writable over the Unix socket only")
        folders = self._real if disks is None else (*self._real, disks.resolve())
        for key, path in _paths(config):
            if (key, path) not in known:
                _check_path(key, path, folders)
        if config.firmware_variables is not None and format_of(config.firmware_variables) != "raw":
            raise Forbidden(f"firmware_variables: {config.firmware_variables} has the name of a disk image")
        for disk in config.disks:
            if disk in known:
                continue
            if disks is None:
                _check_format(disk)
            for path in _backing(disk):
                _check_path(f"disks.path: {disk.path}: backing file", path, folders)

    def new_disk(self, text: str, form: DiskFormat | None) -> Path:
        """The new file to which a disk may be moved. Over TCP relative paths start at the first folder.

        Raises UsageError for one that is not absolute, Forbidden for one that `check` would not let a guest have.
        """
        path = Path(text)
        if self.folders:
            path = self.folders[0] / path
        if not path.is_absolute() or "\0" in text:
            raise UsageError(f"path: {text!r} is not an absolute path")
        if not self.is_local:
            _check_path("path", path, self._real)
            _check_format(DiskConfig(path=path, format=form))
        return path


def _check_path(key: str, path: Path, folders: tuple[Path, ...]) -> None:
    try:
        real = path.resolve()
    except (OSError, RuntimeError):  # a loop of links; RuntimeError before Python 3.13
        real = path
    if not any(real.is_relative_to(folder) for folder in folders):
        raise Forbidden(
            f"{key}: {path} is in no folder that may be used over TCP ('emuvisor serve --images')"
        )


def _check_format(disk: DiskConfig) -> None:
    """A file is an image of one format for all guests: none can write a header that another one believes."""
    used = format_of(disk.path, disk.format) if disk.kind == "disk" else "raw"
    named = format_of(disk.path)
    if used != named and disk.kind != "cdrom":
        raise Forbidden(
            f"disks.path: {disk.path} is {named} by its name; it can be used as {used} over the Unix socket only"
        )


def _paths(config: GuestConfig) -> Iterator[tuple[str, Path]]:
    """Every file and folder that a definition names, with the key that names it."""
    if config.kernel is not None:
        yield "kernel.path", config.kernel.path
        if config.kernel.initrd is not None:
            yield "kernel.initrd", config.kernel.initrd
    if config.flat is not None:
        yield "flat.path", config.flat.path
    if isinstance(config.firmware, Path):
        yield "firmware", config.firmware
    if config.firmware_variables is not None:
        yield "firmware_variables", config.firmware_variables
    yield from (("option_roms", path) for path in config.option_roms)
    yield from (("shares.path", share.path) for share in config.shares)
    for disk in config.disks:
        yield "disks.path", disk.path
        if isinstance(disk.overlay, Path):
            yield "disks.overlay", disk.overlay


def _backing(disk: DiskConfig) -> Iterator[Path]:
    """The files that a qcow2 image or an overlay stands on. Raises ImageError for what is no such image."""
    form = format_of(disk.path, disk.format)
    if disk.kind != "disk" or form == "raw":
        return
    info: ImageInfo | None = image_info(disk.path, form)
    while info is not None:
        if info.backing is None and info.backing_error is not None:
            raise ImageError(info.backing_error)
        info = info.backing
        if info is not None:
            yield info.path
