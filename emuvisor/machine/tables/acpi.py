"""The ACPI tables of a platform (ACPI specification 6.4, chapter 5)."""

import struct
from collections.abc import Sequence

from emuvisor.machine.tables.dsdt import dsdt
from emuvisor.machine.tables.platform import Platform, PowerBlock, SleepRegisters
from emuvisor.machine.tables.table_loader import TableFiles, Zone

__all__ = ["RSDP_FILE", "RSDP_SIZE", "TABLES_FILE", "acpi_files", "sdt"]

RSDP_FILE = "etc/acpi/rsdp"
TABLES_FILE = "etc/acpi/tables"

OEM_ID = b"EMUVSR"
OEM_TABLE_ID = b"EMUVISOR"
CREATOR_ID = b"EMUV"
OEM_REVISION = CREATOR_REVISION = 1

HEADER = struct.Struct("<4sIBB6s8sI4sI")
HEADER_CHECKSUM = 9

# RSDP, revision 2.
RSDP = struct.Struct("<8sB6sBIIQB3x")
RSDP_SIZE = RSDP.size
RSDP_REVISION = 2
RSDP_CHECKSUM = 8
RSDP_RSDT = 16
RSDP_XSDT = 24
RSDP_EXTENDED_CHECKSUM = 32
RSDP_V1_SIZE = 20
RSDP_ALIGN = 16

FACS = struct.Struct("<4sIIIIIQB3xI24x")
FACS_VERSION = 2
FACS_ALIGN = 64
TABLE_ALIGN = 8

# FADT: offsets in the table.
FADT_REVISION = 6
FADT_MINOR = 4
FADT_SIZE = 276
FADT_DSDT = 40
FADT_FACS = 36
FADT_PREFERRED_PM_PROFILE = 45
FADT_SMI_CMD = 48
FADT_SCI_INT = 46
FADT_PM1A_EVT_BLK = 56
FADT_PM1A_CNT_BLK = 64
FADT_PM_TMR_BLK = 76
FADT_PM1_EVT_LEN = 88
FADT_PM1_CNT_LEN = 89
FADT_PM_TMR_LEN = 91
FADT_P_LVL2_LAT = 96
FADT_P_LVL3_LAT = 98
FADT_CENTURY = 108
FADT_IAPC_BOOT_ARCH = 109
FADT_FLAGS = 112
FADT_RESET_REG = 116
FADT_RESET_VALUE = 128
FADT_MINOR_VERSION = 131
FADT_X_DSDT = 140
FADT_X_PM1A_EVT_BLK = 148
FADT_X_PM1A_CNT_BLK = 172
FADT_X_PM_TMR_BLK = 208
FADT_SLEEP_CONTROL_REG = 244
FADT_SLEEP_STATUS_REG = 256
FADT_HYPERVISOR = 268

PROFILE_DESKTOP = 1
NO_C2, NO_C3 = 101, 1001
"""Latencies beyond what these processor states allow, in microseconds: there are none."""
RTC_CENTURY = 0x32
HYPERVISOR_ID = b"emuvisor"

BOOT_LEGACY_DEVICES = 1 << 0
BOOT_8042 = 1 << 1
BOOT_VGA_NOT_PRESENT = 1 << 2
BOOT_CMOS_RTC_NOT_PRESENT = 1 << 5

FLAG_WBINVD = 1 << 0
FLAG_PROC_C1 = 1 << 2
FLAG_SLP_BUTTON = 1 << 5
"""There is no sleep button among the fixed features."""
FLAG_RESET_REG_SUP = 1 << 10
FLAG_TMR_VAL_EXT = 1 << 8
FLAG_HW_REDUCED_ACPI = 1 << 20

GAS_SYSTEM_MEMORY, GAS_SYSTEM_IO = 0, 1
GAS = struct.Struct("<BBBBQ")
GAS_BYTE, GAS_WORD, GAS_DWORD = 1, 2, 3
"""Access sizes."""

