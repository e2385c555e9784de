"""Post-copy at the target: a guest that runs while some of its pages are still at the source."""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import SnapshotError, StateError
from emuvisor.host.guest import Guest
from emuvisor.host.host import Host
from emuvisor.host.states import GuestState
from emuvisor.memory.saved_layout import MemoryLoader
from emuvisor.memory.slot import Slot
from emuvisor.memory.stage2 import STATE_SHIFT, FrameState
from emuvisor.migration.offer import bitmap_of
from emuvisor.migration.pages import Batch, PageKind
from emuvisor.migration.remote_pages import RemoteGuest, RemotePages
from emuvisor.units import PAGE_SIZE

__all__ = ["LatePages"]

_ZEROS = bytes(PAGE_SIZE)
_TOO_LATE = "migration: the other side sends later what the guest needs to begin"
"""Whoever would wait for a page before the guest runs is the thread that receives them."""
SETTLED_AT_ONCE = 256
"""Pages that get their frames while the guest stands still: a millisecond."""


class LatePages:
    """The pages `later` (numbers, ascending) of `guest`, which has `count`. Until `begin`, whoever wants one is told
    that it is lost. `demand` asks the source for a page, in the guest's thread. Raises MigrationError when the host
    cannot have so many."""

    def __init__(
        self, host: Host, guest: Guest, later: NDArray[np.int64], count: int, demand: Callable[[int], None]
    ) -> None:
        self._host = host
        self._guest = guest
        missing = np.zeros(count, np.bool_)
        missing[later] = True
        self._later = later
        self._remote = RemoteGuest(missing, demand, lost=_TOO_LATE)
        with host.lock:
            store = host.memory.stores.setdefault(FrameState.REMOTE, RemotePages())
        assert isinstance(store, RemotePages)
        self._store = store
        store.attach(self._remote)

    @property
    def missing(self) -> int:
        """How many have not come."""
        return int(np.count_nonzero(self._remote.missing))

    def bitmap(self) -> bytes:
        """Which have not come, as `offer.bitmap_of`."""
        return bitmap_of(self._remote.missing)

    def place(self, loader: MemoryLoader) -> None:
        """Let the guest's memory know where they are. Raises SnapshotError where no such page can be."""
        numbers = (self._later + self._remote.first).astype(np.uint32)
        try:
            loader.place(self._later, np.uint32(FrameState.REMOTE << STATE_SHIFT) | numbers)
        except SnapshotError:
            self._store.free(numbers.tolist())
            raise

    def begin(self) -> None:
        """From now on the guest may want some."""
        self._store.set_line(self._remote)

    def arrive(self, batch: Batch) -> None:
        """Some have come. What was not missing is ignored, and so are copies, of which the source knows nothing."""
        for page, kind, content in batch:
            if kind is not PageKind.COPY:
                self._store.arrive(self._remote, page, bytes(content) if kind is PageKind.RAW else _ZEROS)

    # ---- the line ----

    def line_lost(self, reason: str) -> None:
        """None comes until the line is back: who wants one is suspended for `reason`."""
        self._store.set_line(self._remote, broken=reason)

    def line_back(self) -> None:
        """They come again: who was suspended goes on."""
        self._store.set_line(self._remote)
        self._go_on_after_stall()

    def _go_on_after_stall(self) -> None:
        stalled = self._remote.stalled
        for guest in self._host.all_guests() if stalled else []:
            if guest.machine not in stalled:
                continue
            with self._host.held(guest.name):
                pass  # a stall that its pCPU had begun when the line came back has its effect now
            if guest.state is GuestState.PAUSED and guest.suspended:
                with suppress(StateError):  # somebody was quicker
                    guest.resume()
        stalled.clear()

    # ---- the end ----

    def settle(self) -> None:
        """All have come: those that nobody has wanted yet get their frames. Where there is none, it happens when they
        are wanted."""
        for part in self._guest.memory.sets:
            waiting = np.flatnonzero(part.entries >> STATE_SHIFT == FrameState.REMOTE)
            for start in range(0, len(waiting), SETTLED_AT_ONCE):
                if not self._supply(part, waiting[start : start + SETTLED_AT_ONCE]):
                    break
        self.release()

    def _supply(self, part: Slot, places: NDArray[np.int64]) -> bool:
        """Give pages of `part` their frames; False when there are none, or the guest is gone."""
        with self._host.held(self._guest.name) as got:
            if not got or self._host.guests.get(self._guest.name) is not self._guest:
                return False
            # The guest may have been quicker.
            remote = part.entries[places] >> STATE_SHIFT == FrameState.REMOTE
            return all(self._guest.memory.supply(part, index, False) for index in places[remote].tolist())

    def lose(self, why: str) -> str:
        """The others will not come, for `why`: the guest has crashed. Returns the whole reason."""
        reason = f"{why}: {self.missing} of them, and so the guest, are lost"
        self._store.set_line(self._remote, lost=reason)
        with self._host.lock:
            if self._guest.state is not GuestState.GONE:
                self._host.take_off(self._guest)
                self._host.set_state(self._guest, GuestState.CRASHED, f"migration: {reason}")
        self.release()
        return reason

    def release(self) -> None:
        """Nothing more is to come; the numbers are free when the guest's memory does not use them any more."""
        self._store.release(self._remote)
