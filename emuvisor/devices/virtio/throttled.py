"""Requests that wait for tokens: they stay in flight, and a timer on the guest's clock lets them go on."""

import itertools
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from emuvisor.bus.clock import Clock
from emuvisor.devices.histogram import Histogram
from emuvisor.devices.limits import Throttle
from emuvisor.devices.virtio.chain import Chain
from emuvisor.devices.virtio.queue import VirtQueue

if TYPE_CHECKING:
    from emuvisor.devices.virtio.device import VirtioDevice

__all__ = ["ThrottledQueues"]

BYTES_PER_TURN = 64 << 20
"""What a device does at most before the guest runs again, give or take a request."""


class _Held(NamedTuple):
    """A request that waits."""

    ticket: int
    """The order of arrival."""
    since_ns: int
    direction: int
    size: int
    queue: VirtQueue
    chain: Chain


class ThrottledQueues:
    """The requests of `device` that `throttle` holds back. `carry_out(queue, chain)` does one and returns how many
    bytes it has written, as a handler of `VirtioDevice.serve` does. `waits` gets how long they waited."""

    def __init__(
        self,
        device: "VirtioDevice",
        throttle: Throttle,
        waits: Histogram,
        carry_out: Callable[[VirtQueue, Chain], int],
    ) -> None:
        self._device = device
        self._throttle = throttle
        self._waits = waits
        self._carry_out = carry_out
        self._tickets = itertools.count()
        self._lines: dict[int, deque[_Held]] = {}
        """By direction."""
        self._paid: dict[int, Chain] = {}
        """By queue, the request that has its tokens but could not be done: the host was full, or had no frame."""
        throttle.on_change.append(self._look_again)

    def connect(self, clock: Clock) -> None:
        """The device has a clock."""
        self._clock = clock
        self._timer = clock.timer(self._on_time, f"{self._device.name}-throttle")

    @property
    def active(self) -> bool:
        """Whether requests have to come through here."""
        return self._throttle.active or any(self._lines.values()) or bool(self._paid)

    def handle(self, queue: VirtQueue, chain: Chain, direction: int, size: int) -> int | None:
        """Carry out the request if it may go on; None when it has to wait."""
        if self._paid.get(queue.index) is not chain and not self._admit(queue, chain, direction, size):
            return None
        return self._do(queue, chain)

    def _admit(self, queue: VirtQueue, chain: Chain, direction: int, size: int) -> bool:
        """Take the request's tokens, or put it into the line."""
        now = self._clock.now_ns()
        if not self._line_before(direction):  # or else its head has armed the timer
            until = self._throttle.admit(direction, size, now)
            if until <= now:
                return True
            if self._timer.deadline_ns is None or until < self._timer.deadline_ns:
                self._timer.arm(until)
        held = _Held(next(self._tickets), now, direction, size, queue, chain)
        self._lines.setdefault(direction, deque()).append(held)
        return False

    def _line_before(self, direction: int) -> bool:
        """Whether others wait that came before one of `direction`."""
        if self._throttle.ordered:
            return any(self._lines.values())
        return bool(self._lines.get(direction))

    def _do(self, queue: VirtQueue, chain: Chain) -> int:
        self._paid[queue.index] = chain
        written = self._carry_out(queue, chain)
        del self._paid[queue.index]
        return written

    def _look_again(self) -> None:
        if any(self._lines.values()):
            self._timer.arm(self._clock.now_ns())

    def _on_time(self, _deadline_ns: int) -> None:
        now = self._clock.now_ns()
        again: int | None = now
        try:
            again = self._release(now)
        finally:  # without a frame for one of them, the others try again, too
            if again is not None and any(self._lines.values()):
                self._timer.arm(again)

    def _release(self, now: int) -> int | None:
        """Do what has its tokens, in order; returns when to ask again, if anything is left."""
        done = 0
        until: list[int] = []
        blocked: set[int] = set()
        while done < BYTES_PER_TURN:
            heads = [line[0] for direction, line in self._lines.items() if line and direction not in blocked]
            if not heads:
                return min(until, default=None)
            held = min(heads)
            ready = self._throttle.admit(held.direction, held.size, now)
            if ready > now:
                until.append(ready)
                blocked |= set(self._lines) if self._throttle.ordered else {held.direction}
                continue
            self._lines[held.direction].popleft()
            self._waits.record(now - held.since_ns)
            self._finish(held.queue, held.chain)
            done += held.size
        return now

    def _finish(self, queue: VirtQueue, chain: Chain) -> None:
        with self._device.guarded(queue):
            if not queue.live:
                # The device may not use memory now: the driver's next notification finds it.
                queue.unpop(chain)
                return
            try:
                written = self._do(queue, chain)
            except Exception:
                queue.unpop(chain)
                raise
            queue.push(chain, written)

    def forget(self, index: int | None = None) -> None:
        """The requests of queue `index`, or of all, are no more."""
        for direction, line in self._lines.items():
            self._lines[direction] = deque(
                held for held in line if index is not None and held.queue.index != index
            )
        if index is None:
            self._paid.clear()
        else:
            self._paid.pop(index, None)
        if not any(self._lines.values()):
            self._timer.cancel()
