"""The version of a store's folder, and how an older one becomes this one."""

from collections.abc import Callable, Mapping
from pathlib import Path

from emuvisor.errors import SnapshotError
from emuvisor.store.files import HostFiles

__all__ = ["UPGRADES", "VERSION", "read_version", "upgrade", "write_version"]

VERSION = 1
Upgrade = Callable[[Path, HostFiles], None]
UPGRADES: Mapping[int, Upgrade] = {}
"""By version, what makes a store of the next version from it. A crash in the middle means that it is made again, so it
must bear finding its own work half done."""
_FILE = "format"
_FIRST = "emuvisor store "


def read_version(folder: Path) -> int | None:
    """The version of the store in `folder`; None when there is none. Raises SnapshotError for one that cannot be read
    by this emuvisor."""
    path = folder / _FILE
    try:
        text = path.read_bytes()[:64].decode("ascii", "replace")
    except FileNotFoundError:
        return None
    number = text.removeprefix(_FIRST).removesuffix("\n")
    if not (text.startswith(_FIRST) and number.isascii() and number.isdigit()):
        raise SnapshotError(f"{path} is damaged: {text[:32]!r} instead of '{_FIRST}{VERSION}'")
    version = int(number)
    if version > VERSION:
        raise SnapshotError(f"{folder} is a store of version {version}; this emuvisor reads 1 to {VERSION}")
    return version


def write_version(folder: Path, files: HostFiles, version: int = VERSION) -> None:
    """From now on `folder` is a store of `version`."""
    files.replace(folder / _FILE, f"{_FIRST}{version}\n".encode())


def upgrade(folder: Path, files: HostFiles, version: int, upgrades: Mapping[int, Upgrade] = UPGRADES) -> None:
    """Bring a store of `version` to this one, step by step. Raises SnapshotError when it is too old."""
    for old in range(version, VERSION):
        if old not in upgrades:
            raise SnapshotError(f"{folder} is a store of version {old}, which this emuvisor cannot upgrade")
        upgrades[old](folder, files)
        write_version(folder, files, old + 1)
