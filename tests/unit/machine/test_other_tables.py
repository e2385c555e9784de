"""The MP table, SMBIOS, the table loader's script, and where all tables go."""

import shutil
import struct
import subprocess
from itertools import pairwise

import pytest
from iasl import sums_to_zero
from platforms import bare, microvm, pc

from emuvisor.devices.fw_cfg import FwCfg
from emuvisor.errors import ConfigError, UsageError
from emuvisor.machine.loaders.uefi import variable_store_size
from emuvisor.machine.memory_map import MemoryMap
from emuvisor.machine.tables import aml, mptable, smbios
from emuvisor.machine.tables.acpi import RSDP_FILE, TABLES_FILE, acpi_files
from emuvisor.machine.tables.install import boot_order, offer_tables, table_pieces
from emuvisor.machine.tables.platform import Platform, SleepRegisters
from emuvisor.machine.tables.table_loader import TableFiles, Zone
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import GIB, MIB

ENTRY_SIZES = {0: 20, 1: 8, 2: 8, 3: 8, 4: 8}


def mp_entries(table: bytes) -> list[bytes]:
    entries = []
    offset = 44
    while offset < len(table):
        size = ENTRY_SIZES[table[offset]]
        entries.append(table[offset : offset + size])
        offset += size
    assert struct.unpack_from("<H", table, 34) == (len(entries),)
    assert struct.unpack_from("<H", table, 4) == (len(table),)
    return entries


def test_the_mp_floating_pointer():
    for platform, feature in ((pc(), 0x80), (microvm(), 0)):
        pointer = mptable.floating_pointer(platform, 0xE1230)
        assert sums_to_zero(pointer)
        assert struct.unpack("<4sIBBxBB3x", pointer) == (b"_MP_", 0xE1230, 1, 4, 0, feature)


def test_the_mp_table_of_a_pc():
    table = mptable.configuration_table(pc(2))
    assert sums_to_zero(table)
    assert struct.unpack_from("<I", table, 36) == (0xFEE00000,)
    entries = mp_entries(table)
    assert [e[:4] for e in entries[:2]] == [bytes([0, 0, 0x14, 3]), bytes([0, 1, 0x14, 1])]
    assert entries[2:5] == [
        b"\x01\x00PCI   ",
        b"\x01\x01ISA   ",
        struct.pack("<BBBBI", 2, 2, 0x11, 1, 0xFEC00000),
    ]
    interrupts = [struct.unpack("<BBHBBBB", e) for e in entries[5:]]
    pci = [i for i in interrupts if i[3] == 0]
    assert len(pci) == 31 * 4
    assert pci[0] == (3, 0, 13, 0, 1 << 2, 2, 10)
    assert pci[6] == (3, 0, 13, 0, 2 << 2 | 2, 2, 11)
    isa = [i for i in interrupts if i[3] == 1]
    assert [i[4] for i in isa[:15]] == [0, 1, *range(3, 16)]
    assert isa[0] == (3, 0, 0, 1, 0, 2, 2)
    assert isa[3] == (3, 0, 0, 1, 4, 2, 4)
    assert isa[4] == (3, 0, 13, 1, 5, 2, 5)
    assert isa[15:] == [(4, 3, 0, 1, 0, 0xFF, 0), (4, 1, 0, 1, 0, 0xFF, 1)]


def test_the_mp_table_without_pci():
    entries = mp_entries(mptable.configuration_table(microvm()))
    assert entries[1] == b"\x01\x00ISA   "
    assert {e[4] for e in entries if e[0] == 3} == {0}


