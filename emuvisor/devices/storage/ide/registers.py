"""Registers, bits and phases of an ATA device: ATA/ATAPI-6 (T13/1410D), sections 6 and 7."""

__all__ = ["Phase"]

# The command block, by offset. Some have another name when written.
DATA = 0
ERROR = FEATURES = 1
SECTOR_COUNT = INTERRUPT_REASON = 2
LBA_LOW = 3
LBA_MID = BYTE_COUNT_LOW = 4
LBA_HIGH = BYTE_COUNT_HIGH = 5
DEVICE = 6
STATUS = COMMAND = 7
COMMAND_BLOCK_PORTS = 8

# Status
BSY = 0x80
DRDY = 0x40
DSC = 0x10  # seek complete, of ATA-3 and before; today command dependent
DRQ = 0x08
ERR = CHK = 0x01

# Error
UNC = 0x40
IDNF = 0x10
ABRT = 0x04
SENSE_KEY_SHIFT = 4
DIAGNOSTIC_PASSED = 0x01

# Device
LBA = 0x40
DEV = 0x10
HEAD_MASK = 0x0F

# Device control
HOB = 0x80
SRST = 0x04
NIEN = 0x02

# Features of PACKET
PACKET_DMA = 0x01

# Interrupt reason
COD = 0x01  # command or status instead of data
IO = 0x02  # to the host

# Signatures after reset (section 9.12): sector count, LBA low, mid, high
DISK_SIGNATURE = (1, 1, 0x00, 0x00)
PACKET_SIGNATURE = (1, 1, 0x14, 0xEB)

# Command codes (section 8)
NOP = 0x00
DATA_SET_MANAGEMENT = 0x06  # ATA8-ACS-2
DEVICE_RESET = 0x08
RECALIBRATE = 0x10  # ATA-3
READ_SECTORS = 0x20
READ_SECTORS_NO_RETRY = 0x21  # ATA-4, like the others without retry
READ_SECTORS_EXT = 0x24
READ_DMA_EXT = 0x25
READ_NATIVE_MAX_EXT = 0x27
READ_MULTIPLE_EXT = 0x29
WRITE_SECTORS = 0x30
WRITE_SECTORS_NO_RETRY = 0x31
WRITE_SECTORS_EXT = 0x34
WRITE_DMA_EXT = 0x35
WRITE_MULTIPLE_EXT = 0x39
READ_VERIFY = 0x40
READ_VERIFY_NO_RETRY = 0x41
READ_VERIFY_EXT = 0x42
SEEK = 0x70
EXECUTE_DEVICE_DIAGNOSTIC = 0x90
INITIALIZE_DEVICE_PARAMETERS = 0x91  # ATA-5
PACKET = 0xA0
IDENTIFY_PACKET_DEVICE = 0xA1
READ_MULTIPLE = 0xC4
WRITE_MULTIPLE = 0xC5
SET_MULTIPLE_MODE = 0xC6
READ_DMA = 0xC8
READ_DMA_NO_RETRY = 0xC9
WRITE_DMA = 0xCA
WRITE_DMA_NO_RETRY = 0xCB
STANDBY_IMMEDIATE = 0xE0
IDLE_IMMEDIATE = 0xE1
STANDBY = 0xE2
IDLE = 0xE3
CHECK_POWER_MODE = 0xE5
SLEEP = 0xE6
FLUSH_CACHE = 0xE7
FLUSH_CACHE_EXT = 0xEA
IDENTIFY_DEVICE = 0xEC
SET_FEATURES = 0xEF
READ_NATIVE_MAX = 0xF8

# Power modes, as CHECK POWER MODE reports them
MODE_STANDBY = 0x00
MODE_ACTIVE = 0xFF

# Subcommands of SET FEATURES
ENABLE_WRITE_CACHE = 0x02
SET_TRANSFER_MODE = 0x03
DISABLE_READ_LOOK_AHEAD = 0x55
DISABLE_REVERTING = 0x66
DISABLE_WRITE_CACHE = 0x82
ENABLE_READ_LOOK_AHEAD = 0xAA
ENABLE_REVERTING = 0xCC

# Transfer modes: bits 7-3 are the kind, 2-0 the number
MODE_NUMBER_MASK = 0x07
PIO_DEFAULT = 0x00
PIO_FLOW_CONTROL = 0x08
MULTIWORD_DMA = 0x20
ULTRA_DMA = 0x40
HIGHEST_MODE = {PIO_DEFAULT: 1, PIO_FLOW_CONTROL: 4, MULTIWORD_DMA: 2, ULTRA_DMA: 5}
"""The highest number of each kind that our drives have."""


class Phase:
    """What a drive does with data: the values of `Drive.phase`."""

    IDLE = 0
    PIO_IN = 1
    """The host reads a block from the data register."""
    PIO_OUT = 2
    """The host writes a block to the data register."""
    DMA_IN = 3
    """The drive has data for the host's memory."""
    DMA_OUT = 4
    """The drive waits for data from the host's memory."""
    COMMAND_PACKET = 5
    """The host writes a command packet to the data register."""
    HOST_FULL = 6
    """A command that changes the disk waits until the host has room for it."""
    THROTTLED = 7
    """A command waits until the disk's limits allow it to begin."""
    LAST = THROTTLED
