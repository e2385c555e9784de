"""A guest's pages at the source: which are to be sent, and sending them."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import MigrationError
from emuvisor.memory import GuestMemory
from emuvisor.migration.channel import Channel
from emuvisor.migration.frames import FrameKind
from emuvisor.migration.offer import bitmap_of, pages_of
from emuvisor.migration.options import Counts, Options, Round
from emuvisor.migration.pages import BATCH, PageEncoder, pages_needed_first, pages_that_hold, read_pages
from emuvisor.migration.source_disks import SourceDisks

__all__ = ["Copier"]

FOLLOWING_BATCH = 32
"""Pages that a wanted page may have to wait for."""
PATIENCE = 10_000
RETRY_S = 0.003
"""A page that is at yet another host is asked for so many times, with so long in between."""


class Copier:
    """Sends what `memory` holds; `held` keeps the guest off its pCPU, and `cancelled` says that it is for nothing."""

    def __init__(
        self,
        memory: GuestMemory,
        options: Options,
        held: Callable[[], AbstractContextManager[None]],
        cancelled: Callable[[], bool],
    ) -> None:
        self._memory = memory
        self._options = options
        self._held = held
        self._cancelled = cancelled
        self.counts = Counts()
        self._encoder = PageEncoder(self.counts)
        self.todo: NDArray[np.int64] = np.zeros(0, np.int64)
        """Pages that are still to be sent, ascending."""

    def begin(self) -> None:
        """From now on note what is written. The guest is on no pCPU meanwhile."""
        self._memory.start_log()
        self.todo = pages_that_hold(self._memory)

    def end(self) -> None:
        """Note it no longer."""
        with self._held():
            self._memory.stop_log()

    # ---- while the guest runs here ----

    def round(self, channel: Channel, disks: SourceDisks) -> None:
        """Send what there is to send, and see what the guest wrote meanwhile. Raises LineLost, MigrationError."""
        began, sent, sent_bytes = time.monotonic_ns(), self.counts.sent, channel.bytes_sent
        pages = self.todo
        self._send(channel, pages, self._cancelled)
        disks.send(channel, self._cancelled)
        if self._cancelled():
            return
        channel.send({"type": "round"})
        channel.receive_message("round-done")
        with self._held():
            self.todo = self._memory.collect_pages()
        done = Round(
            pages=len(pages),
            sent=self.counts.sent - sent,
            bytes=channel.bytes_sent - sent_bytes,
            ns=time.monotonic_ns() - began,
            left=len(self.todo),
            disk_left=disks.left,
        )
        self.counts.rounds.append(done)

    def _send(
        self, channel: Channel, pages: NDArray[np.int64], stop: Callable[[], bool] = lambda: False
    ) -> None:
        for start in range(0, len(pages), BATCH):
            if stop():
                return
            some = pages[start : start + BATCH]
            content = self._read(some)
            batch = self._encoder.batch(some, content)
            if len(batch.pages):
                channel.send_data(FrameKind.PAGES, batch.encode(self._options.compression))

    def _read(self, pages: NDArray[np.int64]) -> NDArray[np.uint8]:
        """As `read_pages`. Pages that are themselves still to come from yet another host are waited for, with the
        guest on its pCPU. Raises PageLost, MigrationError when one cannot be had for long, or it is for nothing."""
        for _ in range(PATIENCE):
            try:
                with self._held():
                    return read_pages(self._memory, pages)
            except MemoryError as error:
                reason = f"migration: a page of the guest cannot be had: {error}"
            if self._cancelled():
                break
            time.sleep(RETRY_S)
        raise MigrationError(reason)

    def finish(self, channel: Channel) -> bytes:
        """The guest stands still: send what the target needs before it can run. What may follow is `todo`, and a bitmap
        of it is returned. Raises LineLost, PageLost."""
        memory = self._memory
        rest = np.union1d(self.todo, memory.collect_pages())
        self.todo = rest[:0]
        if self._options.mode != "pre-copy":
            follows = np.intersect1d(rest, pages_that_hold(memory))
            self.todo = np.setdiff1d(follows, pages_needed_first(memory))
        self._send(channel, np.setdiff1d(rest, self.todo))
        flags = np.zeros(memory.page_count, np.bool_)
        flags[self.todo] = True
        return bitmap_of(flags)

    # ---- while it runs there ----

    def still_missing(self, bitmap: object) -> None:
        """The target lacks these pages, after the line was lost. Raises MigrationError."""
        self.todo = pages_of(bitmap, self._memory.page_count)

    def send_wanted(self, channel: Channel, page: object) -> None:
        """The guest waits for `page`. Raises LineLost."""
        if type(page) is not int or not 0 <= page < self._memory.page_count:
            return
        place = int(np.searchsorted(self.todo, page))
        if place < len(self.todo) and self.todo[place] == page:
            self.counts.demanded += 1
            self._send_as_it_is(channel, self.todo[place : place + 1])
            self.todo = np.delete(self.todo, place)

    def send_some(self, channel: Channel) -> None:
        """Send some of what the target lacks; when, is up to the caller (`Channel.delay_s`). Raises LineLost."""
        self._send_as_it_is(channel, self.todo[:FOLLOWING_BATCH])
        self.todo = self.todo[FOLLOWING_BATCH:]

    def _send_as_it_is(self, channel: Channel, pages: NDArray[np.int64]) -> None:
        batch = self._encoder.plain_batch(pages, self._read(pages))
        channel.send_data(FrameKind.PAGES, batch.encode(self._options.compression), at_once=True)
