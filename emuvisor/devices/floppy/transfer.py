"""The execution phase of the 82077AA's commands that move sectors: a sector for each time the disk turns to one.

Source: Intel 82077AA data sheet, "Data Transfer Commands". What differs from the real chip, so that drivers and
probes are quick:

- Sectors take microseconds. Interrupts still come later than the command that asks for them.
- Without a disk, or with its motor off, no index pulse ever comes, and the chip would wait for ever. This one ends
  the command as if no address mark had been found.
- Without DMA it waits for the host a good while before data is lost. Drivers end a transfer by letting that happen.
- An image has no deleted data marks: WRITE DELETED DATA writes plain sectors, and FORMAT TRACK can only write the
  sectors that the image has.
"""

from typing import Protocol

from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Flag, Number, load_fields, save_fields
from emuvisor.devices.dma import DmaChannel
from emuvisor.devices.floppy import registers as r
from emuvisor.devices.floppy.commands import Op, find_command
from emuvisor.devices.floppy.drive import FloppyDrive
from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.units import NS_PER_US

__all__ = ["SECTOR_NS", "Transfer", "TransferChip"]

SECTOR_SIZE_CODE = 2
"""N of a sector of 512 bytes."""
BAD_CYLINDER = 0xFF
ID_SIZE = 4
"""Bytes of a sector's ID: cylinder, head, sector, size code."""
CYLINDER, HEAD, SECTOR, SIZE_CODE = range(ID_SIZE)
BUFFER_SIZE = 1024
"""Room for a sector, or for the IDs of a track that is formatted."""

# Bytes of a command behind the first.
SELECT = 1
FIRST_ID = 2
END_OF_TRACK = 6
VERIFY_COUNT = 8
FORMAT_SECTORS = 3
FORMAT_FILL = 5

ACCESS_NS = 200 * NS_PER_US
"""Until the first sector comes under the head."""
SECTOR_NS = 20 * NS_PER_US

WRITES = (Op.WRITE_DATA, Op.WRITE_DELETED_DATA, Op.FORMAT_TRACK)

_DEVICE = "floppy-transfer"
_VERSION = 1
_FIELDS = Fields(
    {
        "sector_id": Data(ID_SIZE, minimum=ID_SIZE),
        "side": Number(1),
        "st1": Number(0xFF),
        "st2": Number(0xFF),
        "to_verify": Number(0xFF),
        "buffer": Data(BUFFER_SIZE, minimum=BUFFER_SIZE),
        "position": Number(BUFFER_SIZE - 1),
        "length": Number(BUFFER_SIZE),
        "host_is_done": Flag(),
    }
)


class TransferChip(Protocol):
    """What a transfer needs of its controller."""

    command: bytearray
    """The command's bytes."""

    @property
    def drive(self) -> FloppyDrive:
        """The drive that the command selects."""
        ...

    @property
    def uses_dma(self) -> bool:
        """Whether data goes by DMA; else through the FIFO."""
        ...

    def hears(self, drive: FloppyDrive) -> bool:
        """Whether the drive's motor turns and the data rate fits its disk."""
        ...

    def execute_in(self, ns: int) -> None:
        """Call `execute` in `ns` nanoseconds."""
        ...

    def open_fifo(self, to_host: bool) -> None:
        """Ask the host to read from the FIFO or write into it: `read_byte` or `write_byte`."""
        ...

    def end_command(self, results: bytes) -> None:
        """Enter the result phase."""
        ...


