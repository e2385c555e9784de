"""The 256 words by which a drive identifies itself: ATA/ATAPI-6 (T13/1410D), sections 8.15.8 and 8.16.8."""

from dataclasses import dataclass
from struct import pack

from emuvisor.devices.storage.ide import registers as r
from emuvisor.devices.storage.ide.geometry import Geometry

__all__ = ["MAX_MULTIPLE", "DiskIdentity", "identify_disk", "identify_packet_device"]

WORDS = 256
FIRMWARE = "1.0"

MAX_MULTIPLE = 16
"""Most sectors of a block of READ MULTIPLE."""
MAX_TRIM_BLOCKS = 8
"""Most blocks of ranges in one DATA SET MANAGEMENT."""
MAX_LBA28 = 0x0FFF_FFFF
"""Most sectors that 28-bit commands reach."""

# Word numbers
GENERAL = 0
CYLINDERS = 1
HEADS = 3
SECTORS = 6
SERIAL = 10
FIRMWARE_REVISION = 23
MODEL = 27
MULTIPLE_MAX = 47
CAPABILITIES = 49
CAPABILITIES_2 = 50
PIO_TIMING = 51
FIELDS_VALID = 53
CURRENT_CYLINDERS = 54
CURRENT_CAPACITY = 57
MULTIPLE_SETTING = 59
LBA28_CAPACITY = 60
MULTIWORD_MODES = 63
PIO_MODES = 64
CYCLE_TIMES = 65
MAJOR_VERSION = 80
COMMAND_SETS = 82
COMMAND_SETS_2 = 83
COMMAND_SETS_3 = 84
ENABLED_SETS = 85
ULTRA_MODES = 88
RESET_RESULT = 93
LBA48_CAPACITY = 100
MAX_TRIM = 105
DATA_SET_SUPPORT = 169
INTEGRITY = 255

FIXED = 1 << 6
"""General configuration of a disk: not a removable one."""
PACKET_GENERAL = 0x85C0
"""ATAPI, a CD-ROM (type 5), removable, DRQ within 50 us of PACKET, packets of 12 bytes."""
MULTIPLE_VALID = 0x8000
MULTIPLE_SET = 0x0100
HAS_DMA = 1 << 8
HAS_LBA = 1 << 9
HAS_IORDY = 1 << 11
STANDARD_TIMERS = 1 << 13
SHALL_BE_ONE = 1 << 14
"""Bit 14 set and 15 clear makes words 50, 83, 84, 87 and 93 valid."""
PIO_2 = 0x0200
ALL_FIELDS = 0x07
"""Words 54-58, 64-70 and 88 are valid."""
PIO_3_AND_4 = 0x03
CYCLE_NS = 120
"""Multiword DMA 2, PIO 4."""
ATA_4_TO_6 = 0x70

SET_POWER_MANAGEMENT = 1 << 3
SET_PACKET = 1 << 4
SET_WRITE_CACHE = 1 << 5
SET_LOOK_AHEAD = 1 << 6
SET_DEVICE_RESET = 1 << 9
SET_NOP = 1 << 14
SET_LBA48 = 1 << 10
SET_FLUSH_CACHE = 1 << 12
SET_FLUSH_CACHE_EXT = 1 << 13

# Hardware reset result
CABLE_80 = 1 << 13
DEVICE_1_PASSED = 1 << 11
DEVICE_1_BY_JUMPER = 1 << 9
DEVICE_1_ONE = 1 << 8
ANSWERS_FOR_DEVICE_1 = 1 << 6
SAW_DEVICE_1 = 0x30
DEVICE_0_PASSED = 1 << 3
DEVICE_0_BY_JUMPER = 1 << 1
DEVICE_0_ONE = 1 << 0

TRIM = 1 << 0
SIGNATURE = 0xA5
"""Low byte of the integrity word; the high byte makes the sum of all bytes zero."""


@dataclass(frozen=True, slots=True)
class DiskIdentity:
    """What differs between disks, and with their settings."""

    serial: str
    sectors: int
    geometry: Geometry
    current: Geometry
    multiple: int
    transfer_mode: int
    write_cache: bool
    look_ahead: bool
    trim: bool
    number: int
    has_peer: bool


