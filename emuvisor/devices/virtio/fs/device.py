"""The file system device: virtio 1.2, section 5.11.

Not offered: VIRTIO_FS_F_NOTIFICATION, and the shared memory window for DAX: a guest maps files through its page cache.
"""

import weakref
from pathlib import Path
from struct import Struct

from emuvisor.bus.device import SavedState
from emuvisor.devices.virtio.device import VirtioDevice
from emuvisor.devices.virtio.features import DeviceType
from emuvisor.devices.virtio.fs.server import FuseServer
from emuvisor.errors import ConfigError

__all__ = ["TAG_MAX", "Fs"]

TAG_MAX = 36
"""Bytes of a tag, the name that a guest mounts the folder by."""
HIPRIO_QUEUE_SIZE = 128
REQUEST_QUEUE_SIZE = 512
"""Room for a request of 1 MiB in pages: Linux sends no larger ones than the queue has descriptors."""

_CONFIG = Struct(f"<{TAG_MAX}sI")
"""struct virtio_fs_config: tag, num_request_queues."""


class Fs(VirtioDevice):
    """The folder `root` for the guest, which mounts it by `tag` (`mount -t virtiofs TAG DIRECTORY`).

    Nothing outside of the folder is reachable. Its owners, modes and times are the host's as they are, and what the
    guest does there is done as the user who runs emuvisor; `read_only` refuses every change with EROFS. A writable
    share has no quota but the host's. It takes at most about 2,050 descriptors of the process: 1,024 for inodes, and
    as many for open files.

    Raises ConfigError for a tag that is empty, longer than TAG_MAX bytes or has a NUL, and for a root that is no
    folder that this user may open.
    """

    device_id = DeviceType.FILE_SYSTEM

    def __init__(self, *, name: str, tag: str, root: Path, read_only: bool) -> None:
        super().__init__(name=name, queue_sizes=(HIPRIO_QUEUE_SIZE, REQUEST_QUEUE_SIZE))
        self._tag = tag.encode()
        if not 1 <= len(self._tag) <= TAG_MAX or b"\0" in self._tag:
            raise ConfigError(f"{name}: the tag {tag!r} has to have 1 to {TAG_MAX} bytes and no NUL")
        try:
            self._server = FuseServer(root, read_only=read_only)
        except OSError as error:
            raise ConfigError(f"{name}: cannot share the folder {root}: {error.strerror}") from None
        self._close = weakref.finalize(self, self._server.close)

    def config(self) -> bytes:
        """struct virtio_fs_config."""
        return _CONFIG.pack(self._tag, len(self.queue_sizes) - 1)

    def notified(self, index: int) -> None:
        """FUSE requests. Those of the hiprio queue are the same, only never behind others."""
        self.serve(self.queues[index], self._server.serve)

    def quiesced(self) -> None:
        """Close what the guest had open."""
        self._server.forget_all()

    def save_device(self) -> SavedState:
        """The inodes and open files that the guest knows."""
        return self._server.save()

    def load_device(self, state: SavedState) -> None:
        """Find them again in the folder. Raises SnapshotError."""
        self._server.load(state)

    def close(self) -> None:
        """Give the host's descriptors back; the guest's requests fail from now on."""
        self._close()
