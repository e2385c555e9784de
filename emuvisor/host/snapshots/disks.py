"""The disks of guests in snapshots: files among the store's disks, each with what no file below it has."""

import fcntl
import os
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from emuvisor.bus.device import SavedState, check_saved
from emuvisor.devices.storage.overlay_file import read_base_file
from emuvisor.errors import ImageError, SnapshotError, UsageError
from emuvisor.machine.config import DiskConfig
from emuvisor.store.manifest import Metadata
from emuvisor.store.store import Store

if TYPE_CHECKING:
    from emuvisor.devices.storage.layered import Frozen

__all__ = ["KeptDisks", "keep_disks", "remove_unused_disks", "restored_disks"]

_DEVICE = "disk"
_VERSION = 1
PREFIX = "snapshot-"
"""Names of files that were made here begin so; others are nobody's business."""
_FORMATS = ("raw", "overlay")

Overlay = Callable[[int], Path]
"""Says where the overlay file of disk number such is to be made."""


@dataclass(slots=True)
class KeptDisks:
    """What a snapshot says of disks, by drive."""

    described: list[SavedState | None] = field(default_factory=list)
    """None for a drive whose content is not in the snapshot."""
    layers: dict[str, list[str]] = field(default_factory=dict)
    """The store's files that each one consists of, the upper ones first."""


@contextmanager
def keep_disks(disks: "Sequence[Frozen | None]", store: Store) -> Iterator[KeptDisks]:
    """Write the disks of a checkpoint to files of `store`; what fails before the end of the context removes them.

    Raises ImageError when the host cannot write one.
    """
    kept = KeptDisks()
    made: list[Path] = []
    try:
        for number, frozen in enumerate(disks):
            if frozen is None:
                kept.described.append(None)
                continue
            files = frozen.save(store.disk_path(f"{PREFIX}{uuid4().hex}-{number}"))
            made.append(files.path)
            folder = files.path.parent.resolve()
            below = [path.name for path in files.below if path.parent.resolve() == folder]
            kept.layers[str(number)] = [files.path.name, *below]
            kept.described.append({"device": _DEVICE, "version": _VERSION, "format": files.format})
        yield kept
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise


def restored_disks(
    disks: Sequence[DiskConfig],
    described: Sequence[SavedState | None],
    metadata: Metadata,
    store: Store,
    overlay: Overlay | None,
) -> tuple[DiskConfig, ...]:
    """The disks of a guest that goes on from a snapshot: on top of its files, with what the guest writes in an
    `overlay` file each or, without, forgotten with the guest. Disks that are not in it stay as they are.

    A floppy disk can then be read only: there are no overlays on such. Raises SnapshotError.
    """
    out = []
    for number, (disk, state) in enumerate(zip(disks, described, strict=True)):
        if state is None:
            out.append(disk)
            continue
        check_saved(state, _DEVICE, _VERSION)
        layers = metadata.disks.get(str(number), ())
        if not layers or state.get("format") not in _FORMATS:
            raise SnapshotError(f"it does not say what is on disk {number}")
        try:
            path = store.disk_path(layers[0])
        except UsageError as error:
            raise SnapshotError(f"disk {number}: {error}") from None
        if not path.is_file():
            raise SnapshotError(f"disk {number}: {path} is gone")
        if disk.kind == "floppy":
            out.append(replace(disk, path=path, format="raw", readonly=True))
        else:
            top: Path | Literal["temporary"] = "temporary" if overlay is None else overlay(number)
            out.append(replace(disk, path=path, format=state["format"], readonly=False, overlay=top))
    return tuple(out)


def remove_unused_disks(store: Store) -> int:
    """Delete the disks of snapshots that nobody needs any more: no snapshot, no other file among the store's disks, and
    no guest that runs. Returns how many bytes they took. What a crash has left half-written goes, too.

    Overlays of guests that are outside the store's folder are not known here. While a snapshot is being written nothing
    is deleted: nobody refers yet to what it makes. Raises StateError for a store that is open for reading only,
    HostError.
    """
    freed = 0
    with store.quiet() as quiet:
        while quiet and (found := _unused(store)):
            for name in found:
                freed += store.delete_disk(name)
        for path in store.folder.glob(f"disks/.{PREFIX}*") if quiet else ():
            if not _is_open(path):
                freed += path.stat().st_blocks * 512
                path.unlink()
    return freed


def _unused(store: Store) -> list[str]:
    """Those on which nothing stands; when they are gone, it may be true of others."""
    names = store.disks()
    used = {
        layer for info in store.snapshots() for layers in info.metadata.disks.values() for layer in layers
    }
    used |= _named_by_guests(store)
    for name in names:
        with suppress(ImageError):
            base = read_base_file(store.disk_path(name))
            if base is not None:
                used.add(base.path.name)
    mine = (name for name in names if name.startswith(PREFIX) and name not in used)
    return [name for name in mine if not _is_open(store.disk_path(name))]


def _named_by_guests(store: Store) -> set[str]:
    """The store's disks that guests' definitions name; all of them, when one of those cannot be read."""
    folder = store.disk_path(PREFIX).parent.resolve()
    found = set()
    for guest in store.guests():
        try:
            disks = tomllib.loads(store.definition(guest)).get("disks", [])
        except tomllib.TOMLDecodeError:
            return set(store.disks())
        texts = [
            text
            for disk in disks
            if isinstance(disk, dict)
            for text in disk.values()
            if isinstance(text, str)
        ]
        paths = [Path(text) for text in texts]
        found |= {path.name for path in paths if path.parent.resolve() == folder}
    return found


def _is_open(path: Path) -> bool:
    """Whether a guest, or somebody who writes it, has it open (`devices/storage/locks.py`)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
