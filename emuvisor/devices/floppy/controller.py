"""Intel 82077AA floppy disk controller, strapped for PS/2 mode.

Source: Intel 82077AA data sheet. `transfer` says what differs from the real one.
"""

from collections import deque
from collections.abc import Callable, Sequence
from enum import IntEnum

from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import (
    OPTIONAL_TIME,
    Data,
    Deadline,
    Fields,
    Flag,
    LineLevel,
    Number,
    load_fields,
    save_fields,
    saved_part,
)
from emuvisor.devices.dma import DmaChannel
from emuvisor.devices.floppy import registers as r
from emuvisor.devices.floppy.commands import COMMAND_LENGTH, Op, find_command
from emuvisor.devices.floppy.drive import FloppyDrive
from emuvisor.devices.floppy.transfer import SECTOR_NS, Transfer
from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.errors import OutOfFrames, UsageError
from emuvisor.units import NS_PER_MS, NS_PER_US

__all__ = ["FloppyController", "RateAndChangePort"]

DRIVE_SELECTS = 4
DRIVES = 2
"""Drives that a PC has room for; nothing hangs at the other selects."""

VERSION_82077AA = 0x90
RESULT_LENGTH = 10

# Bytes of a command behind the first.
SELECT = 1
END_OF_TRACK = 6

RESET_NS = 50 * NS_PER_US
PATIENCE_NS = 100 * NS_PER_MS
"""How long the host may take for a sector in the FIFO."""


class Phase(IntEnum):
    """What the chip is doing."""

    COMMAND = 0
    """Idle, or taking a command's bytes."""
    EXECUTION = 1
    """Waiting for the sector to come under the head."""
    TO_HOST = 2
    """The host reads a sector from the FIFO."""
    FROM_HOST = 3
    """The host writes one into it."""
    RESULT = 4
    RESET = 5
    """Held in reset by the DOR."""
    POLLING = 6
    """Out of reset, looking at its drives."""


_DEVICE = "82077aa"
_VERSION = 1
_FIELDS = Fields(
    {
        "phase": Number(max(Phase)),
        "dor": Number(0xFF),
        "tdr": Number(r.TDR_TAPE_SEL),
        "rate": Number(r.DRATE),
        "timing": Data(2, minimum=2),
        "configuration": Number(r.CONFIGURE_MASK),
        "precompensation": Number(0xFF),
        "perpendicular": Number(r.PERPENDICULAR_DRIVES | r.PERPENDICULAR_GAP_WGATE),
        "locked": Flag(),
        "end_of_track": Number(0xFF),
        "command": Data(COMMAND_LENGTH, minimum=COMMAND_LENGTH),
        "received": Number(COMMAND_LENGTH - 1),
        "results": Data(RESULT_LENGTH),
        "ended_seeks": Data(DRIVE_SELECTS),
        "wants_sense": Flag(),
        "wants_service": Flag(),
        "deadline_ns": OPTIONAL_TIME,
        "irq_level": Flag(),
    }
)


class RateAndChangePort:
    """The register at 3F7h as a device of its own, for 3F6h belongs to the hard disk controller."""

    name = f"{_DEVICE}-dir"

    def __init__(self, controller: "FloppyController") -> None:
        self._controller = controller

    def read(self, offset: int, size: int) -> int:
        """The digital input register."""
        return self._controller.read(r.DIR, size)

    def write(self, offset: int, value: int, size: int) -> None:
        """The configuration control register."""
        self._controller.write(r.CCR, value, size)

    def reset(self) -> None:
        """Reset the controller."""
        self._controller.reset()


