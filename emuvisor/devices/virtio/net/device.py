"""virtio-net, the device: virtio 1.2, section 5.1.

Everything here runs in the guest's thread. What the network sends waits in the `Inbox` until that thread comes by.
"""

import reprlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from struct import Struct
from time import perf_counter_ns

from emuvisor.bus.device import SavedState
from emuvisor.bus.ethernet import Link
from emuvisor.bus.saved import Data, Fields, Flag, Number, load_fields, save_fields, saved_part
from emuvisor.devices.limits import OUT, NicLimits
from emuvisor.devices.virtio.chain import Chain
from emuvisor.devices.virtio.device import Transport, VirtioDevice
from emuvisor.devices.virtio.features import DeviceType, Status, mask_of
from emuvisor.devices.virtio.net.control import Control
from emuvisor.devices.virtio.net.features import (
    DEVICE_FEATURES,
    GUEST_OFFLOADS,
    NetFeature,
    dependencies_hold,
    needs_of,
)
from emuvisor.devices.virtio.net.filter import MAC_LENGTH, ReceiveFilter
from emuvisor.devices.virtio.net.header import HEADER_SIZE, BadHeader, make_header, parse_header
from emuvisor.devices.virtio.net.inbox import Inbox, Waiting
from emuvisor.devices.virtio.net.meter import NicMeter
from emuvisor.devices.virtio.queue import BrokenQueue, VirtQueue
from emuvisor.devices.virtio.throttled import ThrottledQueues
from emuvisor.errors import OutOfFrames, SnapshotError, UsageError

__all__ = ["MAX_QUEUE_PAIRS", "CardDrop", "Net"]

QUEUE_SIZE = 256
CONTROL_QUEUE_SIZE = 64
MAX_QUEUE_PAIRS = 16
CONTROL_QUEUE_WITHOUT_MQ = 2
"""Number of the control queue when only the first pair is in use."""

ETHERNET_HEADER = 14
MAX_FRAME = 0xFFFF + 40 + ETHERNET_HEADER + 8
"""Bytes of the longest frame that a driver can mean: a full IPv6 payload with all headers and two VLAN tags."""

# struct virtio_net_config, section 5.1.4.
_CONFIG = Struct("<6sHHHIBBHI")
"""mac, status, max_virtqueue_pairs, mtu, speed, duplex, and three fields of hashing, which is not offered."""
LINK_UP = 1
ANNOUNCE = 2
SPEED_MBITS = 10_000
FULL_DUPLEX = 1

_VERSION = 1
_FIELDS = Fields(
    {
        "announcing": Flag(),
        "renamed": Flag(),
        "guest_offloads": Number(GUEST_OFFLOADS),
        "pairs": Number(MAX_QUEUE_PAIRS, minimum=1),
    }
)
_MAC = Data(MAC_LENGTH, minimum=MAC_LENGTH)


class CardDrop(StrEnum):
    """Why a frame got no further than the card."""

    LINK_DOWN = "link down"
    BAD_HEADER = "bad header"
    BAD_LENGTH = "no frame has this length"
    FILTERED = "not wanted by the driver"
    NO_ROOM = "no room, or no driver"
    LIMITED = "over the card's limit"
    BUFFER_TOO_SHORT = "receive buffer too short"
    NOT_ACCEPTED = "the driver has switched the offload off"


