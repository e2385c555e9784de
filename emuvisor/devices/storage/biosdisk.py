"""The disk interface of emuvisor's own BIOS: a paravirtual controller with one command at a time.

No chip on a real board works this way; INT 13h of `firmware/bios` is its only intended user. The guest fills
the registers and writes COMMAND; the controller has done the work when that OUT instruction ends, and STATUS
tells how it went, in INT 13h's own status codes, so that the BIOS passes it on.

    offset  size  register
    0       1     DRIVE     BIOS drive number: 00h.. floppy disks, 80h.. hard disks
    1       1     COMMAND   (write) READ, WRITE, VERIFY or INFO; (read) STATUS of the last command
    2       2     COUNT     sectors, 0 to MAX_SECTORS; INFO sets it to the drive's INFO_* flags
    4       4     LBA_LOW   first sector, bits 0-31; INFO sets LBA to the drive's capacity in sectors
    8       4     LBA_HIGH  first sector, bits 32-63
    12      4     BUFFER    guest physical address of the data

Registers are read and written at their own offset, in any size up to 4 bytes that stays inside the range.
"""

from collections.abc import Mapping
from typing import Protocol, Self

from emuvisor.bus.device import SavedState, check_saved
from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDevice
from emuvisor.errors import GuestAddressError

__all__ = ["MAX_SECTORS", "PORT_COUNT", "BiosDisk", "GuestMemory"]

PORT_COUNT = 16

DRIVE = 0
COMMAND = STATUS = 1
COUNT = 2
LBA = 4
BUFFER = 12

CMD_READ = 1
CMD_WRITE = 2
CMD_VERIFY = 3
CMD_INFO = 4

INFO_READ_ONLY = 1 << 0

MAX_SECTORS = 128
"""Most sectors of one command: bounds the work and the host memory of one OUT instruction."""

# INT 13h status codes (Phoenix, "Enhanced Disk Drive Specification" 3.0, and the IBM AT BIOS listing).
OK = 0x00
BAD_COMMAND = 0x01
WRITE_PROTECTED = 0x03
SECTOR_NOT_FOUND = 0x04
DMA_BOUNDARY = 0x09
CONTROLLER_FAILURE = 0x20
NOT_READY = 0x80


class GuestMemory(Protocol):
    """Guest physical memory, as a device with DMA uses it."""

    def read(self, gpa: int, length: int) -> bytes:
        """`length` bytes from guest physical address `gpa`; GuestAddressError outside memory."""
        ...

    def write(self, gpa: int, data: bytes) -> None:
        """Store `data` from guest physical address `gpa` on; GuestAddressError outside memory."""
        ...


class BiosDisk:
    """The controller, with `drives` by BIOS drive number and DMA into `memory`.

    A command that the guest got wrong, or that the host's disk refuses, ends with a status and a count in
    `errors`, never with an exception. `OutOfFrames` of `memory` does pass through: no register has changed by
    then, so the command can be given again.
    """

    VERSION = 1

    def __init__(
        self, memory: GuestMemory, drives: Mapping[int, BlockDevice], name: str = "biosdisk"
    ) -> None:
        self.name = name
        self.errors = 0
        self._memory = memory
        self._drives = dict(drives)
        self._registers = bytearray(PORT_COUNT)

    def reset(self) -> None:
        """Clear every register."""
        self._registers = bytearray(PORT_COUNT)

    def read(self, offset: int, size: int) -> int:
        """Bytes of the register file; STATUS in the place of COMMAND."""
        return int.from_bytes(self._registers[offset : offset + size], "little")

    def write(self, offset: int, value: int, size: int) -> None:
        """Set bytes of the register file; a write that covers COMMAND then runs the command."""
        status = self._registers[STATUS]
        self._registers[offset : offset + size] = value.to_bytes(size, "little")
        if offset <= COMMAND < offset + size:
            command = self._registers[COMMAND]
            self._registers[STATUS] = status
            self._registers[STATUS] = status = self._run(command)
            self.errors += status != OK

    def _field(self, offset: int, size: int) -> int:
        return int.from_bytes(self._registers[offset : offset + size], "little")

    def _run(self, command: int) -> int:
        """Do `command`; returns its INT 13h status."""
        drive = self._drives.get(self._registers[DRIVE])
        if drive is None:
            return NOT_READY
        if command == CMD_INFO:
            self._registers[COUNT : COUNT + 2] = (INFO_READ_ONLY * drive.read_only).to_bytes(2, "little")
            self._registers[LBA : LBA + 8] = drive.sectors.to_bytes(8, "little")
            return OK
        lba, count, buffer = self._field(LBA, 8), self._field(COUNT, 2), self._field(BUFFER, 4)
        if command not in (CMD_READ, CMD_WRITE, CMD_VERIFY) or count > MAX_SECTORS:
            return BAD_COMMAND
        if lba + count > drive.sectors:
            return SECTOR_NOT_FOUND
        if command == CMD_WRITE and drive.read_only:
            return WRITE_PROTECTED
        try:
            if command == CMD_WRITE:
                drive.write(lba, self._memory.read(buffer, count * SECTOR_SIZE))
            elif command == CMD_READ:
                self._memory.write(buffer, drive.read(lba, count))
            else:
                drive.read(lba, count)
        except GuestAddressError:
            return DMA_BOUNDARY
        except OSError:
            return CONTROLLER_FAILURE
        return OK

    def save(self) -> SavedState:
        """The registers; the disks' contents are not part of the controller."""
        return {"device": "biosdisk", "version": self.VERSION, "registers": bytes(self._registers)}

    @classmethod
    def restore(cls, state: SavedState, *, memory: GuestMemory, drives: Mapping[int, BlockDevice]) -> Self:
        """The controller with saved registers, wired to `memory` and `drives`.

        Raises SnapshotError for a state that is not this controller's.
        """
        check_saved(state, "biosdisk", cls.VERSION)
        disk = cls(memory, drives)
        disk._registers[:] = state["registers"]
        return disk
