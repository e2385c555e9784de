"""Snapshots of guests in the store, and guests that go on from them; docs/snapshots.md.

writing.py    take_snapshot: from a checkpoint to the store, while the guest runs on
contents.py   what a snapshot says besides pages: configuration, machine, layout of memory, disks
restoring.py  restore_guest: a guest whose pages come when they are touched
prefetch.py   Prefetch: they come anyway, so that the snapshot can be deleted
disks.py      disks as files of the store, and which of those nobody needs any more
"""

from emuvisor.host.snapshots.disks import remove_unused_disks
from emuvisor.host.snapshots.prefetch import Prefetch
from emuvisor.host.snapshots.restoring import restore_guest
from emuvisor.host.snapshots.writing import take_snapshot

__all__ = ["Prefetch", "remove_unused_disks", "restore_guest", "take_snapshot"]
