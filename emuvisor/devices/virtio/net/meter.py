"""What a card may do, and how long its frames take."""

from dataclasses import asdict
from typing import Any

from emuvisor.devices.histogram import Histogram
from emuvisor.devices.limits import IN, NicLimits, Throttle
from emuvisor.devices.virtio.net.inbox import BACKLOG_BYTES, BACKLOG_FRAMES, Inbox
from emuvisor.units import KIB

__all__ = ["NicMeter"]

MIN_QUEUE_BYTES = 128 * KIB
MIN_QUEUE_FRAMES = 32
"""What may wait for tokens at least: two of the longest frames, a few of the shortest."""


class NicMeter:
    """Limits and numbers of one card.

    The histograms: `sent` is what it took on the host to send a frame; `received` how long a frame waited, on the host,
    until the guest had it; `throttled` how long, by the guest's clock, frames waited to be sent that had to.
    """

    def __init__(self, limits: NicLimits | None = None) -> None:
        self.throttle = Throttle(limits or NicLimits())
        self.sent = Histogram()
        self.received = Histogram()
        self.throttled = Histogram()

    def bound(self, inbox: Inbox) -> None:
        """What comes in beyond what the limits allow waits for as long as their burst takes; more of it is dropped,
        which is how its sender learns of the limit."""
        limits = self.throttle.limits
        assert isinstance(limits, NicLimits)
        inbox.max_bytes, inbox.max_frames = BACKLOG_BYTES, BACKLOG_FRAMES
        if limits.in_bytes is not None:
            inbox.max_bytes = min(BACKLOG_BYTES, max(limits.in_bytes.capacity, MIN_QUEUE_BYTES))
        if limits.in_packets is not None:
            inbox.max_frames = min(BACKLOG_FRAMES, max(limits.in_packets.capacity, MIN_QUEUE_FRAMES))

    def ready_ns(self, frame: bytes, now_ns: int) -> int:
        """When `frame` may go to the guest; `now_ns` if it may."""
        return self.throttle.when(IN, len(frame), now_ns)

    def took(self, frame: bytes, now_ns: int) -> None:
        """The guest has `frame`."""
        self.throttle.take(IN, len(frame), now_ns)

    def as_dict(self) -> dict[str, Any]:
        """The histograms, for JSON."""
        return {name: asdict(getattr(self, name).summary()) for name in ("sent", "received", "throttled")}
