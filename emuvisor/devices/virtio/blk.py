"""A disk on virtio: virtio 1.2, section 5.2.

A request is a header (type, reserved, first sector), data in one direction or none, and a status byte, the last that
the device writes. Requests are done in order, each before the next is taken, so there is nothing in flight between two
notifications. Data moves between guest memory and the disk without a copy.

A host that is full is no error of the guest's disk: the guest is paused, and the request is done when it goes on.
Requests that the disk's limits hold back are in flight until they may go on; others may overtake them, which virtio
allows, so that a limit of one direction does not stop the other.
"""

from enum import IntEnum
from struct import Struct
from time import perf_counter_ns

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Fields, Flag, load_fields, save_fields, saved_part
from emuvisor.devices.limits import READ, WRITE
from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDevice, host_full_reason, is_host_full
from emuvisor.devices.storage.meter import DiskMeter, DiskStatistics
from emuvisor.devices.virtio.chain import Chain, Part, cut
from emuvisor.devices.virtio.device import Suspend, Transport, VirtioDevice
from emuvisor.devices.virtio.features import DeviceType, mask_of
from emuvisor.devices.virtio.queue import BrokenQueue, VirtQueue
from emuvisor.devices.virtio.throttled import ThrottledQueues
from emuvisor.errors import UsageError
from emuvisor.units import KIB

__all__ = ["Blk", "BlkFeature", "RequestStatus", "RequestType"]

QUEUE_SIZE = 128
MOST_QUEUES = 64

SERIAL_LENGTH = 20


class BlkFeature(IntEnum):
    """Feature bits, section 5.2.3."""

    SIZE_MAX = 1
    SEG_MAX = 2
    RO = 5
    BLK_SIZE = 6
    FLUSH = 9
    TOPOLOGY = 10
    CONFIG_WCE = 11
    MQ = 12
    DISCARD = 13
    WRITE_ZEROES = 14


class RequestType(IntEnum):
    """Section 5.2.6."""

    IN = 0
    OUT = 1
    FLUSH = 4
    GET_ID = 8
    DISCARD = 11
    WRITE_ZEROES = 13


class RequestStatus(IntEnum):
    """Section 5.2.6."""

    OK = 0
    IOERR = 1
    UNSUPP = 2


# ---- the configuration space, section 5.2.4 ----

CONFIG = Struct("<Q II HBB I BBHI BxH III IIB3x")
WRITEBACK = 32
"""Offset of the field that the driver can write."""

SIZE_MAX = 512 * KIB
"""Bytes of one segment of data."""
SEG_MAX = QUEUE_SIZE - 2
"""Segments of data in one request: a ring's worth, without header and status."""
PHYSICAL_BLOCK_EXP = 3
"""Logical blocks in a block that the host stores at once, its page: a power of two."""
PHYSICAL_BLOCKS = 1 << PHYSICAL_BLOCK_EXP
OPTIMAL_BLOCKS = 64 * KIB // SECTOR_SIZE
"""Of overlays and qcow2 files: a cluster."""
MAX_DISCARD_SECTORS = 1 << 21
MAX_DISCARD_SEG = 32
MAX_WRITE_ZEROES_SECTORS = 1 << 17
"""Few, because a host whose file system cannot make zeros has to write them."""
MAX_WRITE_ZEROES_SEG = 1

# ---- requests ----

HEADER = Struct("<IIQ")
RANGE = Struct("<QII")
"""First sector, count and flags of a range to discard or to make zeros."""
UNMAP = 1
STATUS_LENGTH = 1
STATUS_BYTE = {status: bytes((status,)) for status in RequestStatus}

_DEVICE = "virtio-blk"
_VERSION = 1
_FIELDS = Fields({"write_through": Flag()})


class _Refused(Exception):
    """The request ends with `status` and changes nothing."""

    def __init__(self, status: RequestStatus) -> None:
        self.status = status


