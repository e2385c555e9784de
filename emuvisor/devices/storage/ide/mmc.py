"""A CD-ROM drive's SCSI side: command packets in, data or sense out.

Source: MMC-5 (INCITS 430, T10/1675D), section 6; SPC-3 (T10/1416D) for INQUIRY, REQUEST SENSE, MODE SENSE and MODE
SELECT. Knows nothing of ATA: `cdrom` moves what the commands return.
"""

from collections.abc import Callable
from dataclasses import dataclass
from struct import pack

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Fields, Flag, Number, load_fields, save_fields
from emuvisor.devices.storage.blockdevice import BlockDevice, sectors_that_work
from emuvisor.devices.storage.cdimage import BLOCK_SIZE, SECTORS_PER_BLOCK
from emuvisor.devices.storage.ide import sense as s
from emuvisor.devices.storage.ide.sense import CheckCondition, Sense

__all__ = ["PACKET_SIZE", "Blocks", "Discard", "MmcUnit", "Reply"]

PACKET_SIZE = 12

# Operation codes
TEST_UNIT_READY = 0x00
REQUEST_SENSE = 0x03
INQUIRY = 0x12
MODE_SELECT_6 = 0x15
MODE_SENSE_6 = 0x1A
START_STOP_UNIT = 0x1B
PREVENT_ALLOW_MEDIUM_REMOVAL = 0x1E
READ_CAPACITY = 0x25
READ_10 = 0x28
SEEK_10 = 0x2B
READ_TOC = 0x43
GET_CONFIGURATION = 0x46
GET_EVENT_STATUS_NOTIFICATION = 0x4A
READ_DISC_INFORMATION = 0x51
MODE_SELECT_10 = 0x55
MODE_SENSE_10 = 0x5A
READ_12 = 0xA8
READ_DVD_STRUCTURE = 0xAD
SET_CD_SPEED = 0xBB
MECHANISM_STATUS = 0xBD
READ_CD = 0xBE

NOT_HELD_UP = {INQUIRY, REQUEST_SENSE, GET_CONFIGURATION, GET_EVENT_STATUS_NOTIFICATION}
"""Commands that a unit attention does not keep from being carried out."""

MAX_BLOCKS = 0xFFFF
"""Most blocks of one command: bounds the work that one access of the guest can cause to 128 MiB."""

# INQUIRY
CD_ROM_DEVICE = 0x05
REMOVABLE = 0x80
ATAPI_RESPONSE = 0x21  # ATAPI transport version 2, response data format 1 (SFF-8020i)
INQUIRY_LENGTH = 36

# START STOP UNIT
START = 0x01
LOAD_EJECT = 0x02

# Table of contents
FIRST_TRACK = 1
LEAD_OUT = 0xAA
DATA_TRACK = 0x14  # ADR 1: position; control: data track
MSF = 0x02
LEAD_IN_FRAMES = 150
"""Block 0 is at 00:02:00."""
FRAMES_PER_SECOND = 75
TOC_FORMAT_TOC = 0
TOC_FORMAT_SESSION = 1
TOC_FORMAT_FULL = 2
POINT_FIRST_TRACK = 0xA0
POINT_LAST_TRACK = 0xA1
POINT_LEAD_OUT = 0xA2

# READ CD
USER_DATA = 0x10

# READ DISC INFORMATION
COMPLETE = 0x0E  # disc and last session
UNRESTRICTED_USE = 0x20

# GET CONFIGURATION
PROFILE_NONE = 0x0000
PROFILE_CD_ROM = 0x0008
PROFILE_DVD_ROM = 0x0010
FEATURE_PROFILES = 0x0000
FEATURE_CORE = 0x0001
FEATURE_REMOVABLE = 0x0003
FEATURE_RANDOM_READABLE = 0x0010
FEATURE_CD_READ = 0x001E
FEATURE_DVD_READ = 0x001F
CURRENT = 0x01
PERSISTENT = 0x02
VERSION_1 = 1 << 2
VERSION_2 = 2 << 2
ATAPI_INTERFACE = 2
TRAY = 1 << 5  # loading mechanism, here and in the capabilities page
CAN_EJECT = 0x08
CAN_LOCK = 0x01
RT_ALL = 0
RT_CURRENT = 1
RT_ONE = 2
CD_BLOCKS = 99 * 60 * FRAMES_PER_SECOND
"""More blocks than that make a DVD: the addresses of a CD end at 99 minutes."""

