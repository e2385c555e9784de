"""The inodes that the guest knows, each found from its parent by one checked name: what keeps a guest in the share.

An inode is held as an O_PATH descriptor, opened with O_NOFOLLOW relative to its parent's. So no name leads out: a
symbolic link is only ever an inode with a text, and what is swapped in between two requests is another inode. A
directory on another device (a mount point in the share) is seen but not entered. What the host has moved out of the
folder in the meantime is stale.

Descriptors are few and guests remember many inodes, so the least recently used are closed and found again by their
last known name when they are needed. What is found must be the same inode (device, number and type), or else it is
stale: the guest's kernel then looks the path up again.
"""

import errno
import os
import stat
from collections import OrderedDict
from itertools import islice
from pathlib import Path
from typing import Any

from emuvisor.bus.device import SavedState
from emuvisor.devices.virtio.fs.names import single_name
from emuvisor.devices.virtio.fs.protocol import FUSE_ROOT_ID
from emuvisor.devices.virtio.fs.refusal import refusal
from emuvisor.devices.virtio.fs.syscalls import open_descriptor, present_path
from emuvisor.errors import SnapshotError

__all__ = ["MAX_INODES", "MAX_OPEN_INODES", "Inode", "Inodes"]

MAX_OPEN_INODES = 1024
"""Descriptors that one share holds for inodes."""
MAX_INODES = 1 << 19
"""Inodes that one guest may remember, open or not; each takes about 400 bytes."""
MAX_DEPTH = 2048
"""Directories above an inode: a path of the host has at most PATH_MAX (4,096) bytes, and half of them are slashes."""

_NO_DESCRIPTOR = -1


class Inode:
    """One inode: where it was found, what it is, and how often the guest has been told of it."""

    __slots__ = ("device", "fd", "handles", "kind", "lookups", "name", "nodeid", "number", "parent")

    def __init__(
        self,
        *,
        nodeid: int,
        parent: int,
        name: bytes,
        device: int,
        number: int,
        kind: int,
        lookups: int = 0,
    ) -> None:
        self.nodeid = nodeid
        self.parent = parent
        """Node ID of the directory that it was last found in, under `name`."""
        self.name = name
        self.device = device
        self.number = number
        self.kind = kind
        """The type of file: S_IFMT of its mode."""
        self.lookups = lookups
        """What FORGET counts down."""
        self.fd = _NO_DESCRIPTOR
        self.handles = 0
        """Open files of it. An open file may have lost its name, so its inode is not closed."""

    def is_same(self, status: os.stat_result) -> bool:
        """Whether `status` is of this inode."""
        return (self.number, self.device, self.kind) == (
            status.st_ino,
            status.st_dev,
            stat.S_IFMT(status.st_mode),
        )

    def close(self) -> None:
        """Give the descriptor back; the inode can be found again."""
        if self.fd != _NO_DESCRIPTOR:
            os.close(self.fd)
            self.fd = _NO_DESCRIPTOR