class Blk(VirtioDevice):
    """`disk` with 1 to 64 request `queues`; `serial` has at most 20 printable ASCII characters. `meter` has the disk's
    limits and its numbers.

    A read-only disk is offered as one. The disk's owner closes it. Raises UsageError.
    """

    device_id = DeviceType.BLOCK

    def __init__(
        self,
        disk: BlockDevice,
        *,
        name: str,
        serial: str,
        queues: int = 1,
        meter: DiskMeter | None = None,
    ) -> None:
        if len(serial) > SERIAL_LENGTH or not (serial.isascii() and serial.isprintable()):
            raise UsageError(
                f"{name}: serial number {serial!r}; a disk's has at most {SERIAL_LENGTH} printable ASCII characters"
            )
        if not 1 <= queues <= MOST_QUEUES:
            raise UsageError(f"{name}: {queues} queues; a disk has 1 to {MOST_QUEUES}")
        features = mask_of(
            BlkFeature.SIZE_MAX,
            BlkFeature.SEG_MAX,
            BlkFeature.BLK_SIZE,
            BlkFeature.FLUSH,
            BlkFeature.TOPOLOGY,
            BlkFeature.CONFIG_WCE,
        )
        if queues > 1:
            features |= mask_of(BlkFeature.MQ)
        features |= (
            mask_of(BlkFeature.RO) if disk.read_only else mask_of(BlkFeature.DISCARD, BlkFeature.WRITE_ZEROES)
        )
        super().__init__(name=name, queue_sizes=[QUEUE_SIZE] * queues, features=features)
        self.disk = disk
        self.serial = serial
        self.meter = meter or DiskMeter()
        self._throttled = ThrottledQueues(
            self, self.meter.throttle, self.meter.throttled, lambda _queue, chain: self._handle(chain)
        )
        self.write_through = False
        """The driver has chosen that a write is on stable storage when it is done."""
        self._requests = {
            RequestType.IN: self._read,
            RequestType.OUT: self._write,
            RequestType.FLUSH: self._flush,
            RequestType.GET_ID: self._get_id,
            RequestType.DISCARD: self._discard,
            RequestType.WRITE_ZEROES: self._write_zeroes,
        }

    @property
    def statistics(self) -> DiskStatistics:
        """What the disk has done."""
        return self.meter.statistics

    def connect(self, transport: Transport) -> None:
        """Called by the transport that shows the device."""
        self._throttled.connect(transport.clock)
        super().connect(transport)

    # ---- configuration ----

    @property
    def writeback(self) -> bool:
        """Whether what was written may wait for a flush: sections 5.2.5.2 and 5.2.6.2. A driver that cannot flush never
        has to."""
        return self.has(BlkFeature.FLUSH) and not self.write_through

    def config(self) -> bytes:
        """Section 5.2.4, up to `write_zeroes_may_unmap`."""
        return CONFIG.pack(
            self.disk.sectors,
            SIZE_MAX,
            SEG_MAX,
            0,  # cylinders, heads, sectors: GEOMETRY is not offered
            0,
            0,
            SECTOR_SIZE,
            PHYSICAL_BLOCK_EXP,
            0,  # the first physical block begins at sector 0
            PHYSICAL_BLOCKS,
            OPTIMAL_BLOCKS,
            self.writeback,
            len(self.queue_sizes),
            MAX_DISCARD_SECTORS,
            MAX_DISCARD_SEG,
            PHYSICAL_BLOCKS,
            MAX_WRITE_ZEROES_SECTORS,
            MAX_WRITE_ZEROES_SEG,
            True,
        )

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver chooses between writeback and writethrough; the other fields are not its own."""
        if self.has(BlkFeature.CONFIG_WCE) and offset <= WRITEBACK < offset + len(data):
            self.write_through = not data[WRITEBACK - offset]

    def quiesced(self) -> None:
        """Writeback again; nothing waits."""
        self.write_through = False
        self._throttled.forget()

    def queue_reset(self, index: int) -> None:
        """Nothing of queue `index` waits."""
        self._throttled.forget(index)

    # ---- requests ----

    def notified(self, index: int) -> None:
        """The driver has made requests."""
        queue = self.queues[index]
        if self._throttled.active:
            self.serve(queue, lambda chain: self._ration(queue, chain))
        else:
            self.serve(queue, self._handle)

    def _ration(self, queue: VirtQueue, chain: Chain) -> int | None:
        """Do a request if its limits allow it now; None when it has to wait."""
        kind, _, _ = HEADER.unpack(chain.read(0, HEADER.size).ljust(HEADER.size, b"\0"))
        most = self.disk.sectors * SECTOR_SIZE  # what is longer is refused: it must not make a debt of days
        if kind == RequestType.IN:
            size = min(max(0, chain.writable_length - STATUS_LENGTH), most)
            return self._throttled.handle(queue, chain, READ, size)
        if kind == RequestType.OUT:
            size = min(max(0, chain.readable_length - HEADER.size), most)
            return self._throttled.handle(queue, chain, WRITE, size)
        if kind == RequestType.WRITE_ZEROES:
            _, sectors, _ = RANGE.unpack(chain.read(HEADER.size, RANGE.size).ljust(RANGE.size, b"\0"))
            size = min(min(sectors, MAX_WRITE_ZEROES_SECTORS) * SECTOR_SIZE, most)
            return self._throttled.handle(queue, chain, WRITE, size)
        if kind == RequestType.DISCARD:
            return self._throttled.handle(queue, chain, WRITE, 0)
        return self._handle(chain)

    def _handle(self, chain: Chain) -> int:
        """Do a request; returns how many bytes the device has written. Raises Suspend when the host is full."""
        if chain.writable_length < STATUS_LENGTH:
            raise BrokenQueue(f"{self.name}: a request without a status byte")
        status = self._status_of(chain)
        if status is not RequestStatus.OK:
            self.statistics.errors += 1
        gpa, length = chain.writable[-1]
        chain.memory.write(gpa + length - STATUS_LENGTH, STATUS_BYTE[status])
        return chain.writable_length

    def _status_of(self, chain: Chain) -> RequestStatus:
        if chain.readable_length < HEADER.size:
            return RequestStatus.IOERR
        gpa, length = chain.readable[0]
        header = chain.memory.read(gpa, HEADER.size) if length >= HEADER.size else chain.read(0, HEADER.size)
        kind, _, sector = HEADER.unpack(header)
        request = self._requests.get(kind)
        if request is None:
            return RequestStatus.UNSUPP
        try:
            request(chain, sector)
        except _Refused as refusal:
            return refusal.status
        except OSError as error:
            if is_host_full(error):
                raise Suspend(host_full_reason(self.disk, error)) from error
            return RequestStatus.IOERR
        return RequestStatus.OK

    def _sectors(self, parts: list[Part], offset: int, length: int, sector: int) -> int:
        """How many sectors the data has that lies at `offset` of `parts`, for `sector` and those behind it."""
        count, rest = divmod(length, SECTOR_SIZE)
        if rest or sector + count > self.disk.sectors:
            raise _Refused(RequestStatus.IOERR)
        if len(parts) > SEG_MAX or length > SIZE_MAX:
            sizes = [size for _, size in cut(parts, offset, length)]
            if (self.has(BlkFeature.SEG_MAX) and len(sizes) > SEG_MAX) or (
                self.has(BlkFeature.SIZE_MAX) and max(sizes) > SIZE_MAX
            ):
                raise _Refused(RequestStatus.IOERR)
        return count

    def _read(self, chain: Chain, sector: int) -> None:
        start = perf_counter_ns()
        length = chain.writable_length - STATUS_LENGTH
        if self._sectors(chain.writable, 0, length, sector):
            self.disk.read_into(sector, chain.writable_views(0, length))
        self.meter.did_read(length, start)

    def _write(self, chain: Chain, sector: int) -> None:
        start = perf_counter_ns()
        self._must_be_writable()
        length = chain.readable_length - HEADER.size
        if self._sectors(chain.readable, HEADER.size, length, sector):
            self.disk.write_from(sector, chain.readable_views(HEADER.size))
        self._written()
        self.meter.did_write(length, start)

    def _must_be_writable(self) -> None:
        if self.disk.read_only:
            raise _Refused(RequestStatus.IOERR)

    def _written(self) -> None:
        """Section 5.2.6.2: when the request is done, its data is stable unless the driver knows better."""
        if not self.writeback:
            self.disk.flush()

    def _flush(self, chain: Chain, sector: int) -> None:
        start = perf_counter_ns()
        self.disk.flush()
        self.meter.did_flush(start)

    def _get_id(self, chain: Chain, sector: int) -> None:
        if chain.writable_length - STATUS_LENGTH < SERIAL_LENGTH:
            raise _Refused(RequestStatus.IOERR)
        chain.write(self.serial.encode().ljust(SERIAL_LENGTH, b"\0"))

    def _ranges(
        self, chain: Chain, *, most: int, most_sectors: int, flags: int
    ) -> list[tuple[int, int, int]]:
        """The ranges (first sector, count, flags) of a request, at most `most`, each of at most `most_sectors`, with no
        other flags than `flags`."""
        length = chain.readable_length - HEADER.size
        if length % RANGE.size or not 0 < length <= most * RANGE.size:
            raise _Refused(RequestStatus.IOERR)
        ranges = list(RANGE.iter_unpack(chain.read(HEADER.size)))
        for sector, count, given in ranges:
            if given & ~flags:
                raise _Refused(RequestStatus.UNSUPP)
            if count > most_sectors or sector + count > self.disk.sectors:
                raise _Refused(RequestStatus.IOERR)
        return ranges

    def _must_have(self, feature: BlkFeature) -> None:
        if not self.has(feature):
            raise _Refused(RequestStatus.UNSUPP)

    def _discard(self, chain: Chain, sector: int) -> None:
        self._must_be_writable()
        self._must_have(BlkFeature.DISCARD)
        for first, count, _ in self._ranges(
            chain, most=MAX_DISCARD_SEG, most_sectors=MAX_DISCARD_SECTORS, flags=0
        ):
            try:
                self.disk.discard(first, count)
            except OSError as error:
                if not is_host_full(error):
                    raise  # a full host keeps the sectors: that is allowed
        self.statistics.discards += 1

    def _write_zeroes(self, chain: Chain, sector: int) -> None:
        start = perf_counter_ns()
        self._must_be_writable()
        self._must_have(BlkFeature.WRITE_ZEROES)
        done = 0
        for first, count, flags in self._ranges(
            chain, most=MAX_WRITE_ZEROES_SEG, most_sectors=MAX_WRITE_ZEROES_SECTORS, flags=UNMAP
        ):
            self.disk.write_zeroes(first, count, unmap=bool(flags & UNMAP))
            done += count * SECTOR_SIZE
        self._written()
        self.meter.did_write(done, start)

    # ---- saved state ----

    def save_device(self) -> SavedState:
        """The cache mode and the tokens; what is on the disk is not part of the device."""
        tokens = self.meter.throttle.save(self.transport.clock.now_ns())
        return save_fields(self, _DEVICE, _VERSION, _FIELDS) | {"tokens": tokens}

    def load_device(self, state: SavedState) -> None:
        """Take over what `save_device` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
        self._throttled.forget()
        tokens = saved_part(state, _DEVICE, "tokens")
        self.meter.throttle.load(tokens, _DEVICE, self.transport.clock.now_ns())
