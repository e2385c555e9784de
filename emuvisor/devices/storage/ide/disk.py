"""An ATA hard disk on a block device: ATA/ATAPI-6 (T13/1410D), sections 8 (commands) and 9 (protocols)."""

from collections.abc import Callable
from contextlib import suppress
from struct import iter_unpack
from time import perf_counter_ns

from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import OPTIONAL_TIME, Data, Fields, Flag, Number, saved_part
from emuvisor.devices.limits import READ, WRITE
from emuvisor.devices.storage.blockdevice import (
    SECTOR_SIZE,
    BlockDevice,
    host_full_reason,
    is_host_full,
    sectors_that_work,
)
from emuvisor.devices.storage.ide import registers as r
from emuvisor.devices.storage.ide.addresses import addressed_count, addressed_lba, show_lba
from emuvisor.devices.storage.ide.drive import DRIVE_FIELDS, MAX_BLOCK, Drive
from emuvisor.devices.storage.ide.geometry import Geometry, default_geometry, translated
from emuvisor.devices.storage.ide.identify import (
    MAX_LBA28,
    MAX_MULTIPLE,
    MAX_TRIM_BLOCKS,
    DiskIdentity,
    identify_disk,
)
from emuvisor.devices.storage.ide.registers import Phase
from emuvisor.devices.storage.meter import DiskMeter
from emuvisor.units import MIB

__all__ = ["AtaDisk"]

FLUSHING = {r.FLUSH_CACHE, r.FLUSH_CACHE_EXT, r.SET_FEATURES}
"""Commands that write nothing, but flush what was written."""

WRITING_BY_DMA = {r.WRITE_DMA, r.WRITE_DMA_NO_RETRY, r.WRITE_DMA_EXT}

VERIFY_CHUNK = 2048
"""Sectors that READ VERIFY reads at a time."""

TRIM_FEATURE = 0x01
TRIM_RANGE = "<Q"
"""First sector in bits 47-0, count in bits 63-48 (ATA8-ACS-2, DATA SET MANAGEMENT)."""
TRIM_COUNT_SHIFT = 48

MAX_WAITING = max(MAX_BLOCK, MIB) + SECTOR_SIZE
"""Bytes that a write can be stuck with: a block, or what the bus master brings at a time."""

_FIELDS = Fields(
    {
        **DRIVE_FIELDS,
        "gathered": Data(MAX_TRIM_BLOCKS * SECTOR_SIZE),
        "waiting": Data(MAX_WAITING),
        "multiple": Number(MAX_MULTIPLE),
        "current_heads": Number(16, minimum=1),
        "current_sectors": Number(255, minimum=1),
        "write_cache": Flag(),
        "look_ahead": Flag(),
        "throttled_since_ns": OPTIONAL_TIME,
    }
)


