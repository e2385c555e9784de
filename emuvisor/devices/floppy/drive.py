"""A floppy drive: the head on its tracks, the disk in it, and the change line."""

from collections.abc import Callable

from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import OPTIONAL_TIME, Deadline, Fields, Flag, Number, load_fields, save_fields
from emuvisor.devices.floppy.media import EMPTY_DRIVE_TYPE, SIDES, MediaFormat, format_of
from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.units import NS_PER_US

__all__ = ["FloppyDrive"]

LAST_TRACK = 83
"""Where the head meets its stop."""
RECALIBRATE_STEPS = 79
"""Step pulses that the controller gives before it stops waiting for track 0."""

SETTLE_NS = 100 * NS_PER_US
STEP_NS = 20 * NS_PER_US
"""A seek's time. Real ones take 3 ms a step; drivers only need that the interrupt comes later."""

_DEVICE = "floppy-drive"
_VERSION = 1
_FIELDS = Fields(
    {
        "track": Number(LAST_TRACK),
        "cylinder": Number(0xFF),
        "target": Number(0xFF),
        "recalibrating": Flag(),
        "failed": Flag(),
        "changed": Flag(),
        "deadline_ns": OPTIONAL_TIME,
    }
)


class FloppyDrive:
    """What hangs at one of the controller's four drive selects; not `present`, nothing does.

    `on_arrival(drive)` hears the end of each seek. The disk is not part of the saved state.
    """

    def __init__(
        self, number: int, *, clock: Clock, on_arrival: Callable[["FloppyDrive"], None], present: bool
    ) -> None:
        self.number = number
        self.present = present
        self.disk: BlockDevice | None = None
        self.media: MediaFormat | None = None
        self._clock = clock
        self._timer = clock.timer(self._arrive, f"{_DEVICE}-{number}")
        self._on_arrival = on_arrival
        self.track = 0
        """Where the head really is."""
        self.cylinder = 0
        """Where the controller believes it is (PCN)."""
        self.target = 0
        self.recalibrating = False
        self.failed = False
        """The last recalibration did not find track 0."""
        self.changed = True
        """The disk was changed, and the head has not stepped since."""

    @property
    def drive_type(self) -> int:
        """The type for the CMOS byte 10h; 0 without a drive."""
        if not self.present:
            return 0
        return EMPTY_DRIVE_TYPE if self.media is None else self.media.drive_type

    @property
    def change_line(self) -> bool:
        """Whether the drive says that its disk was changed, or that there is none."""
        return self.present and (self.changed or self.disk is None)

    @property
    def at_track_0(self) -> bool:
        """The drive's track 0 signal."""
        return self.present and self.track == 0

    @property
    def write_protected(self) -> bool:
        """The drive's write protect signal."""
        return self.disk is not None and self.disk.read_only

    def insert(self, disk: BlockDevice | None) -> None:
        """Change the disk; None takes it out. Raises ImageError when no floppy disk has its size."""
        self.media = None if disk is None else format_of(disk)
        self.disk = disk
        self.changed = True

    def seek(self, cylinder: int) -> None:
        """Begin to move the head to `cylinder`."""
        self.target = cylinder
        self.recalibrating = False
        self._start(abs(cylinder - self.cylinder))

    def recalibrate(self) -> None:
        """Begin to move the head outwards until track 0 is found, 79 tracks at most."""
        self.recalibrating = True
        self._start(min(self.track, RECALIBRATE_STEPS))

    @property
    def seeking(self) -> bool:
        """Whether the head is on its way."""
        return self._timer.deadline_ns is not None

    def stop(self) -> None:
        """Give up the seek that is under way."""
        self._timer.cancel()

    def move(self, cylinder: int) -> None:
        """Step the head by what the controller believes lies between it and `cylinder`."""
        self._step(cylinder - self.cylinder)
        self.cylinder = cylinder

    def read(self, side: int, sector: int) -> bytes:
        """Sector `sector` (from 1) of the track under the head; the format must have it. Raises OSError."""
        disk, lba = self._find(side, sector)
        return disk.read(lba, 1)

    def write(self, side: int, sector: int, data: bytes) -> None:
        """Store a sector of the track under the head. Raises OSError."""
        disk, lba = self._find(side, sector)
        disk.write(lba, data)

    deadline_ns = Deadline("_timer")
    """When the seek ends."""

    def save(self) -> SavedState:
        """Where the head is, and the change line, as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over a saved state. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)

    def _find(self, side: int, sector: int) -> tuple[BlockDevice, int]:
        assert self.disk is not None
        assert self.media is not None
        return self.disk, (self.track * SIDES + side) * self.media.sectors + sector - 1

    def _start(self, steps: int) -> None:
        self._timer.arm(self._clock.now_ns() + SETTLE_NS + steps * STEP_NS)

    def _arrive(self, deadline_ns: int) -> None:
        if self.recalibrating:
            self._step(-min(self.track, RECALIBRATE_STEPS))
            self.cylinder = 0
            self.failed = not self.at_track_0
        else:
            self.move(self.target)
            self.failed = False
        self._on_arrival(self)

    def _step(self, steps: int) -> None:
        if steps and self.disk is not None:
            self.changed = False
        self.track = max(0, min(self.track + steps, LAST_TRACK))
