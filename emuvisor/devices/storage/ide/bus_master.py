"""Bus master IDE: moves data between a channel and guest memory, as a table in memory says.

Source: Intel 82371SB (PIIX3) data sheet 290550-002, section 2.5 and 5.5; "Programming Interface for Bus Master IDE
Controller" 1.0. A table entry (physical region descriptor) has an address, a count of which 0 means 64 KiB, and a bit
that marks the last. The table is hostile: it may loop, never end, or name what is not memory. As it must not
cross a 64 KiB boundary, no transfer reads more than `MAX_DESCRIPTORS` of it; and none moves more than the
drive's command does.
"""

from dataclasses import dataclass
from struct import iter_unpack
from typing import Protocol

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Fields, Flag, Number, load_fields, save_fields
from emuvisor.devices.storage.ide.channel import IdeChannel
from emuvisor.devices.storage.ide.registers import Phase
from emuvisor.units import KIB, MIB, PAGE_SIZE

__all__ = ["PORT_COUNT", "BusMaster", "DmaPort"]

PORT_COUNT = 8
"""Of one channel; the function has two of them in a row."""

# Registers
COMMAND = 0
STATUS = 2
TABLE = 4
TABLE_MASK = 0xFFFF_FFFC

# Command
START = 0x01
TO_MEMORY = 0x08  # RWCON: what the bus master does on the PCI bus

# Status
ACTIVE = 0x01
ERROR = 0x02
INTERRUPT = 0x04
DRIVES_CAPABLE = 0x60  # two bits for software to remember which drive can do DMA
CLEARED_BY_ONES = ERROR | INTERRUPT

# Physical region descriptor
DESCRIPTOR = "<II"
DESCRIPTOR_SIZE = 8
COUNT_MASK = 0xFFFE
COUNT_OF_ZERO = 64 * KIB
END_OF_TABLE = 0x8000_0000
ADDRESS_MASK = 0xFFFF_FFFE

MAX_DESCRIPTORS = 64 * KIB // DESCRIPTOR_SIZE
CHUNK = MIB
"""Bytes in the host's memory at a time."""

_DEVICE = "bus-master-ide"
_VERSION = 1
_FIELDS = Fields(
    {
        "command": Number(0xFF),
        "status": Number(0xFF),
        "table": Number(0xFFFF_FFFF),
        "descriptor": Number(MAX_DESCRIPTORS),
        "address": Number(0xFFFF_FFFF),
        "left": Number(COUNT_OF_ZERO),
        "last": Flag(),
    }
)

Piece = tuple[int, int]
"""Guest physical address and length of a part of a transfer."""


class DmaPort(Protocol):
    """The way to guest memory: a PCI function."""

    @property
    def bus_master(self) -> bool:
        """Whether the guest allows it."""
        ...

    def dma_read(self, gpa: int, length: int) -> bytes:
        """`length` bytes of guest memory; all ones where there is none."""
        ...

    def dma_write(self, gpa: int, data: bytes | memoryview) -> None:
        """Store `data`; nothing happens where there is no RAM. Raises OutOfFrames."""
        ...


@dataclass(slots=True)
class _Place:
    """A place in the table: how many descriptors were read, and what is left of the last of them."""

    descriptor: int
    address: int
    left: int
    last: bool