class AtaDisk(Drive):
    """`disk` as a hard disk; `serial` tells it from others. Raises UsageError for a serial number too long.

    When the host has no room for what is written, `on_suspend(reason)` is called, which pauses the guest; the command
    stays busy, and a timer of `clock` tries it again when the guest goes on. Without both of them the command fails.
    `meter` has the disk's limits and its numbers; what the limits hold back stays busy, too, which needs the clock.
    """

    kind = "ata-disk"
    fields = _FIELDS

    def __init__(
        self,
        *,
        disk: BlockDevice,
        serial: str = "EMUVISOR",
        clock: Clock | None = None,
        on_suspend: Callable[[str], None] | None = None,
        meter: DiskMeter | None = None,
    ) -> None:
        self.disk = disk
        self.meter = meter or DiskMeter()
        self.meter.throttle.on_change.append(self._limits_changed)
        self.throttled_since_ns: int | None = None
        """When the command under way came to wait for the limits."""
        self._clock = clock
        self._retry = None if clock is None else clock.timer(self._try_again, f"{self.kind}-retry")
        self._on_suspend = on_suspend
        self._geometry = default_geometry(disk.sectors)
        self.current_heads = self._geometry.heads
        self.current_sectors = self._geometry.sectors
        self.multiple = 0
        """Sectors in a block of READ and WRITE MULTIPLE; 0 while the host has not set it."""
        self.write_cache = True
        self.look_ahead = True
        self.gathered = bytearray()
        """What DMA brought that is not yet a whole sector."""
        self.waiting = bytearray()
        """Whole sectors for which the host has no room now."""
        super().__init__(serial)
        self.commands = self._command_table()

    def _command_table(self) -> dict[int, Callable[[], None]]:
        return {
            r.DATA_SET_MANAGEMENT: self._data_set_management,
            **dict.fromkeys(range(r.RECALIBRATE, r.RECALIBRATE + 16), self.finish),
            r.READ_SECTORS: self._read_sectors,
            r.READ_SECTORS_NO_RETRY: self._read_sectors,
            r.READ_SECTORS_EXT: self._read_sectors,
            r.READ_DMA: self._read_dma,
            r.READ_DMA_NO_RETRY: self._read_dma,
            r.READ_DMA_EXT: self._read_dma,
            r.READ_MULTIPLE: self._read_multiple,
            r.READ_MULTIPLE_EXT: self._read_multiple,
            r.READ_NATIVE_MAX: self._read_native_max,
            r.READ_NATIVE_MAX_EXT: self._read_native_max,
            r.WRITE_SECTORS: self._write_sectors,
            r.WRITE_SECTORS_NO_RETRY: self._write_sectors,
            r.WRITE_SECTORS_EXT: self._write_sectors,
            r.WRITE_DMA: self._write_dma,
            r.WRITE_DMA_NO_RETRY: self._write_dma,
            r.WRITE_DMA_EXT: self._write_dma,
            r.WRITE_MULTIPLE: self._write_multiple,
            r.WRITE_MULTIPLE_EXT: self._write_multiple,
            r.READ_VERIFY: self._read_verify,
            r.READ_VERIFY_NO_RETRY: self._read_verify,
            r.READ_VERIFY_EXT: self._read_verify,
            **dict.fromkeys(range(r.SEEK, r.SEEK + 16), self._seek),
            r.INITIALIZE_DEVICE_PARAMETERS: self._initialize_device_parameters,
            r.SET_MULTIPLE_MODE: self._set_multiple_mode,
            r.STANDBY_IMMEDIATE: self.enter_standby,
            r.STANDBY: self.enter_standby,
            r.SLEEP: self.enter_standby,
            r.IDLE_IMMEDIATE: self.leave_standby,
            r.IDLE: self.leave_standby,
            r.CHECK_POWER_MODE: self.check_power_mode,
            r.FLUSH_CACHE: self._flush_cache,
            r.FLUSH_CACHE_EXT: self._flush_cache,
            r.IDENTIFY_DEVICE: self._identify,
            r.SET_FEATURES: self._set_features,
        }

    def revert(self) -> None:
        """Settings as after power-on."""
        super().revert()
        self.multiple = 0
        self.current_heads = self._geometry.heads
        self.current_sectors = self._geometry.sectors
        self.write_cache = True
        self.look_ahead = True

    def stop(self) -> None:
        """No data moves any more."""
        super().stop()
        self.gathered.clear()
        self.waiting.clear()
        self.throttled_since_ns = None
        if self._retry is not None:
            self._retry.cancel()

    # ---- addresses ----

    @property
    def _current(self) -> Geometry:
        """The translation that CHS addresses go through now."""
        return translated(self.disk.sectors, self.current_heads, self.current_sectors)

    def _range(self) -> bool:
        """Note in `position` and `end` what the registers address; False when the command has failed for it."""
        count, lba = addressed_count(self), addressed_lba(self, self._current)
        if lba is None:
            self.fail(r.IDNF)
        elif lba + count > self.disk.sectors:
            self._fail_at(max(lba, self.disk.sectors), r.IDNF)
        else:
            self.standby = False
            self.position, self.end = lba * SECTOR_SIZE, (lba + count) * SECTOR_SIZE
        return self.position < self.end

    def _begins(self, direction: int) -> bool:
        """`_range`, and whether the limits allow the command to begin: if not yet, it stays busy until they do."""
        if not self._range():
            return False
        throttle, clock = self.meter.throttle, self._clock
        if clock is None or not throttle.active:
            return True
        now = clock.now_ns()
        until = throttle.admit(direction, self.end - self.position, now)
        since = now if self.throttled_since_ns is None else self.throttled_since_ns
        if until <= now:
            if self.throttled_since_ns is not None:
                self.meter.throttled.record(max(0, now - since))
                self.throttled_since_ns = None
            return True
        self.throttled_since_ns = since
        self.phase = Phase.THROTTLED
        self.status = r.BSY
        self._arm(until)
        return False

    def _limits_changed(self) -> None:
        if self.phase == Phase.THROTTLED:
            self._arm()

    def _fail_at(self, lba: int, error: int) -> None:
        """End the command with an error of sector `lba`."""
        show_lba(self, lba, self._current)
        self.fail(error)

    # ---- the medium ----

    def _read(self, lba: int, count: int, *, whole: bool) -> bytes:
        """Sectors from the disk; nothing when the command has failed.

        Unless `whole` is wanted, the sectors before a bad one are delivered first.
        """
        start = perf_counter_ns()
        try:
            data = self.disk.read(lba, count)
        except OSError:
            self._count_error()
        else:
            self.meter.did_read(len(data), start)
            return data
        good = sectors_that_work(lambda n: self.disk.read(lba, n), count)
        if good and not whole:
            return self.disk.read(lba, good)
        self._fail_at(lba + good, r.UNC)
        return b""

    def _write(self, data: bytes) -> bool:
        """Store whole sectors at `position`, and step on; False when the command has failed."""
        lba = self.position // SECTOR_SIZE
        if self.disk.read_only:
            self.abort()
            return False
        if not self._inside(lba, len(data) // SECTOR_SIZE):
            return False
        start = perf_counter_ns()
        try:
            self.disk.write(lba, data)
            if not self.write_cache:
                self.disk.flush()
        except OSError as error:
            if self._wait(error, data):
                return False
            self._count_error()
            good = sectors_that_work(
                lambda n: self.disk.write(lba, data[: n * SECTOR_SIZE]), len(data) // SECTOR_SIZE
            )
            self._fail_at(lba + good, r.ABRT)
            return False
        self.meter.did_write(len(data), start)
        self.position += len(data)
        return True

    def _count_error(self) -> None:
        self.host_errors += 1
        self.meter.statistics.errors += 1

    def _inside(self, lba: int, count: int) -> bool:
        """Whether the sectors exist. `_range` has seen to it; a saved state may say something else."""
        if lba + count <= self.disk.sectors:
            return True
        self._fail_at(max(lba, self.disk.sectors), r.IDNF)
        return False

    # ---- a host that is full ----

    def _wait(self, error: OSError, data: bytes = b"") -> bool:
        """Let the command wait, with `data` for the sectors at `position`, if all that is wrong is that the host is
        full. False when it has to fail instead."""
        if self._on_suspend is None or not is_host_full(error) or not self._arm():
            return False
        self.phase = Phase.HOST_FULL
        self.status = r.BSY
        self.waiting[:] = data
        self._on_suspend(host_full_reason(self.disk, error))
        return True

    def _arm(self, deadline_ns: int | None = None) -> bool:
        """Try again at `deadline_ns`, or as soon as the guest runs; False without a clock."""
        if self._retry is None or self._clock is None:
            return False
        self._retry.arm(self._clock.now_ns() if deadline_ns is None else deadline_ns)
        return True

    def _try_again(self, _deadline_ns: int) -> None:
        """The guest goes on, or it is time for a command that had to wait."""
        if self.phase == Phase.THROTTLED:
            self.phase = Phase.IDLE
            self.status = self.ready
            self.commands.get(self.command, self.abort)()
            return
        data = bytes(self.waiting[: len(self.waiting) // SECTOR_SIZE * SECTOR_SIZE])
        self.waiting.clear()
        self.status = self.ready | r.DRQ
        if self.command in FLUSHING:
            self.commands[self.command]()
        elif self.command in WRITING_BY_DMA:
            self.phase = Phase.DMA_OUT
            self._store(data)
            self.on_dma()
        else:
            self.phase = Phase.PIO_OUT
            self.block_written(data)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        super().load(state)
        if self._clock is not None:
            self.meter.throttle.load(saved_part(state, self.kind, "tokens"), self.kind, self._clock.now_ns())
        if self.phase in (Phase.HOST_FULL, Phase.THROTTLED):
            self._arm()
        elif self._retry is not None:
            self._retry.cancel()

    def save(self) -> SavedState:
        """Registers, settings, the transfer under way, and the tokens; not what is on the disk."""
        tokens = {} if self._clock is None else self.meter.throttle.save(self._clock.now_ns())
        return super().save() | {"tokens": tokens}

    # ---- PIO ----

    def _block_sectors(self) -> int:
        """How many sectors the next block of a PIO transfer has."""
        multiple = self.command in (
            r.READ_MULTIPLE,
            r.READ_MULTIPLE_EXT,
            r.WRITE_MULTIPLE,
            r.WRITE_MULTIPLE_EXT,
        )
        left = (self.end - self.position) // SECTOR_SIZE
        return max(1, min(self.multiple, left) if multiple else 1)

    def _offer_next(self) -> None:
        lba, count = self.position // SECTOR_SIZE, self._block_sectors()
        data = self._read(lba, count, whole=True) if self._inside(lba, count) else b""
        if data:
            self.position += len(data)
            self.offer(data)
            self._raise_interrupt()

    def block_read(self) -> None:
        """The host has read a block of sectors, or the identification."""
        if self.position < self.end:
            self._offer_next()
        else:
            self.stop()
            self.status = self.ready

    def block_written(self, data: bytes) -> None:
        """The host has written a block of sectors."""
        if not self._write(data[: len(data) // SECTOR_SIZE * SECTOR_SIZE]):
            return
        if self.position < self.end:
            self.demand(self._block_sectors() * SECTOR_SIZE)
            self._raise_interrupt()
        else:
            self.finish()

    def _read_sectors(self) -> None:
        if self._begins(READ):
            self._offer_next()

    def _read_multiple(self) -> None:
        if self.multiple:
            self._read_sectors()
        else:
            self.abort()

    def _write_sectors(self) -> None:
        if self.disk.read_only:
            self.abort()
        elif self._begins(WRITE):
            self.demand(self._block_sectors() * SECTOR_SIZE)

    def _write_multiple(self) -> None:
        if self.multiple:
            self._write_sectors()
        else:
            self.abort()

    # ---- DMA ----

    def _read_dma(self) -> None:
        if self._begins(READ):
            self.start_dma(Phase.DMA_IN)

    def _write_dma(self) -> None:
        if self.disk.read_only:
            self.abort()
        elif self._begins(WRITE):
            self.start_dma(Phase.DMA_OUT)

    def dma_left(self) -> int:
        """Bytes still to move."""
        return max(0, self.end - self.position - len(self.gathered))

    def dma_peek(self, length: int) -> bytes:
        """The next bytes of the disk, at most `length`; none when the command has failed."""
        lba, skip = divmod(self.position, SECTOR_SIZE)
        count = -(-(skip + min(length, self.dma_left())) // SECTOR_SIZE)
        if not self._inside(lba, count):
            return b""
        data = self._read(lba, count, whole=False)
        return data if not skip and len(data) <= length else data[skip : skip + length]

    def dma_advance(self, length: int) -> None:
        """The host's memory has the next `length` bytes."""
        self.position += length
        if self.position >= self.end:
            self.finish()

    def dma_accept(self, data: bytes) -> None:
        """Take the next bytes from the host's memory."""
        if self.command == r.DATA_SET_MANAGEMENT:
            self.gathered += data
            if self.dma_left() == 0:
                self._trim(bytes(self.gathered))
            return
        data = bytes(self.gathered) + data if self.gathered else data
        whole = len(data) // SECTOR_SIZE * SECTOR_SIZE
        self.gathered[:] = data[whole:]
        if whole:
            self._store(data[:whole])

    def _store(self, data: bytes) -> None:
        """Whole sectors from the host's memory."""
        if self._write(data) and self.position >= self.end:
            self.finish()

    # ---- commands without sectors ----

    def _identify(self) -> None:
        identity = DiskIdentity(
            serial=self.serial,
            sectors=self.disk.sectors,
            geometry=self._geometry,
            current=self._current,
            multiple=self.multiple,
            transfer_mode=self.transfer_mode,
            write_cache=self.write_cache,
            look_ahead=self.look_ahead,
            trim=not self.disk.read_only,
            number=self.number,
            has_peer=self.has_peer,
        )
        self.offer(identify_disk(identity))
        self._raise_interrupt()

    def _read_verify(self) -> None:
        if not self._begins(READ):
            return
        lba, end = self.position // SECTOR_SIZE, self.end // SECTOR_SIZE
        while lba < end:
            count = min(VERIFY_CHUNK, end - lba)
            if not self._read(lba, count, whole=True):
                return
            lba += count
        self.finish()

    def _seek(self) -> None:
        lba = addressed_lba(self, self._current)
        if lba is None or lba >= self.disk.sectors:
            self.fail(r.IDNF)
        else:
            self.finish()

    def _initialize_device_parameters(self) -> None:
        sectors = self.count & 0xFF
        if not sectors:
            self.abort()
            return
        self.current_sectors = sectors
        self.current_heads = (self.device_head & r.HEAD_MASK) + 1
        self.finish()

    def _set_multiple_mode(self) -> None:
        count = self.count & 0xFF
        if count > MAX_MULTIPLE or count & (count - 1):
            self.abort()
            return
        self.multiple = count
        self.finish()

    def _read_native_max(self) -> None:
        if self.command == r.READ_NATIVE_MAX:
            self.device_head |= r.LBA
            show_lba(self, min(self.disk.sectors, MAX_LBA28) - 1, self._current)
        else:
            show_lba(self, self.disk.sectors - 1, self._current)
        self.finish()

    def _flush_cache(self) -> None:
        start = perf_counter_ns()
        try:
            self.disk.flush()
        except OSError as error:
            if not self._wait(error):
                self._count_error()
                self.abort()
        else:
            self.meter.did_flush(start)
            self.finish()

    def _set_features(self) -> None:
        feature = self.features & 0xFF
        if feature == r.SET_TRANSFER_MODE:
            self.set_transfer_mode()
        elif feature in (r.ENABLE_WRITE_CACHE, r.DISABLE_WRITE_CACHE):
            self.write_cache = feature == r.ENABLE_WRITE_CACHE
            self._flush_cache()
        elif feature in (r.ENABLE_READ_LOOK_AHEAD, r.DISABLE_READ_LOOK_AHEAD):
            self.look_ahead = feature == r.ENABLE_READ_LOOK_AHEAD
            self.finish()
        elif feature in (r.ENABLE_REVERTING, r.DISABLE_REVERTING):
            self.keep_settings = feature == r.DISABLE_REVERTING
            self.finish()
        else:
            self.abort()

    # ---- TRIM ----

    def _data_set_management(self) -> None:
        if self.disk.read_only or self.features != TRIM_FEATURE or not 0 < self.count <= MAX_TRIM_BLOCKS:
            self.abort()
            return
        self.end = self.count * SECTOR_SIZE
        self.start_dma(Phase.DMA_OUT)

    def _trim(self, ranges: bytes) -> None:
        """Discard what `ranges` lists. All of it must exist; what the host cannot give back stays as it is."""
        wanted = [
            (entry & (1 << TRIM_COUNT_SHIFT) - 1, entry >> TRIM_COUNT_SHIFT)
            for (entry,) in iter_unpack(TRIM_RANGE, ranges[: len(ranges) // 8 * 8])
            if entry >> TRIM_COUNT_SHIFT
        ]
        if self.disk.read_only or any(lba + count > self.disk.sectors for lba, count in wanted):
            self.abort()
            return
        self.meter.statistics.discards += 1
        with suppress(OSError):
            for lba, count in wanted:
                self.disk.discard(lba, count)
        self.finish()
