"""Frames that have come from the network and wait for the guest's thread to put them into its buffers."""

import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter_ns

from emuvisor.bus.ethernet import Offload
from emuvisor.devices.virtio.net.filter import ReceiveFilter
from emuvisor.devices.virtio.net.steering import Steering
from emuvisor.units import MIB

__all__ = ["BACKLOG_BYTES", "BACKLOG_FRAMES", "Inbox", "Waiting"]

BACKLOG_FRAMES = 1024
BACKLOG_BYTES = 4 * MIB
"""What may wait, all queues together; further frames are dropped."""

Waiting = tuple[bytes, Offload | None, int]
"""A frame, what is left to do on it, and when it came (time.perf_counter_ns)."""


class Inbox:
    """The `Station` that a card plugs into its port. The network's threads put frames in, the guest's takes them out.

    `wake` is called, from any thread, when the guest's thread should look; once until it has (`looked`). `on_link` is
    called, from any thread, when the link goes up or down.
    """

    def __init__(self, *, wake: Callable[[], None], on_link: Callable[[], None]) -> None:
        self._wake = wake
        self._on_link = on_link
        self._lock = threading.Lock()
        self._queues: list[deque[Waiting]] = []
        self._frames = 0
        self._bytes = 0
        self._woken = False
        # Set by the card in the guest's thread. Each is replaced as a whole.
        self.accepts = 0
        """Needs that frames may come with, by what the driver takes at present."""
        self.filter: ReceiveFilter | None = None
        """Which frames the driver wants; None while there is no driver."""
        self.steering = Steering()
        self.max_frames = BACKLOG_FRAMES
        self.max_bytes = BACKLOG_BYTES
        """What may wait."""
        self.throttled = False
        """What waits does so because of the card's limits."""
        self.filtered = 0
        """Frames that the driver did not want."""
        self.overflowed = 0
        """Frames for which there was no room, or no driver."""
        self.policed = 0
        """Frames for which there was no room because of the card's limits."""

    def open(self, pairs: int) -> None:
        """Nothing waits, for `pairs` queues. Flows that are steered to a pair beyond come through the first."""
        with self._lock:
            self._queues = [deque() for _ in range(pairs)]
            self._frames = self._bytes = 0
            self._woken = False
        self.steering.reset()

    def use_pairs(self, pairs: int) -> None:
        """The driver uses this many pairs from now on. What waits for others goes to the first."""
        with self._lock:
            old = self._queues
            self._queues = [old[pair] if pair < len(old) else deque() for pair in range(pairs)]
            for queue in old[pairs:]:
                self._queues[0].extend(queue)

    def close(self) -> None:
        """Forget what waits, and take nothing more."""
        self.filter = None
        self.accepts = 0
        self.open(0)

    # ---- the network's threads ----

    def receive(self, frame: bytes, offload: Offload | None) -> bool:
        """Take a frame; False if there is no room, or no driver. One that the driver does not want is taken too."""
        wanted = self.filter
        takes = wanted is not None and wanted.takes(frame)
        size = len(frame)
        with self._lock:
            if wanted is not None and not takes:
                self.filtered += 1
                return True
            pairs = len(self._queues)
            if wanted is None or not pairs:
                self.overflowed += 1
                return False
            if self._frames >= self.max_frames or self._bytes + size > self.max_bytes:
                if self.throttled:
                    self.policed += 1
                else:
                    self.overflowed += 1
                return False
            pair = self.steering.pair_for(frame) if pairs > 1 else 0
            self._queues[pair if pair < pairs else 0].append((frame, offload, perf_counter_ns()))
            self._frames += 1
            self._bytes += size
            wake, self._woken = not self._woken, True
        if wake:
            self._wake()
        return True

    def link_changed(self) -> None:
        """The link went up or down."""
        self._on_link()

    # ---- the guest's thread ----

    def looked(self) -> None:
        """The guest's thread looks now; `wake` again for frames that come later."""
        with self._lock:
            self._woken = False

    def first(self, pair: int) -> Waiting | None:
        """The frame that has waited for longest for queue `pair`; it stays."""
        queue = self._queues[pair] if pair < len(self._queues) else None
        return queue[0] if queue else None

    def done(self, pair: int) -> None:
        """The first frame of queue `pair` waits no more."""
        with self._lock:
            frame, _, _ = self._queues[pair].popleft()
            self._frames -= 1
            self._bytes -= len(frame)
