"""A guest that can grow: where the new RAM will be, what the configuration allows, and what firmware's tables say."""

import struct
from pathlib import Path

import pytest
from iasl import disassemble, split_tables, sums_to_zero
from platforms import microvm, pc

from emuvisor.errors import ConfigError
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.config_file import from_mapping
from emuvisor.machine.machine import Machine
from emuvisor.machine.memory_map import MemoryMap
from emuvisor.machine.tables.acpi import TABLES_FILE, acpi_files
from emuvisor.machine.tables.install import RESERVED_END_FILE
from emuvisor.machine.tables.platform import PCI_HOLE_64, Platform
from emuvisor.memory import FramePool
from emuvisor.units import GIB, MIB

FLAT = {"flat": {"path": "x", "address": 0x7C00}}


@pytest.mark.parametrize(
    ("size", "most", "place"),
    [
        (256 * MIB, 512 * MIB, (4 * GIB, 256 * MIB)),
        (256 * MIB, 258 * MIB, (4 * GIB, 128 * MIB)),
        (3 * GIB, 4 * GIB, (4 * GIB, GIB)),
        (4 * GIB, 5 * GIB, (6 * GIB, GIB)),
        (MIB, 512 * GIB + 0 * MIB - MIB, (4 * GIB, 512 * GIB)),
        (MIB, MIB, None),
    ],
)
def test_where_ram_can_be_plugged(size, most, place):
    memory = MemoryMap.for_ram(size, most)
    assert memory.pluggable == place
    assert memory.entries == MemoryMap.for_ram(size).entries
    assert place is None or sum(place) <= PCI_HOLE_64[0]


@pytest.mark.parametrize(
    ("most", "message"),
    [
        (
            "1M",
            "g: memory_max: 1048576 bytes (1 MiB) is outside 256 MiB, which is the guest's memory, to 512 GiB",
        ),
        (
            "1T",
            "g: memory_max: 1099511627776 bytes (1 TiB) is outside 256 MiB, which is the guest's memory, to 512 GiB",
        ),
        (
            "257M",
            "g: memory_max: 269484032 bytes is not the guest's memory of 268435456 and a multiple of 2 MiB more",
        ),
        (True, 'g: memory_max: True is not a size, such as "256M" or a number of bytes'),
    ],
)
def test_impossible_sizes(most, message):
    with pytest.raises(ConfigError) as error:
        from_mapping({**FLAT, "memory_max": most}, "g")
    assert str(error.value) == message


def test_the_isa_board_cannot_grow():
    with pytest.raises(ConfigError, match=r"^the isa board has no virtio devices$"):
        GuestConfig(board="isa", memory_max=512 * MIB, flat=FlatConfig(Path("x"), 0))


@pytest.mark.parametrize(("most", "grows"), [("256M", False), ("300M", True)])
def test_configured(most, grows):
    config = from_mapping({**FLAT, "memory_max": most}, "g")
    assert (config.has_virtio, config.plug_limit) == (grows, 44 * MIB * grows)


@pytest.mark.parametrize("board", ["pc", "microvm"])
def test_the_machine_has_the_device(board):
    config = GuestConfig(
        board=board, memory=16 * MIB, memory_max=32 * MIB, flat=FlatConfig(Path("x"), 0x8000)
    )
    machine = Machine(config, FramePool(4 * MIB))
    assert machine.virtio is not None
    device = machine.virtio.mem
    assert device is not None
    assert (device.limit, device.block_size, device.plugged_size) == (16 * MIB, 2 * MIB, 0)
    assert [(ram.gpa, ram.length) for ram in machine.memory.pluggable] == [(4 * GIB, 128 * MIB)]
    machine.close()


def tables(platform: Platform) -> dict[str, bytes]:
    return split_tables(acpi_files(platform).files()[TABLES_FILE])


def growing(platform: Platform) -> Platform:
    size = platform.memory_map.size
    return Platform(
        memory_map=MemoryMap.for_ram(size, size + GIB),
        power=platform.power,
        cpus=platform.cpus,
        pci=platform.pci,
    )


def test_the_affinity_table_names_ram_to_come(tmp_path):
    placed = acpi_files(growing(pc(2))).place({"etc/acpi/rsdp": 0xE0000, TABLES_FILE: 0xE0040})
    table = split_tables(placed[TABLES_FILE])["SRAT"]
    assert sums_to_zero(table)
    source = disassemble(table, tmp_path)
    for expected in (
        "Apic ID : 01",
        "Base Address : 0000000000000000",
        "Address Length : 00000000C0000000",
        "Base Address : 0000000100000000",
        "Base Address : 0000000180000000",
        "Address Length : 0000000040000000",
        "Hot Pluggable : 1",
    ):
        assert expected in source
    assert source.count("Hot Pluggable : 1") == 1


def test_other_machines_have_none():
    assert "SRAT" not in tables(pc())
    assert "SRAT" not in tables(growing(microvm()))


def test_firmware_keeps_bars_away():
    config = GuestConfig(memory=16 * MIB, memory_max=32 * MIB, flat=FlatConfig(Path("x"), 0x8000))
    machine = Machine(config, FramePool(4 * MIB))
    assert fw_cfg_file(machine, RESERVED_END_FILE) == struct.pack("<Q", 4 * GIB + 128 * MIB)
    machine.close()


def fw_cfg_file(machine: Machine, name: str) -> bytes:
    ports = machine.board.ports

    def take(count: int) -> bytes:
        return bytes(ports.read(0x511, 1) for _ in range(count))

    ports.write(0x510, 0x19, 2)
    files = {}
    for _ in range(int.from_bytes(take(4), "big")):
        size, key = int.from_bytes(take(4), "big"), int.from_bytes(take(2), "big")
        files[take(58)[2:].rstrip(b"\0").decode()] = size, key
    size, key = files[name]
    ports.write(0x510, key, 2)
    return take(size)