class Transfer:
    """The command of `chip` that moves sectors now, by `dma` or through the FIFO."""

    def __init__(self, chip: TransferChip, *, clock: Clock, dma: DmaChannel) -> None:
        self._chip = chip
        self._clock = clock
        self._dma = dma
        self.sector_id = bytearray(ID_SIZE)
        """The ID of the sector that is wanted next."""
        self.buffer = bytearray(BUFFER_SIZE)
        """What the host reads or writes without DMA: `length` bytes, of which `position` have gone."""
        self.clear()

    def clear(self) -> None:
        """As after power-on."""
        self.sector_id[:] = bytes(ID_SIZE)
        self.buffer[:] = bytes(BUFFER_SIZE)
        self.side = self.st1 = self.st2 = self.to_verify = 0
        self.position = self.length = 0
        self.host_is_done = False
        """All bytes have gone through the FIFO; the rest of the sector is still to pass."""

    @property
    def _op(self) -> Op:
        return find_command(self._chip.command[0]).op

    @property
    def _drive(self) -> FloppyDrive:
        return self._chip.drive

    def begin(self, implied_seek: bool) -> None:
        """Start with the command that the chip has received."""
        command = self._chip.command
        self.st1 = self.st2 = 0
        self.host_is_done = False
        self.side = command[SELECT] >> r.HDS_SHIFT & 1
        if self._op in (Op.READ_ID, Op.FORMAT_TRACK):
            self.sector_id[:] = bytes((self._drive.track, self.side, 1, SECTOR_SIZE_CODE))
        else:
            self.sector_id[:] = command[FIRST_ID : FIRST_ID + ID_SIZE]
            self.to_verify = command[VERIFY_COUNT]
            if implied_seek:
                self._drive.move(self.sector_id[CYLINDER])
        self._chip.execute_in(ACCESS_NS)

    def execute(self) -> None:
        """The next sector is under the head. Raises OutOfFrames of guest memory; then nothing has happened."""
        if self.host_is_done:
            self._end_fifo()
            return
        op = self._op
        refused = self._refusal(writes=op in WRITES)
        if refused:
            self._fail(st1=refused)
        elif op == Op.READ_ID:
            self._read_id()
        elif op == Op.FORMAT_TRACK:
            self._take_from_host(self._chip.command[FORMAT_SECTORS] * ID_SIZE)
        elif not self._finds_sector():
            self._fail()
        elif op in WRITES:
            self._take_from_host(SECTOR_SIZE)
        else:
            self._read_sector()

    def _refusal(self, writes: bool) -> int:
        """The bit of ST1 that says why the disk cannot be read or written; 0 if it can."""
        if not self._reads_marks():
            return r.ST1_MA
        if writes and self._drive.write_protected:
            return r.ST1_NW
        return 0

    def _reads_marks(self) -> bool:
        """Whether address marks that the command can read pass under the head."""
        drive, media = self._drive, self._drive.media
        return (
            media is not None
            and self._chip.hears(drive)
            and bool(self._chip.command[0] & r.MFM)
            and drive.track < media.tracks
        )

    def _finds_sector(self) -> bool:
        """Whether the track under the head has the sector that is wanted; ST1 and ST2 say why not."""
        cylinder, head, sector, size_code = self.sector_id
        media = self._drive.media
        assert media is not None
        if cylinder != self._drive.track:
            self.st2 |= r.ST2_BC if cylinder == BAD_CYLINDER else r.ST2_WC
        elif head == self.side and size_code == SECTOR_SIZE_CODE and 1 <= sector <= media.sectors:
            return True
        self.st1 |= r.ST1_ND
        return False

    def _read_id(self) -> None:
        media = self._drive.media
        assert media is not None
        self.sector_id[CYLINDER] = self._drive.track
        self.sector_id[SECTOR] = self._clock.now_ns() // SECTOR_NS % media.sectors + 1
        self._finish(r.ST0_NORMAL)

    def _read_sector(self) -> None:
        op = self._op
        if op == Op.READ_DELETED_DATA:
            self.st2 |= r.ST2_CM  # no sector of an image has a deleted data mark
            if self._chip.command[0] & r.SK:
                self._end_sector(terminal_count=False)
                return
        try:
            data = self._drive.read(self.side, self.sector_id[SECTOR])
        except OSError:
            self._fail(st1=r.ST1_DE, st2=r.ST2_DD)
            return
        if op == Op.VERIFY:
            self._end_verified_sector()
        elif self._chip.uses_dma:
            taken, terminal_count = self._dma.to_memory(data)
            if taken < SECTOR_SIZE and not terminal_count:
                self._fail(st1=r.ST1_OR)
            else:
                self._end_sector(terminal_count)
        else:
            self.buffer[:SECTOR_SIZE] = data
            self._open_fifo(SECTOR_SIZE, to_host=True)

    def _take_from_host(self, length: int) -> None:
        """Get what a write or FORMAT TRACK needs, by DMA or through the FIFO."""
        if length and not self._chip.uses_dma:
            self._open_fifo(length, to_host=False)
            return
        data, terminal_count = self._dma.from_memory(length)
        if len(data) < length and not terminal_count:
            self._fail(st1=r.ST1_OR)
        else:
            self._store(data, terminal_count)

    def _store(self, data: bytes, terminal_count: bool) -> None:
        """Put what the host gave on the disk; a sector that was cut short is filled with zeros."""
        # Asked again, for the disk may have gone while the host filled the FIFO.
        refused = self._refusal(writes=True)
        if refused:
            self._fail(st1=refused)
        elif self._op == Op.FORMAT_TRACK:
            self._format(data)
        elif not self._finds_sector():
            self._fail()
        elif self._write_sector(data.ljust(SECTOR_SIZE, b"\0")):
            self._end_sector(terminal_count)

    def _write_sector(self, data: bytes) -> bool:
        """Write the sector under the head; whether the host could."""
        try:
            self._drive.write(self.side, self.sector_id[SECTOR], data)
        except OSError:
            self._fail(st1=r.ST1_DE, st2=r.ST2_DD)
            return False
        return True

    def _format(self, ids: bytes) -> None:
        """Fill the sectors whose IDs are given; one that the image has no place for cannot be written."""
        fill = bytes((self._chip.command[FORMAT_FILL],)) * SECTOR_SIZE
        for start in range(0, len(ids) - ID_SIZE + 1, ID_SIZE):
            self.sector_id[:] = ids[start : start + ID_SIZE]
            if not self._finds_sector():
                self._fail(st1=r.ST1_DE)
                return
            if not self._write_sector(fill):
                return
        self._finish(r.ST0_NORMAL)

    def _end_verified_sector(self) -> None:
        if self._chip.command[SELECT] & r.VERIFY_EC:
            self.to_verify = (self.to_verify - 1) & 0xFF
            self._end_sector(terminal_count=self.to_verify == 0)
        elif self._advance():
            self._finish(r.ST0_NORMAL)
        else:
            self._chip.execute_in(SECTOR_NS)

    def _end_sector(self, terminal_count: bool) -> None:
        """Go on with the next sector, or end the command."""
        if self._op == Op.READ_DELETED_DATA and not self._chip.command[0] & r.SK:
            self._finish(r.ST0_NORMAL)  # the mark was the wrong one: this sector only
            return
        at_end = self._advance()
        if terminal_count:
            self._finish(r.ST0_NORMAL)
        elif at_end:
            self._fail(st1=r.ST1_EN)
        else:
            self._chip.execute_in(SECTOR_NS)

    def _advance(self) -> bool:
        """Step to the next sector's ID; whether that is behind the last sector of the command."""
        if self.sector_id[SECTOR] != self._chip.command[END_OF_TRACK]:
            self.sector_id[SECTOR] = (self.sector_id[SECTOR] + 1) & 0xFF
            return False
        self.sector_id[SECTOR] = 1
        if self._chip.command[0] & r.MT:
            self.sector_id[HEAD] ^= 1
            if self.side == 0:
                self.side = 1
                return False
        self.sector_id[CYLINDER] = (self.sector_id[CYLINDER] + 1) & 0xFF
        return True

    def _fail(self, *, st1: int = 0, st2: int = 0) -> None:
        self.st1 |= st1
        self.st2 |= st2
        self._finish(r.ST0_ABNORMAL)

    def _finish(self, st0: int) -> None:
        st0 |= self.side << r.HDS_SHIFT | self._drive.number
        self._chip.end_command(bytes((st0, self.st1, self.st2, *self.sector_id)))

    # Without DMA.

    def _open_fifo(self, length: int, to_host: bool) -> None:
        self.position = 0
        self.length = length
        self._chip.open_fifo(to_host)

    def read_byte(self) -> int:
        """The host takes a byte."""
        value = self.buffer[self.position]
        self._next_byte()
        return value

    def write_byte(self, value: int) -> None:
        """The host gives a byte."""
        self.buffer[self.position] = value
        self._next_byte()

    def _next_byte(self) -> None:
        self.position += 1
        if self.position >= self.length:
            self.position = 0
            # Later, for a driver that polls would else meet the result before the interrupt that announces it.
            self.host_is_done = True
            self._chip.execute_in(SECTOR_NS)

    def _end_fifo(self) -> None:
        self.host_is_done = False
        if self._op in WRITES:
            self._store(bytes(self.buffer[: self.length]), terminal_count=False)
        else:
            self._end_sector(terminal_count=False)

    def lose_data(self, to_host: bool) -> None:
        """The host has stopped: a sector that it has begun to write is completed with zeros."""
        if not to_host and self.position and self._op != Op.FORMAT_TRACK:
            self._store(bytes(self.buffer[: min(self.position, SECTOR_SIZE)]), terminal_count=True)
        self._fail(st1=r.ST1_OR)

    def save(self) -> SavedState:
        """How far the command is, as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over a saved state. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
