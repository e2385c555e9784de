"""The disk interface of emuvisor's own BIOS: a paravirtual controller with one command at a time.

No chip on a real board works this way; INT 13h of `firmware/bios` is its only intended user. The guest fills
the registers and writes COMMAND; the controller has done the work when that OUT instruction ends, and STATUS
tells how it went, in INT 13h's own status codes, so that the BIOS passes it on. Only when the host has no room for a
write is STATUS BUSY (the guest is paused, and when it goes on the controller tries again), and while the disk's limits
hold the command back. Meanwhile the registers cannot be written.

    offset  size  register
    0       1     DRIVE     BIOS drive number: 00h.. floppy disks, 80h.. hard disks
    1       1     COMMAND   (write) READ, WRITE, VERIFY or INFO; (read) STATUS of the last command
    2       2     COUNT     sectors, 0 to MAX_SECTORS; INFO sets it to the drive's INFO_* flags
    4       4     LBA_LOW   first sector, bits 0-31; INFO sets LBA to the drive's capacity in sectors
    8       4     LBA_HIGH  first sector, bits 32-63
    12      4     BUFFER    guest physical address of the data

Registers are read and written at their own offset, in any size up to 4 bytes that stays inside the range.
"""

from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import Protocol

from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Number, load_fields, save_fields
from emuvisor.devices.limits import READ, WRITE
from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDevice, host_full_reason, is_host_full
from emuvisor.devices.storage.meter import DiskMeter
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
BUSY = 0xFF
"""The command waits for room on the host or for its limits; no status of INT 13h that this controller has."""

_DEVICE = "biosdisk"
_VERSION = 1
_FIELDS = Fields({"registers": Data(PORT_COUNT, minimum=PORT_COUNT), "waiting": Number(0xFF)})


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
    then, so the command can be given again. When the host is full, `on_suspend(reason)` pauses the guest, and a
    timer of `clock` tries the write again; without both of them it fails. `meters` have the drives' limits, which need
    the clock, and numbers; a drive without one has none.
    """

    def __init__(
        self,
        memory: GuestMemory,
        drives: Mapping[int, BlockDevice],
        name: str = "biosdisk",
        *,
        clock: Clock | None = None,
        on_suspend: Callable[[str], None] | None = None,
        meters: Mapping[int, DiskMeter] | None = None,
    ) -> None:
        self.name = name
        self._meters = dict(meters or {})
        for meter in self._meters.values():
            meter.throttle.on_change.append(self._limits_changed)
        self.errors = 0
        self._memory = memory
        self._drives = dict(drives)
        self._clock = clock
        self._retry = None if clock is None else clock.timer(self._try_again, f"{name}-retry")
        self._on_suspend = on_suspend
        self.registers = bytearray(PORT_COUNT)
        self.waiting = 0
        """The command that waits for room on the host, or for its limits; 0 without one."""
        self._paid = False
        """It has its tokens."""

    def reset(self) -> None:
        """Clear every register; a command that waits is given up."""
        self.registers[:] = bytes(PORT_COUNT)
        self.waiting = 0
        self._paid = False
        if self._retry is not None:
            self._retry.cancel()

    def read(self, offset: int, size: int) -> int:
        """Bytes of the register file; STATUS in the place of COMMAND."""
        return int.from_bytes(self.registers[offset : offset + size], "little")

    def write(self, offset: int, value: int, size: int) -> None:
        """Set bytes of the register file; a write that covers COMMAND then runs the command."""
        if self.waiting:
            return
        status = self.registers[STATUS]
        self.registers[offset : offset + size] = value.to_bytes(size, "little")
        if offset <= COMMAND < offset + size:
            command = self.registers[COMMAND]
            self.registers[STATUS] = status
            self._finish(self._run(command))

    def _finish(self, status: int) -> None:
        self.registers[STATUS] = status
        self._paid = self._paid and status == BUSY
        self.errors += status not in (OK, BUSY)

    def _field(self, offset: int, size: int) -> int:
        return int.from_bytes(self.registers[offset : offset + size], "little")

    def _run(self, command: int) -> int:
        """Do `command`; returns its INT 13h status."""
        drive = self._drives.get(self.registers[DRIVE])
        if drive is None:
            return NOT_READY
        if command == CMD_INFO:
            self.registers[COUNT : COUNT + 2] = (INFO_READ_ONLY * drive.read_only).to_bytes(2, "little")
            self.registers[LBA : LBA + 8] = drive.sectors.to_bytes(8, "little")
            return OK
        lba, count, buffer = self._field(LBA, 8), self._field(COUNT, 2), self._field(BUFFER, 4)
        if command not in (CMD_READ, CMD_WRITE, CMD_VERIFY) or count > MAX_SECTORS:
            return BAD_COMMAND
        if lba + count > drive.sectors:
            return SECTOR_NOT_FOUND
        if command == CMD_WRITE and drive.read_only:
            return WRITE_PROTECTED
        meter = self._meters.get(self.registers[DRIVE])
        if meter is not None and not self._begins(command, meter, count * SECTOR_SIZE):
            return BUSY
        start = perf_counter_ns()
        try:
            if command == CMD_WRITE:
                drive.write(lba, self._memory.read(buffer, count * SECTOR_SIZE))
            elif command == CMD_READ:
                self._memory.write(buffer, drive.read(lba, count))
            else:
                drive.read(lba, count)
        except GuestAddressError:
            return DMA_BOUNDARY
        except OSError as error:
            return self._wait(command, drive, error)
        if meter is not None:
            (meter.did_write if command == CMD_WRITE else meter.did_read)(count * SECTOR_SIZE, start)
        return OK

    # ---- limits ----

    def _begins(self, command: int, meter: DiskMeter, size: int) -> bool:
        """Whether the drive's limits allow the command now; if not, it waits until they do."""
        if self._clock is None or self._paid or not meter.throttle.active:
            return True
        now = self._clock.now_ns()
        until = meter.throttle.admit(WRITE if command == CMD_WRITE else READ, size, now)
        if until > now:
            self.waiting = command
            self._arm(until)
            return False
        self._paid = True
        return True

    def _limits_changed(self) -> None:
        if self.waiting:
            self._arm()

    # ---- a host that is full ----

    def _wait(self, command: int, drive: BlockDevice, error: OSError) -> int:
        """Let `command` wait if all that is wrong is that the host is full; returns the status."""
        if self._on_suspend is None or not is_host_full(error) or not self._arm():
            return CONTROLLER_FAILURE
        self.waiting = command
        self._on_suspend(host_full_reason(drive, error))
        return BUSY

    def _arm(self, deadline_ns: int | None = None) -> bool:
        """Try again at `deadline_ns`, or as soon as the guest runs; False without a clock."""
        if self._retry is None or self._clock is None:
            return False
        self._retry.arm(self._clock.now_ns() if deadline_ns is None else deadline_ns)
        return True

    def _try_again(self, _deadline_ns: int) -> None:
        """The guest goes on."""
        command, self.waiting = self.waiting, 0
        self._finish(self._run(command))

    # ---- saved state ----

    def save(self) -> SavedState:
        """The registers; the disks' contents are not part of the controller."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave; a command that waits is tried again at once. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
        self._paid = False
        if self.waiting:
            self._arm()
        elif self._retry is not None:
            self._retry.cancel()