# MADT structures.
MADT_REVISION = 5
MADT_PCAT_COMPAT = 1 << 0
MADT_LOCAL_APIC = struct.Struct("<BBBBI")
MADT_IO_APIC = struct.Struct("<BBBBII")
MADT_INTERRUPT_OVERRIDE = struct.Struct("<BBBBIH")
MADT_LOCAL_APIC_NMI = struct.Struct("<BBBHB")
TYPE_LOCAL_APIC = 0
TYPE_IO_APIC = 1
TYPE_INTERRUPT_OVERRIDE = 2
TYPE_LOCAL_APIC_NMI = 4
LOCAL_APIC_ENABLED = 1 << 0
ISA_BUS = 0
IRQ_TIMER, TIMER_PIN = 0, 2
CONFORMS = 0
ACTIVE_HIGH_LEVEL = 0b01 | 0b11 << 2
ALL_PROCESSORS = 0xFF
NMI_LINT = 1

# SRAT structures: one proximity domain, 0.
SRAT_REVISION = 3
SRAT_RESERVED = struct.Struct("<IQ")
SRAT_LOCAL_APIC = struct.Struct("<BBBBIBBHI")
SRAT_MEMORY = struct.Struct("<BBIHQQIIQ")
TYPE_LOCAL_APIC_AFFINITY = 0
TYPE_MEMORY_AFFINITY = 1
AFFINITY_ENABLED = 1 << 0
HOT_PLUGGABLE = 1 << 1

HPET_REVISION = 1
HPET_EVENT_TIMER_BLOCK = 0x8086A201
"""Intel, legacy replacement, 64 bits, three comparators, revision 1: the low half of the capabilities register."""
HPET_MINIMUM_TICK = 100


def sdt(signature: str, revision: int, body: bytes) -> bytes:
    """A system description table: header and `body`; the checksum is still 0."""
    return (
        HEADER.pack(
            signature.encode(), HEADER.size + len(body), revision, 0, OEM_ID, OEM_TABLE_ID, OEM_REVISION,
            CREATOR_ID, CREATOR_REVISION,
        )
        + body
    )  # fmt: skip


def acpi_files(platform: Platform) -> TableFiles:
    """The RSDP and all tables that it leads to, in two files."""
    files = TableFiles()
    files.create(TABLES_FILE, FACS_ALIGN, Zone.HIGH)
    files.create(RSDP_FILE, RSDP_ALIGN, Zone.F_SEGMENT)
    facs = None
    if isinstance(platform.power, PowerBlock):
        facs = files.append(
            TABLES_FILE, FACS.pack(b"FACS", FACS.size, 0, 0, 0, 0, 0, FACS_VERSION, 0), FACS_ALIGN
        )
    dsdt_offset = _add(files, sdt("DSDT", 2, dsdt(platform)))
    fadt = files.append(TABLES_FILE, _fadt(platform), TABLE_ALIGN)
    if facs is not None:
        files.point(TABLES_FILE, fadt + FADT_FACS, 4, TABLES_FILE, facs)
    files.point(TABLES_FILE, fadt + FADT_DSDT, 4, TABLES_FILE, dsdt_offset)
    files.point(TABLES_FILE, fadt + FADT_X_DSDT, 8, TABLES_FILE, dsdt_offset)
    files.seal(TABLES_FILE, fadt + HEADER_CHECKSUM, fadt, FADT_SIZE)
    tables = [fadt, _add(files, _madt(platform))]
    if platform.hpet is not None:
        tables.append(_add(files, _hpet(platform.hpet)))
    if platform.memory_map.pluggable is not None and platform.pci is not None:
        tables.append(_add(files, _srat(platform, platform.memory_map.pluggable)))
    rsdt = _add_root(files, "RSDT", tables, 4)
    xsdt = _add_root(files, "XSDT", tables, 8)
    _add_rsdp(files, rsdt, xsdt)
    return files


