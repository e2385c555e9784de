"""Looking after a store: by a command that has it open, or while its guests are on."""

from dataclasses import asdict

from emuvisor.host.snapshots.disks import remove_unused_disks
from emuvisor.manager.core import ManagerCore
from emuvisor.manager.records import StoreFreed, StoreProblem
from emuvisor.store import Store

__all__ = ["Upkeep", "check_store", "collect_garbage"]


def check_store(store: Store, *, repair: bool = False) -> list[StoreProblem]:
    """Read everything in the store, every page too; see `Store.check`. Raises StateError while a snapshot is written,
    HostError."""
    return [StoreProblem(**asdict(problem)) for problem in store.check(repair=repair)]


def collect_garbage(store: Store, *, everything: bool = False) -> StoreFreed:
    """Free what no snapshot and no guest needs; with `everything` also where little of a file can be freed. Raises
    StateError while a snapshot is written, and when one is damaged; HostError."""
    done = store.gc(least_dead=0.0) if everything else store.gc()
    freed = done.bytes_freed + remove_unused_disks(store)
    return StoreFreed(done.packs_deleted, done.packs_rewritten, freed)


class Upkeep(ManagerCore):
    """The part of the manager for the store as a whole. Guests run on meanwhile; what is noted of them waits."""

    def check_store(self, *, repair: bool = False) -> list[StoreProblem]:
        """As the function of that name."""
        return check_store(self.store, repair=repair)

    def collect_garbage(self, *, everything: bool = False) -> StoreFreed:
        """As the function of that name."""
        return collect_garbage(self.store, everything=everything)
