"""The pc board for UEFI firmware: variables in flash, and ACPI tables that follow the chipset's registers."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from board_rig import BoardRig

from emuvisor.errors import ImageError
from emuvisor.machine.loaders.boot import Piece
from emuvisor.memory import FramePool
from emuvisor.units import GIB, KIB, MIB

VARIABLES = 8 * KIB
IMAGE = 128 * KIB
BASE = 4 * GIB - IMAGE
PROGRAM, READ_ARRAY = 0x10, 0xFF
READY = 0x80


def image() -> bytes:
    """A firmware image that begins with a volume for variables."""
    header = bytes(16) + bytes.fromhex("8d2bf1ff96768b4ca9852747075b4f50") + struct.pack("<Q", VARIABLES)
    return (header + b"_FVH").ljust(VARIABLES, b"\xff").ljust(IMAGE, b"\x90")


@pytest.fixture
def pool() -> FramePool:
    return FramePool(32 * MIB)


@pytest.fixture
def rig(pool: FramePool) -> Iterator[BoardRig]:
    rig = BoardRig(pool)
    rig.board.load_roms([Piece(BASE, image(), "ROM below 4 GiB")], programs_chipset=True)
    yield rig
    rig.close()


def program(rig: BoardRig, offset: int, value: int) -> None:
    for byte in (PROGRAM, value):
        rig.board.mmio.write(BASE + offset, byte, 1)


def test_variables_are_flash_and_the_rest_is_rom(rig: BoardRig) -> None:
    assert rig.memory.read(BASE, IMAGE) == image()
    program(rig, 0x1000, 0x5A)
    assert rig.board.mmio.read(BASE, 1) == READY
    rig.board.mmio.write(BASE, READ_ARRAY, 1)
    assert rig.memory.read(BASE + 0x1000, 2) == b"\x5a\xff"
    before = rig.board.mmio.unclaimed_writes
    rig.board.mmio.write(BASE + VARIABLES, PROGRAM, 1)
    assert rig.board.mmio.unclaimed_writes == before + 1


def test_variables_outlive_a_reset(rig: BoardRig) -> None:
    program(rig, 0x1000, 0x5A)
    rig.board.reset()
    rig.board.load_roms([Piece(BASE, image(), "ROM below 4 GiB")], programs_chipset=True)
    assert rig.memory.read(BASE + 0x1000, 1) == b"\x5a"


def test_variables_are_kept_in_a_file(pool: FramePool, tmp_path: Path) -> None:
    path = tmp_path / "vars.fd"
    for expected in (b"\xff", b"\x5a"):
        rig = BoardRig(pool, firmware_variables=path)
        rig.board.load_roms([Piece(BASE, image(), "ROM below 4 GiB")], programs_chipset=True)
        assert rig.memory.read(BASE + 0x1000, 1) == expected
        program(rig, 0x1000, 0x5A)
        rig.close()
    assert path.read_bytes()[0x1000] == 0x5A
    assert len(path.read_bytes()) == VARIABLES


def test_a_file_for_other_firmware_is_refused(pool: FramePool, tmp_path: Path) -> None:
    path = tmp_path / "vars.fd"
    path.write_bytes(b"short")
    rig = BoardRig(pool, firmware_variables=path)
    with pytest.raises(ImageError) as error:
        rig.board.load_roms([Piece(BASE, image(), "ROM below 4 GiB")], programs_chipset=True)
    assert (
        str(error.value)
        == f"{path}: 5 bytes; the firmware keeps its variables in a file of {VARIABLES} bytes"
    )
    rig.close()


def read_file(rig: BoardRig, wanted: str) -> bytes:
    """A fw_cfg file, as firmware reads it through the ports."""

    def take(count: int) -> bytes:
        return bytes(rig.inb(0x511) for _ in range(count))

    rig.board.ports.write(0x510, 0x19, 2)
    entries: list[Any] = [struct.unpack(">IHH56s", take(64)) for _ in range(struct.unpack(">I", take(4))[0])]
    size, key = next((e[0], e[1]) for e in entries if e[3].rstrip(b"\0").decode() == wanted)
    rig.board.ports.write(0x510, key, 2)
    return take(size)


@pytest.mark.parametrize("base", [0x600, 0xB000])
def test_the_tables_say_where_firmware_has_put_the_power_management_registers(
    rig: BoardRig, base: int
) -> None:
    rig.set(1, 0x40, base | 1, number=3)
    rig.set(1, 0x80, 1, size=1, number=3)
    tables = read_file(rig, "etc/acpi/tables")
    fadt = tables.index(b"FACP\x14\x01")
    event, _, control = struct.unpack_from("<III", tables, fadt + 56)
    (timer,) = struct.unpack_from("<I", tables, fadt + 76)
    assert (event, control, timer) == (base, base + 4, base + 8)
