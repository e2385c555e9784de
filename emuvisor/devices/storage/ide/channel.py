"""An IDE channel: two drives on one cable, and the host's side of it.

Source: ATA/ATAPI-6 (T13/1410D), sections 6.2 (registers) and 9.16 (a single device). Both drives hear every register
write; the DEV bit says which of them answers and gets the command. Device 0 answers for a missing device 1, with a
status of 0; where nobody answers, the cable's pull-down on DD7 makes every register 7Fh.
"""

from emuvisor.bus.device import SavedState, check_saved
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import Fields, Flag, Number, load_fields, save_fields, saved_part
from emuvisor.devices.storage.ide import registers as r
from emuvisor.devices.storage.ide.drive import Drive
from emuvisor.errors import SnapshotError

__all__ = ["ControlBlock", "IdeChannel"]

FLOATING = 0x7F
FLOATING_DATA = 0xFF7F_FF7F
NOTHING = 0x00
"""What device 0 answers for a missing device 1 when asked for its status."""

_DEVICE = "ide-channel"
_VERSION = 1
_FIELDS = Fields({"slave_selected": Flag(), "control": Number(0xFF)})


class _NoDrive(Drive):
    """Stands where no drive is, so that the way to the data register has no special case."""

    kind = "none"

    def block_read(self) -> None:
        """It has no block."""

    def block_written(self, data: bytes) -> None:
        """It wants no block."""

    def dma_peek(self, length: int) -> bytes:
        """Nothing: it never asks for DMA."""
        return b""

    def dma_advance(self, length: int) -> None:
        """Nothing moves."""

    def dma_accept(self, data: bytes) -> None:
        """Nothing is taken."""


class IdeChannel:
    """The command block registers, 8 ports; `control_block` is the alternate status port.

    `irq` is the channel's INTRQ. A drive belongs to one channel.
    """

    def __init__(
        self,
        *,
        irq: InterruptLine,
        master: Drive | None = None,
        slave: Drive | None = None,
        name: str = "ide",
    ) -> None:
        self.name = name
        self.drives = (master, slave)
        self.slave_selected = False
        self.control = 0
        self.control_block = ControlBlock(self)
        self._irq = irq
        self._nobody = _NoDrive("")
        self.selected: Drive = master or self._nobody
        """The drive that answers for the data register."""
        for number, drive in enumerate(self.drives):
            if drive is not None:
                drive.number = number
                drive.has_peer = self.drives[1 - number] is not None
                drive.on_interrupt = self._drive_line

    def _select(self, slave: bool) -> None:
        self.slave_selected = slave
        self.selected = self.drives[slave] or self._nobody

    def _drive_line(self) -> None:
        """INTRQ is the selected drive's, unless the host has switched it off."""
        self._irq.set(self.selected.interrupt and not self.control & r.NIEN)

    # ---- command block ----

    def read(self, offset: int, size: int) -> int:
        """Registers of the selected drive; the data register takes 16 and 32 bits at once."""
        if offset == r.DATA:
            drive = self.selected
            index = drive.index
            if size == 2 and index < drive.fast_in:  # three in four port accesses of a PIO guest
                drive.index = index + 1
                return drive.words[index]
            if drive is self._nobody:
                return FLOATING_DATA & (1 << 8 * size) - 1
            return drive.read_data(size)
        if size == 1:
            return self._read_register(offset)
        return sum(self._read_register(offset + i) << 8 * i for i in range(size))

    def write(self, offset: int, value: int, size: int) -> None:
        """Registers of both drives; data and command of the selected one."""
        if offset == r.DATA:
            drive = self.selected
            index = drive.index
            if size == 2 and index < drive.fast_out:
                drive.words[index] = value
                drive.index = index + 1
            else:
                drive.write_data(value, size)
            return
        for i in range(size):
            self._write_register(offset + i, value >> 8 * i & 0xFF)

    def _read_register(self, offset: int) -> int:
        value = self.peek(offset)
        if offset == r.STATUS:
            self.selected.acknowledge()
        return value

    def peek(self, offset: int) -> int:
        """What a register (not data) reads as; without the effects of reading it."""
        drive, master = self.selected, self.drives[0]
        if drive is self._nobody:
            if not self.slave_selected or master is None:
                return FLOATING
            if offset == r.STATUS:
                return NOTHING
            drive = master
        return drive.read_register(offset, bool(self.control & r.HOB))

    def _write_register(self, offset: int, value: int) -> None:
        self.control &= ~r.HOB
        if offset == r.COMMAND:
            if value == r.EXECUTE_DEVICE_DIAGNOSTIC:
                self._diagnose()
            elif self.selected is not self._nobody:
                self.selected.execute(value)
            return
        for drive in self.drives:
            if drive is not None:
                drive.write_register(offset, value)
        if offset == r.DEVICE:
            self._select(bool(value & r.DEV))
            self._drive_line()

    def _diagnose(self) -> None:
        """EXECUTE DEVICE DIAGNOSTIC is for both drives; device 0 reports for both."""
        if self.control & r.SRST:
            return
        for drive in self.drives:
            if drive is not None:
                drive.interrupt = False
                drive.diagnose()
        self._select(False)
        self.selected.interrupt = self.selected is not self._nobody
        self._drive_line()

    # ---- control block ----

    def write_control(self, value: int) -> None:
        """The device control register: HOB, SRST, nIEN."""
        before, self.control = self.control, value
        if (before ^ value) & r.SRST:
            for drive in self.drives:
                if drive is not None:
                    drive.hold_reset() if value & r.SRST else drive.soft_reset()
            self._select(False)
        self._drive_line()

    def reset(self) -> None:
        """The RESET- pin of the cable."""
        self.control = 0
        for drive in self.drives:
            if drive is not None:
                drive.reset()
        self._select(False)
        self._drive_line()

    # ---- saved state ----

    def save(self) -> SavedState:
        """The channel and its drives."""
        state = save_fields(self, _DEVICE, _VERSION, _FIELDS)
        for place, drive in zip(("master", "slave"), self.drives, strict=True):
            state[place] = {} if drive is None else drive.save()
        return state

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave; the drives are as they were. Raises SnapshotError."""
        check_saved(state, _DEVICE, _VERSION)
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
        for place, drive in zip(("master", "slave"), self.drives, strict=True):
            part = saved_part(state, _DEVICE, place)
            if bool(part) != (drive is not None):
                there, saved = ("one", "none") if drive is not None else ("none", "one")
                raise SnapshotError(
                    f"{_DEVICE}: {self.name} has {there} as {place}, the saved state has {saved}"
                )
            if drive is not None:
                drive.load(part)
        self._select(self.slave_selected)
        self._drive_line()


class ControlBlock:
    """The one port beside the command block: alternate status when read, device control when written."""

    def __init__(self, channel: IdeChannel) -> None:
        self._channel = channel
        self.name = f"{channel.name}-control"

    def read(self, offset: int, size: int) -> int:
        """The status register, without acknowledging the interrupt."""
        return self._channel.peek(r.STATUS)

    def write(self, offset: int, value: int, size: int) -> None:
        """Device control."""
        self._channel.write_control(value)

    def reset(self) -> None:
        """The channel's reset covers it."""