class Inodes:
    """The inodes of the folder `root` by node ID; the root's is 1 and stays.

    `max_open` descriptors are held beside the root's. Raises OSError when `root` cannot be opened as a directory.
    """

    def __init__(self, root: Path, *, max_open: int = MAX_OPEN_INODES, max_inodes: int = MAX_INODES) -> None:
        self._max_open = max_open
        self._max_inodes = max_inodes
        fd = open_descriptor(os.fsencode(root), os.O_PATH | os.O_DIRECTORY)
        status = os.fstat(fd)
        self.root = Inode(
            nodeid=FUSE_ROOT_ID,
            parent=FUSE_ROOT_ID,
            name=b"",
            device=status.st_dev,
            number=status.st_ino,
            kind=stat.S_IFDIR,
        )
        self.root.fd = fd
        self._table: dict[int, Inode] = {}
        self._by_identity: dict[tuple[int, int], Inode] = {}
        self._open: OrderedDict[int, Inode] = OrderedDict()
        self._next_nodeid = FUSE_ROOT_ID + 1
        self.clear()

    def clear(self) -> None:
        """Forget all but the root. Node IDs are not used again."""
        for inode in self._open.values():
            inode.close()
        self._open.clear()
        self._table = {FUSE_ROOT_ID: self.root}
        self._by_identity = {(self.root.device, self.root.number): self.root}

    def close(self) -> None:
        """Forget all, the root as well: nothing is found afterwards."""
        self.clear()
        self._table.clear()
        self.root.close()

    def get(self, nodeid: int) -> Inode:
        """The inode, with its descriptor open. Raises OSError ESTALE for one that is unknown, gone, or was moved out
        of the share by the host."""
        inode = self._table.get(nodeid)
        if inode is None:
            raise refusal(errno.ESTALE)
        if inode is self.root:
            return inode
        if inode.fd == _NO_DESCRIPTOR:
            self._find_again(inode)
        else:
            self._open.move_to_end(nodeid)
        if not self._is_inside(inode):
            raise refusal(errno.ESTALE)
        return inode

    def directory(self, nodeid: int) -> Inode:
        """`get` for a directory. Raises OSError ESTALE as there; ENOTDIR for another inode."""
        inode = self.get(nodeid)
        if inode.kind != stat.S_IFDIR:
            raise refusal(errno.ENOTDIR)
        return inode

    def look_up(self, parent: Inode, name: bytes) -> tuple[Inode, os.stat_result]:
        """The inode called `name` (one component, checked) in `parent`, counted as one more lookup.

        Raises OSError: ENOENT, EXDEV for a directory on another device, ENFILE when the guest remembers too many.
        """
        fd = open_descriptor(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=parent.fd)
        return self.adopt(fd, parent, name)

    def adopt(self, fd: int, parent: Inode, name: bytes) -> tuple[Inode, os.stat_result]:
        """`look_up` with the O_PATH descriptor `fd`, which is taken over, of the inode called `name` in `parent`."""
        try:
            status = os.fstat(fd)
            inode = self._of(status, parent, name)
        except OSError:
            os.close(fd)
            raise
        inode.close()
        inode.fd = fd
        self._keep_open(inode)
        inode.lookups += 1
        return inode, status

    def _of(self, status: os.stat_result, parent: Inode, name: bytes) -> Inode:
        """The inode of `status`, known or new, at its new place."""
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR and status.st_dev != self.root.device:
            raise refusal(errno.EXDEV)
        identity = (status.st_dev, status.st_ino)
        inode = self._by_identity.get(identity)
        if inode is self.root:
            raise refusal(errno.ELOOP)  # the folder mounted in itself
        if inode is not None and self._is_known(inode, kind, parent, name):
            inode.parent = parent.nodeid
            inode.name = name
            return inode
        if len(self._table) >= self._max_inodes:
            raise refusal(errno.ENFILE)
        inode = Inode(
            nodeid=self._next_nodeid,
            parent=parent.nodeid,
            name=name,
            device=status.st_dev,
            number=status.st_ino,
            kind=kind,
        )
        self._next_nodeid += 1
        self._table[inode.nodeid] = inode
        self._by_identity[identity] = inode
        return inode

    def _is_known(self, inode: Inode, kind: int, parent: Inode, name: bytes) -> bool:
        """Whether what was found as `name` in `parent` with this inode's number is this inode.

        An open inode keeps its number. Of a closed one the number may have gone to a new file meanwhile, so another
        name counts as a hard link only when the inode is also still where it was.
        """
        if inode.kind != kind:
            return False
        if inode.fd != _NO_DESCRIPTOR or (inode.parent, inode.name) == (parent.nodeid, name):
            return True
        try:
            self._find_again(inode)
        except OSError:
            return False
        return True

    def moved(self, parent: Inode, name: bytes) -> None:
        """What is now called `name` in `parent` came there by a rename; if the guest knows it, note its new place."""
        try:
            status = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
        except OSError:
            return  # the host was faster; the inode will be stale when it is looked for
        inode = self._by_identity.get((status.st_dev, status.st_ino))
        if inode is not None and inode is not self.root:
            inode.parent = parent.nodeid
            inode.name = name

    def forget(self, nodeid: int, lookups: int) -> None:
        """The guest drops so many of its lookups; without one left, the inode is forgotten."""
        inode = self._table.get(nodeid)
        if inode is None or inode is self.root:
            return
        inode.lookups -= lookups
        if inode.lookups > 0:
            return
        del self._table[nodeid]
        self._open.pop(nodeid, None)
        inode.close()
        identity = (inode.device, inode.number)
        if self._by_identity.get(identity) is inode:
            del self._by_identity[identity]

    def _is_inside(self, inode: Inode) -> bool:
        """Whether the inode's path is still below the root's: the host may have moved it."""
        return present_path(inode.fd).startswith(present_path(self.root.fd).rstrip(b"/") + b"/")

    def _keep_open(self, inode: Inode) -> None:
        """Put the inode with its new descriptor at the end of the queue, and close the first ones of it."""
        self._open[inode.nodeid] = inode
        self._open.move_to_end(inode.nodeid)
        surplus = len(self._open) - self._max_open
        for nodeid, oldest in list(islice(self._open.items(), max(surplus, 0))):
            if oldest.handles:
                self._open.move_to_end(nodeid)
                continue
            del self._open[nodeid]
            oldest.close()

    def _find_again(self, inode: Inode) -> None:
        """Open the inode by its last known path, from the nearest directory above that is open.

        Raises OSError ESTALE when something else or nothing is there now.
        """
        path = [inode]
        while path[-1].fd == _NO_DESCRIPTOR:
            above = self._table.get(path[-1].parent)
            if above is None or len(path) > MAX_DEPTH:
                raise refusal(errno.ESTALE)
            path.append(above)
        directory = path.pop()
        while path:
            found = path.pop()
            self._open_again(found, directory)
            directory = found

    def _open_again(self, inode: Inode, directory: Inode) -> None:
        try:
            fd = open_descriptor(inode.name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory.fd)
        except FileNotFoundError:
            raise refusal(errno.ESTALE) from None
        if not inode.is_same(os.fstat(fd)):
            os.close(fd)
            raise refusal(errno.ESTALE)
        inode.fd = fd
        self._keep_open(inode)

    def save(self) -> SavedState:
        """All inodes by node ID with their last known places."""
        return {
            "next_nodeid": self._next_nodeid,
            "inodes": [
                [
                    inode.nodeid,
                    inode.parent,
                    inode.name,
                    inode.device,
                    inode.number,
                    inode.kind,
                    inode.lookups,
                ]
                for inode in self._table.values()
                if inode is not self.root
            ],
        }

    def load(self, state: SavedState) -> None:
        """The inodes of `save`, each looked for when it is needed. Raises SnapshotError."""
        self.clear()
        saved = state.get("inodes")
        next_nodeid = state.get("next_nodeid")
        if not isinstance(saved, list) or type(next_nodeid) is not int or len(saved) > self._max_inodes:
            raise SnapshotError("virtio-fs: the saved inodes are not a list with the next node ID")
        self._next_nodeid = next_nodeid
        for item in saved:
            inode = _saved_inode(item, next_nodeid)
            self._table[inode.nodeid] = inode
            self._by_identity[inode.device, inode.number] = inode


def _saved_inode(item: Any, next_nodeid: int) -> Inode:
    """One inode of a saved state. Raises SnapshotError."""
    match item:
        case [int(nodeid), int(parent), bytes(name), int(device), int(number), int(kind), int(lookups)] if (
            FUSE_ROOT_ID < nodeid < next_nodeid
        ):
            pass
        case _:
            raise SnapshotError(f"virtio-fs: {item!r} is not a saved inode")
    try:
        single_name(name + b"\0")
    except OSError:
        raise SnapshotError(f"virtio-fs: {name!r} is not the name of a saved inode") from None
    return Inode(
        nodeid=nodeid,
        parent=parent,
        name=name,
        device=device,
        number=number,
        kind=kind,
        lookups=lookups,
    )
