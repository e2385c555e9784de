"""ACPI tables: what is in them, that their sums are right, and that iasl agrees."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from iasl import disassemble, split_tables, sums_to_zero, table_offsets
from platforms import bare, microvm, pc

from emuvisor.machine.tables.acpi import RSDP_FILE, TABLES_FILE, acpi_files
from emuvisor.machine.tables.platform import GenerationId, Platform

RSDP, TABLES = 0xE0000, 0xE0040


def placed(platform: Platform) -> tuple[bytes, dict[str, bytes]]:
    """The RSDP and the tables by signature."""
    files = acpi_files(platform).place({RSDP_FILE: RSDP, TABLES_FILE: TABLES})
    return files[RSDP_FILE], split_tables(files[TABLES_FILE])


def address_of(platform: Platform, signature: str) -> int:
    return TABLES + table_offsets(acpi_files(platform).files()[TABLES_FILE])[signature]


@pytest.mark.parametrize("platform", [pc(2), microvm(), bare()], ids=["pc", "microvm", "bare"])
def test_all_sums_are_right_and_iasl_agrees(platform, tmp_path: Path):
    rsdp, tables = placed(platform)
    assert sums_to_zero(rsdp[:20])
    assert sums_to_zero(rsdp)
    for signature, table in tables.items():
        assert signature == "FACS" or sums_to_zero(table), signature
        folder = tmp_path / signature
        folder.mkdir()
        disassemble(table, folder)


def test_the_root_leads_to_every_table():
    rsdp, tables = placed(pc())
    assert list(tables) == ["FACS", "DSDT", "FACP", "APIC", "HPET", "RSDT", "XSDT"]
    signature, revision, rsdt, length, xsdt = struct.unpack("<8s7xBIIQ4x", rsdp)
    assert (signature, revision, length) == (b"RSD PTR ", 2, 36)
    assert (rsdt, xsdt) == (address_of(pc(), "RSDT"), address_of(pc(), "XSDT"))
    expected = [address_of(pc(), name) for name in ("FACP", "APIC", "HPET")]
    assert list(struct.unpack("<3I", tables["RSDT"][36:])) == expected
    assert list(struct.unpack("<3Q", tables["XSDT"][36:])) == expected


def test_fixed_hardware_of_the_pc(tmp_path):
    _, tables = placed(pc())
    fadt = tables["FACP"]
    facs, dsdt = struct.unpack_from("<II", fadt, 36)
    assert (facs, dsdt) == (TABLES, address_of(pc(), "DSDT"))
    assert struct.unpack_from("<Q", fadt, 140) == (dsdt,)
    assert facs % 64 == 0
    source = disassemble(fadt, tmp_path)
    for expected in (
        "SCI Interrupt : 0009",
        "SMI Command Port : 000000B2",
        "ACPI Enable Value : F1",
        "ACPI Disable Value : F0",
        "PM1A Event Block Address : 00000600",
        "PM1A Control Block Address : 00000604",
        "PM Timer Block Address : 00000608",
        "PM1 Event Block Length : 04",
        "PM Timer Block Length : 04",
        "GPE0 Block Address : 00000000",
        "Legacy Devices Supported (V2) : 1",
        "8042 Present on ports 60/64 (V2) : 1",
        "VGA Not Present (V4) : 0",
        "Control Method Power Button (V1) : 0",
        "32-bit PM Timer (V1) : 1",
        "Reset Register Supported (V2) : 1",
        "Hardware Reduced (V5) : 0",
        "Value to cause reset : 06",
        "RTC Century Index : 32",
    ):
        assert expected in source
    assert struct.unpack_from("<BBBBQ", fadt, 116) == (1, 8, 0, 1, 0xCF9)
    assert struct.unpack_from("<BBBBQ", fadt, 208) == (1, 32, 0, 3, 0x608)


def test_hardware_reduced_acpi_of_the_microvm(tmp_path):
    _, tables = placed(microvm())
    assert "FACS" not in tables
    fadt = tables["FACP"]
    source = disassemble(fadt, tmp_path)
    for expected in (
        "PM1A Control Block Address : 00000000",
        "Hardware Reduced (V5) : 1",
        "8042 Present on ports 60/64 (V2) : 0",
        "VGA Not Present (V4) : 1",
    ):
        assert expected in source
    assert struct.unpack_from("<BBBBQ", fadt, 244) == (1, 8, 0, 1, 0x608)
    assert struct.unpack_from("<BBBBQ", fadt, 256) == (1, 8, 0, 1, 0x609)
    assert struct.unpack_from("<BBBBQ", fadt, 116) == (1, 8, 0, 1, 0x60A)


def test_a_machine_without_pics_and_clock_says_so():
    _, tables = placed(bare())
    fadt = tables["FACP"]
    assert struct.unpack_from("<H", fadt, 109) == (1 << 2 | 1 << 5,)
    assert fadt[108] == 0
    assert struct.unpack_from("<II", tables["APIC"], 36) == (0xFEE00000, 0)


def test_interrupt_controllers():
    _, tables = placed(pc(2))
    madt = tables["APIC"]
    assert struct.unpack_from("<II", madt, 36) == (0xFEE00000, 1)
    structures = []
    offset = 44
    while offset < len(madt):
        structures.append(madt[offset : offset + madt[offset + 1]])
        offset += madt[offset + 1]
    assert structures[:3] == [
        struct.pack("<BBBBI", 0, 8, 0, 0, 1),
        struct.pack("<BBBBI", 0, 8, 1, 1, 1),
        struct.pack("<BBBBII", 1, 12, 2, 0, 0xFEC00000, 0),
    ]
    overrides = [struct.unpack("<BBBBIH", s) for s in structures[3:-1]]
    assert overrides == [(2, 10, 0, irq, pin, flags) for irq, pin, flags in (
        (0, 2, 0), (5, 5, 13), (9, 9, 13), (10, 10, 13), (11, 11, 13),
    )]  # fmt: skip
    assert structures[-1] == struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)


def test_the_pcs_devices(tmp_path):
    source = disassemble(placed(pc())[1]["DSDT"], tmp_path)
    for expected in (
        'Device (PCI0) { Name (_HID, EisaId ("PNP0A03") )',
        # Slot 1 has its INTA at PIRQA, slot 2 at PIRQB
        "Return (Package (0x7C) { Package (0x04) { 0x0001FFFF, Zero, \\_SB.LNKA, Zero },",
        "Package (0x04) { 0x0002FFFF, Zero, \\_SB.LNKB, Zero },",
        "Package (0x04) { 0x001FFFFF, 0x03, \\_SB.LNKB, Zero } })",
        "OperationRegion (PIRQ, PCI_Config, 0x60, 0x04)",
        "Field (PIRQ, ByteAcc, NoLock, Preserve) { PRQA, 8, PRQB, 8, PRQC, 8, PRQD, 8 }",
        'Device (COM1) { Name (_HID, EisaId ("PNP0501") ) Name (_UID, One) Name (_STA, 0x0F) '
        "Name (_CRS, ResourceTemplate () { IO (Decode16, 0x03F8, 0x03F8, 0x01, 0x08, ) IRQNoFlags () {4} })",
        "DMA (Compatibility, NotBusMaster, Transfer8, ) {2}",
        'Name (_HID, "QEMU0002")',
        "If ((\\_SB.PCI0.ISA.PRQD & 0x80)) { Return (0x09) } Return (0x0B)",
        "\\_SB.PCI0.ISA.PRQA = (\\_SB.PCI0.ISA.PRQA | 0x80)",
        "IRQ = (\\_SB.PCI0.ISA.PRQB & 0x0F) Return (ROUT)",
        "CreateDWordField (Arg0, 0x05, WANT) \\_SB.PCI0.ISA.PRQC = WANT",
        "Memory32Fixed (ReadWrite, 0xFED00000, 0x00000400, )",
        'Device (MINE) { Name (_HID, EisaId ("EMU0001")) }',
        "Name (_S5, Package (0x04) { Zero, Zero, Zero, Zero })",
    ):
        assert expected in source, expected


def test_the_microvms_devices(tmp_path):
    source = disassemble(placed(microvm())[1]["DSDT"], tmp_path)
    assert "Scope (\\_SB) { Device (COM1)" in source
    assert "PCI0" not in source
    assert "Name (_S5, Package (0x04) { 0x05, 0x05, Zero, Zero })" in source


def test_the_generation_id_and_who_tells_of_its_changes(tmp_path):
    with_id = replace(microvm(), generation_id=GenerationId(address=0x1_FED5_0000, irq=7))
    source = disassemble(placed(with_id)[1]["DSDT"], tmp_path)
    for expected in (
        'Device (VGEN) { Name (_HID, "EMUV0001") Name (_CID, "VM_Gen_Counter") Name (_DDN, "VM_Gen_Counter") '
        "Name (ADDR, Package (0x02) { 0xFED50000, One }) }",
        'Device (GED) { Name (_HID, "ACPI0013"',
        "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, ) { 0x00000007, }",
        "Method (_EVT, 1, Serialized)",
        "{ Notify (\\_SB.VGEN, 0x80)",
    ):
        assert expected in source, (expected, source)
