"""Bringing the pages of a restored guest before it asks for them, so that the snapshot can be deleted."""

import threading
from collections.abc import Callable

import numpy as np

from emuvisor.errors import EmuvisorError, HostError, OutOfFrames
from emuvisor.host.guest import Guest
from emuvisor.host.states import GuestState
from emuvisor.memory import FrameState
from emuvisor.memory.stage2 import in_states

__all__ = ["Prefetch"]

BATCH = 64
"""Pages that are brought while the guest is off its pCPU once: about a millisecond."""
SPARE = 0.05
"""Part of the host's frames that is left free: who needs them more takes a page when it touches it."""
PAUSE_S = 0.002
"""Between two batches, in which the guest runs."""


class Prefetch:
    """Brings all pages of `guest` that are still in a snapshot, in a thread of its own, while the guest runs.

    It ends when there are none, when the guest is gone, or when the host's frames become scarce: then it can be started
    anew later. `done` hears of the end.
    """

    def __init__(self, guest: Guest, done: Callable[["Prefetch"], None] = lambda _: None) -> None:
        self.guest = guest
        self.brought = 0
        """Pages so far."""
        self.reason = ""
        """Why it ended before all pages were there; empty when they are."""
        self._done = done
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def start(self) -> "Prefetch":
        """Begin. Raises HostError when the host gives no thread."""
        try:
            self._thread.start()
        except RuntimeError:
            raise HostError(f"the host gives no thread for {self._thread.name}") from None
        return self

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end. False when `timeout_s` passed first."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        self._stopping.set()
        self._thread.join()

    @property
    def left(self) -> int:
        """Pages that are still in a snapshot."""
        return self.guest.memory.census()[FrameState.SAVED.name.lower()]

    def _run(self) -> None:
        try:
            self.reason = self._bring_all()
        except EmuvisorError as error:
            self.reason = str(error)
        self._done(self)

    def _bring_all(self) -> str:
        """Returns why it did not bring all of them."""
        while not self._stopping.wait(PAUSE_S):
            with self.guest.host.held(self.guest.name) as held:
                if self.guest.state is GuestState.GONE:
                    return "the guest is gone"
                if not held:
                    continue
                if self.guest.host.pool.free <= SPARE * self.guest.host.pool.limit:
                    return "the host's frames are scarce"
                if not self._bring_some():
                    return ""
        return "it was stopped"

    def _bring_some(self) -> int:
        """Bring a batch; returns how many pages that were."""
        memory = self.guest.memory
        for slot in memory.slots:
            places = np.flatnonzero(in_states(slot.entries, (FrameState.SAVED,)))[:BATCH].tolist()
            for place in places:
                if not memory.supply(slot, place, False):
                    raise OutOfFrames("the guest may take no more frames")
            if places:
                self.brought += len(places)
                return len(places)
        return 0
