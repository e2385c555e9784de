"""Intel's ASL compiler as a judge of our tables: it takes them apart and puts them together again."""

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

HEADER = 36


def sums_to_zero(data: bytes) -> bool:
    return sum(data) & 0xFF == 0


def table_offsets(data: bytes) -> dict[str, int]:
    """Where the tables are that `data` has in a row, by signature."""
    offsets = {}
    offset = 0
    while offset < len(data):
        signature, length = struct.unpack_from("<4sI", data, offset)
        offsets[signature.decode()] = offset
        offset = -(-(offset + length) // 8) * 8
    return offsets


def split_tables(data: bytes) -> dict[str, bytes]:
    """The tables in a row by signature."""
    return {
        signature: data[offset : offset + struct.unpack_from("<I", data, offset + 4)[0]]
        for signature, offset in table_offsets(data).items()
    }


def definition_block(aml: bytes) -> bytes:
    """`aml` as a DSDT."""
    header = struct.pack(
        "<4sIBB6s8sI4sI", b"DSDT", HEADER + len(aml), 2, 0, b"EMUVSR", b"EMUVISOR", 1, b"EMUV", 1
    )
    table = bytearray(header + aml)
    table[9] = -sum(table) & 0xFF
    return bytes(table)


def disassemble(table: bytes, folder: Path) -> str:
    """The source that `iasl` makes of `table`, in one line without comments; it must compile again without a word."""
    iasl = shutil.which("iasl")
    if iasl is None:
        pytest.fail("iasl is missing; it is in Debian's package acpica-tools")
    (folder / "table.dat").write_bytes(table)
    taken_apart = subprocess.run(
        [iasl, "-d", "table.dat"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert taken_apart.returncode == 0, taken_apart.stderr
    compiled = subprocess.run(
        [iasl, "-p", "again", "table.dsl"], cwd=folder, capture_output=True, text=True, check=False
    )
    output = compiled.stdout + compiled.stderr
    assert compiled.returncode == 0, output
    assert "0 Errors, 0 Warnings, 0 Remarks" in output, output
    source = (folder / "table.dsl").read_text()
    source = re.sub(r"/\*.*?\*/|//.*?$", "", source, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\s+", " ", source)
