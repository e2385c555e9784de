"""Looking after the store while its guests are on."""

from dataclasses import asdict

from emuvisor.host.snapshots.disks import remove_unused_disks
from emuvisor.manager.core import ManagerCore
from emuvisor.manager.records import StoreFreed, StoreProblem

__all__ = ["Upkeep"]


class Upkeep(ManagerCore):
    """The part of the manager for the store as a whole. Guests run on meanwhile; what is noted of them waits."""

    def check_store(self, *, repair: bool = False) -> list[StoreProblem]:
        """Read everything in the store, every page too; see `Store.check`. Raises StateError while a snapshot is
        written, HostError."""
        return [StoreProblem(**asdict(problem)) for problem in self.store.check(repair=repair)]

    def collect_garbage(self, *, everything: bool = False) -> StoreFreed:
        """Free what no snapshot and no guest needs; with `everything` also where little of a file can be freed. Raises
        StateError while a snapshot is written, and when one is damaged; HostError."""
        done = self.store.gc(least_dead=0.0) if everything else self.store.gc()
        freed = done.bytes_freed + remove_unused_disks(self.store)
        return StoreFreed(done.packs_deleted, done.packs_rewritten, freed)