# GET EVENT STATUS NOTIFICATION
POLLED = 0x01
MEDIA_CLASS = 4
NO_EVENT_AVAILABLE = 0x80
NO_CHANGE = 0
NEW_MEDIUM = 2
MEDIUM_REMOVED = 3
TRAY_IS_OPEN = 0x01
MEDIUM_PRESENT = 0x02

# MECHANISM STATUS
DOOR_OPEN = 0x10

# Mode pages
PAGE_ERROR_RECOVERY = 0x01
PAGE_CAPABILITIES = 0x2A
PAGE_ALL = 0x3F
PAGE_CONTROL_CHANGEABLE = 1
PAGE_CONTROL_SAVED = 3
READS_CD_R_AND_RW = 0x03
READS_DVD_ROM = 0x08
MULTI_SESSION = 0x40
LOCK_STATE = 0x02
SPEED_KB_S = 50 * 176
"""Fifty times the audio CD's."""
BUFFER_KB = 512

_DEVICE = "mmc-unit"
_VERSION = 1
_FIELDS = Fields(
    {
        "locked": Flag(),
        "tray_open": Flag(),
        "event": Number(MEDIUM_REMOVED),
        "sense_key": Number(0xF),
        "sense_asc": Number(0xFF),
        "sense_ascq": Number(0xFF),
        "information": Number(0xFFFF_FFFF, optional=True),
        "attention": Number(0xFF),
    }
)


