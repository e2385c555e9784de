"""A snapshot that is open: its file is read and checked, its pages are read one by one."""

import fcntl
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import SnapshotError, StateError, UsageError
from emuvisor.store import manifest
from emuvisor.store.manifest import Manifest, Metadata
from emuvisor.store.packs import PLACE_BITS, Packs, Places

__all__ = ["Snapshot", "lock_for_deletion"]


class Snapshot:
    """The snapshot in the file `path`, with pages in `packs`. While it is open nobody deletes it, in no process.

    Slot n is its n-th page; `frames` has their guest frame numbers, and every other frame is zeros. Several threads
    read at a time. `digest`, when given, is what the hash at the end of the file must be.

    Raises SnapshotError when it is not there, is damaged or another one.
    """

    def __init__(self, path: Path, packs: Packs, digest: bytes | None = None) -> None:
        self.path = path
        self.packs = packs
        """Of its store."""
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if not os.fstat(self._fd).st_nlink:
                raise FileNotFoundError
            with os.fdopen(os.dup(self._fd), "rb") as file:
                data = file.read()
            self._manifest = self._parse(data, digest)
        except BaseException as error:
            self.close()
            if isinstance(error, FileNotFoundError | BlockingIOError):
                raise SnapshotError(f"there is no snapshot {path}") from None
            if isinstance(error, OSError):
                raise SnapshotError(f"{path} cannot be read: {error.strerror}") from None
            raise
        self.places = _places(self._manifest, packs)
        """Where each page is, as `packs` counts them."""

    def _parse(self, data: bytes, digest: bytes | None) -> Manifest:
        parsed = manifest.parse(self.path, data)
        found = parsed.metadata.name
        if found != self.path.stem or digest not in (None, manifest.digest_of(data)):
            raise SnapshotError(f"{self.path} holds another snapshot, which was made as {found!r}")
        return parsed

    @property
    def metadata(self) -> Metadata:
        """What people want to know of it."""
        return self._manifest.metadata

    @property
    def frames(self) -> NDArray[np.uint32]:
        """The guest frame number of each page, ascending."""
        return self._manifest.frames

    def states(self) -> Any:
        """The devices' states. Raises SnapshotError when they are damaged."""
        return self._manifest.expand_states()

    def read(self, slot: int, into: memoryview) -> None:
        """Put page `slot` into the 4096 bytes of `into`. Raises PageLost, MemoryError."""
        self.packs.read(int(self.places[slot]), into)

    @property
    def closed(self) -> bool:
        """It may be deleted."""
        return self._fd < 0

    def close(self) -> None:
        """Let others delete it. Closing it twice does no harm."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def slots_of(self, frames: NDArray[np.uint32]) -> NDArray[np.int64]:
        """The slots of guest frames. Raises UsageError when the snapshot has no page for one of them."""
        slots: NDArray[np.int64] = np.asarray(np.searchsorted(self.frames, frames), np.int64)
        wrong = np.flatnonzero(self.frames.take(slots, mode="clip") != frames) if len(self.frames) else [0]
        if len(frames) and len(wrong):
            raise UsageError(
                f"snapshot {self.metadata.name!r} has no page for guest frame {frames[wrong[0]]:#x}"
            )
        return slots


def _places(read: Manifest, packs: Packs) -> Places:
    numbers = np.array([packs.number(uid) for uid in read.packs], np.int64)
    if not len(numbers):
        return np.empty(0, np.int64)
    places: Places = (numbers[read.places >> PLACE_BITS] << PLACE_BITS) + (read.places & 0xFFFF)
    return places


def lock_for_deletion(path: Path) -> int:
    """A descriptor; until it is closed nobody opens the snapshot in the file `path`. Raises StateError when somebody
    has it open, OSError when it cannot be opened."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StateError(
            f"snapshot {path.stem!r} is in use: a guest that was restored from it still takes pages from it"
        ) from None
    return fd
