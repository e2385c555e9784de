"""The host's frames: all guests' memory is here, and never more of it than the limit."""

import mmap
import threading
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import HostError, OutOfFrames, UsageError
from emuvisor.memory.stage2 import MAX_FRAMES
from emuvisor.units import PAGE_SIZE, format_size

__all__ = ["FramePool", "FrameUsers"]

_MAP_NORESERVE = 0x4000
"""Linux's value; the mmap module has the name from Python 3.13 on only."""

INDEX_BYTES = 8
"""Per frame: `fetched` and `references`."""
COMPARED = 16
"""Frames compared in one step. With more the copies are so large that the C library asks the operating system for them
anew each time, which takes five times as long."""
LEAST_RUN = 16
"""Frames one behind the other whose memory goes back to the operating system when they are free."""
ZERO_FRAME = 1
RESERVED = 2
"""Frame 0 is all ones: what an instruction fetch from a hole finds. Frame 1 is all zeros: what pages of zeros share.
Both are nobody's, never written and not counted."""


class FrameUsers(Protocol):
    """Who must hear that a frame's content changed behind the CPUs' back: they may hold translated code of it."""

    def changed(self, frame: int, offset: int, length: int, /) -> None:
        """`length` bytes at `offset` of `frame` have changed, or the frame changed hands."""
        ...


