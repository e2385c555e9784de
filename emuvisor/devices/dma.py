"""A PC's DMA: two cascaded Intel 8237A controllers and the page registers.

Sources: Intel 8237A data sheet; IBM PC/AT Technical Reference, "DMA"; Intel 82371SB (PIIX3) data sheet for the
page registers and the mask that can be read. A device hands over a whole run of bytes at once, so priorities,
timing and the difference between single, block and demand mode are not to be seen. Memory-to-memory transfers
are left out: no PC chip set has them.
"""

from collections.abc import Iterator

from emuvisor.bus.device import SavedState, check_saved
from emuvisor.bus.saved import Data, Fields, Number, load_fields, save_fields, saved_part
from emuvisor.errors import GuestAddressError
from emuvisor.memory import PhysicalMemory
from emuvisor.units import KIB

__all__ = ["PAGE_REGISTERS", "Dma8237A", "DmaChannel", "DmaController", "DmaPages"]

CHANNELS = 4
"""Channels of one controller."""

# Registers 0 to 7 are each channel's address and count. The others:
STATUS_COMMAND = 0x8
REQUEST = 0x9
SINGLE_MASK = 0xA
MODE = 0xB
CLEAR_BYTE_POINTER = 0xC
TEMPORARY_MASTER_CLEAR = 0xD
CLEAR_MASK = 0xE
ALL_MASK = 0xF
REGISTERS = 16
COUNT_REGISTER = 0x1
"""Address bit that tells a channel's count from its address."""

# Command register.
CONTROLLER_DISABLE = 0x04

# Mode register.
MODE_SELECT = 0xC0
CASCADE = 0xC0
ADDRESS_DECREMENT = 0x20
AUTOINITIALIZE = 0x10
TRANSFER_TYPE = 0x0C
VERIFY = 0x00
WRITE_MEMORY = 0x04
READ_MEMORY = 0x08

# Request and single mask registers.
CHANNEL_SELECT = 0x03
SET_BIT = 0x04

ALL_CHANNELS = 0x0F
REQUEST_SHIFT = 4
"""The requests are the upper half of the status register, the terminal counts the lower."""

WORD_REGISTER_SPACING = 2
"""The second controller, wired for words, has its registers at every other port."""
ADDRESS_SPACE = 64 * KIB
"""Bytes or words that a channel's address counter passes before it wraps."""
PAGE_REGISTERS = 15
"""Ports 81h to 8Fh."""
PAGE_OF_CHANNEL = {0: 0x6, 1: 0x2, 2: 0x0, 3: 0x1, 4: 0xE, 5: 0xA, 6: 0x8, 7: 0x9}
"""Where a channel's page register is, from port 81h on; the others are plain storage."""
PAGE_SHIFT = 16
WORD_PAGE_MASK = 0xFE
"""A word channel's counter supplies address bit 16 itself."""
RUN_LIMIT = 4 * KIB
"""Longest run at once: a run that leaves RAM must not take its neighbour on the page before with it."""
OPEN_BUS = 0xFF

_PAIR = "dma"
_CHIP = "8237a"
_PAGES = "dma-pages"
_VERSION = 1
_WORDS = 2 * CHANNELS
_CHIP_FIELDS = Fields(
    {
        "base_address": Data(_WORDS, minimum=_WORDS),
        "base_count": Data(_WORDS, minimum=_WORDS),
        "address": Data(_WORDS, minimum=_WORDS),
        "count": Data(_WORDS, minimum=_WORDS),
        "modes": Data(CHANNELS, minimum=CHANNELS),
        "command": Number(0xFF),
        "mask": Number(ALL_CHANNELS),
        "requests": Number(ALL_CHANNELS),
        "terminal_counts": Number(ALL_CHANNELS),
        "byte_pointer": Number(1),
    }
)
_PAGE_FIELDS = Fields({"pages": Data(PAGE_REGISTERS, minimum=PAGE_REGISTERS)})


def _word(registers: bytearray, channel: int) -> int:
    return int.from_bytes(registers[2 * channel : 2 * channel + 2], "little")


def _set_word(registers: bytearray, channel: int, value: int) -> None:
    registers[2 * channel : 2 * channel + 2] = (value & 0xFFFF).to_bytes(2, "little")