@dataclass(frozen=True, slots=True)
class Blocks:
    """A reply: `count` blocks of the disc from block `first`."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Discard:
    """A reply: the host sends `length` bytes, which do not matter."""

    length: int


Reply = bytes | Blocks | Discard
"""What a command moves; b"" for nothing."""


class MmcUnit:
    """The drive with `disc` in it; None: no disc."""

    def __init__(self, disc: BlockDevice | None) -> None:
        self.disc = disc
        self.locked = False
        self.tray_open = False
        self.event = NO_CHANGE
        """The medium event that the host has not fetched yet."""
        self.sense = s.NO_ERROR
        self.information: int | None = None
        self.attention = s.POWER_ON.asc
        """Additional sense code of the unit attention that waits; 0 for none."""
        self._handlers: dict[int, Callable[[bytes], Reply]] = {
            TEST_UNIT_READY: self._test_unit_ready,
            REQUEST_SENSE: self._request_sense,
            INQUIRY: self._inquiry,
            MODE_SELECT_6: lambda cdb: Discard(cdb[4]),
            MODE_SENSE_6: self._mode_sense_6,
            START_STOP_UNIT: self._start_stop,
            PREVENT_ALLOW_MEDIUM_REMOVAL: self._prevent_allow,
            READ_CAPACITY: self._read_capacity,
            READ_10: lambda cdb: self._read(cdb, _number(cdb, 7, 2)),
            SEEK_10: self._seek,
            READ_TOC: self._read_toc,
            GET_CONFIGURATION: self._get_configuration,
            GET_EVENT_STATUS_NOTIFICATION: self._get_event_status,
            READ_DISC_INFORMATION: self._read_disc_information,
            MODE_SELECT_10: lambda cdb: Discard(_number(cdb, 7, 2)),
            MODE_SENSE_10: self._mode_sense_10,
            READ_12: lambda cdb: self._read(cdb, _number(cdb, 6, 4)),
            READ_DVD_STRUCTURE: self._read_dvd_structure,
            SET_CD_SPEED: lambda _: b"",
            MECHANISM_STATUS: self._mechanism_status,
            READ_CD: self._read_cd,
        }

    # The sense data in the form in which it is saved.

    @property
    def sense_key(self) -> int:
        """Sense key of the last command."""
        return self.sense.key

    @sense_key.setter
    def sense_key(self, key: int) -> None:
        self.sense = Sense(key, self.sense.asc, self.sense.ascq)

    @property
    def sense_asc(self) -> int:
        """Additional sense code of the last command."""
        return self.sense.asc

    @sense_asc.setter
    def sense_asc(self, asc: int) -> None:
        self.sense = Sense(self.sense.key, asc, self.sense.ascq)

    @property
    def sense_ascq(self) -> int:
        """Its qualifier."""
        return self.sense.ascq

    @sense_ascq.setter
    def sense_ascq(self, ascq: int) -> None:
        self.sense = Sense(self.sense.key, self.sense.asc, ascq)

    # ---- the host's hand ----

    def insert(self, disc: BlockDevice | None) -> None:
        """Put another disc in, or (None) take the disc out, and close the tray."""
        self.disc = disc
        self.tray_open = False
        self.event = NEW_MEDIUM if disc is not None else MEDIUM_REMOVED
        self.attention = s.MEDIUM_CHANGED.asc

    def reset(self) -> None:
        """As after power-on; the disc stays."""
        self.locked = False
        self.tray_open = False
        self.event = NO_CHANGE
        self.sense = s.NO_ERROR
        self.information = None
        self.attention = s.POWER_ON.asc

    # ---- commands ----

    @property
    def blocks(self) -> int:
        """Blocks of the disc that can be read now; 0 without one."""
        if self.disc is None or self.tray_open:
            return 0
        return self.disc.sectors // SECTORS_PER_BLOCK

    def execute(self, cdb: bytes) -> Reply:
        """Carry out the command packet `cdb` (12 bytes). Raises CheckCondition, after noting its sense data."""
        code = cdb[0]
        handler = self._handlers.get(code)
        try:
            if self.attention and code not in NOT_HELD_UP:
                asc, self.attention = self.attention, 0
                raise CheckCondition(Sense(s.UNIT_ATTENTION, asc))
            if handler is None:
                raise CheckCondition(s.INVALID_OPERATION_CODE)
            reply = handler(cdb)
        except CheckCondition as condition:
            self.note(condition)
            raise
        self.sense, self.information = s.NO_ERROR, None
        return reply

    def note(self, condition: CheckCondition) -> None:
        """Keep the sense data for REQUEST SENSE."""
        self.sense, self.information = condition.sense, condition.information

    def read_blocks(self, first: int, count: int) -> bytes:
        """The content of blocks, or of those before one that the host cannot read. Raises CheckCondition."""
        disc = self._need_medium()
        if first + count > self.blocks:
            raise CheckCondition(s.BLOCK_OUT_OF_RANGE, min(first, 0xFFFF_FFFF))
        try:
            return disc.read(first * SECTORS_PER_BLOCK, count * SECTORS_PER_BLOCK)
        except OSError:
            good = sectors_that_work(
                lambda n: disc.read(first * SECTORS_PER_BLOCK, n * SECTORS_PER_BLOCK), count
            )
        if not good:
            raise CheckCondition(s.UNRECOVERED_READ_ERROR, first)
        return disc.read(first * SECTORS_PER_BLOCK, good * SECTORS_PER_BLOCK)

    def _need_medium(self) -> BlockDevice:
        if self.disc is None or not self.blocks:
            raise CheckCondition(s.NO_MEDIUM_TRAY_OPEN if self.tray_open else s.NO_MEDIUM_TRAY_CLOSED)
        return self.disc

    def _test_unit_ready(self, cdb: bytes) -> Reply:
        self._need_medium()
        return b""

    def _request_sense(self, cdb: bytes) -> Reply:
        if self.sense == s.NO_ERROR and self.attention:
            self.sense = Sense(s.UNIT_ATTENTION, self.attention)
            self.attention = 0
        return self.sense.encode(self.information)[: cdb[4]]

    def _inquiry(self, cdb: bytes) -> Reply:
        if cdb[1] & 1 or cdb[2]:  # vital product data
            raise CheckCondition(s.INVALID_FIELD)
        head = bytes((CD_ROM_DEVICE, REMOVABLE, 0, ATAPI_RESPONSE, INQUIRY_LENGTH - 5, 0, 0, 0))
        return (head + b"EMUVISOR" + b"CD-ROM".ljust(16) + b"1.0 ")[: _number(cdb, 3, 2)]

    def _start_stop(self, cdb: bytes) -> Reply:
        if cdb[4] & LOAD_EJECT:
            opening = not cdb[4] & START
            if opening and self.locked:
                raise CheckCondition(s.REMOVAL_PREVENTED)
            if opening != self.tray_open:
                self.tray_open = opening
                if self.disc is not None:
                    self.event = MEDIUM_REMOVED if opening else NEW_MEDIUM
                    self.attention = 0 if opening else s.MEDIUM_CHANGED.asc
        return b""

    def _prevent_allow(self, cdb: bytes) -> Reply:
        self.locked = bool(cdb[4] & 1)
        return b""

    # ---- reading ----

    def _check_range(self, first: int, count: int) -> None:
        self._need_medium()
        if first + count > self.blocks:
            raise CheckCondition(s.BLOCK_OUT_OF_RANGE, max(first, self.blocks))

    def _read(self, cdb: bytes, count: int) -> Reply:
        first = _number(cdb, 2, 4)
        self._check_range(first, count)
        if count > MAX_BLOCKS:
            raise CheckCondition(s.INVALID_FIELD)
        return Blocks(first, count) if count else b""

    def _read_cd(self, cdb: bytes) -> Reply:
        if cdb[9] == 0:  # nothing of the blocks is wanted
            self._check_range(_number(cdb, 2, 4), _number(cdb, 6, 3))
            return b""
        if cdb[9] != USER_DATA:
            raise CheckCondition(s.INVALID_FIELD)
        return self._read(cdb, _number(cdb, 6, 3))

    def _seek(self, cdb: bytes) -> Reply:
        self._check_range(_number(cdb, 2, 4), 1)
        return b""

    def _read_capacity(self, cdb: bytes) -> Reply:
        self._need_medium()
        return pack(">II", self.blocks - 1, BLOCK_SIZE)

    def _read_dvd_structure(self, cdb: bytes) -> Reply:
        self._need_medium()
        raise CheckCondition(s.INCOMPATIBLE_FORMAT)

    # ---- what is on the disc ----

    def _read_toc(self, cdb: bytes) -> Reply:
        self._need_medium()
        toc_format = cdb[2] & 0xF or cdb[9] >> 6  # the latter is where SFF-8020i had it
        msf, start = bool(cdb[1] & MSF), cdb[6]
        if toc_format == TOC_FORMAT_TOC:
            if start > FIRST_TRACK and start != LEAD_OUT:
                raise CheckCondition(s.INVALID_FIELD)
            tracks = [(FIRST_TRACK, 0)] if start <= FIRST_TRACK else []
            tracks.append((LEAD_OUT, self.blocks))
            body = b"".join(
                bytes((0, DATA_TRACK, track, 0)) + _position(block, msf) for track, block in tracks
            )
        elif toc_format == TOC_FORMAT_SESSION:
            body = bytes((0, DATA_TRACK, FIRST_TRACK, 0)) + _position(0, msf)
        elif toc_format == TOC_FORMAT_FULL:
            points = (
                (POINT_FIRST_TRACK, bytes((FIRST_TRACK, 0, 0))),
                (POINT_LAST_TRACK, bytes((FIRST_TRACK, 0, 0))),
                (POINT_LEAD_OUT, _position(self.blocks, True)[1:]),
                (FIRST_TRACK, _position(0, True)[1:]),
            )
            body = b"".join(bytes((1, DATA_TRACK, 0, point, 0, 0, 0, 0)) + place for point, place in points)
        else:
            raise CheckCondition(s.INVALID_FIELD)
        data = bytes((FIRST_TRACK, FIRST_TRACK)) + body
        return (pack(">H", len(data)) + data)[: _number(cdb, 7, 2)]

    def _read_disc_information(self, cdb: bytes) -> Reply:
        self._need_medium()
        head = bytes((COMPLETE, FIRST_TRACK, 1, FIRST_TRACK, FIRST_TRACK, UNRESTRICTED_USE))
        return (pack(">H", 32) + head.ljust(32, b"\0"))[: _number(cdb, 7, 2)]

    # ---- what the drive is ----

    @property
    def _profile(self) -> int:
        if not self.blocks:
            return PROFILE_NONE
        return PROFILE_DVD_ROM if self.blocks > CD_BLOCKS else PROFILE_CD_ROM

    def _features(self) -> list[tuple[int, bool, int, bytes]]:
        """Feature code, whether it is current, version and persistence, data."""
        profile = self._profile
        profiles = b"".join(
            pack(">HBx", code, CURRENT * (code == profile)) for code in (PROFILE_DVD_ROM, PROFILE_CD_ROM)
        )
        removable = bytes((TRAY | CAN_EJECT | CAN_LOCK, 0, 0, 0))
        return [
            (FEATURE_PROFILES, True, PERSISTENT, profiles),
            (FEATURE_CORE, True, PERSISTENT | VERSION_2, pack(">II", ATAPI_INTERFACE, 0)),
            (FEATURE_REMOVABLE, True, PERSISTENT | VERSION_1, removable),
            (FEATURE_RANDOM_READABLE, bool(profile), 0, pack(">IHH", BLOCK_SIZE, 1, 0)),
            (FEATURE_CD_READ, profile == PROFILE_CD_ROM, VERSION_2, bytes(4)),
            (FEATURE_DVD_READ, profile == PROFILE_DVD_ROM, 0, b""),
        ]

    def _get_configuration(self, cdb: bytes) -> Reply:
        wanted, start = cdb[1] & 3, _number(cdb, 2, 2)
        if wanted > RT_ONE:
            raise CheckCondition(s.INVALID_FIELD)
        body = b"".join(
            pack(">HBB", code, flags | CURRENT * current, len(data)) + data
            for code, current, flags, data in self._features()
            if (code == start if wanted == RT_ONE else code >= start and (current or wanted == RT_ALL))
        )
        return (pack(">IHH", 4 + len(body), 0, self._profile) + body)[: _number(cdb, 7, 2)]

    def _get_event_status(self, cdb: bytes) -> Reply:
        if not cdb[1] & POLLED:
            raise CheckCondition(s.INVALID_FIELD)
        length = _number(cdb, 7, 2)
        if not cdb[4] & 1 << MEDIA_CLASS:
            return pack(">HBB", 2, NO_EVENT_AVAILABLE, 1 << MEDIA_CLASS)[:length]
        status = TRAY_IS_OPEN * self.tray_open | MEDIUM_PRESENT * (self.blocks > 0)
        data = pack(">HBBBBxx", 6, MEDIA_CLASS, 1 << MEDIA_CLASS, self.event, status)
        self.event = NO_CHANGE
        return data[:length]

    def _mechanism_status(self, cdb: bytes) -> Reply:
        return pack(">BBxxxBH", 0, DOOR_OPEN * self.tray_open, 0, 0)[: _number(cdb, 8, 2)]

    def _mode_pages(self, cdb: bytes) -> bytes:
        control, wanted = cdb[2] >> 6, cdb[2] & 0x3F
        if control == PAGE_CONTROL_SAVED:
            raise CheckCondition(s.SAVING_NOT_SUPPORTED)
        mechanism = TRAY | CAN_EJECT | CAN_LOCK | LOCK_STATE * self.locked
        pages = {
            PAGE_ERROR_RECOVERY: bytes(6),
            PAGE_CAPABILITIES: pack(
                ">BBBBBBHHHHxxxx",
                READS_CD_R_AND_RW | READS_DVD_ROM,
                0,
                MULTI_SESSION,
                0,
                mechanism,
                0,
                SPEED_KB_S,
                0,
                BUFFER_KB,
                SPEED_KB_S,
            ),
        }
        chosen = pages if wanted == PAGE_ALL else {wanted: pages[wanted]} if wanted in pages else None
        if chosen is None:
            raise CheckCondition(s.INVALID_FIELD)
        return b"".join(
            bytes((code, len(page))) + (bytes(len(page)) if control == PAGE_CONTROL_CHANGEABLE else page)
            for code, page in chosen.items()
        )

    def _mode_sense_6(self, cdb: bytes) -> Reply:
        pages = self._mode_pages(cdb)
        return (bytes((3 + len(pages), 0, 0, 0)) + pages)[: cdb[4]]

    def _mode_sense_10(self, cdb: bytes) -> Reply:
        pages = self._mode_pages(cdb)
        return (pack(">H", 6 + len(pages)) + bytes(6) + pages)[: _number(cdb, 7, 2)]

    # ---- saved state ----

    def save(self) -> SavedState:
        """Everything but the disc."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)


def _number(cdb: bytes, offset: int, size: int) -> int:
    """A big-endian number of the command packet."""
    return int.from_bytes(cdb[offset : offset + size], "big")


def _position(block: int, msf: bool) -> bytes:
    """A block's address in 4 bytes, as a number or as minute, second and frame."""
    if not msf:
        return pack(">I", block)
    seconds, frame = divmod(block + LEAD_IN_FRAMES, FRAMES_PER_SECOND)
    return bytes((0, min(0xFF, seconds // 60), seconds % 60, frame))
