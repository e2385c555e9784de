"""A disk as it was at one moment, read-only."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDefaults
from emuvisor.devices.storage.layer import Layer, Saved
from emuvisor.devices.storage.scatter import Buffers

__all__ = ["Moment"]


class Moment(BlockDefaults):
    """A handle on what the disk of `layer` had when it was `saved` (None: on what it has for good, as it is written no
    more). Any threads read it at a time, until it is closed; it is one of the layer's users until then."""

    read_only = True
    reads_in_parallel = True

    def __init__(self, layer: Layer, saved: Saved | None) -> None:
        self.layer = layer
        self.saved = saved
        self._closed = False

    @property
    def name(self) -> str:
        """The disk's."""
        return self.layer.disk.name

    @property
    def host_path(self) -> Path:
        """The disk's."""
        return self.layer.disk.host_path

    @property
    def sectors(self) -> int:
        """Capacity in sectors."""
        return self.layer.size // SECTOR_SIZE

    @property
    def allocated(self) -> int:
        """Bytes that the disk takes, with what is saved of it, and without its base. Raises OSError."""
        return self.layer.allocated

    def data_extents(self, lba: int, count: int) -> Iterator[tuple[int, int]]:
        """The sector ranges among `count` from `lba` that may have something else than zeros. Raises OSError."""
        return self.layer.saved_extents(self.saved, lba, count)

    def read(self, lba: int, count: int) -> bytes:
        """`count` sectors from sector `lba`. Raises OSError."""
        data = bytearray(count * SECTOR_SIZE)
        self.read_into(lba, [memoryview(data)])
        return bytes(data)

    def read_into(self, lba: int, views: Buffers) -> None:
        """Fill `views` from sector `lba` on. Raises OSError."""
        self.layer.read_saved(self.saved, lba, views)

    def write(self, _lba: int, _data: bytes) -> None:
        """Raises OSError: it cannot be written."""
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), self.name)

    def sync(self) -> None:
        """Return when it is on stable storage: before anything else that lasts refers to its files. From then on others
        may read the files of a disk that is written no more. Raises OSError."""
        if self.saved is None:
            self.layer.settle()
        else:
            self.layer.flush()

    def flush(self) -> None:
        """As `sync`."""
        self.sync()

    def is_same(self, other: "Moment") -> bool:
        """Whether both are the same moment of the same disk."""
        return self.layer is other.layer and self.saved is other.saved

    def share(self) -> Self:
        """Another handle, to be closed by itself."""
        self.layer.share(self.saved)
        return type(self)(self.layer, self.saved)

    def close(self) -> None:
        """Give it back; the last handle frees what was saved for it. More than once is allowed. Raises OSError when a
        disk that nobody else has cannot store what it has."""
        if not self._closed:
            self._closed = True
            self.layer.leave(self.saved)