class Dma8237A:
    """One controller, 16 registers: `spacing` ports apart, its channels counting units of `unit` bytes."""

    def __init__(self, name: str, *, unit: int, spacing: int) -> None:
        self.name = name
        self.unit = unit
        self._spacing = spacing
        self.base_address = bytearray(_WORDS)
        self.base_count = bytearray(_WORDS)
        self.address = bytearray(_WORDS)
        self.count = bytearray(_WORDS)
        self.modes = bytearray(CHANNELS)
        self._master_clear()

    def reset(self) -> None:
        """As the RESET pin does; addresses, counts and modes are left as they are, but all are masked."""
        self._master_clear()

    def _master_clear(self) -> None:
        self.command = 0
        self.mask = ALL_CHANNELS
        self.requests = 0
        self.terminal_counts = 0
        self.byte_pointer = 0

    def read(self, offset: int, size: int) -> int:
        """A half of an address or count, the status, or the mask."""
        register = offset // self._spacing % REGISTERS
        if register < STATUS_COMMAND:
            current = self.count if register & COUNT_REGISTER else self.address
            return current[self._half_of(register >> 1)]
        if register == STATUS_COMMAND:
            status = self.requests << REQUEST_SHIFT | self.terminal_counts
            self.terminal_counts = 0
            return status
        if register == TEMPORARY_MASTER_CLEAR:
            return 0  # what the last memory-to-memory transfer moved: there are none
        if register == ALL_MASK:
            return self.mask
        return OPEN_BUS

    def write(self, offset: int, value: int, size: int) -> None:
        """A half of an address or count, or one of the control registers."""
        value &= 0xFF
        register = offset // self._spacing % REGISTERS
        if register < STATUS_COMMAND:
            base, current = (
                (self.base_count, self.count)
                if register & COUNT_REGISTER
                else (self.base_address, self.address)
            )
            half = self._half_of(register >> 1)
            base[half] = current[half] = value
        elif register == STATUS_COMMAND:
            self.command = value
        elif register == REQUEST:
            self.requests = self._with_bit(self.requests, value)
        elif register == SINGLE_MASK:
            self.mask = self._with_bit(self.mask, value)
        elif register == MODE:
            self.modes[value & CHANNEL_SELECT] = value
        elif register == CLEAR_BYTE_POINTER:
            self.byte_pointer = 0
        elif register == TEMPORARY_MASTER_CLEAR:
            self._master_clear()
        elif register == CLEAR_MASK:
            self.mask = 0
        else:
            self.mask = value & ALL_CHANNELS

    def serves(self, channel: int, transfer_type: int) -> bool:
        """Whether the controller would answer a request of `channel` for a transfer of this type."""
        mode = self.modes[channel]
        return (
            not self.command & CONTROLLER_DISABLE
            and not self.mask >> channel & 1
            and mode & MODE_SELECT != CASCADE
            and mode & TRANSFER_TYPE in (VERIFY, transfer_type)
        )

    def advance(self, channel: int, units: int) -> bool:
        """Count `units` transfers, at most those that are left; whether that was the terminal count."""
        step = -units if self.modes[channel] & ADDRESS_DECREMENT else units
        left = _word(self.count, channel) - units
        _set_word(self.address, channel, _word(self.address, channel) + step)
        _set_word(self.count, channel, left)
        if left >= 0:
            return False
        bit = 1 << channel
        self.terminal_counts |= bit
        self.requests &= ~bit
        if self.modes[channel] & AUTOINITIALIZE:
            _set_word(self.address, channel, _word(self.base_address, channel))
            _set_word(self.count, channel, _word(self.base_count, channel))
        else:
            self.mask |= bit
        return True

    def save(self) -> SavedState:
        """The registers as plain data."""
        return save_fields(self, _CHIP, _VERSION, _CHIP_FIELDS)

    def load(self, state: SavedState) -> None:
        """Take the registers from a saved state. Raises SnapshotError."""
        load_fields(self, state, _CHIP, _VERSION, _CHIP_FIELDS)

    def _half_of(self, channel: int) -> int:
        """Index of the byte of a 16-bit register that is next, low byte first."""
        half = 2 * channel + self.byte_pointer
        self.byte_pointer ^= 1
        return half

    @staticmethod
    def _with_bit(bits: int, value: int) -> int:
        bit = 1 << (value & CHANNEL_SELECT)
        return bits | bit if value & SET_BIT else bits & ~bit


class DmaPages:
    """The page registers, ports 81h to 8Fh: the address bits above a channel's 16."""

    name = _PAGES

    def __init__(self) -> None:
        self.pages = bytearray(PAGE_REGISTERS)

    def read(self, offset: int, size: int) -> int:
        """The register."""
        return self.pages[offset % PAGE_REGISTERS]

    def write(self, offset: int, value: int, size: int) -> None:
        """Set the register."""
        self.pages[offset % PAGE_REGISTERS] = value & 0xFF

    def reset(self) -> None:
        """All zero."""
        self.pages[:] = bytes(PAGE_REGISTERS)

    def save(self) -> SavedState:
        """The registers as plain data."""
        return save_fields(self, _PAGES, _VERSION, _PAGE_FIELDS)

    def load(self, state: SavedState) -> None:
        """Take the registers from a saved state. Raises SnapshotError."""
        load_fields(self, state, _PAGES, _VERSION, _PAGE_FIELDS)


