"""A NOR flash chip with Intel's command set, in which UEFI firmware keeps its variables.

Source: Intel StrataFlash (J3) datasheet, 'Command Definitions'. As OVMF expects it, and unlike the datasheet, the
ready bit of the status register comes with the first operation: a cleared register reads 0. The common flash
interface's query table is left out: nobody asks a chip that the firmware's build already knows.
"""

from collections.abc import Callable

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Number, Numbers, load_fields, save_fields
from emuvisor.errors import SnapshotError, UsageError
from emuvisor.units import KIB, MIB

__all__ = ["BLOCK_SIZE", "MAX_SIZE", "Flash"]

BLOCK_SIZE = 4 * KIB
"""What one erase clears."""
MAX_SIZE = 16 * MIB
BUFFER_SIZE = 32
"""Bytes that one buffered write programs."""
ERASED = 0xFF

# Commands
SINGLE_BYTE_PROGRAM = 0x10
BLOCK_ERASE = 0x20
SINGLE_BYTE_PROGRAM_2 = 0x40
CLEAR_STATUS = 0x50
READ_STATUS = 0x70
READ_IDENTIFIER = 0x90
CONFIRM = 0xD0
WRITE_TO_BUFFER = 0xE8
READ_ARRAY = 0xFF

# Status register
READY = 0x80
ERASE_ERROR = 0x20
PROGRAM_ERROR = 0x10

MANUFACTURER_INTEL = 0x89
DEVICE_J3 = 0x18
IDENTIFIERS = bytes([MANUFACTURER_INTEL, DEVICE_J3])

_DEVICE = "flash"
_VERSION = 1
_FIELDS = Fields(
    {
        "status": Number(READY | ERASE_ERROR | PROGRAM_ERROR),
        "expects": Number(5),
        "shows": Number(2),
        "buffer": Numbers(BUFFER_SIZE, MAX_SIZE * 256 - 1),
        "buffer_count": Number(BUFFER_SIZE),
    }
)


class Expects:
    """What the next write is."""

    COMMAND = 0
    PROGRAM_DATA = 1
    ERASE_CONFIRM = 2
    BUFFER_COUNT = 3
    BUFFER_DATA = 4
    BUFFER_CONFIRM = 5


class Shows:
    """What a read gives."""

    ARRAY = 0
    STATUS = 1
    IDENTIFIER = 2