def dmidecode(anchor: bytes, table: smbios.Structures, folder) -> str:
    program = shutil.which("dmidecode")
    if program is None:
        pytest.fail("dmidecode is missing; it is in Debian's package of that name")
    (folder / "dump").write_bytes(anchor.ljust(32, b"\0") + table.data)
    run = subprocess.run(
        [program, "--from-dump", "dump"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert run.stderr == ""
    return run.stdout


def test_dmidecode_reads_smbios(tmp_path):
    table = smbios.structures(pc(2))
    text = dmidecode(smbios.entry_point_2(table, 32), table, tmp_path)
    assert "SMBIOS 2.8 present." in text
    assert f"{table.count} structures occupying {len(table.data)} bytes." in text
    for expected in (
        "Vendor: emuvisor",
        "System is a virtual machine",
        "Product Name: emuvisor PC",
        "Socket Designation: CPU 0",
        "Core Count: 2",
        "Core Enabled: 2",
        "Thread Count: 2",
        "Maximum Capacity: 5 GB",
        "Size: 5 GB",
        "Ending Address: 0x000BFFFFFFF",
        "Starting Address: 0x00100000000",
        "Status: No errors detected",
        "End Of Table",
    ):
        assert expected in text
    for broken in ("BAD INDEX", "TRUNCATED", "OUT OF SPEC", "Wrong"):
        assert broken not in text
    assert "SMBIOS 3.0.0 present." in dmidecode(smbios.entry_point_3(table, 32), table, tmp_path)


def test_much_memory_in_smbios(tmp_path):
    platform = Platform(memory_map=MemoryMap.for_ram(64 * GIB), power=SleepRegisters())
    table = smbios.structures(platform)
    text = dmidecode(smbios.entry_point_2(table, 32), table, tmp_path)
    assert "Size: 64 GB" in text
    assert "Maximum Capacity: 64 GB" in text


def test_the_loaders_script_and_placing_agree():
    """Firmware that follows the script gets the same bytes as `place`."""
    files = acpi_files(pc())
    addresses = {RSDP_FILE: 0xF5A40, TABLES_FILE: 0x7FE0000}
    memory = {name: bytearray(data) for name, data in files.files().items()}
    script = files.script()
    assert len(script) % 128 == 0
    allocated = {}
    for offset in range(0, len(script), 128):
        command = script[offset : offset + 128]
        kind = struct.unpack_from("<I", command)[0]
        name = command[4:60].rstrip(b"\0").decode()
        if kind == 1:
            allocated[name] = struct.unpack_from("<IB", command, 60)
        elif kind == 2:
            source = command[60:116].rstrip(b"\0").decode()
            at, size = struct.unpack_from("<IB", command, 116)
            value = int.from_bytes(memory[name][at : at + size], "little") + addresses[source]
            memory[name][at : at + size] = value.to_bytes(size, "little")
        else:
            assert kind == 3
            at, start, length = struct.unpack_from("<III", command, 60)
            memory[name][at] = (memory[name][at] - sum(memory[name][start : start + length])) & 0xFF
    assert allocated == {TABLES_FILE: (64, Zone.HIGH), RSDP_FILE: (16, Zone.F_SEGMENT)}
    assert memory == files.place(addresses)


def test_a_long_file_name_is_refused():
    with pytest.raises(UsageError) as error:
        TableFiles().create("x" * 56, 1, Zone.HIGH)
    assert str(error.value) == f"table loader: file name {'x' * 56!r} has 56 characters; the limit is 55"


@pytest.mark.parametrize("platform", [pc(), microvm(), bare()], ids=["pc", "microvm", "bare"])
def test_pieces_lie_in_reserved_memory_and_do_not_overlap(platform):
    pieces = table_pieces(platform, rom_in_f_segment=False)
    for first, second in pairwise(sorted(pieces, key=lambda p: p.gpa)):
        assert first.end <= second.gpa
    for piece in pieces:
        assert 0x9FC00 < piece.gpa < piece.end <= 0x100000
    by_name = {piece.what: piece for piece in pieces}
    assert by_name["RSDP"].gpa == 0xE0000
    assert by_name["MP floating pointer"].gpa == 0x9FC10
    anchors = by_name["SMBIOS anchors"]
    assert anchors.gpa == 0xF0000
    assert (anchors.data[:4], anchors.data[32:37]) == (b"_SM_", b"_SM3_")
    assert sums_to_zero(anchors.data[:31])
    assert sums_to_zero(anchors.data[16:31])
    assert sums_to_zero(anchors.data[32:])
    structures = by_name["SMBIOS structures"].gpa
    assert struct.unpack_from("<I", anchors.data, 24) == (structures,)
    assert struct.unpack_from("<Q", anchors.data, 48) == (structures,)
    pointer = by_name["MP floating pointer"]
    assert struct.unpack_from("<I", pointer.data, 4) == (by_name["MP table"].gpa,)


def test_a_rom_in_the_f_segment_leaves_no_place_for_smbios():
    names = [piece.what for piece in table_pieces(microvm(), rom_in_f_segment=True)]
    assert names == ["RSDP", "ACPI tables", "MP table", "MP floating pointer"]


def test_tables_that_are_too_large_are_refused():
    platform = Platform(
        memory_map=MemoryMap.for_ram(64 * MIB),
        power=SleepRegisters(),
        devices=aml.name("BIG", aml.buffer(bytes(70_000))),
    )
    with pytest.raises(ConfigError) as error:
        table_pieces(platform, rom_in_f_segment=True)
    assert str(error.value) == (
        "devices: the ACPI, MP and SMBIOS tables take 70824 bytes, there is room for 65536"
    )


def test_firmware_gets_everything_by_fw_cfg():
    memory = GuestMemory(FramePool(MIB), [(0, MIB)])
    chip = FwCfg(memory=memory)
    offer_tables(pc, chip)
    directory = chip.item(0x19)
    count = struct.unpack_from(">I", directory)[0]
    files = {}
    for offset in range(4, len(directory), 64):
        size, key, _, name = struct.unpack_from(">IHH56s", directory, offset)
        files[name.rstrip(b"\0").decode()] = chip.item(key)
        assert len(chip.item(key)) == size
    assert len(files) == count
    assert sorted(files) == [
        "etc/acpi/rsdp",
        "etc/acpi/tables",
        "etc/e820",
        "etc/smbios/smbios-anchor",
        "etc/smbios/smbios-tables",
        "etc/table-loader",
    ]
    assert files["etc/e820"] == struct.pack("<QQIQQI", 0, 3 * GIB, 1, 4 * GIB, 2 * GIB, 1)
    assert chip.item(0x03) == struct.pack("<Q", 5 * GIB)
    assert (chip.item(0x05), chip.item(0x0F)) == (b"\x01\0", b"\x01\0")
    memory.close()


def test_the_boot_order_is_lines_and_a_nul():
    assert boot_order(["/a", "/b"]) == b"/a\n/b\0"


def test_the_variable_store_of_a_uefi_image():
    header = bytearray(0x1000)
    header[16:32] = bytes.fromhex("8d2bf1ff96768b4ca9852747075b4f50")
    header[32:40] = struct.pack("<Q", 0x800)
    assert variable_store_size(header) == 0
    header[40:44] = b"_FVH"
    assert variable_store_size(header) == 0x800
    assert variable_store_size(header[:0x800]) == 0
    assert variable_store_size(b"") == 0