class DmaChannel:
    """A device's end of channel `number`: it moves bytes where the guest has programmed the channel to."""

    def __init__(self, controller: "DmaController", number: int) -> None:
        self.number = number
        self._memory = controller.memory
        self._pages = controller.pages
        self._chip = controller.second if number >= CHANNELS else controller.first
        self._channel = number % CHANNELS

    def to_memory(self, data: bytes) -> tuple[int, bool]:
        """Write `data` to guest memory: how many bytes were taken, and whether the terminal count came.

        Nothing is taken while the channel is masked, disabled, or programmed for the other direction. Bytes
        for addresses outside RAM are lost; a channel in verify mode only counts.
        """
        length = self._length(len(data), WRITE_MEMORY)
        if self._moves():
            done = 0
            for gpa, size in self._runs(length):
                self._store(gpa, data[done : done + size])
                done += size
        return length, self._count(length)

    def from_memory(self, limit: int) -> tuple[bytes, bool]:
        """Up to `limit` bytes from guest memory, and whether the terminal count came.

        None come while the channel is masked, disabled, or programmed for the other direction. Addresses
        outside RAM, and a channel in verify mode, give ones.
        """
        length = self._length(limit, READ_MEMORY)
        if not self._moves():
            return bytes((OPEN_BUS,)) * length, self._count(length)
        data = b"".join(self._fetch(gpa, size) for gpa, size in self._runs(length))
        return data, self._count(length)

    def _length(self, limit: int, transfer_type: int) -> int:
        """Bytes that can go before the terminal count, whole units, at most `limit`."""
        if not self._chip.serves(self._channel, transfer_type):
            return 0
        unit = self._chip.unit
        return min(limit // unit, _word(self._chip.count, self._channel) + 1) * unit

    def _moves(self) -> bool:
        return bool(self._chip.modes[self._channel] & TRANSFER_TYPE)

    def _descends(self) -> bool:
        return bool(self._chip.modes[self._channel] & ADDRESS_DECREMENT)

    def _count(self, length: int) -> bool:
        return length > 0 and self._chip.advance(self._channel, length // self._chip.unit)

    def _runs(self, length: int) -> Iterator[tuple[int, int]]:
        """The lowest address and the length of each run of the next `length` bytes, in order of transfer."""
        unit = self._chip.unit
        page = self._pages.pages[PAGE_OF_CHANNEL[self.number]]
        base = (page & WORD_PAGE_MASK if unit > 1 else page) << PAGE_SHIFT
        space = ADDRESS_SPACE * unit
        at = _word(self._chip.address, self._channel) * unit
        while length > 0:
            if self._descends():
                end = at + unit
                size = min(length, (end - 1) % RUN_LIMIT + 1)
                yield base + end - size, size
                at = (at - size) % space
            else:
                size = min(length, RUN_LIMIT - at % RUN_LIMIT)
                yield base + at, size
                at = (at + size) % space
            length -= size

    def _store(self, gpa: int, data: bytes) -> None:
        try:
            self._memory.write(gpa, self._in_address_order(data))
        except GuestAddressError:
            return

    def _fetch(self, gpa: int, size: int) -> bytes:
        try:
            return self._in_address_order(self._memory.read(gpa, size))
        except GuestAddressError:
            return bytes((OPEN_BUS,)) * size

    def _in_address_order(self, data: bytes) -> bytes:
        """A run in order of transfer as one in order of address, or the other way round."""
        if not self._descends():
            return data
        unit = self._chip.unit
        return b"".join(data[i : i + unit] for i in range(len(data) - unit, -1, -unit))


class DmaController:
    """Both controllers and the page registers, moving bytes in `memory`.

    Attach `first` at 00h (16 ports), `second` at C0h (32 ports) and `pages` at 81h (15 ports), all with
    width 1; `channels[0..3]` move bytes, `channels[5..7]` words. Channel 4 is the cascade and moves nothing.
    """

    name = _PAIR

    def __init__(self, *, memory: PhysicalMemory) -> None:
        self.memory = memory
        self.first = Dma8237A("8237a-first", unit=1, spacing=1)
        self.second = Dma8237A("8237a-second", unit=2, spacing=WORD_REGISTER_SPACING)
        self.pages = DmaPages()
        self.channels = [DmaChannel(self, number) for number in range(2 * CHANNELS)]
        self._set_cascade()

    def _set_cascade(self) -> None:
        """As a BIOS leaves it, for guests that are started without one: channel 4 passes the first chip on."""
        self.second.modes[0] = CASCADE
        self.second.mask = ALL_CHANNELS & ~1

    def reset(self) -> None:
        """All channels masked but the cascade."""
        for chip in (self.first, self.second, self.pages):
            chip.reset()
        self._set_cascade()

    def save(self) -> SavedState:
        """All three chips as plain data."""
        return {
            "device": _PAIR,
            "version": _VERSION,
            "first": self.first.save(),
            "second": self.second.save(),
            "pages": self.pages.save(),
        }

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        check_saved(state, _PAIR, _VERSION)
        self.first.load(saved_part(state, _PAIR, "first"))
        self.second.load(saved_part(state, _PAIR, "second"))
        self.pages.load(saved_part(state, _PAIR, "pages"))
