"""A Debian guest goes on from snapshots in other processes, on hosts of other kinds, with nothing lost."""

from pathlib import Path

import pytest
from guests import expect
from snapshot_proof import VARIANTS, WORK_S, begin, expected, finish, restore_elsewhere

from emuvisor.host import Guest, Host
from emuvisor.host.snapshots import remove_unused_disks, restore_guest, take_snapshot
from emuvisor.images.cache import Image
from emuvisor.store import Store
from emuvisor.store.index import SnapshotInfo
from emuvisor.units import MIB

pytestmark = pytest.mark.system


def snapshot(guest: Guest, store: Store, name: str, parent: str | None = None) -> SnapshotInfo:
    with guest.checkpoint() as checkpoint:
        return take_snapshot(checkpoint, store, "work", name, parent=parent)


def test_a_tree_of_snapshots_restored_elsewhere(host: Host, debian: Image, tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        guest = begin(host, debian, tmp_path)
        store.define("work", "")
        half = snapshot(guest, store, "half")
        with Host(64 * MIB) as small:  # smaller than the guest
            restored = restore_guest(small, store, "work", "half")
            expect(restored, "step 9\r\n", WORK_S)
            snapshot(restored, store, "restored", "half")
        expect(guest, "step 11\r\n", WORK_S)
        snapshot(guest, store, "later", "half")
        assert finish(guest) == expected()

        children = [info for info in store.snapshots("work") if info.name != "half"]
        assert [store.parent_of(child) for child in children] == [half, half]
        store.delete_snapshot("work", "half")
        assert store.gc(0).bytes_freed
        assert remove_unused_disks(store) == 0  # what was restored stands on the disk of "half"
        assert [store.parent_of(child) for child in children] == [None, None]
    for name, variant in zip(("restored", "later"), VARIANTS, strict=False):
        assert restore_elsewhere(tmp_path / "store", name, variant) == expected()
