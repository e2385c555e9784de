"""The part that all virtio devices share: status, feature negotiation, configuration space, and serving queues.

Source: virtio 1.2, chapters 2 and 3. Subclass VirtioDevice for a type of device; a transport (mmio.py, pci.py) shows it
to the guest:

    class Echo(VirtioDevice):
        device_id = 42

        def notified(self, index: int) -> None:
            self.serve(self.queues[index], self._echo)

        def _echo(self, request: Chain) -> int:
            return request.write(request.read())
"""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import ClassVar, Protocol

from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Fields, Number, Numbers, load_fields, save_fields, saved_part
from emuvisor.devices.virtio.chain import Chain
from emuvisor.devices.virtio.features import Feature, Status, mask_of
from emuvisor.devices.virtio.packed import PackedQueue
from emuvisor.devices.virtio.queue import MAX_QUEUE_SIZE, BrokenQueue, VirtQueue
from emuvisor.devices.virtio.split import SplitQueue
from emuvisor.errors import GuestAddressError, OutOfFrames, SnapshotError, UsageError
from emuvisor.memory import DmaMemory
from emuvisor.units import MIB

__all__ = ["BYTES_PER_TURN", "CHAINS_PER_TURN", "Suspend", "Transport", "VirtioDevice"]

CHAINS_PER_TURN = 256
BYTES_PER_TURN = 64 * MIB
"""What one notification has done at most; the rest waits for a timer that is due at once, so that the guest (and with
it the host) stays responsive. A turn may exceed the bytes by one chain."""

MAX_QUEUES = 1 << 10
STOPPED = Status.NEEDS_RESET | Status.FAILED
SETTABLE = Status.ACKNOWLEDGE | Status.DRIVER | Status.DRIVER_OK | Status.FEATURES_OK | Status.FAILED
_VERSION = 1
_FIELDS = Fields(
    {
        "status": Number(0xFF),
        "negotiated": Number((1 << 64) - 1),
        "generation": Number(0xFF),
        "waiting": Numbers(MAX_QUEUES, MAX_QUEUES - 1),
    }
)


class Suspend(Exception):
    """Raised by a handler of chains: the host cannot do this now (its disk is full). `reason` is for its owner."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Transport(Protocol):
    """What a device sees of the way in which it is shown to the guest."""

    @property
    def memory(self) -> DmaMemory:
        """The guest's memory."""
        ...

    @property
    def clock(self) -> Clock:
        """The guest's clock."""
        ...

    @property
    def dma(self) -> bool:
        """Whether the device may use memory now."""
        ...

    def interrupt_queue(self, index: int) -> None:
        """A used buffer notification of queue `index`: section 2.3."""
        ...

    def interrupt_config(self) -> None:
        """A configuration change notification: section 2.3."""
        ...

    def on_suspend(self, reason: str) -> None:
        """The guest has to be paused, for `reason`."""
        ...


class Guard:
    """Around work on a queue: the driver is notified at the end; what its rings can make go wrong is no exception."""

    __slots__ = ("_device", "_queue")

    def __init__(self, device: "VirtioDevice", queue: VirtQueue) -> None:
        self._device = device
        self._queue = queue

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        if error is None or isinstance(error, Suspend):
            try:
                self._queue.notify()
            except (BrokenQueue, OutOfFrames) as failure:
                if not self._settled(failure):
                    raise
        return error is not None and self._settled(error)

    def _settled(self, error: BaseException) -> bool:
        """Do what `error` asks for; False when others must hear of it, too."""
        device, queue = self._device, self._queue
        match error:
            case BrokenQueue() | GuestAddressError():
                device.fail(str(error))
                return True
            case Suspend():
                device.serve_later(queue.index)
                device.transport.on_suspend(error.reason)
                return True
            case OutOfFrames():
                device.serve_later(queue.index)
        return False