class Flash:
    """A chip with `data` in it, whole blocks of 4 KiB up to 16 MiB.

    `show(data)` makes the content readable where the chip is; `show(None)` sends reads to the chip instead,
    while they give its status. `store(offset, data)` keeps a change somewhere; what it raises as OSError becomes
    a program or erase error. Programming can only clear bits. Raises UsageError for another size.
    """

    name = _DEVICE

    def __init__(
        self,
        data: bytes | bytearray,
        *,
        show: Callable[[bytes | None], None],
        store: Callable[[int, bytes], None] = lambda _offset, _data: None,
    ) -> None:
        if not data or len(data) % BLOCK_SIZE or len(data) > MAX_SIZE:
            raise UsageError(
                f"{_DEVICE}: {len(data)} bytes; the chip has a multiple of {BLOCK_SIZE} bytes up to {MAX_SIZE}"
            )
        self._show = show
        self._store = store
        self.data = bytearray(data)
        self.status = 0
        self.expects = Expects.COMMAND
        self._shows = Shows.ARRAY
        self.buffer: list[int] = []
        """A buffered write so far, as address * 256 + byte."""
        self.buffer_count = 0
        self._fields = Fields({"data": Data(len(data), minimum=len(data)), **_FIELDS})
        show(bytes(data))

    @property
    def shows(self) -> int:
        """What a read gives, one of `Shows`; a change of it moves the reads."""
        return self._shows

    @shows.setter
    def shows(self, shows: int) -> None:
        if (self._shows == Shows.ARRAY) != (shows == Shows.ARRAY):
            self._show(bytes(self.data) if shows == Shows.ARRAY else None)
        self._shows = shows

    def read(self, offset: int, size: int) -> int:
        """Bytes of the array, of the status register (each the same), or of the identifiers."""
        if self._shows == Shows.ARRAY:
            return int.from_bytes(self.data[offset : offset + size], "little")
        if self._shows == Shows.IDENTIFIER:
            return int.from_bytes(IDENTIFIERS[offset : offset + size], "little")
        return int.from_bytes(bytes([self.status]) * size, "little")

    def write(self, offset: int, value: int, size: int) -> None:
        """A command, or the next write of one that has several. The lowest byte counts."""
        byte = value & 0xFF
        steps: dict[int, Callable[[int, int], None]] = {
            Expects.COMMAND: self._command,
            Expects.PROGRAM_DATA: self._program_byte,
            Expects.ERASE_CONFIRM: self._erase_block,
            Expects.BUFFER_COUNT: self._take_count,
            Expects.BUFFER_DATA: self._take_data,
            Expects.BUFFER_CONFIRM: self._program_buffer,
        }
        steps[self.expects](offset, byte)

    def _command(self, offset: int, command: int) -> None:
        if command in (SINGLE_BYTE_PROGRAM, SINGLE_BYTE_PROGRAM_2):
            self._expect(Expects.PROGRAM_DATA)
        elif command == BLOCK_ERASE:
            self._expect(Expects.ERASE_CONFIRM)
        elif command == WRITE_TO_BUFFER:
            self.status |= READY
            self._expect(Expects.BUFFER_COUNT)
        elif command == READ_STATUS:
            self.shows = Shows.STATUS
        elif command == READ_IDENTIFIER:
            self.shows = Shows.IDENTIFIER
        else:
            if command == CLEAR_STATUS:
                self.status = 0
            self.shows = Shows.ARRAY

    def _expect(self, expects: int) -> None:
        """Go on with a command; reads give the status from now on."""
        self.expects = expects
        self.shows = Shows.STATUS

    def _done(self, error: int = 0) -> None:
        self.expects = Expects.COMMAND
        self.status |= READY | error

    def _program(self, offset: int, data: bytes) -> bool:
        """Clear bits of the array; False when that could not be stored."""
        old = self.data[offset : offset + len(data)]
        new = bytes(a & b for a, b in zip(old, data, strict=True))
        return self._change(offset, new)

    def _change(self, offset: int, new: bytes) -> bool:
        try:
            self._store(offset, new)
        except OSError:
            return False
        self.data[offset : offset + len(new)] = new
        return True

    def _program_byte(self, offset: int, byte: int) -> None:
        self._done(0 if self._program(offset, bytes([byte])) else PROGRAM_ERROR)

    def _erase_block(self, offset: int, byte: int) -> None:
        if byte != CONFIRM:
            self._done(PROGRAM_ERROR | ERASE_ERROR)  # a wrong command sequence
            return
        block = offset - offset % BLOCK_SIZE
        self._done(0 if self._change(block, bytes([ERASED]) * BLOCK_SIZE) else ERASE_ERROR)

    def _take_count(self, offset: int, byte: int) -> None:
        if byte >= BUFFER_SIZE:
            self._done(PROGRAM_ERROR | ERASE_ERROR)
            return
        self.buffer.clear()
        self.buffer_count = byte + 1
        self._expect(Expects.BUFFER_DATA)

    def _take_data(self, offset: int, byte: int) -> None:
        self.buffer.append(offset << 8 | byte)
        if len(self.buffer) >= self.buffer_count:
            self._expect(Expects.BUFFER_CONFIRM)

    def _program_buffer(self, offset: int, byte: int) -> None:
        writes, self.buffer = self.buffer, []
        if byte != CONFIRM:
            self._done(PROGRAM_ERROR | ERASE_ERROR)
            return
        stored = all(self._program(write >> 8, bytes([write & 0xFF])) for write in writes)
        self._done(0 if stored else PROGRAM_ERROR)

    def reset(self) -> None:
        """Reads give the array; the content stays."""
        self.status = 0
        self.expects = Expects.COMMAND
        self.buffer.clear()
        self.buffer_count = 0
        self.shows = Shows.ARRAY

    def save(self) -> SavedState:
        """The content and the registers as plain data."""
        return save_fields(self, _DEVICE, _VERSION, self._fields)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave; it is shown and stored as far as it is new. Raises SnapshotError."""
        before, was_shown = bytes(self.data), self._shows == Shows.ARRAY
        load_fields(self, state, _DEVICE, _VERSION, self._fields)
        if any(write >> 8 >= len(before) for write in self.buffer):
            raise SnapshotError(
                f"{_DEVICE}: saved field 'buffer' has an address outside the chip's {len(before)} bytes"
            )
        if self.data == before:
            return
        if was_shown and self._shows == Shows.ARRAY:
            self._show(bytes(self.data))
        try:
            self._store(0, bytes(self.data))
        except OSError as error:
            raise SnapshotError(f"{_DEVICE}: its content cannot be stored: {error.strerror}") from None
