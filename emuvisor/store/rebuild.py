"""The index, made from the files."""

from pathlib import Path

from emuvisor.errors import SnapshotError
from emuvisor.store.index import Index, SnapshotInfo, references
from emuvisor.store.manifest import SUFFIX, Manifest, Metadata, digest_of, parse
from emuvisor.store.packs import Packs

__all__ = ["count_references", "rebuild", "referred_bytes"]


def rebuild(guests: Path, packs: Packs, index: Index) -> None:
    """Forget what `index` knows, and read everything below the folder `guests` again.

    A snapshot that is damaged is noted with the reason. Raises OSError, sqlite3.Error.
    """
    with index.change():
        index.clear()
        index.set_clean(False)
        for definition in sorted(guests.glob("*/guest.toml")):
            index.add_guest(definition.parent.name)
            for path in sorted((definition.parent / "snapshots").glob("*" + SUFFIX)):
                _add(path, definition.parent.name, packs, index)


def _add(path: Path, guest: str, packs: Packs, index: Index) -> None:
    data = path.read_bytes()
    try:
        manifest = parse(path, data)
        if manifest.metadata.name != path.stem:
            raise SnapshotError(
                f"{path} holds another snapshot, which was made as {manifest.metadata.name!r}"
            )
    except SnapshotError as error:
        unknown = Metadata(id="", name=path.stem, created=0.0)
        index.add_snapshot(SnapshotInfo(guest, unknown, 0, len(data), b"", str(error)))
        return
    index.add_snapshot(
        SnapshotInfo(guest, manifest.metadata, len(manifest.frames), len(data), digest_of(data))
    )
    count_references(manifest, packs, index, 1)


def count_references(manifest: Manifest, packs: Packs, index: Index, by: int) -> int:
    """A snapshot more (`by` 1) or less (-1); returns the bytes of the pages that no snapshot refers to now. Packs that
    cannot be read are left out."""
    free = 0
    for uid, pages in references(manifest):
        try:
            pack = packs.open(uid)
        except (OSError, SnapshotError):
            continue
        free += index.refer(pack, pages[pages < pack.count], by)
    return free


def referred_bytes(manifest: Manifest, packs: Packs) -> int:
    """What the pages of a snapshot take in packs. Raises SnapshotError, OSError."""
    return sum(int(packs.open(uid).lengths[pages].sum()) for uid, pages in references(manifest))
