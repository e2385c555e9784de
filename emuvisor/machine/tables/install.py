"""The tables of a platform, where an operating system or firmware finds them.

Without firmware that brings its own, they lie in memory that E820 has as reserved:

    9FC10h  MP floating pointer, in the extended BIOS data area
    E0000h  RSDP, and behind it ACPI tables, MP table and SMBIOS structures
    F0000h  SMBIOS anchors, unless a ROM is there

Firmware gets them as files of fw_cfg.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from emuvisor.devices.fw_cfg import FwCfg, Item
from emuvisor.errors import ConfigError
from emuvisor.machine.loaders.boot import Piece
from emuvisor.machine.loaders.zero_page import RSDP_ADDRESS
from emuvisor.machine.memory_map import EBDA_START, E820Type, MemoryMap
from emuvisor.machine.tables import mptable, smbios
from emuvisor.machine.tables.acpi import RSDP_FILE, RSDP_SIZE, TABLES_FILE, acpi_files
from emuvisor.machine.tables.platform import Platform

__all__ = ["boot_order", "offer_tables", "table_pieces"]

MP_POINTER_ADDRESS = EBDA_START + 0x10
"""The first byte of the EBDA is its size."""
F_SEGMENT = 0xF0000
TABLES_END = F_SEGMENT
ACPI_ALIGN = 64
ALIGN = 16

TABLE_LOADER_FILE = "etc/table-loader"
SMBIOS_ANCHOR_FILE = "etc/smbios/smbios-anchor"
SMBIOS_TABLES_FILE = "etc/smbios/smbios-tables"
E820_FILE = "etc/e820"
E820_ENTRY = struct.Struct("<QQI")
RESERVED_END_FILE = "etc/reserved-memory-end"
"""Behind what has to stay free of BARs above the RAM."""
IRQ0_OVERRIDE = 0x8002
"""fw_cfg item: IRQ 0 goes to I/O APIC pin 2."""


def _align(address: int, alignment: int) -> int:
    return -(-address // alignment) * alignment


def table_pieces(platform: Platform, rom_in_f_segment: bool) -> list[Piece]:
    """ACPI, MP and SMBIOS tables for guest memory.

    With a ROM in the F segment there is no place for SMBIOS anchors, and so none of its structures. Raises ConfigError
    when the tables are too large, which only AML of the user's devices can make them.
    """
    acpi = acpi_files(platform)
    acpi_address = _align(RSDP_ADDRESS + RSDP_SIZE, ACPI_ALIGN)
    placed = acpi.place({RSDP_FILE: RSDP_ADDRESS, TABLES_FILE: acpi_address})
    mp_address = _align(acpi_address + acpi.size(TABLES_FILE), ALIGN)
    mp_table = mptable.configuration_table(platform)
    pieces = [
        Piece(RSDP_ADDRESS, placed[RSDP_FILE], "RSDP"),
        Piece(acpi_address, placed[TABLES_FILE], "ACPI tables"),
        Piece(mp_address, mp_table, "MP table"),
        Piece(MP_POINTER_ADDRESS, mptable.floating_pointer(platform, mp_address), "MP floating pointer"),
    ]
    end = mp_address + len(mp_table)
    if not rom_in_f_segment:
        structures = smbios.structures(platform)
        address = _align(end, ALIGN)
        end = address + len(structures.data)
        anchors = smbios.entry_point_2(structures, address)
        anchors += bytes(-len(anchors) % ALIGN) + smbios.entry_point_3(structures, address)
        pieces.append(Piece(address, structures.data, "SMBIOS structures"))
        pieces.append(Piece(F_SEGMENT, anchors, "SMBIOS anchors"))
    if end > TABLES_END:
        raise ConfigError(
            f"devices: the ACPI, MP and SMBIOS tables take {end - RSDP_ADDRESS} bytes, "
            f"there is room for {TABLES_END - RSDP_ADDRESS}"
        )
    return pieces


def offer_tables(describe: Callable[[], Platform], fw_cfg: FwCfg) -> None:
    """Give firmware the tables and what it needs to know about memory and processors.

    Firmware decides where the power management block is, and then reads the tables; so `describe` is asked for the
    platform each time. Nothing else may have changed by then.
    """
    platform = describe()
    for name, data in _firmware_files(platform).items():
        fw_cfg.add_file(name, data)
    tables = _firmware_files(platform)[TABLES_FILE]
    fw_cfg.add_file(TABLES_FILE, tables, lambda: _firmware_files(describe())[TABLES_FILE])
    fw_cfg.set_item(Item.RAM_SIZE, struct.pack("<Q", platform.memory_map.size))
    fw_cfg.set_item(Item.NB_CPUS, struct.pack("<H", platform.cpus))
    fw_cfg.set_item(Item.MAX_CPUS, struct.pack("<H", platform.cpus))
    fw_cfg.set_item(IRQ0_OVERRIDE, struct.pack("<I", 1))


@lru_cache(maxsize=32)
def _firmware_files(platform: Platform) -> Mapping[str, bytes]:
    """What firmware finds about `platform`, by file name. Guests that are alike share it."""
    acpi = acpi_files(platform)
    structures = smbios.structures(platform)
    files = {
        **acpi.files(),
        TABLE_LOADER_FILE: acpi.script(),
        SMBIOS_ANCHOR_FILE: smbios.entry_point_2(structures, 0),
        SMBIOS_TABLES_FILE: structures.data,
        E820_FILE: _e820(platform.memory_map),
    }
    if platform.memory_map.pluggable is not None:
        files[RESERVED_END_FILE] = struct.pack("<Q", sum(platform.memory_map.pluggable))
    return files


def _e820(memory_map: MemoryMap) -> bytes:
    """Where RAM is; what of it is reserved, the firmware knows best."""
    return b"".join(E820_ENTRY.pack(base, length, E820Type.RAM) for base, length in memory_map.blocks)


def boot_order(paths: Sequence[str]) -> bytes:
    """The file "bootorder": Open Firmware device paths, the first to be tried first."""
    return "\n".join(paths).encode() + b"\0"