class BusMaster:
    """The bus master of `channel`, with DMA through `port`.

    What a transfer has done is noted only when it is in memory: when `OutOfFrames` comes through, the access that
    started it can be made again.
    """

    def __init__(self, *, channel: IdeChannel, port: DmaPort) -> None:
        self.name = f"{channel.name}-dma"
        self._channel = channel
        self._port = port
        for drive in channel.drives:
            if drive is not None:
                drive.on_dma = self._run
        self.command = 0
        self.status = 0
        self.table = 0
        self.descriptor = 0
        self.address = 0
        self.left = 0
        self.last = False

    def reset(self) -> None:
        """As after power-on."""
        self.command = self.status = self.table = 0
        self._go_to(_Place(0, 0, 0, False))

    def interrupt(self, level: bool) -> None:
        """The channel's INTRQ has changed."""
        if level:
            self.status |= INTERRUPT

    # ---- registers ----

    def read(self, offset: int, size: int) -> int:
        """Bytes of the registers; those between them read as 0."""
        registers = self.command | self.status << 8 * STATUS | self.table << 8 * TABLE
        return registers >> 8 * offset & (1 << 8 * size) - 1

    def write(self, offset: int, value: int, size: int) -> None:
        """Set registers, byte by byte."""
        for i in range(size):
            self._write_byte(offset + i, value >> 8 * i & 0xFF)

    def _write_byte(self, offset: int, value: int) -> None:
        if offset == COMMAND:
            self._write_command(value & (START | TO_MEMORY))
        elif offset == STATUS:
            kept = self.status & ~DRIVES_CAPABLE & ~(value & CLEARED_BY_ONES)
            self.status = kept | value & DRIVES_CAPABLE
        elif offset >= TABLE:
            shift = 8 * (offset - TABLE)
            self.table = (self.table & ~(0xFF << shift) | value << shift) & TABLE_MASK

    def _write_command(self, value: int) -> None:
        started = value & START and not self.command & START
        self.command = value
        if started:
            self.status |= ACTIVE
            self._go_to(_Place(0, 0, 0, False))
        elif not value & START:
            self.status &= ~ACTIVE
        self._run()

    # ---- transfer ----

    def _go_to(self, place: _Place) -> None:
        self.descriptor, self.address = place.descriptor, place.address
        self.left, self.last = place.left, place.last

    def _run(self) -> None:
        """Move what drive and table both have, as far as both are ready."""
        drive = self._channel.selected
        phase = Phase.DMA_IN if self.command & TO_MEMORY else Phase.DMA_OUT
        if not self._port.bus_master:
            return
        while self.status & ACTIVE and drive.phase == phase and drive.dma_left():
            length = min(drive.dma_left(), CHUNK)
            data = drive.dma_peek(length) if phase == Phase.DMA_IN else b""
            if phase == Phase.DMA_IN and not data:
                return  # the command has failed
            pieces, place = self._pieces(len(data) or length)
            moved = sum(length for _, length in pieces)
            if phase == Phase.DMA_IN:
                self._scatter(pieces, data)
            else:
                data = self._gather(pieces)
            self._go_to(place)
            if place.left == 0 and (place.last or place.descriptor == MAX_DESCRIPTORS):
                self.status &= ~ACTIVE
                self.status |= 0 if place.last else ERROR
            if moved and phase == Phase.DMA_IN:
                drive.dma_advance(moved)
            elif moved:
                drive.dma_accept(data)

    def _scatter(self, pieces: list[Piece], data: bytes) -> None:
        view, done = memoryview(data), 0
        for address, length in pieces:
            self._port.dma_write(address, view[done : done + length])
            done += length

    def _gather(self, pieces: list[Piece]) -> bytes:
        return b"".join(self._port.dma_read(address, length) for address, length in pieces)

    def _pieces(self, length: int) -> tuple[list[Piece], _Place]:
        """Where the next `length` bytes are in memory, or as many as the table still has; and the place behind."""
        place = _Place(self.descriptor, self.address, self.left, self.last)
        pieces: list[Piece] = []
        ahead: list[Piece] = []
        while length:
            if place.left == 0:
                if place.last or place.descriptor == MAX_DESCRIPTORS:
                    break
                ahead = ahead or self._descriptors(place.descriptor)
                address, count = ahead.pop()
                place.address = address & ADDRESS_MASK
                place.left = count & COUNT_MASK or COUNT_OF_ZERO
                place.last = bool(count & END_OF_TABLE)
                place.descriptor += 1
            taken = min(place.left, length)
            if pieces and sum(pieces[-1]) == place.address:
                pieces[-1] = (pieces[-1][0], pieces[-1][1] + taken)
            else:
                pieces.append((place.address, taken))
            length -= taken
            place.left -= taken
            place.address = (place.address + taken) & 0xFFFF_FFFF
        return pieces, place

    def _descriptors(self, number: int) -> list[Piece]:
        """Descriptors (address, count and flag) from `number` to the end of its page of memory, the last first."""
        gpa = (self.table + number * DESCRIPTOR_SIZE) & 0xFFFF_FFFF
        in_page = (PAGE_SIZE - gpa % PAGE_SIZE) // DESCRIPTOR_SIZE
        count = min(max(1, in_page), MAX_DESCRIPTORS - number)
        table = self._port.dma_read(gpa, count * DESCRIPTOR_SIZE)
        return list(iter_unpack(DESCRIPTOR, table))[::-1]

    # ---- saved state ----

    def save(self) -> SavedState:
        """Registers and the place in the table."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
