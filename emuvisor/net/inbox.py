"""Frames from any thread for an uplink's own, which sleeps in poll(2)."""

import os
import select
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

__all__ = ["BACKLOG", "Inbox"]

BACKLOG = 1024
"""Frames that wait for the thread; what comes then is dropped, as by any router."""
FRAMES_PER_TURN = 256
"""After so many frames the thread looks at its other descriptors."""


class Inbox:
    """At most BACKLOG frames, and a pipe that wakes the thread: `descriptor` is to be polled for reading.

    `lock` guards the pipe's end: without it the pipe could be closed in the middle of a write, and its number be
    another file's.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.closing = False
        """No more frames are taken; the thread is to end."""
        self.closed = False
        self._frames: deque[bytes] = deque()
        self._sleeping = False
        self.descriptor, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def put(self, frame: bytes) -> bool:
        """Any thread: leave `frame`; False if there are too many already."""
        if len(self._frames) >= BACKLOG or self.closing:
            return False
        self._frames.append(frame)
        if self._sleeping:
            self.wake()
        return True

    def wake(self) -> None:
        """Any thread: let the poll return."""
        with self.lock, suppress(BlockingIOError):  # so many wake-ups are on their way already
            if not self.closed:
                os.write(self._writer, b"\0")

    def end(self, thread: threading.Thread | None) -> None:
        """Any thread: let `thread`, if there is one, come to its end, and wait for it."""
        self.closing = True
        if thread is not None:
            self.wake()
            thread.join()

    # ---- for the thread ----

    def may_sleep(self) -> bool:
        """Say that the thread goes to sleep; False when something has come before it said so, which woke nobody."""
        self._sleeping = True
        return not self._frames and not self.closing

    def awake(self, *, woken: bool) -> None:
        """The thread is back from its poll, in which `descriptor` was ready if `woken`."""
        self._sleeping = False
        if woken:
            os.read(self.descriptor, select.PIPE_BUF)

    def frames(self) -> Iterator[bytes]:
        """What a turn is to handle."""
        for _ in range(min(len(self._frames), FRAMES_PER_TURN)):
            yield self._frames.popleft()

    def close(self) -> bool:
        """Close the pipe; False when it was closed already."""
        with self.lock:
            if self.closed:
                return False
            self.closing = self.closed = True
            os.close(self.descriptor)
            os.close(self._writer)
            return True
