"""SMBIOS: what the machine and its parts are called and how much memory there is (DMTF DSP0134, version 3.0)."""

import struct
from dataclasses import dataclass

from emuvisor.machine.memory_map import MemoryMap
from emuvisor.machine.tables.platform import Platform
from emuvisor.machine.tables.table_loader import checksum
from emuvisor.units import KIB, MIB

__all__ = [
    "ENTRY_POINT_2_SIZE",
    "ENTRY_POINT_3_SIZE",
    "Structures",
    "entry_point_2",
    "entry_point_3",
    "structures",
]

VENDOR = "emuvisor"
PRODUCT = "emuvisor PC"

VERSION_2 = (2, 8)
VERSION_3 = (3, 0)
BCD_REVISION = 0x28
ENTRY_POINT_2 = struct.Struct("<4sBBBBHB5s5sBHIHB")
ENTRY_POINT_2_SIZE = ENTRY_POINT_2.size
ENTRY_POINT_2_CHECKSUM = 4
INTERMEDIATE = 16
INTERMEDIATE_CHECKSUM = 21
ENTRY_POINT_3 = struct.Struct("<5sBBBBBBxIQ")
ENTRY_POINT_3_SIZE = ENTRY_POINT_3.size
ENTRY_POINT_3_CHECKSUM = 5
ENTRY_POINT_REVISION_3 = 1

HEADER = struct.Struct("<BBH")

# Structure types and handles.
BIOS, SYSTEM, CHASSIS, PROCESSOR = 0, 1, 3, 4
MEMORY_ARRAY, MEMORY_DEVICE, MEMORY_MAPPED, BOOT_STATUS, END = 16, 17, 19, 32, 127
HANDLE_CHASSIS = 0x0300
HANDLE_PROCESSOR = 0x0400
HANDLE_MEMORY_ARRAY = 0x1000
HANDLE_MEMORY_DEVICE = 0x1100
HANDLE_MEMORY_MAPPED = 0x1300
NO_HANDLE = 0xFFFE
NOT_PROVIDED = 0xFFFF

# BIOS information: sizes and characteristics.
BIOS_SEGMENT = 0xE800
BIOS_CHARACTERISTICS_UNSUPPORTED = 1 << 3
VIRTUAL_MACHINE = 1 << 12
"""In the two extension bytes: this is a virtual machine."""

WAKE_UP_POWER_SWITCH = 6
UUID = bytes(16)
"""Not set."""
CHASSIS_OTHER = 1
STATE_SAFE = 3
SECURITY_NONE = 3

# Processor.
CENTRAL_PROCESSOR = 3
FAMILY_OTHER = 1
SOCKET_POPULATED_ENABLED = 0x41
UPGRADE_OTHER = 1
CLOCK_MHZ = 1000

# Memory.
LOCATION_OTHER = 1
USE_SYSTEM_MEMORY = 3
ECC_NONE = 3
FORM_DIMM = 9
TYPE_RAM = 7
DETAIL_OTHER = 1 << 1
EXTENDED_SIZE = 0x7FFF
WIDTH_UNKNOWN = 0xFFFF

BOOT_NO_ERRORS = 0


@dataclass(frozen=True, slots=True)
class Structures:
    """All structures in a row, how many, and the size of the largest."""

    data: bytes
    count: int
    largest: int


def structures(platform: Platform) -> Structures:
    """The SMBIOS structures of a platform."""
    memory = platform.memory_map
    table = [
        _bios(),
        _system(),
        _chassis(),
        _processor(platform.cpus),
        _memory_array(memory),
        _memory_device(memory),
        *(_memory_mapped(n, base, length) for n, (base, length) in enumerate(memory.blocks)),
        _structure(BOOT_STATUS, BOOT_STATUS << 8, struct.pack("<6xB", BOOT_NO_ERRORS)),
        _structure(END, END << 8, b""),
    ]
    return Structures(b"".join(table), len(table), max(len(structure) for structure in table))


def entry_point_2(table: Structures, address: int) -> bytes:
    """The "_SM_" anchor of version 2.8 for `table` at `address`."""
    data = bytearray(
        ENTRY_POINT_2.pack(
            b"_SM_", 0, ENTRY_POINT_2_SIZE, *VERSION_2, table.largest, 0, bytes(5), b"_DMI_", 0,
            len(table.data), address, table.count, BCD_REVISION,
        )
    )  # fmt: skip
    data[INTERMEDIATE_CHECKSUM] = checksum(data[INTERMEDIATE:])
    data[ENTRY_POINT_2_CHECKSUM] = checksum(data)
    return bytes(data)


