"""The firmware sources give the images in the package, byte for byte."""

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from emuvisor import firmware

SOURCES = Path(__file__).resolve().parents[2] / "firmware"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("firmware_build", SOURCES / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    missing = [tool for tool in module.TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian: binutils)")
    return module


def test_every_image_can_be_built(build: ModuleType) -> None:
    assert set(build.ADDRESS) == set(firmware.NAMES)
    assert {name for name, address in build.ADDRESS.items() if address == firmware.FLAT_ADDRESS} == set(
        firmware.FLAT
    )


@pytest.mark.parametrize("name", firmware.NAMES)
def test_rebuilding_gives_the_same_bytes(build: ModuleType, name: str, tmp_path: Path) -> None:
    assert build.build(name, tmp_path).read_bytes() == firmware.image(name)


def lines_in_order(name: str, file: str) -> Iterator[str]:
    """The source as the assembler reads it, without comments."""
    found = [folder / file for folder in (SOURCES / name, SOURCES / "include") if (folder / file).exists()]
    for line in found[0].read_text().splitlines():
        code = line.partition("#")[0]
        if include := re.match(r'\.include "(.+)"', code):
            yield from lines_in_order(name, include[1])
        else:
            yield code


@pytest.mark.parametrize("name", firmware.NAMES)
def test_constants_are_defined_above_their_use(name: str) -> None:
    """Where a name is not known yet, `mov al, NAME` assembles to a load from memory."""
    used: set[str] = set()
    late = []
    for line in lines_in_order(name, f"{name}.S"):
        definition = re.match(r"\.equ (\w+),(.*)", line)
        if definition and definition[1] in used:
            late.append(definition[1])
        used.update(re.findall(r"\w+", definition[2] if definition else line))
    assert late == []


@pytest.mark.parametrize("name", firmware.NAMES)
def test_every_guest_is_documented(name: str) -> None:
    readme = (SOURCES / name / "README.md").read_text()
    assert readme.startswith(f"# {name}")
