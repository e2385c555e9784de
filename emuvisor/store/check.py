"""Is everything in a store readable, and if not, what is lost."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import PageLost, SnapshotError, UsageError
from emuvisor.store.files import HostFiles
from emuvisor.store.index import Index, references
from emuvisor.store.manifest import SUFFIX, Manifest, parse
from emuvisor.store.names import check_name
from emuvisor.store.pack import Pack
from emuvisor.store.packs import Packs
from emuvisor.store.rebuild import rebuild
from emuvisor.units import PAGE_SIZE

__all__ = ["Problem", "check_guests", "check_packs", "fresh_dump", "leftovers"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something is wrong with `subject`; `repaired` when it no longer is."""

    subject: str
    text: str
    repaired: bool = False


def check_packs(packs: Packs) -> Iterator[tuple[str, NDArray[np.bool_] | str]]:
    """Read every page of every pack; for each pack which of its pages are good, or why it cannot be used at all."""
    page = memoryview(bytearray(PAGE_SIZE))
    for uid in packs.on_disk():
        try:
            pack = Pack(packs.path(uid))
        except (SnapshotError, OSError) as error:
            yield uid, str(error)
            continue
        good = pack.lengths > 0
        for index in np.flatnonzero(good).tolist():
            try:
                pack.read(index, page)
            except PageLost:
                good[index] = False
        yield uid, good


def check_guests(guests: Path, disks: Path, good: dict[str, NDArray[np.bool_] | str]) -> Iterator[Problem]:
    """Read every definition and snapshot; `good` is what `check_packs` found."""
    for folder in sorted(guests.iterdir()):
        try:
            check_name("guest", folder.name)
            tomllib.loads((folder / "guest.toml").read_text("utf-8"))
        except (OSError, UsageError, ValueError) as error:
            yield Problem(f"guest {folder.name}", f"its definition cannot be used: {error}")
        for path in sorted((folder / "snapshots").glob("*" + SUFFIX)):
            subject = f"snapshot {folder.name}/{path.stem}"
            try:
                manifest = parse(path, path.read_bytes())
                manifest.expand_states()
            except (SnapshotError, OSError) as error:
                yield Problem(subject, str(error))
                continue
            for text in _check_snapshot(path, manifest, disks, good):
                yield Problem(subject, text)


def _check_snapshot(
    path: Path, manifest: Manifest, disks: Path, good: dict[str, NDArray[np.bool_] | str]
) -> Iterator[str]:
    if manifest.metadata.name != path.stem:
        yield f"{path} holds another snapshot, which was made as {manifest.metadata.name!r}"
    lost = 0
    for uid, pages in references(manifest):
        there = good.get(uid)
        if isinstance(there, np.ndarray):
            lost += len(pages) - int(there[pages[pages < len(there)]].sum())
        else:
            lost += len(pages)
    if lost:
        yield f"{lost} of its pages are lost"
    for layers in manifest.metadata.disks.values():
        for layer in layers:
            if not (disks / layer).is_file():
                yield f"its disk {layer} is missing"


def fresh_dump(guests: Path, packs: Packs) -> list[tuple[object, ...]]:
    """What an index made from the files says."""
    index = Index(Path(":memory:"), HostFiles())
    try:
        rebuild(guests, packs, index)
        return index.dump()
    finally:
        index.close()


def leftovers(folder: Path, temporary: str) -> list[Path]:
    """What a crash, or a host that could not write, has left behind: files that are not whole, guests that were being
    made, and deleted ones."""
    patterns = (
        f"*{temporary}",
        f"packs/*{temporary}",
        f"guests/*/*{temporary}",
        f"guests/*/snapshots/*{temporary}",
    )
    found = [path for pattern in patterns for path in folder.glob(pattern)]
    for guest in (folder / "guests").glob("*"):
        if not (guest / "guest.toml").exists() and not list(guest.glob("snapshots/*" + SUFFIX)):
            found = [path for path in found if guest not in path.parents] + [guest]
    return sorted(found + list((folder / "trash").glob("*")))
