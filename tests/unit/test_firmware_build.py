"""The firmware sources give the images in the package, byte for byte."""

import importlib.util
import shutil
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


@pytest.mark.parametrize("name", firmware.NAMES)
def test_every_guest_is_documented(name: str) -> None:
    readme = (SOURCES / name / "README.md").read_text()
    assert readme.startswith(f"# {name}")