class FramePool:
    """`limit` bytes of host memory as frames of 4 KiB, taken one at a time.

    The memory is reserved at once but costs nothing until touched, and goes back to the operating system when
    a guest is gone. Raises UsageError for a limit that is no pool, HostError when the host refuses it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit // PAGE_SIZE
        if self.limit < 1 or self.limit > MAX_FRAMES - RESERVED:
            raise UsageError(
                f"a frame pool of {limit} bytes is impossible; it has at least 4 KiB and less than "
                f"{format_size(MAX_FRAMES * PAGE_SIZE)}"
            )
        total = self.limit + RESERVED
        try:
            self.memory = mmap.mmap(
                -1, total * PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
            )
        except (OSError, ValueError) as error:
            raise HostError(
                f"the host does not give {format_size(total * PAGE_SIZE)} of address space: {error}"
            ) from None
        self.frames: NDArray[np.uint8] = np.frombuffer(self.memory, np.uint8).reshape(total, PAGE_SIZE)
        self.words: NDArray[np.uint64] = self.frames.view(np.uint64)
        """The same, eight bytes at a time: quicker to compare."""
        try:
            self.fetched: NDArray[np.uint32] = np.zeros(total, np.uint32)
            """Per frame, one bit per engine: it may hold translated code of the frame."""
            self.references: NDArray[np.uint32] = np.zeros(total, np.uint32)
        except MemoryError:
            size = format_size(total * INDEX_BYTES)
            raise HostError(f"the host does not give {size} for the index of a frame pool") from None
        self.frames[0] = 0xFF
        self.zero_frame = ZERO_FRAME
        """All pages of zeros that were found show it. It has no owner and no count, so that any number can."""
        self.users: FrameUsers | None = None
        self._free: list[int] = []
        self._untouched = RESERVED
        self._lock = threading.RLock()

    @property
    def used(self) -> int:
        """Frames that someone refers to."""
        return self._untouched - RESERVED - len(self._free)

    @property
    def free(self) -> int:
        """Frames that can still be taken."""
        return self.limit - self.used

    def take(self) -> int:
        """A frame full of zeros, with one reference. Raises OutOfFrames."""
        with self._lock:
            if self._free:
                frame = self._free.pop()
                self.frames[frame] = 0
            elif self._untouched < self.limit + RESERVED:
                frame = self._untouched
                self._untouched += 1
            else:
                raise self._out_of_frames()
            self.references[frame] = 1
            return frame

    def take_many(self, count: int) -> NDArray[np.uint32]:
        """`count` frames at once, as `take`. Raises OutOfFrames, and then takes none."""
        with self._lock:
            if count > self.free:
                raise self._out_of_frames()
            used = [self._free.pop() for _ in range(min(count, len(self._free)))]
            self.frames[used] = 0
            end = self._untouched + count - len(used)
            frames = np.array([*used, *range(self._untouched, end)], np.uint32)
            self._untouched = end
            self.references[frames] = 1
            return frames

    def _out_of_frames(self) -> OutOfFrames:
        size = format_size(self.limit * PAGE_SIZE)
        return OutOfFrames(f"all {self.limit} frames of the pool ({size}) are taken")

    def copy(self, frame: int) -> int:
        """A frame of its own with the content of `frame`. Raises OutOfFrames."""
        with self._lock:
            new = self.take()
            self.frames[new] = self.frames[frame]
            return new

    def share(self, frames: NDArray[np.uint32]) -> None:
        """One more reference to each of `frames`, for each time that it is named."""
        with self._lock:
            np.add.at(self.references, frames[frames != ZERO_FRAME], np.uint32(1))

    def share_unchanging(self, frames: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """As `share`, for those of `frames` that nobody writes where they are, because they have two references at
        least or are the zero frame; returns which those are. Whoever has the other references may run."""
        with self._lock:
            unchanging: NDArray[np.bool_] = (self.references[frames] >= 2) | (frames == ZERO_FRAME)
            self.share(frames[unchanging])
            return unchanging

    def equal(self, frames: NDArray[np.uint32], others: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Which of `frames` hold the same as the one at the same place of `others`."""
        found = np.empty(len(frames), np.bool_)
        for start in range(0, len(frames), COMPARED):
            part = slice(start, start + COMPARED)
            found[part] = (self.words[frames[part]] == self.words[others[part]]).all(axis=1)
        return found

    def release(self, frames: NDArray[np.uint32], *, keep: bool = False) -> int:
        """One reference less to each of `frames`, for each time that it is named; returns how many became free. Their
        memory goes back to the operating system, unless it is to be kept for who takes them next."""
        frames = frames[frames != ZERO_FRAME]
        if not len(frames):
            return 0
        with self._lock:
            np.subtract.at(self.references, frames, np.uint32(1))
            gone = np.unique(frames[self.references[frames] == 0])
            if self.users is not None:
                for frame in gone[self.fetched[gone] != 0].tolist():
                    self.users.changed(frame, 0, PAGE_SIZE)
            if not keep:
                self._give_back(gone)
            self._free.extend(gone.tolist())
            return len(gone)

    def release_one(self, frame: int) -> bool:
        """As `release`, for a single frame, and quicker; returns whether it became free."""
        if frame == ZERO_FRAME:
            return False
        with self._lock:
            self.references[frame] -= 1
            if self.references[frame]:
                return False
            if self.users is not None and self.fetched[frame]:
                self.users.changed(frame, 0, PAGE_SIZE)
            self._free.append(frame)
            return True

    def trim(self) -> None:
        """Let the operating system have the memory of all frames that are free."""
        with self._lock:
            self._give_back(np.sort(np.array(self._free, np.uint32)), least=1)

    def _give_back(self, frames: NDArray[np.uint32], least: int = LEAST_RUN) -> None:
        """Let the operating system have the memory of `frames` (ascending) that lie in runs of `least` and more. The
        others are kept: a host that is short of memory takes them again at once, and each call costs as much as a
        page."""
        if len(frames) < least:
            return
        starts = np.flatnonzero(np.diff(frames, prepend=frames[:1] - np.uint32(2)) != 1)
        lengths = np.diff(starts, append=len(frames))
        long = lengths >= least
        for first, length in zip(frames[starts[long]].tolist(), lengths[long].tolist(), strict=True):
            self.memory.madvise(mmap.MADV_DONTNEED, first * PAGE_SIZE, length * PAGE_SIZE)