def _add(files: TableFiles, table: bytes) -> int:
    """Append a table without pointers."""
    offset = files.append(TABLES_FILE, table, TABLE_ALIGN)
    files.seal(TABLES_FILE, offset + HEADER_CHECKSUM, offset, len(table))
    return offset


def _add_root(files: TableFiles, signature: str, tables: Sequence[int], size: int) -> int:
    """Append the RSDT or XSDT, with pointers of `size` bytes."""
    table = sdt(signature, 1, bytes(size * len(tables)))
    offset = files.append(TABLES_FILE, table, TABLE_ALIGN)
    for i, target in enumerate(tables):
        files.point(TABLES_FILE, offset + HEADER.size + i * size, size, TABLES_FILE, target)
    files.seal(TABLES_FILE, offset + HEADER_CHECKSUM, offset, len(table))
    return offset


def _add_rsdp(files: TableFiles, rsdt: int, xsdt: int) -> None:
    files.append(RSDP_FILE, RSDP.pack(b"RSD PTR ", 0, OEM_ID, RSDP_REVISION, 0, RSDP_SIZE, 0, 0))
    files.point(RSDP_FILE, RSDP_RSDT, 4, TABLES_FILE, rsdt)
    files.point(RSDP_FILE, RSDP_XSDT, 8, TABLES_FILE, xsdt)
    files.seal(RSDP_FILE, RSDP_CHECKSUM, 0, RSDP_V1_SIZE)
    files.seal(RSDP_FILE, RSDP_EXTENDED_CHECKSUM, 0, RSDP_SIZE)


def _gas(port: int, size: int) -> bytes:
    """A generic address: a register of `size` bytes in I/O space."""
    access = {1: GAS_BYTE, 2: GAS_WORD, 4: GAS_DWORD}[size]
    return GAS.pack(GAS_SYSTEM_IO, 8 * size, 0, access, port)


def _fadt(platform: Platform) -> bytes:
    """The FADT; its pointers to FACS and DSDT are still 0."""
    table = bytearray(sdt("FACP", FADT_REVISION, bytes(FADT_SIZE - HEADER.size)))

    def put(offset: int, data: bytes) -> None:
        table[offset : offset + len(data)] = data

    power = platform.power
    boot = (
        (BOOT_LEGACY_DEVICES if platform.pic else 0)
        | (BOOT_8042 if platform.i8042 else 0)
        | (0 if platform.vga else BOOT_VGA_NOT_PRESENT)
        | (0 if platform.rtc else BOOT_CMOS_RTC_NOT_PRESENT)
    )
    flags = FLAG_WBINVD | FLAG_PROC_C1 | FLAG_SLP_BUTTON | FLAG_RESET_REG_SUP
    if isinstance(power, SleepRegisters):
        flags |= FLAG_HW_REDUCED_ACPI
        put(FADT_SLEEP_CONTROL_REG, _gas(power.control, 1))
        put(FADT_SLEEP_STATUS_REG, _gas(power.status, 1))
    else:
        flags |= FLAG_TMR_VAL_EXT
        _put_power_block(table, power)
    table[FADT_PREFERRED_PM_PROFILE] = PROFILE_DESKTOP
    put(FADT_P_LVL2_LAT, NO_C2.to_bytes(2, "little"))
    put(FADT_P_LVL3_LAT, NO_C3.to_bytes(2, "little"))
    if platform.rtc:
        table[FADT_CENTURY] = RTC_CENTURY
    put(FADT_IAPC_BOOT_ARCH, boot.to_bytes(2, "little"))
    put(FADT_FLAGS, flags.to_bytes(4, "little"))
    put(FADT_RESET_REG, _gas(power.reset_port, 1))
    table[FADT_RESET_VALUE] = power.reset_value
    table[FADT_MINOR_VERSION] = FADT_MINOR
    put(FADT_HYPERVISOR, HYPERVISOR_ID)
    return bytes(table)