class _Page:
    """The words under construction."""

    def __init__(self) -> None:
        self.words = [0] * WORDS

    def __setitem__(self, word: int, value: int) -> None:
        self.words[word] = value

    def number(self, word: int, value: int, count: int) -> None:
        """A number in `count` words, the lowest first."""
        for i in range(count):
            self.words[word + i] = value >> 16 * i & 0xFFFF

    def text(self, word: int, text: str, count: int) -> None:
        """A string in `count` words, padded with blanks, the first character in a word's high byte."""
        padded = text.ljust(2 * count).encode("ascii")
        for i in range(count):
            self.words[word + i] = int.from_bytes(padded[2 * i : 2 * i + 2], "big")

    def modes(self, transfer_mode: int) -> None:
        """The transfer modes that there are, and which is set."""
        kind, number = transfer_mode & ~r.MODE_NUMBER_MASK, transfer_mode & r.MODE_NUMBER_MASK
        for word, dma in ((MULTIWORD_MODES, r.MULTIWORD_DMA), (ULTRA_MODES, r.ULTRA_DMA)):
            supported = (2 << r.HIGHEST_MODE[dma]) - 1
            self.words[word] = supported | (0x100 << number if kind == dma else 0)
        self.words[FIELDS_VALID] = ALL_FIELDS
        self.words[PIO_TIMING] = PIO_2
        self.words[PIO_MODES] = PIO_3_AND_4
        self.words[CYCLE_TIMES : CYCLE_TIMES + 4] = [CYCLE_NS] * 4

    def commands(self, sets: int, enabled: int, sets_2: int) -> None:
        """The command sets that there are, and which are enabled."""
        self.words[MAJOR_VERSION] = ATA_4_TO_6
        self.words[COMMAND_SETS : COMMAND_SETS_3 + 1] = [sets, SHALL_BE_ONE | sets_2, SHALL_BE_ONE]
        self.words[ENABLED_SETS : ENABLED_SETS + 3] = [enabled, sets_2, SHALL_BE_ONE]

    def reset_result(self, number: int, has_peer: bool) -> None:
        """What the drive found out about the cable at its reset."""
        result = SHALL_BE_ONE | CABLE_80
        if number:
            result |= DEVICE_1_PASSED | DEVICE_1_BY_JUMPER | DEVICE_1_ONE
        else:
            result |= DEVICE_0_PASSED | DEVICE_0_BY_JUMPER | DEVICE_0_ONE
            result |= SAW_DEVICE_1 if has_peer else ANSWERS_FOR_DEVICE_1
        self.words[RESET_RESULT] = result

    def encode(self) -> bytes:
        """The 512 bytes, with their checksum."""
        self.words[INTEGRITY] = SIGNATURE
        total = sum((word & 0xFF) + (word >> 8) for word in self.words)
        self.words[INTEGRITY] |= (-total & 0xFF) << 8
        return pack(f"<{WORDS}H", *self.words)


def identify_disk(disk: DiskIdentity) -> bytes:
    """What IDENTIFY DEVICE returns."""
    page = _Page()
    page[GENERAL] = FIXED
    page[CYLINDERS] = disk.geometry.cylinders
    page[HEADS] = disk.geometry.heads
    page[SECTORS] = disk.geometry.sectors
    page.text(SERIAL, disk.serial, 10)
    page.text(FIRMWARE_REVISION, FIRMWARE, 4)
    page.text(MODEL, "emuvisor disk", 20)
    page[MULTIPLE_MAX] = MULTIPLE_VALID | MAX_MULTIPLE
    page[CAPABILITIES] = HAS_DMA | HAS_LBA | HAS_IORDY | STANDARD_TIMERS
    page[CAPABILITIES_2] = SHALL_BE_ONE
    current = disk.current
    for i, value in enumerate((current.cylinders, current.heads, current.sectors)):
        page[CURRENT_CYLINDERS + i] = value
    page.number(CURRENT_CAPACITY, current.capacity, 2)
    page[MULTIPLE_SETTING] = MULTIPLE_SET | disk.multiple if disk.multiple else 0
    page.number(LBA28_CAPACITY, min(disk.sectors, MAX_LBA28), 2)
    page.modes(disk.transfer_mode)
    always = SET_NOP | SET_POWER_MANAGEMENT
    enabled = SET_WRITE_CACHE * disk.write_cache | SET_LOOK_AHEAD * disk.look_ahead
    page.commands(
        sets=always | SET_WRITE_CACHE | SET_LOOK_AHEAD,
        enabled=always | enabled,
        sets_2=SET_LBA48 | SET_FLUSH_CACHE | SET_FLUSH_CACHE_EXT,
    )
    page.number(LBA48_CAPACITY, disk.sectors, 4)
    if disk.trim:
        page[MAX_TRIM] = MAX_TRIM_BLOCKS
        page[DATA_SET_SUPPORT] = TRIM
    page.reset_result(disk.number, disk.has_peer)
    return page.encode()


def identify_packet_device(serial: str, transfer_mode: int, number: int, has_peer: bool) -> bytes:
    """What IDENTIFY PACKET DEVICE returns."""
    page = _Page()
    page[GENERAL] = PACKET_GENERAL
    page.text(SERIAL, serial, 10)
    page.text(FIRMWARE_REVISION, FIRMWARE, 4)
    page.text(MODEL, "emuvisor CD-ROM", 20)
    page[CAPABILITIES] = HAS_DMA | HAS_LBA | HAS_IORDY
    page.modes(transfer_mode)
    sets = SET_NOP | SET_DEVICE_RESET | SET_PACKET | SET_POWER_MANAGEMENT
    page.commands(sets=sets, enabled=sets, sets_2=0)
    page.reset_result(number, has_peer)
    return page.encode()
