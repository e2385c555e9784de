"""What every ATA drive has: the task file, the data register, transfer modes, and an interrupt to ask for.

Source: ATA/ATAPI-6 (T13/1410D), sections 6.2 (registers), 7 (their meaning) and 9 (protocols). `disk` and `cdrom`
add the commands. A drive never raises because of what the guest does; what the host's image cannot
deliver becomes the command's error, and is counted in `host_errors`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from struct import pack, unpack
from typing import ClassVar

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Flag, Number, load_fields, save_fields
from emuvisor.devices.storage.ide import registers as r
from emuvisor.devices.storage.ide.registers import Phase
from emuvisor.errors import UsageError

__all__ = ["MAX_BLOCK", "Drive"]

MAX_BLOCK = 1 << 16
"""Bytes between two interrupts of a PIO transfer, at most: the byte count register's limit, rounded up."""

SERIAL_LENGTH = 20

DRIVE_VERSION = 1
DRIVE_FIELDS = Fields(
    {
        "error": Number(0xFF),
        "features": Number(0xFFFF),
        "count": Number(0xFFFF),
        "lba_low": Number(0xFFFF),
        "lba_mid": Number(0xFFFF),
        "lba_high": Number(0xFFFF),
        "device_head": Number(0xFF),
        "status": Number(0xFF),
        "interrupt": Flag(),
        "command": Number(0xFF),
        "phase": Number(Phase.LAST),
        "block": Data(MAX_BLOCK),
        "index": Number(MAX_BLOCK // 2),
        "position": Number(2**63),
        "end": Number(2**63),
        "transfer_mode": Number(0xFF),
        "keep_settings": Flag(),
        "standby": Flag(),
    }
)


class Drive(ABC):
    """A drive on a channel. `serial` has at most 20 printable ASCII characters.

    The registers behind which ATA-6 puts a FIFO of two keep the older byte in bits 15-8. Raises UsageError.
    """

    kind: ClassVar[str] = "drive"
    signature: ClassVar[tuple[int, int, int, int]] = r.DISK_SIGNATURE
    ready: ClassVar[int] = r.DRDY | r.DSC
    """Status of a drive that waits for a command."""
    after_reset: ClassVar[int] = r.DRDY | r.DSC
    """Status after a reset."""
    fields: ClassVar[Fields] = DRIVE_FIELDS

    def __init__(self, serial: str) -> None:
        if len(serial) > SERIAL_LENGTH or not (serial.isascii() and serial.isprintable()):
            raise UsageError(
                f"serial number {serial!r}: a drive's has at most {SERIAL_LENGTH} printable ASCII characters"
            )
        self.serial = serial
        self.host_errors = 0
        self.number = 0
        """0 for device 0 (master), 1 for device 1 (slave)."""
        self.has_peer = False
        self.on_interrupt: Callable[[], None] = lambda: None
        self.on_dma: Callable[[], None] = lambda: None
        """The channel's ears: `interrupt` has changed; the drive has something to move by DMA."""
        self.commands: dict[int, Callable[[], None]] = {}

        self.error = 0
        self.features = 0
        self.count = 0
        self.lba_low = 0
        self.lba_mid = 0
        self.lba_high = 0
        self.device_head = 0
        self.status = 0
        self.interrupt = False
        self.command = 0
        self.phase = Phase.IDLE
        self.position = 0
        self.end = 0
        """What is left to move: from byte `position` to `end` of whatever the command moves."""
        self.transfer_mode = r.PIO_FLOW_CONTROL
        self.keep_settings = False
        self.standby = False

        # The block that the host reads or writes at the data register now. `fast_in` and `fast_out` are the indices
        # below which the channel may take or put a word and step on, without asking the drive.
        self.words: list[int] = []
        self.index = 0
        self.fast_in = 0
        self.fast_out = 0
        self.reset()

    # ---- reset ----

    def reset(self) -> None:
        """As after power-on."""
        self.keep_settings = False
        self.soft_reset()

    def hold_reset(self) -> None:
        """The host sets SRST: everything stops."""
        self.stop()
        self.status = r.BSY
        self.interrupt = False

    def soft_reset(self) -> None:
        """The host clears SRST."""
        self.stop()
        self.interrupt = False
        self.standby = False
        if not self.keep_settings:
            self.revert()
        self.diagnose()

    def revert(self) -> None:
        """Settings as after power-on."""
        self.transfer_mode = r.PIO_FLOW_CONTROL

    def diagnose(self) -> None:
        """What EXECUTE DEVICE DIAGNOSTIC leaves in the registers, and every reset."""
        self.stop()
        self.error = r.DIAGNOSTIC_PASSED
        self.device_head = 0
        self.status = self.after_reset
        self.sign()

    def sign(self) -> None:
        """Show by the registers what kind of drive this is."""
        self.count, self.lba_low, self.lba_mid, self.lba_high = self.signature

    # ---- the task file ----

    def read_register(self, offset: int, previous: bool) -> int:
        """A register of the command block but data; `previous` for the older byte of those with two (HOB)."""
        if offset == r.STATUS:
            return self.status
        if offset == r.ERROR:
            return self.error
        if offset == r.DEVICE:
            return self.device_head
        value = (self.count, self.lba_low, self.lba_mid, self.lba_high)[offset - r.SECTOR_COUNT]
        return value >> 8 if previous else value & 0xFF

    def write_register(self, offset: int, value: int) -> None:
        """Set a register from features to device; ignored while the drive resets."""
        if self.status & r.BSY:
            return
        if offset == r.FEATURES:
            self.features = (self.features << 8 | value) & 0xFFFF
        elif offset == r.SECTOR_COUNT:
            self.count = (self.count << 8 | value) & 0xFFFF
        elif offset == r.LBA_LOW:
            self.lba_low = (self.lba_low << 8 | value) & 0xFFFF
        elif offset == r.LBA_MID:
            self.lba_mid = (self.lba_mid << 8 | value) & 0xFFFF
        elif offset == r.LBA_HIGH:
            self.lba_high = (self.lba_high << 8 | value) & 0xFFFF
        else:
            self.device_head = value

    def acknowledge(self) -> None:
        """The host has read the status register: no more interrupt."""
        if self.interrupt:
            self.interrupt = False
            self.on_interrupt()

    def _raise_interrupt(self) -> None:
        self.interrupt = True
        self.on_interrupt()

    def execute(self, command: int) -> None:
        """The host writes the command register. Another command that is under way is given up."""
        if self.status & r.BSY:
            return
        self.stop()
        self.acknowledge()
        self.command = command
        self.error = 0
        self.status = self.ready
        self.commands.get(command, self.abort)()

    # ---- how commands end ----

    def stop(self) -> None:
        """No data moves any more."""
        self.phase = Phase.IDLE
        self._set_block([])
        self.position = self.end = 0

    def finish(self) -> None:
        """The command is done."""
        self.stop()
        self.status = self.ready
        self._raise_interrupt()

    def fail(self, error: int) -> None:
        """The command ends with these bits in the error register."""
        self.stop()
        self.error = error
        self.status = self.ready | r.ERR
        self._raise_interrupt()

    def abort(self) -> None:
        """The drive does not know the command, or its arguments."""
        self.fail(r.ABRT)

    # ---- the data register ----

    def _set_block(self, words: list[int], index: int = 0) -> None:
        """Put the next block of the present phase behind the data register."""
        self.words = words
        self.index = min(index, len(words))
        # The last word goes the long way in: something happens behind it.
        last = len(words) - 1
        self.fast_in = last if self.phase == Phase.PIO_IN else 0
        self.fast_out = last if self.phase in (Phase.PIO_OUT, Phase.COMMAND_PACKET) else 0

    def offer(self, data: bytes) -> None:
        """Let the host read `data` (an odd byte is padded) from the data register."""
        self.phase = Phase.PIO_IN
        self.block = data
        self.status = self.ready | r.DRQ

    def demand(self, length: int, phase: int = Phase.PIO_OUT) -> None:
        """Let the host write `length` bytes to the data register."""
        self.phase = phase
        self.block = bytes(length)
        self.status = self.ready | r.DRQ

    @property
    def block(self) -> bytes:
        """The block behind the data register, whole."""
        return pack(f"<{len(self.words)}H", *self.words)

    @block.setter
    def block(self, data: bytes) -> None:
        count = -(-len(data) // 2)
        self._set_block(list(unpack(f"<{count}H", data.ljust(2 * count, b"\0"))))

    def read_data(self, size: int) -> int:
        """The host reads the data register, one word, or two with a size of 4; 0 when there is nothing."""
        if self.phase != Phase.PIO_IN:
            return 0
        steps = 2 if size == 4 else 1
        taken = self.words[self.index : self.index + steps]
        self.index += len(taken)
        if self.index >= len(self.words):
            self.block_read()
        return sum(word << 16 * i for i, word in enumerate(taken))

    def write_data(self, value: int, size: int) -> None:
        """The host writes the data register, one word, or two with a size of 4."""
        if self.phase not in (Phase.PIO_OUT, Phase.COMMAND_PACKET):
            return
        for _ in range(2 if size == 4 else 1):
            if self.index < len(self.words):
                self.words[self.index] = value & 0xFFFF
                self.index += 1
                value >>= 16
        if self.index >= len(self.words):
            self.block_written(self.block)

    @abstractmethod
    def block_read(self) -> None:
        """The host has read the whole block."""

    @abstractmethod
    def block_written(self, data: bytes) -> None:
        """The host has written the whole block."""

    # ---- DMA: the bus master asks while the phase is DMA_IN or DMA_OUT ----

    def start_dma(self, phase: int) -> None:
        """Let the bus master move what lies between `position` and `end`."""
        self.phase = phase
        self.status = self.ready | r.DRQ
        self.on_dma()

    def dma_left(self) -> int:
        """Bytes still to move."""
        return self.end - self.position

    @abstractmethod
    def dma_peek(self, length: int) -> bytes:
        """The next bytes for the host, at most `length` and at least one; none when the command has failed."""

    @abstractmethod
    def dma_advance(self, length: int) -> None:
        """The host's memory has the next `length` bytes."""

    @abstractmethod
    def dma_accept(self, data: bytes) -> None:
        """Take the next bytes from the host's memory, at most `dma_left()`."""

    # ---- commands that all drives have ----

    def enter_standby(self) -> None:
        """STANDBY and SLEEP; the latter would need a reset to wake up, and drivers do one anyway."""
        self.standby = True
        self.finish()

    def leave_standby(self) -> None:
        """IDLE."""
        self.standby = False
        self.finish()

    def check_power_mode(self) -> None:
        """CHECK POWER MODE."""
        self.count = r.MODE_STANDBY if self.standby else r.MODE_ACTIVE
        self.finish()

    def set_transfer_mode(self) -> None:
        """SET FEATURES, set transfer mode."""
        mode = self.count & 0xFF
        highest = r.HIGHEST_MODE.get(mode & ~r.MODE_NUMBER_MASK, -1)
        if mode & r.MODE_NUMBER_MASK > highest:
            self.abort()
            return
        self.transfer_mode = mode
        self.finish()

    # ---- saved state ----

    def save(self) -> SavedState:
        """Registers, settings and the transfer under way; what is on the medium is not part of the drive."""
        return save_fields(self, self.kind, DRIVE_VERSION, self.fields)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, self.kind, DRIVE_VERSION, self.fields)
        self._set_block(self.words, state["index"])
