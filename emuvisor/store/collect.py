"""What no snapshot refers to is deleted."""

from dataclasses import dataclass

from emuvisor.errors import SnapshotError
from emuvisor.store.files import HostFiles
from emuvisor.store.index import Index
from emuvisor.store.pack import Pack, rewrite
from emuvisor.store.packs import Packs

__all__ = ["Collected", "collect"]


@dataclass(frozen=True, slots=True)
class Collected:
    """What was done."""

    packs_deleted: int
    packs_rewritten: int
    bytes_freed: int


def collect(packs: Packs, index: Index, files: HostFiles, least_dead: float) -> Collected:
    """Delete packs of which no page is needed, and write those again without dead pages in which at least the part
    `least_dead` of the bytes is dead. Packs that are damaged are left alone. Raises OSError, sqlite3.Error.
    """
    deleted = rewritten = freed = 0
    for uid in packs.on_disk():
        try:
            pack = Pack(packs.path(uid))
        except SnapshotError:
            continue
        live = index.counts(pack) > 0
        dead_bytes = int(pack.lengths[~live].sum())
        if not live.any():
            files.unlink(pack.path)
            freed += pack.size
            deleted += 1
        elif dead_bytes and dead_bytes >= least_dead * int(pack.lengths.sum()):
            freed += rewrite(pack, live.tolist(), files)
            rewritten += 1
        else:
            continue
        packs.forget(uid)
        with index.change():
            if live.any():
                index.set_counts(packs.open(uid), index.counts(pack))
            else:
                index.remove_pack(uid)
    if deleted:
        files.sync_folder(packs.folder)
    return Collected(deleted, rewritten, freed)
