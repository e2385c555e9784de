"""An ATAPI CD-ROM drive: the PACKET command of ATA/ATAPI-6 (T13/1410D), section 8.23, around the unit in `mmc`."""

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Flag, Number, saved_part
from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.devices.storage.cdimage import BLOCK_SIZE
from emuvisor.devices.storage.ide import registers as r
from emuvisor.devices.storage.ide.drive import DRIVE_FIELDS, Drive
from emuvisor.devices.storage.ide.identify import identify_packet_device
from emuvisor.devices.storage.ide.mmc import PACKET_SIZE, Blocks, Discard, MmcUnit
from emuvisor.devices.storage.ide.registers import Phase
from emuvisor.devices.storage.ide.sense import UNRECOVERED_READ_ERROR, CheckCondition

__all__ = ["CdRom"]

MAX_BYTE_COUNT = 0xFFFE
MAX_REPLY = 512
"""More than any command returns that does not read the disc."""

_FIELDS = Fields(
    {
        **DRIVE_FIELDS,
        "reply": Data(MAX_REPLY),
        "first_block": Number(0xFFFF_FFFF),
        "limit": Number(MAX_BYTE_COUNT, minimum=2),
        "by_dma": Flag(),
    }
)


class CdRom(Drive):
    """A CD-ROM drive with `disc` in it; None: no disc.

    Raises UsageError for a serial number too long.
    """

    kind = "atapi-cdrom"
    signature = r.PACKET_SIGNATURE
    ready = r.DRDY
    after_reset = 0
    fields = _FIELDS

    def __init__(self, *, disc: BlockDevice | None = None, serial: str = "EMUVISOR-CD") -> None:
        self.unit = MmcUnit(disc)
        self.reply = b""
        """What the command returns; empty when it returns blocks of the disc, from `first_block` on."""
        self.first_block = 0
        self.limit = MAX_BYTE_COUNT
        """Bytes that the host takes at a time by PIO."""
        self.by_dma = False
        super().__init__(serial)
        self.commands = {
            r.DEVICE_RESET: self._device_reset,
            r.PACKET: self._packet,
            r.IDENTIFY_PACKET_DEVICE: self._identify,
            r.IDENTIFY_DEVICE: self._abort_with_signature,
            r.READ_SECTORS: self._abort_with_signature,
            r.STANDBY_IMMEDIATE: self.enter_standby,
            r.SLEEP: self.enter_standby,
            r.IDLE_IMMEDIATE: self.leave_standby,
            r.CHECK_POWER_MODE: self.check_power_mode,
            r.SET_FEATURES: self._set_features,
        }

    @property
    def disc(self) -> BlockDevice | None:
        """The disc in the drive."""
        return self.unit.disc

    def insert(self, disc: BlockDevice | None) -> None:
        """Change the disc, or (None) take it out; the guest hears of it. A lock of the guest's does not hold the host.

        The disc that was there is not closed.
        """
        self.unit.insert(disc)

    def reset(self) -> None:
        """As after power-on; the disc stays."""
        self.unit.reset()
        super().reset()

    # ---- commands ----

    def _identify(self) -> None:
        self.offer(identify_packet_device(self.serial, self.transfer_mode, self.number, self.has_peer))
        self._raise_interrupt()

    def _device_reset(self) -> None:
        device = self.device_head & r.DEV
        self.diagnose()
        self.device_head = device

    def _abort_with_signature(self) -> None:
        self.sign()
        self.abort()

    def _set_features(self) -> None:
        if self.features & 0xFF == r.SET_TRANSFER_MODE:
            self.set_transfer_mode()
        else:
            self.abort()

    def _packet(self) -> None:
        wanted = (self.lba_high & 0xFF) << 8 | self.lba_mid & 0xFF
        self.limit = min(max(2, wanted or MAX_BYTE_COUNT), MAX_BYTE_COUNT)
        self.by_dma = bool(self.features & r.PACKET_DMA)
        self.count = r.COD
        self.demand(PACKET_SIZE, Phase.COMMAND_PACKET)

    def _run(self, cdb: bytes) -> None:
        """The host has written the packet."""
        self.stop()
        self.reply = b""
        try:
            reply = self.unit.execute(cdb)
        except CheckCondition as condition:
            self._check(condition)
            return
        if isinstance(reply, Blocks):
            self.first_block, self.end = reply.first, reply.count * BLOCK_SIZE
        elif isinstance(reply, Discard):
            self.end = reply.length
        else:
            self.reply, self.end = reply, len(reply)
        if not self.end:
            self._done()
        elif self.by_dma:
            self.start_dma(Phase.DMA_OUT if isinstance(reply, Discard) else Phase.DMA_IN)
        elif isinstance(reply, Discard):
            self._demand_next()
        else:
            self._offer_next()

    def _done(self) -> None:
        self.count = r.COD | r.IO
        self.finish()

    def _check(self, condition: CheckCondition) -> None:
        """The command fails; the error register has the sense key."""
        self.unit.note(condition)
        self.host_errors += condition.sense == UNRECOVERED_READ_ERROR
        self.count = r.COD | r.IO
        self.fail(condition.sense.key << r.SENSE_KEY_SHIFT | r.ABRT)

    # ---- data ----

    def _next(self, length: int) -> bytes:
        """The next bytes of the reply, at most `length`. Raises CheckCondition."""
        if self.reply:
            return self.reply[self.position : min(self.position + length, self.end)]
        length = min(length, self.end - self.position)
        block, skip = divmod(self.position, BLOCK_SIZE)
        data = self.unit.read_blocks(self.first_block + block, -(-(skip + length) // BLOCK_SIZE))
        return data[skip : skip + length]

    def _announce(self, reason: int) -> int:
        """Show the host how many bytes come next, and which way; returns the number."""
        left = self.end - self.position
        length = left if left <= self.limit else self.limit & ~1
        self.count = reason
        self.lba_mid, self.lba_high = length & 0xFF, length >> 8
        return length

    def _offer_next(self) -> None:
        length = self._announce(r.IO)
        try:
            data = self._next(length)
            while len(data) < length:  # a bad block; the host was promised all
                data += self.unit.read_blocks(self.first_block + (self.position + len(data)) // BLOCK_SIZE, 1)
        except CheckCondition as condition:
            self._check(condition)
            return
        self.position += length
        self.offer(data[:length])
        self._raise_interrupt()

    def _demand_next(self) -> None:
        length = self._announce(0)
        self.position += length
        self.demand(length)
        self._raise_interrupt()

    def block_read(self) -> None:
        """The host has read a block of the reply, or the identification."""
        if self.position < self.end:
            self._offer_next()
        elif self.command == r.PACKET:
            self._done()
        else:
            self.stop()
            self.status = self.ready

    def block_written(self, data: bytes) -> None:
        """The host has written the packet, or a block of mode pages."""
        if self.phase == Phase.COMMAND_PACKET:
            self._run(data[:PACKET_SIZE].ljust(PACKET_SIZE, b"\0"))
        elif self.position < self.end:
            self._demand_next()
        else:
            self._done()

    def dma_peek(self, length: int) -> bytes:
        """The next bytes of the reply, at most `length`; none when the command has failed."""
        try:
            return self._next(length)
        except CheckCondition as condition:
            self._check(condition)
            return b""

    def dma_advance(self, length: int) -> None:
        """The host's memory has the next `length` bytes."""
        self.position += length
        if self.position >= self.end:
            self._done()

    def dma_accept(self, data: bytes) -> None:
        """Mode pages: nothing can be changed."""
        self.dma_advance(len(data))

    # ---- saved state ----

    def save(self) -> SavedState:
        """The drive, and the unit in it; the disc is not part of it."""
        return super().save() | {"unit": self.unit.save()}

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        super().load(state)
        self.unit.load(saved_part(state, self.kind, "unit"))
