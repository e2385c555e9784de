"""Registers of the 82077AA and their bits, by the names of Intel's data sheet (PS/2 mode)."""

# Offsets from 3F0h.
SRA = 0
SRB = 1
DOR = 2
TDR = 3
MSR = 4
DSR = 4
FIFO = 5
DIR = 7
CCR = 7

# Status register A.
SRA_INT_PENDING = 0x80
SRA_NO_DRV2 = 0x40
SRA_NOT_TRK0 = 0x10
SRA_HDSEL = 0x08
SRA_NO_INDEX = 0x04
SRA_NOT_WP = 0x02

# Status register B.
SRB_ONES = 0xC0
SRB_DRIVE_SEL0_SHIFT = 5
SRB_MOTORS = 0x03

# Digital output register.
DOR_DRIVE_SEL = 0x03
DOR_RESET = 0x04
"""The chip is held in reset while this is 0."""
DOR_MOTOR_SHIFT = 4

# Tape drive register.
TDR_TAPE_SEL = 0x03

# Main status register.
MSR_RQM = 0x80
MSR_DIO = 0x40
MSR_NON_DMA = 0x20
MSR_CMD_BSY = 0x10

# Data rate select register; the configuration control register has the rate only.
DSR_SW_RESET = 0x80
DRATE = 0x03
DRATE_DEFAULT = 0x02

# Digital input register.
DIR_DSKCHG = 0x80
DIR_ONES = 0x78
DIR_DRATE_SHIFT = 1
DIR_LOW_DENSITY = 0x01

# Status register 0.
ST0_NORMAL = 0x00
ST0_ABNORMAL = 0x40
ST0_INVALID = 0x80
ST0_POLLING = 0xC0
ST0_SE = 0x20
ST0_EC = 0x10

# Status register 1.
ST1_EN = 0x80
ST1_DE = 0x20
ST1_OR = 0x10
ST1_ND = 0x04
ST1_NW = 0x02
ST1_MA = 0x01

# Status register 2.
ST2_CM = 0x40
ST2_DD = 0x20
ST2_WC = 0x10
ST2_BC = 0x02

# Status register 3.
ST3_WP = 0x40
ST3_ONES = 0x28
ST3_T0 = 0x10

# First byte of a command.
MT = 0x80
MFM = 0x40
SK = 0x20
RELATIVE_INWARDS = 0x40
LOCK_BIT = 0x80

# Second byte of a command.
HDS_SHIFT = 2
DS = 0x03
VERIFY_EC = 0x80

# SPECIFY, third byte.
NON_DMA = 0x01

# CONFIGURE, third byte.
EIS = 0x40
EFIFO = 0x20
CONFIGURE_MASK = 0x7F
CONFIGURE_UNLOCKED = EFIFO | 0x0F
"""EFIFO and FIFOTHR, which LOCK protects from a software reset."""

# PERPENDICULAR MODE.
PERPENDICULAR_OW = 0x80
PERPENDICULAR_DRIVES = 0x3C
PERPENDICULAR_GAP_WGATE = 0x03