class FloppyController:
    """The controller with a drive for each of `disks`, at most two; None is an empty drive.

    Attach it at 3F0h (6 ports) and `rate_and_change` at 3F7h (1), both with width 1. `irq` is IRQ 6, `dma` is
    channel 2; `drives[n].drive_type` is for the CMOS byte 10h (drive 0 in its high half). Raises ImageError for
    a disk whose size no floppy disk has, UsageError for too many.
    """

    name = _DEVICE

    def __init__(
        self, *, clock: Clock, irq: InterruptLine, dma: DmaChannel, disks: Sequence[BlockDevice | None]
    ) -> None:
        if len(disks) > DRIVES:
            raise UsageError(f"{_DEVICE}: {len(disks)} floppy drives; a PC has at most {DRIVES}")
        self._clock = clock
        self._irq = irq
        self._timer = clock.timer(self._due, _DEVICE)
        self._transfer = Transfer(self, clock=clock, dma=dma)
        self.rate_and_change = RateAndChangePort(self)
        self.drives = [
            FloppyDrive(number, clock=clock, on_arrival=self._arrived, present=number < len(disks))
            for number in range(DRIVE_SELECTS)
        ]
        for drive, disk in zip(self.drives, disks, strict=False):
            drive.insert(disk)
        self._at_once: dict[Op, Callable[[], None]] = {
            Op.INVALID: self._invalid,
            Op.SPECIFY: self._specify,
            Op.SENSE_DRIVE_STATUS: self._sense_drive_status,
            Op.SENSE_INTERRUPT_STATUS: self._sense_interrupt_status,
            Op.RECALIBRATE: self._recalibrate,
            Op.SEEK: self._seek,
            Op.RELATIVE_SEEK: self._relative_seek,
            Op.DUMPREG: self._dump_registers,
            Op.VERSION: self._version,
            Op.PERPENDICULAR_MODE: self._perpendicular_mode,
            Op.CONFIGURE: self._configure,
            Op.LOCK: self._lock,
        }
        self.command = bytearray(COMMAND_LENGTH)
        self.results: deque[int] = deque()
        self.timing = bytearray(2)
        """SPECIFY's bytes: step rate and head unload time; head load time and NON_DMA."""
        self.ended_seeks: deque[int] = deque()
        """ST0 for each SENSE INTERRUPT STATUS to come."""
        self._power_on()

    def _power_on(self) -> None:
        self.dor = 0
        self.tdr = 0
        self.rate = r.DRATE_DEFAULT
        self.timing[:] = bytes(len(self.timing))
        self.locked = False
        self.perpendicular = 0
        self.end_of_track = 0
        self.configuration = r.EFIFO
        self.precompensation = 0
        self.command[:] = bytes(COMMAND_LENGTH)
        self._transfer.clear()
        self._stop()

    def reset(self) -> None:
        """As after power-on, held in reset until the DOR lets it go. Heads stay where they are."""
        self._power_on()
        self._drive_irq()

    # Registers.

    def read(self, offset: int, size: int) -> int:
        """A register; DSR and CCR are write-only and have the MSR and the DIR at their place."""
        if offset == r.MSR:
            return self._main_status()
        if offset == r.FIFO:
            return self._read_fifo()
        if offset == r.DIR:
            return self._digital_input()
        if offset == r.DOR:
            return self.dor
        if offset == r.SRA:
            return self._status_a()
        if offset == r.SRB:
            return (
                r.SRB_ONES
                | (self.dor & 1) << r.SRB_DRIVE_SEL0_SHIFT
                | self.dor >> r.DOR_MOTOR_SHIFT & r.SRB_MOTORS
            )
        if offset == r.TDR:
            return self.tdr
        return 0xFF

    def write(self, offset: int, value: int, size: int) -> None:
        """A register; SRA and SRB are read-only."""
        value &= 0xFF
        if offset == r.FIFO:
            self._write_fifo(value)
        elif offset == r.DOR:
            self._write_dor(value)
        elif offset == r.DSR:
            self.rate = value & r.DRATE
            if value & r.DSR_SW_RESET and self.phase != Phase.RESET:
                self._enter_reset()
                self._leave_reset()
        elif offset == r.CCR:
            self.rate = value & r.DRATE
        elif offset == r.TDR:
            self.tdr = value & r.TDR_TAPE_SEL

    def _selected(self) -> FloppyDrive:
        return self.drives[self.dor & r.DOR_DRIVE_SEL]

    def _status_a(self) -> int:
        drive = self._selected()
        status = r.SRA_NO_INDEX | self._transfer.side * r.SRA_HDSEL
        if self._irq.level:
            status |= r.SRA_INT_PENDING
        if not self.drives[1].present:
            status |= r.SRA_NO_DRV2
        if not drive.at_track_0:
            status |= r.SRA_NOT_TRK0
        if not drive.write_protected:
            status |= r.SRA_NOT_WP
        return status

    def _digital_input(self) -> int:
        value = r.DIR_ONES | self.rate << r.DIR_DRATE_SHIFT
        if self.rate in (1, 2):  # 300 and 250 kb/s
            value |= r.DIR_LOW_DENSITY
        if self._selected().change_line:
            value |= r.DIR_DSKCHG
        return value

    def _main_status(self) -> int:
        if self.phase in (Phase.RESET, Phase.POLLING):
            return 0
        status = sum(1 << drive.number for drive in self.drives if drive.seeking)
        if self.phase != Phase.COMMAND or self.received:
            status |= r.MSR_CMD_BSY
        if self.phase != Phase.EXECUTION:
            status |= r.MSR_RQM
        if self.phase in (Phase.TO_HOST, Phase.RESULT):
            status |= r.MSR_DIO
        if self.phase in (Phase.EXECUTION, Phase.TO_HOST, Phase.FROM_HOST) and not self.uses_dma:
            status |= r.MSR_NON_DMA
        return status

    def _write_dor(self, value: int) -> None:
        self.dor = value
        if not value & r.DOR_RESET:
            self._enter_reset()
        elif self.phase == Phase.RESET:
            self._leave_reset()

    def _read_fifo(self) -> int:
        if self.phase == Phase.TO_HOST:
            self._set_service(False)
            return self._transfer.read_byte()
        if self.phase != Phase.RESULT:
            return 0
        value = self.results.popleft() if self.results else 0
        if not self.results:
            self._idle()
        self._set_service(False)
        return value

    def _write_fifo(self, value: int) -> None:
        if self.phase == Phase.FROM_HOST:
            self._set_service(False)
            self._transfer.write_byte(value)
        elif self.phase == Phase.COMMAND:
            self.command[self.received] = value
            self.received += 1
            if self.received >= find_command(self.command[0]).length:
                self._run()

    # Reset and interrupts.

    def _enter_reset(self) -> None:
        self._stop()
        self._drive_irq()

    def _stop(self) -> None:
        """Give up what is under way, as in reset."""
        self._timer.cancel()
        for drive in self.drives:
            drive.stop()
        self._idle()
        self.results.clear()
        self.ended_seeks.clear()
        self.configuration &= r.CONFIGURE_UNLOCKED
        if not self.locked:
            self.configuration = r.EFIFO
            self.precompensation = 0
        self.perpendicular &= r.PERPENDICULAR_DRIVES
        self.phase = Phase.RESET
        self.wants_sense = self.wants_service = False

    def _leave_reset(self) -> None:
        self.phase = Phase.POLLING
        self._timer.arm(self._clock.now_ns() + RESET_NS)

    def _poll_drives(self) -> None:
        """All drives have changed from not ready to ready: one interrupt, and a status for each."""
        self._idle()
        self.ended_seeks.clear()
        self.ended_seeks.extend(r.ST0_POLLING | drive.number for drive in self.drives)
        self._set_sense(True)

    def _set_service(self, wanted: bool) -> None:
        """INT for the FIFO's data or a result."""
        self.wants_service = wanted
        self._drive_irq()

    def _set_sense(self, wanted: bool) -> None:
        """INT for what SENSE INTERRUPT STATUS will tell."""
        self.wants_sense = wanted
        self._drive_irq()

    def _drive_irq(self) -> None:
        self._irq.set(self.wants_service or self.wants_sense)

    # Commands.

    def _idle(self) -> None:
        self.phase = Phase.COMMAND
        self.received = 0

    @property
    def _op(self) -> Op:
        return find_command(self.command[0]).op

    def _run(self) -> None:
        self._idle()
        at_once = self._at_once.get(self._op)
        if at_once is not None:
            at_once()
            return
        if self._op not in (Op.READ_ID, Op.FORMAT_TRACK):
            self.end_of_track = self.command[END_OF_TRACK]
        self._transfer.begin(implied_seek=bool(self.configuration & r.EIS))

    def _answer(self, *results: int) -> None:
        self.results.clear()
        self.results.extend(results)
        self.phase = Phase.RESULT

    def _invalid(self) -> None:
        self._answer(r.ST0_INVALID)

    def _specify(self) -> None:
        self.timing[:] = self.command[1:3]

    def _sense_drive_status(self) -> None:
        drive = self.drive
        status = r.ST3_ONES | self.command[SELECT] & (1 << r.HDS_SHIFT | r.DS)
        if drive.write_protected:
            status |= r.ST3_WP
        if drive.at_track_0:
            status |= r.ST3_T0
        self._answer(status)

    def _sense_interrupt_status(self) -> None:
        if not self.ended_seeks:
            self._invalid()
            return
        st0 = self.ended_seeks.popleft()
        self._set_sense(False)
        if any(st0 & r.ST0_SE for st0 in self.ended_seeks):
            self._set_sense(True)  # another edge: the seeks end one by one, unlike the polling after a reset
        self._answer(st0, self.drives[st0 & r.DS].cylinder)

    def _recalibrate(self) -> None:
        self.drive.recalibrate()

    def _seek(self) -> None:
        self.drive.seek(self.command[2])

    def _relative_seek(self) -> None:
        by = self.command[2] if self.command[0] & r.RELATIVE_INWARDS else -self.command[2]
        self.drive.seek(max(0, min(self.drive.cylinder + by, 0xFF)))

    def _arrived(self, drive: FloppyDrive) -> None:
        st0 = r.ST0_SE | drive.number
        if drive.failed:
            st0 |= r.ST0_ABNORMAL | r.ST0_EC
        for earlier in [status for status in self.ended_seeks if status & r.DS == drive.number]:
            self.ended_seeks.remove(earlier)
        self.ended_seeks.append(st0)
        self._set_sense(True)

    def _dump_registers(self) -> None:
        self._answer(
            *(drive.cylinder for drive in self.drives),
            *self.timing,
            self.end_of_track,
            self.locked * r.LOCK_BIT | self.perpendicular,
            self.configuration,
            self.precompensation,
        )

    def _version(self) -> None:
        self._answer(VERSION_82077AA)

    def _perpendicular_mode(self) -> None:
        value = self.command[1]
        drives = value if value & r.PERPENDICULAR_OW else self.perpendicular
        self.perpendicular = drives & r.PERPENDICULAR_DRIVES | value & r.PERPENDICULAR_GAP_WGATE

    def _configure(self) -> None:
        self.configuration = self.command[2] & r.CONFIGURE_MASK
        self.precompensation = self.command[3]

    def _lock(self) -> None:
        self.locked = bool(self.command[0] & r.LOCK_BIT)
        self._answer(self.locked << 4)

    # What the transfer asks for.

    @property
    def drive(self) -> FloppyDrive:
        """The drive that the command selects."""
        return self.drives[self.command[SELECT] & r.DS]

    @property
    def uses_dma(self) -> bool:
        """Whether data goes by DMA; else through the FIFO."""
        return not self.timing[1] & r.NON_DMA

    def hears(self, drive: FloppyDrive) -> bool:
        """Whether the drive's motor turns and the data rate fits its disk."""
        motor_on = self.dor >> (r.DOR_MOTOR_SHIFT + drive.number) & 1
        return bool(motor_on) and drive.media is not None and self.rate in drive.media.rates

    def execute_in(self, ns: int) -> None:
        """Go on with the transfer in `ns` nanoseconds."""
        self.phase = Phase.EXECUTION
        self._timer.arm(self._clock.now_ns() + ns)

    def open_fifo(self, to_host: bool) -> None:
        """Ask the host to read from the FIFO or write into it."""
        self.phase = Phase.TO_HOST if to_host else Phase.FROM_HOST
        self._timer.arm(self._clock.now_ns() + PATIENCE_NS)
        self._set_service(True)

    def end_command(self, results: bytes) -> None:
        """Enter the result phase, with an interrupt."""
        self._timer.cancel()
        self._answer(*results)
        self._set_service(True)

    def _due(self, deadline_ns: int) -> None:
        if self.phase == Phase.POLLING:
            self._poll_drives()
        elif self.phase == Phase.EXECUTION:
            try:
                self._transfer.execute()
            except OutOfFrames:
                self.execute_in(SECTOR_NS)  # the guest may go on later: then the same sector is tried again
                raise
        elif self.phase in (Phase.TO_HOST, Phase.FROM_HOST):
            self._set_service(False)  # the result's interrupt has an edge of its own
            self._transfer.lose_data(to_host=self.phase == Phase.TO_HOST)

    # Saved state.

    irq_level = LineLevel("_irq")
    """The interrupt line."""

    deadline_ns = Deadline("_timer")
    """When the next sector passes under the head."""

    def save(self) -> SavedState:
        """The chip and its drives as plain data, without the disks."""
        state = save_fields(self, _DEVICE, _VERSION, _FIELDS)
        state["phase"] = int(self.phase)
        state["transfer"] = self._transfer.save()
        return state | {f"drive{drive.number}": drive.save() for drive in self.drives}

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
        self._transfer.load(saved_part(state, _DEVICE, "transfer"))
        for drive in self.drives:
            drive.load(saved_part(state, _DEVICE, f"drive{drive.number}"))