class VirtioDevice:
    """A device with queues of at most `queue_sizes` descriptors, offering the feature bits `features` of its type.

    Raises UsageError for sizes that are no powers of two up to 1024.
    """

    device_id: ClassVar[int]
    """Section 5."""
    max_chain_bytes: ClassVar[int] = 64 * MIB
    """Bytes, readable and writable together, that one chain may have. Stock drivers' data stays below 4 MiB."""

    def __init__(self, *, name: str, queue_sizes: Sequence[int], features: int = 0) -> None:
        for size in queue_sizes:
            if not 1 <= size <= MAX_QUEUE_SIZE or size & (size - 1):
                raise UsageError(
                    f"{name}: a queue of {size} descriptors; it has a power of two from 1 to {MAX_QUEUE_SIZE}"
                )
        self.name = name
        self.packed = False
        """Offer packed queues; set before the device is connected."""
        self.queue_sizes = tuple(queue_sizes)
        self.queues: list[VirtQueue] = []
        """Made anew when features have been negotiated and at a reset: look a queue up, do not keep it."""
        self.status = 0
        self.negotiated = 0
        """Mask of the features that the driver has taken; 0 before FEATURES_OK."""
        self.generation = 0
        """Changes with the configuration space: section 2.5."""
        self.waiting: list[int] = []
        """Queues whose next turn the timer will start."""
        self.live = False
        """Whether the driver has set up the device, and it works."""
        self._queues_for = 0
        """With which features `queues` were made."""
        self.failure: str | None = None
        """Why the device needs a reset."""
        self._features = features

    # ---- for subclasses: hooks ----

    def config(self) -> bytes:
        """The device configuration space (section 2.5) as it is now."""
        return b""

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver wrote `data` inside the device configuration space."""

    def accepts(self, features: int) -> bool:
        """Whether this choice of the offered features makes sense; each type's dependencies are in its section."""
        return True

    def notified(self, index: int) -> None:
        """The driver has made buffers of queue `index` available (or the rest of a turn is to be done)."""

    def activated(self) -> None:
        """The driver has set DRIVER_OK."""

    def quiesced(self) -> None:
        """The driver or the board has reset the device: forget what is in flight."""

    def queue_reset(self, index: int) -> None:
        """The driver has reset queue `index` (section 2.6.1): forget what is in flight there."""

    def save_device(self) -> SavedState:
        """The state of the device's type. Chains in flight are not part of it: they are popped again."""
        return {}

    def load_device(self, state: SavedState) -> None:
        """Take over what `save_device` gave. Raises SnapshotError."""

    # ---- for subclasses: services ----

    def has(self, bit: int) -> bool:
        """Whether feature `bit` was negotiated."""
        return bool(self.negotiated >> bit & 1)

    def serve(
        self,
        queue: VirtQueue,
        handle: Callable[[Chain], int | None],
        while_: Callable[[], bool] | None = None,
    ) -> None:
        """Pop chains, call `handle`, and push them with what it returns: how many bytes it has written. None means that
        the chain stays in flight; it is pushed later, followed by `notify`. For a queue that the host fills, `while_`
        is asked before each pop whether there is something to put into it.

        A broken queue or an address outside memory makes the device need a reset. When `handle` raises Suspend,
        the chain is tried again after the guest was paused and resumed. Raises OutOfFrames, and then tries again.
        """
        with Guard(self, queue):
            self._turn(queue, handle, while_)

    def guarded(self, queue: VirtQueue) -> "Guard":
        """For popping and pushing outside of `serve`: `with self.guarded(queue):`. What goes wrong ends as it does
        there, and what is to be tried again begins with a call of `notified`."""
        return Guard(self, queue)

    def _turn(
        self,
        queue: VirtQueue,
        handle: Callable[[Chain], int | None],
        while_: Callable[[], bool] | None,
    ) -> None:
        chains, size = CHAINS_PER_TURN, BYTES_PER_TURN
        while (while_ is None or while_()) and (chain := queue.pop()) is not None:
            try:
                written = handle(chain)
                if written is not None:
                    queue.push(chain, written)
                    size -= written
            except (Suspend, OutOfFrames):
                queue.unpop(chain)
                raise
            chains -= 1
            size -= chain.readable_length
            if chains <= 0 or size <= 0:
                if queue.available:
                    self.serve_later(queue.index)
                return

    def serve_later(self, index: int) -> None:
        """Have another turn of queue `index` before the guest goes on."""
        if index not in self.waiting:
            self.waiting.append(index)
        self._timer.arm(self.transport.clock.now_ns())

    def _next_turn(self, _deadline_ns: int) -> None:
        waiting, self.waiting = self.waiting, []
        try:
            while waiting:
                self.kick(waiting.pop(0))
        finally:
            for index in waiting:  # one raised: the others have not had their turn
                self.serve_later(index)

    def fail(self, why: str) -> None:
        """The driver has done what none must: DEVICE_NEEDS_RESET, section 2.1.2. Until the reset nothing is served."""
        if self.status & Status.NEEDS_RESET:
            return
        self.failure = why
        self.status |= int(Status.NEEDS_RESET)
        self.restart_queues()
        if self.status & Status.DRIVER_OK:
            self.transport.interrupt_config()

    def config_changed(self) -> None:
        """Tell the driver that the device configuration space is another one than before."""
        self.generation = self.generation + 1 & 0xFF
        if self.live:
            self.transport.interrupt_config()

    # ---- for transports ----

    def connect(self, transport: Transport) -> None:
        """Called by the transport that shows the device."""
        self.transport = transport
        self._timer = transport.clock.timer(self._next_turn, self.name)
        self._make_queues()

    @property
    def offered(self) -> int:
        """Mask of the features that the driver can take."""
        common = mask_of(Feature.VERSION_1, Feature.INDIRECT_DESC, Feature.EVENT_IDX, Feature.RING_RESET)
        return self._features | common | (mask_of(Feature.RING_PACKED) if self.packed else 0)

    def _make_queues(self) -> None:
        self._queues_for = self.negotiated
        kind = PackedQueue if self.has(Feature.RING_PACKED) else SplitQueue
        self.queues = [
            kind(
                index,
                size,
                memory=self.transport.memory,
                interrupt=self.transport.interrupt_queue,
                indirect=self.has(Feature.INDIRECT_DESC),
                event_idx=self.has(Feature.EVENT_IDX),
                max_chain_bytes=self.max_chain_bytes,
            )
            for index, size in enumerate(self.queue_sizes)
        ]

    def set_status(self, value: int, wanted_features: int) -> None:
        """The driver sets bits of the status field (section 3.1.1), having chosen `wanted_features`. For 0 the
        transport calls `reset`."""
        new = value & SETTABLE & ~self.status  # a driver must not clear a bit, and cannot
        if new & Status.FEATURES_OK:
            new &= ~Status.FEATURES_OK | self._negotiate(wanted_features)
        if not (self.status | new) & Status.FEATURES_OK:
            new &= ~Status.DRIVER_OK
        self.status |= int(new)
        if new & (Status.DRIVER_OK | Status.FAILED):
            self.restart_queues()
        if new & Status.DRIVER_OK and self.live:
            self.activated()

    def _negotiate(self, wanted: int) -> int:
        """FEATURES_OK when the driver's choice is acceptable (section 2.2.2), else 0."""
        unknown = wanted & ~self.offered
        if unknown or not wanted & mask_of(Feature.VERSION_1) or not self.accepts(wanted):
            return 0
        self.negotiated = wanted
        self._make_queues()
        return Status.FEATURES_OK

    def restart_queues(self) -> None:
        """Whether the device and its queues may be used depends on the status, and on the transport's `dma`."""
        self.live = self.status & (Status.DRIVER_OK | STOPPED) == Status.DRIVER_OK
        for queue in self.queues:
            queue.start(self.live and self.transport.dma)

    def enable_queue(self, index: int) -> None:
        """The driver has set up queue `index`. With registers that make no queue the device needs a reset."""
        queue = self.queues[index]
        try:
            queue.check()
        except BrokenQueue as error:
            self.fail(str(error))
            return
        queue.ready = True
        queue.start(self.live and self.transport.dma)

    def reset_queue(self, index: int) -> None:
        """The driver resets queue `index`: section 2.6.1."""
        self.queues[index].reset()
        if index in self.waiting:
            self.waiting.remove(index)
        self.queue_reset(index)

    def kick(self, index: int) -> None:
        """The driver's notification of queue `index`; nothing while the device or the queue is not set up."""
        if index < len(self.queues) and self.queues[index].live:
            self.notified(index)

    def reset(self) -> None:
        """Section 2.4."""
        self.status = 0
        self.negotiated = 0
        self.live = False
        self.failure = None
        self.waiting.clear()
        self._timer.cancel()
        self._make_queues()
        self.quiesced()

    # ---- saved state ----

    def save(self) -> SavedState:
        """What was negotiated, the queues and the type's own state as plain data."""
        queues = {str(queue.index): queue.save() for queue in self.queues}
        own = {"queues": queues, "type": self.save_device()}
        return save_fields(self, self.name, _VERSION, _FIELDS) | own

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Queues with chains that were in flight get a turn at once.

        Raises SnapshotError.
        """
        load_fields(self, state, self.name, _VERSION, _FIELDS)
        saved = list(self.waiting)
        for index in saved:
            if index >= len(self.queue_sizes):
                raise SnapshotError(
                    f"{self.name}: saved field 'waiting' names queue {index}; {len(self.queue_sizes)} queues"
                )
        self._timer.cancel()
        self.failure = None
        if self._queues_for != self.negotiated:
            self._make_queues()
        queues = saved_part(state, self.name, "queues")
        for queue in self.queues:
            queue.load(saved_part(queues, self.name, str(queue.index)))
        self.load_device(saved_part(state, self.name, "type"))
        self.restart_queues()
        for queue in self.queues:
            if queue.returned:
                self.serve_later(queue.index)
        # A queue that is not set up would have its turn for nothing.
        self.waiting[:] = [index for index in self.waiting if index in saved or self.queues[index].live]
        if self.waiting:
            self.serve_later(self.waiting[0])
        else:
            self._timer.cancel()