def entry_point_3(table: Structures, address: int) -> bytes:
    """The "_SM3_" anchor of version 3.0 for `table` at `address`."""
    docrev = 0
    data = bytearray(
        ENTRY_POINT_3.pack(
            b"_SM3_",
            0,
            ENTRY_POINT_3_SIZE,
            *VERSION_3,
            docrev,
            ENTRY_POINT_REVISION_3,
            len(table.data),
            address,
        )
    )
    data[ENTRY_POINT_3_CHECKSUM] = checksum(data)
    return bytes(data)


def _structure(kind: int, handle: int, body: bytes, *strings: str) -> bytes:
    """Header, formatted area, and the strings, which `body` refers to by numbers from 1 on."""
    text = b"".join(s.encode() + b"\0" for s in strings) or b"\0"
    return HEADER.pack(kind, HEADER.size + len(body), handle) + body + text + b"\0"


def _bios() -> bytes:
    rom_blocks_of_64k = release_major = 0
    body = struct.pack(
        "<BBHBBQHBBBB", 1, 2, BIOS_SEGMENT, 3, rom_blocks_of_64k, BIOS_CHARACTERISTICS_UNSUPPORTED,
        VIRTUAL_MACHINE, release_major, 1, 0xFF, 0xFF,
    )  # fmt: skip
    return _structure(BIOS, 0, body, VENDOR, "1", "01/01/2025")


def _system() -> bytes:
    serial = sku = family = 0
    body = struct.pack("<BBBB16sBBB", 1, 2, 3, serial, UUID, WAKE_UP_POWER_SWITCH, sku, family)
    return _structure(SYSTEM, SYSTEM << 8, body, VENDOR, PRODUCT, "1")


def _chassis() -> bytes:
    version = serial = asset = oem = height = cords = elements = element_length = sku = 0
    body = struct.pack(
        "<BBBBBBBBBIBBBBB", 1, CHASSIS_OTHER, version, serial, asset, STATE_SAFE, STATE_SAFE, STATE_SAFE,
        SECURITY_NONE, oem, height, cords, elements, element_length, sku,
    )  # fmt: skip
    return _structure(CHASSIS, HANDLE_CHASSIS, body, VENDOR)


def _processor(count: int) -> bytes:
    """One socket with `count` cores, as CPUID has it."""
    voltage = external_clock = serial = asset = part = characteristics = 0
    cores = enabled = threads = count
    body = struct.pack(
        "<BBBBQBBHHHBBHHHBBBBBBHH", 1, CENTRAL_PROCESSOR, FAMILY_OTHER, 2, 0, 2, voltage, external_clock,
        CLOCK_MHZ, CLOCK_MHZ, SOCKET_POPULATED_ENABLED, UPGRADE_OTHER, NOT_PROVIDED, NOT_PROVIDED,
        NOT_PROVIDED, serial, asset, part, cores, enabled, threads, characteristics, FAMILY_OTHER,
    )  # fmt: skip
    return _structure(PROCESSOR, HANDLE_PROCESSOR, body, "CPU 0", VENDOR)


def _memory_array(memory: MemoryMap) -> bytes:
    devices = 1
    extended_capacity = 0
    body = struct.pack(
        "<BBBIHHQ", LOCATION_OTHER, USE_SYSTEM_MEMORY, ECC_NONE, memory.size // KIB, NO_HANDLE, devices,
        extended_capacity,
    )  # fmt: skip
    return _structure(MEMORY_ARRAY, HANDLE_MEMORY_ARRAY, body)


def _memory_device(memory: MemoryMap) -> bytes:
    size_mib = memory.size // MIB
    small = size_mib < EXTENDED_SIZE
    device_set = serial = asset = part = attributes = speed = configured_speed = 0
    millivolts = (0, 0, 0)
    body = struct.pack(
        "<HHHHHBBBBBHHBBBBBIHHHH", HANDLE_MEMORY_ARRAY, NO_HANDLE, WIDTH_UNKNOWN, WIDTH_UNKNOWN,
        size_mib if small else EXTENDED_SIZE, FORM_DIMM, device_set, 1, 0, TYPE_RAM, DETAIL_OTHER, speed, 2,
        serial, asset, part, attributes, 0 if small else size_mib, configured_speed, *millivolts,
    )  # fmt: skip
    return _structure(MEMORY_DEVICE, HANDLE_MEMORY_DEVICE, body, "DIMM 0", VENDOR)


def _memory_mapped(number: int, base: int, length: int) -> bytes:
    """A range of physical addresses; by KiB where 32 bits are enough for that."""
    first, last = base // KIB, (base + length) // KIB - 1
    partition_width = 1
    body = struct.pack("<IIHBQQ", first, last, HANDLE_MEMORY_ARRAY, partition_width, 0, 0)
    return _structure(MEMORY_MAPPED, HANDLE_MEMORY_MAPPED + number, body)