class Net(VirtioDevice):
    """A network card with the address `mac` on `link`, with `limits`. What the guest sends beyond them waits in its
    queues; what comes in beyond them waits for a moment, and is dropped if there is too much of it.

    `queue_pairs` is how many pairs of queues the driver may use. `call_soon` runs a function in the guest's thread.
    Frames that wait for the driver are not part of a saved state: a network may lose frames.
    """

    device_id = DeviceType.NETWORK

    def __init__(
        self,
        *,
        name: str,
        mac: bytes,
        link: Link,
        queue_pairs: int = 1,
        limits: NicLimits | None = None,
        call_soon: Callable[[Callable[[], None]], None],
    ) -> None:
        if not 1 <= queue_pairs <= MAX_QUEUE_PAIRS:
            raise UsageError(f"{name}: {queue_pairs} pairs of queues; it has 1 to {MAX_QUEUE_PAIRS}")
        features = DEVICE_FEATURES | (mask_of(NetFeature.MQ) if queue_pairs > 1 else 0)
        sizes = [QUEUE_SIZE] * (2 * queue_pairs) + [CONTROL_QUEUE_SIZE]
        super().__init__(name=name, queue_sizes=sizes, features=features)
        self.mac = mac
        self.queue_pairs = queue_pairs
        self.pairs = 1
        """Pairs in use."""
        self.announcing = False
        """The driver should tell the network where it is now: section 5.1.6.5.4."""
        self.renamed = False
        """The driver may know the card by another address than `mac`: that of the guest whose state it goes on from."""
        self.guest_offloads = 0
        """Those of the negotiated guest features that are switched on."""
        self.filter = ReceiveFilter(mac)
        self._dropped: Counter[CardDrop] = Counter()
        self._link = link
        self._control = Control(self)
        self._inbox = Inbox(
            wake=lambda: call_soon(self._fetch), on_link=lambda: call_soon(self.config_changed)
        )
        self.meter = NicMeter(limits)
        self.meter.bound(self._inbox)
        self.meter.throttle.on_change.append(self._limits_changed)
        self._sending = ThrottledQueues(
            self,
            self.meter.throttle,
            self.meter.throttled,
            lambda queue, chain: self._transmit(chain, queue.index // 2),
        )
        self._turn_of: int | None = None
        """The pair whose frame is the next to go to the driver, when there are tokens for it."""
        link.attach(self._inbox)

    def connect(self, transport: Transport) -> None:
        """Called by the transport that shows the device."""
        self._clock = transport.clock
        self._receive_timer = transport.clock.timer(self._on_tokens, f"{self.name}-receive")
        self._sending.connect(transport.clock)
        super().connect(transport)

    # ---- for the host ----

    @property
    def dropped(self) -> dict[CardDrop, int]:
        """How many frames got no further than the card, by reason. The port counts the others."""
        counts = Counter(self._dropped)
        counts[CardDrop.FILTERED] += self._inbox.filtered
        counts[CardDrop.NO_ROOM] += self._inbox.overflowed
        counts[CardDrop.LIMITED] += self._inbox.policed
        return {reason: count for reason, count in counts.items() if count}

    def announce(self) -> None:
        """Ask the driver to tell the network where it is, as after a migration. Nothing without GUEST_ANNOUNCE."""
        if self.has(NetFeature.GUEST_ANNOUNCE):
            self.announcing = True
            self.config_changed()

    def tell_address(self) -> None:
        """Tell the driver that the configuration space shows another address than it read there, if that is so."""
        if self.renamed:
            self.config_changed()

    # ---- virtio ----

    def config(self) -> bytes:
        """Section 5.1.4."""
        status = (LINK_UP if self._link.up else 0) | (ANNOUNCE if self.announcing else 0)
        mac = self.mac if self.renamed else self.filter.mac
        return _CONFIG.pack(mac, status, self.queue_pairs, self._link.mtu, SPEED_MBITS, FULL_DUPLEX, 0, 0, 0)

    def accepts(self, features: int) -> bool:
        """Section 5.1.3.1."""
        return dependencies_hold(features)

    def activated(self) -> None:
        """Take frames from now on."""
        self.pairs = 1
        self.filter = ReceiveFilter(self.mac, filter_vlans=self.has(NetFeature.CTRL_VLAN))
        self.guest_offloads = self.negotiated & GUEST_OFFLOADS
        self._open()

    def quiesced(self) -> None:
        """Take no more frames."""
        self.announcing = self.renamed = False
        self.filter = ReceiveFilter(self.mac)
        self._inbox.close()
        self._sending.forget()
        self._let_all_receive()

    def queue_reset(self, index: int) -> None:
        """Nothing of queue `index` waits to be sent."""
        self._sending.forget(index)

    def notified(self, index: int) -> None:
        """Buffers of a receive queue (even), frames of a transmit queue (odd), or commands."""
        queue = self.queues[index]
        if self.has(NetFeature.CTRL_VQ) and index == self._control_index:
            self.serve(queue, self._control.handle)
        elif index % 2:
            self._send(queue)
        else:
            self._fill(index // 2)

    def save_device(self) -> SavedState:
        """What the driver has set with the control queue."""
        tokens = self.meter.throttle.save(self._clock.now_ns())
        own = {"mac": self.mac, "filter": self.filter.save(), "tokens": tokens}
        return save_fields(self, self.name, _VERSION, _FIELDS) | own

    def load_device(self, state: SavedState) -> None:
        """Take over what `save_device` gave. Raises SnapshotError."""
        load_fields(self, state, self.name, _VERSION, _FIELDS)
        self.filter = ReceiveFilter.restore(saved_part(state, self.name, "filter"))
        self._recognise(state.get("mac"))
        self.pairs = min(self.pairs, self.queue_pairs)
        self.guest_offloads &= self.negotiated
        tokens = saved_part(state, self.name, "tokens")
        self.meter.throttle.load(tokens, self.name, self._clock.now_ns())
        self._sending.forget()
        self._let_all_receive()
        self._inbox.close()
        if self.status & Status.DRIVER_OK:
            self._open()

    def _recognise(self, saved: object) -> None:
        """Note whether the state is that of a card with another address. Its driver goes on with that until it is told;
        without one, the card is called as it was made."""
        if not _MAC.accepts(saved):
            raise SnapshotError(f"{self.name}: saved field 'mac' is {reprlib.repr(saved)}; expected {_MAC}")
        if saved != self.mac and self.status & Status.DRIVER_OK:
            self.renamed = True
        elif saved != self.mac:
            self.filter = ReceiveFilter(self.mac)

    # ---- for the control queue ----

    def set_filter(self, wanted: ReceiveFilter) -> None:
        """Which frames the driver wants from now on."""
        self.filter = wanted
        self._inbox.filter = wanted

    def set_address(self, mac: bytes) -> None:
        """What the driver calls the card from now on."""
        self.renamed = False
        self.set_filter(replace(self.filter, mac=mac))

    def set_guest_offloads(self, offloads: int) -> None:
        """Which of the negotiated guest features are switched on from now on."""
        self.guest_offloads = offloads
        self._inbox.accepts = needs_of(offloads)

    def set_pairs(self, pairs: int) -> None:
        """How many pairs of queues the driver uses from now on."""
        self.pairs = pairs
        self._inbox.use_pairs(pairs)
        self._let_all_receive()

    @property
    def _control_index(self) -> int:
        return 2 * self.queue_pairs if self.has(NetFeature.MQ) else CONTROL_QUEUE_WITHOUT_MQ

    def _open(self) -> None:
        self._inbox.open(self.pairs)
        self._inbox.accepts = needs_of(self.guest_offloads)
        self._inbox.filter = self.filter

    # ---- limits ----

    def _limits_changed(self) -> None:
        self.meter.bound(self._inbox)
        if self._turn_of is not None:
            self._receive_timer.arm(self._clock.now_ns())

    def _on_tokens(self, _deadline_ns: int) -> None:
        """There are tokens for the frame that waits; then it is the turn of the other pairs."""
        first = self._turn_of or 0
        self._let_all_receive()
        for pair in range(first, first + self.pairs):
            self.kick(2 * (pair % self.pairs))

    def _let_all_receive(self) -> None:
        self._turn_of = None
        self._inbox.throttled = False
        self._receive_timer.cancel()

    def _wait_for_tokens(self, pair: int, now_ns: int, *, served: bool) -> None:
        """The first frame of `pair` has to wait. When others of the pair were `served` in this turn, it is another
        pair's turn now, if one has frames."""
        pairs = [(pair + served + i) % self.pairs for i in range(self.pairs)]
        for candidate in pairs:
            waiting = self._inbox.first(candidate)
            if waiting is not None:
                self._turn_of = candidate
                self._inbox.throttled = True
                self._receive_timer.arm(self.meter.ready_ns(waiting[0], now_ns))
                return

    # ---- transmit: section 5.1.6.2 ----

    def _send(self, queue: VirtQueue) -> None:
        if self._sending.active:
            self.serve(queue, lambda chain: self._sending.handle(queue, chain, OUT, _frame_size(chain)))
        else:
            self.serve(queue, lambda chain: self._transmit(chain, queue.index // 2))

    def _transmit(self, chain: Chain, pair: int) -> int:
        start = perf_counter_ns()
        if not HEADER_SIZE + ETHERNET_HEADER <= chain.readable_length <= HEADER_SIZE + MAX_FRAME:
            self._dropped[CardDrop.BAD_LENGTH] += 1
            return 0
        data = b"".join(chain.readable_views())
        try:
            offload = parse_header(data, self.negotiated)
        except BadHeader:
            self._dropped[CardDrop.BAD_HEADER] += 1
            return 0
        if not self._link.up:
            self._dropped[CardDrop.LINK_DOWN] += 1
            return 0
        frame = data[HEADER_SIZE:]
        if self.pairs > 1:
            self._inbox.steering.sent(frame, pair)
        self._link.send(frame, offload)
        self.meter.sent.record(perf_counter_ns() - start)
        return 0

    # ---- receive: section 5.1.6.4 ----

    def _fetch(self) -> None:
        """Frames have come in."""
        self._inbox.looked()
        for pair in range(self.pairs):
            self.kick(2 * pair)

    def _fill(self, pair: int) -> None:
        """Put what waits for `pair` into the driver's buffers, as long as there are some, and tokens; the rest goes on
        waiting.

        This ends, because the driver makes no new buffers available meanwhile.
        """
        if self._turn_of not in (None, pair):
            return
        queue, now, served = self.queues[2 * pair], self._clock.now_ns(), False
        with self.guarded(queue):
            while (waiting := self._inbox.first(pair)) is not None:
                if self.meter.ready_ns(waiting[0], now) > now:
                    self._wait_for_tokens(pair, now, served=served)
                    return
                if not self._receive(queue, waiting):
                    break
                self._inbox.done(pair)
                self.meter.took(waiting[0], now)
                self.meter.received.record(perf_counter_ns() - waiting[2])
                served = True
        if self._turn_of == pair:
            self._let_all_receive()

    def _receive(self, queue: VirtQueue, waiting: Waiting) -> bool:
        """Put one frame into as many buffers as it takes (one without MRG_RXBUF); False if there are too few."""
        frame, offload, _ = waiting
        if offload is not None and offload.needs & ~self._inbox.accepts:
            self._dropped[CardDrop.NOT_ACCEPTED] += 1
            return True
        needed = HEADER_SIZE + len(frame)
        mergeable = self.has(NetFeature.MRG_RXBUF)
        chains: list[Chain] = []
        room = 0
        while room < needed and (mergeable or not chains):
            chain = queue.pop()
            if chain is None:
                _give_back(queue, chains)
                return False
            if chain.readable or (not chains and chain.writable_length < HEADER_SIZE):
                raise BrokenQueue(f"{queue}: a receive buffer that takes no header")
            chains.append(chain)
            room += chain.writable_length
        if room < needed:
            _give_back(queue, chains)
            self._dropped[CardDrop.BUFFER_TOO_SHORT] += 1
            return True
        knows_checksums = bool(self._inbox.accepts)
        header = make_header(frame, offload, knows_checksums=knows_checksums, buffers=len(chains))
        data = memoryview(header + frame)
        try:
            written = _scatter(data, chains)
            for chain, count in zip(chains, written, strict=True):
                queue.push(chain, count)  # only the first can find that the ring has lost its memory
        except OutOfFrames:
            _give_back(queue, chains)
            raise
        return True


def _frame_size(chain: Chain) -> int:
    """What a frame that is to be sent takes of a limit. A longer one than there can be is dropped: it must not make a
    debt of days."""
    return min(max(0, chain.readable_length - HEADER_SIZE), MAX_FRAME)


def _scatter(data: memoryview, chains: list[Chain]) -> list[int]:
    """Fill the buffers one after the other; returns how many bytes are in each."""
    written = []
    done = 0
    for chain in chains:
        count = chain.write(data[done : done + chain.writable_length])
        written.append(count)
        done += count
    return written


def _give_back(queue: VirtQueue, chains: list[Chain]) -> None:
    for chain in reversed(chains):
        queue.unpop(chain)
