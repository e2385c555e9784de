"""Pages that have come to the target, before there is a guest to hold them."""

import struct
import time

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import MigrationError, OutOfFrames
from emuvisor.host.host import Host
from emuvisor.memory.saved_layout import MemoryLoader
from emuvisor.memory.stage2 import STATE_SHIFT, FrameState
from emuvisor.migration.pages import Batch, PageKind

__all__ = ["Stage"]

PATIENCE = 100
RETRY_S = 0.05
"""The memory manager gets so many times so long to find a frame."""


class Stage:
    """Frames of `host`'s pool for a guest of `pages` pages; those that hold zeros have none. At most `held`
    have one."""

    def __init__(self, host: Host, pages: int, held: int) -> None:
        self._left = held
        self._host = host
        self._pool = host.pool
        self.frames: NDArray[np.uint32] = np.zeros(pages, np.uint32)
        """Of each page; 0 is none."""

    def put(self, batch: Batch) -> None:
        """Take the pages of `batch`, in their order. Raises MigrationError for what cannot be, OutOfFrames."""
        frames, content_of = self.frames, self._pool.frames
        for page, kind, content in batch:
            if page >= len(frames):
                raise MigrationError(
                    f"migration: the other side sent page {page}; the guest has {len(frames)} pages"
                )
            if kind is PageKind.ZERO:
                if frames[page]:
                    self._pool.release_one(int(frames[page]))
                    frames[page] = 0
                    self._left += 1
                continue
            holder = 0
            if kind is PageKind.COPY:
                (number,) = struct.unpack("<I", content)
                holder = int(frames[number]) if number < len(frames) else 0
                if not holder:
                    raise MigrationError(
                        f"migration: page {page} is to be as page {number}, which holds nothing"
                    )
            if not frames[page]:
                frames[page] = self._take()
            content_of[frames[page]] = content_of[holder] if holder else np.frombuffer(content, np.uint8)

    def _take(self) -> int:
        if not self._left:
            raise MigrationError("migration: the other side sent more pages than the guest has memory for")
        self._left -= 1
        for attempt in range(PATIENCE):
            try:
                return self._pool.take()
            except OutOfFrames:
                if attempt == PATIENCE - 1:
                    raise
            self._host.memory.wake()
            time.sleep(RETRY_S)
        raise AssertionError

    def give(self, loader: MemoryLoader, kinds: NDArray[np.uint8], later: NDArray[np.int64]) -> None:
        """The guest's memory owns the frames from now on; `kinds` are those of `Layout`. What came for pages where
        there is no memory any more, and for those that come `later` as they are now, is forgotten. Raises
        SnapshotError."""
        frames = self.frames
        gone = (frames != 0) & ((kinds == FrameState.HOLE) | (kinds == FrameState.BALLOONED))
        gone[later] = frames[later] != 0
        self._pool.release(frames[gone])
        frames[gone] = 0
        pages = np.flatnonzero(frames)
        states = np.where(kinds[pages] == FrameState.ROM, FrameState.ROM, FrameState.RESIDENT).astype(
            np.uint32
        )
        loader.place(pages, states << np.uint32(STATE_SHIFT) | frames[pages])
        frames[:] = 0

    def close(self) -> None:
        """Give back what nobody took over."""
        self._pool.release(self.frames[self.frames != 0])
        self.frames[:] = 0