def _put_power_block(table: bytearray, power: PowerBlock) -> None:
    """The PM1 and timer registers, each by port and as a generic address."""
    struct.pack_into("<H", table, FADT_SCI_INT, power.sci)
    struct.pack_into("<IBB", table, FADT_SMI_CMD, power.smi_command, power.acpi_enable, power.acpi_disable)
    for offset, extended, length_offset, port, length, access in (
        (FADT_PM1A_EVT_BLK, FADT_X_PM1A_EVT_BLK, FADT_PM1_EVT_LEN, power.pm1_event, 4, GAS_WORD),
        (FADT_PM1A_CNT_BLK, FADT_X_PM1A_CNT_BLK, FADT_PM1_CNT_LEN, power.pm1_control, 2, GAS_WORD),
        (FADT_PM_TMR_BLK, FADT_X_PM_TMR_BLK, FADT_PM_TMR_LEN, power.timer, 4, GAS_DWORD),
    ):
        struct.pack_into("<I", table, offset, port)
        GAS.pack_into(table, extended, GAS_SYSTEM_IO, 8 * length, 0, access, port)
        table[length_offset] = length


def _madt(platform: Platform) -> bytes:
    """Interrupt controllers, and where ISA interrupts are not as on an ISA bus."""
    structures = [
        MADT_LOCAL_APIC.pack(TYPE_LOCAL_APIC, MADT_LOCAL_APIC.size, cpu, cpu, LOCAL_APIC_ENABLED)
        for cpu in range(platform.cpus)
    ]
    structures.append(
        MADT_IO_APIC.pack(TYPE_IO_APIC, MADT_IO_APIC.size, platform.io_apic_id, 0, platform.io_apic, 0)
    )
    overrides = [(irq, irq, ACTIVE_HIGH_LEVEL) for irq in platform.level_irqs]
    for irq, pin, flags in [(IRQ_TIMER, TIMER_PIN, CONFORMS), *overrides]:
        structures.append(
            MADT_INTERRUPT_OVERRIDE.pack(
                TYPE_INTERRUPT_OVERRIDE, MADT_INTERRUPT_OVERRIDE.size, ISA_BUS, irq, pin, flags
            )
        )
    structures.append(
        MADT_LOCAL_APIC_NMI.pack(
            TYPE_LOCAL_APIC_NMI, MADT_LOCAL_APIC_NMI.size, ALL_PROCESSORS, CONFORMS, NMI_LINT
        )
    )
    flags = MADT_PCAT_COMPAT if platform.pic else 0
    return sdt("APIC", MADT_REVISION, struct.pack("<II", platform.local_apic, flags) + b"".join(structures))


def _srat(platform: Platform, pluggable: tuple[int, int]) -> bytes:
    """Says that RAM can appear at `pluggable`: without it, Linux that boots with RAM below 4 GiB only has no bounce
    buffers for 32-bit DMA, such as IDE's. They take 64 MiB, so boards without such devices do not say it."""
    structures = [
        SRAT_LOCAL_APIC.pack(
            TYPE_LOCAL_APIC_AFFINITY, SRAT_LOCAL_APIC.size, 0, cpu, AFFINITY_ENABLED, 0, 0, 0, 0
        )
        for cpu in range(platform.cpus)
    ]
    ranges = [(block, AFFINITY_ENABLED) for block in platform.memory_map.blocks]
    for (base, length), flags in [*ranges, (pluggable, AFFINITY_ENABLED | HOT_PLUGGABLE)]:
        structures.append(
            SRAT_MEMORY.pack(TYPE_MEMORY_AFFINITY, SRAT_MEMORY.size, 0, 0, base, length, 0, flags, 0)
        )
    return sdt("SRAT", SRAT_REVISION, SRAT_RESERVED.pack(1, 0) + b"".join(structures))


def _hpet(address: int) -> bytes:
    base = GAS.pack(GAS_SYSTEM_MEMORY, 64, 0, 0, address)
    number = page_protection = 0
    body = struct.pack("<I", HPET_EVENT_TIMER_BLOCK) + base
    return sdt("HPET", HPET_REVISION, body + struct.pack("<BHB", number, HPET_MINIMUM_TICK, page_protection))
