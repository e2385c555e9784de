"""Files that guests boot from: firmware by path and by name, its video BIOS, option ROMs."""

import re
from pathlib import Path

import pytest

from emuvisor.errors import ImageError, UsageError
from emuvisor.images.cache import Recipe, install
from emuvisor.images.firmware import FILES
from emuvisor.machine import boot
from emuvisor.machine.boot import boot_image, firmware_path, option_roms, vga_bios
from emuvisor.machine.config import DiskConfig, FlatConfig, GuestConfig, KernelConfig
from emuvisor.units import KIB, MIB

ROM = bytes(256 * KIB)
VIDEO_BIOS = b"\x55\xaa\x01"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMUVISOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def seabios() -> Path:
    return install("seabios", Recipe({"bios.bin": ROM, "vgabios.bin": VIDEO_BIOS}, {"seabios": "1"})).path


def config(**fields: object) -> GuestConfig:
    return GuestConfig(**{"memory": 4 * MIB, **fields})  # type: ignore[arg-type]


def test_firmware_by_name(seabios: Path) -> None:
    loaded = boot_image(config(firmware="seabios"))
    assert loaded.programs_chipset
    assert {piece.gpa + len(piece.data) for piece in loaded.roms} == {1 * MIB, 1 << 32}
    assert firmware_path("seabios") == seabios / "bios.bin"
    assert vga_bios(config(firmware="seabios")) == VIDEO_BIOS


def test_firmware_by_path(tmp_path: Path) -> None:
    path = tmp_path / "rom"
    path.write_bytes(ROM)
    assert firmware_path(path) == path
    assert boot_image(config(firmware=path)).programs_chipset
    assert vga_bios(config(firmware=path)) is None


@pytest.mark.parametrize("name", FILES)
def test_firmware_that_is_not_here(name: str) -> None:
    message = f"the firmware {name!r} is not here yet; get it with: emuvisor images pull {name}"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        boot_image(config(firmware=name))


def test_a_video_bios_that_is_not_here() -> None:
    with pytest.raises(UsageError) as error:
        vga_bios(config(firmware="seabios"))
    assert (
        str(error.value)
        == "the firmware 'seabios' is not here yet; get it with: emuvisor images pull seabios"
    )


def test_the_built_in_bios(tmp_path: Path) -> None:
    loaded = boot_image(config(disks=(DiskConfig(tmp_path / "disk"),)))
    assert not loaded.programs_chipset
    assert loaded.roms
    assert loaded.pieces == []


def test_option_roms(tmp_path: Path) -> None:
    paths = (tmp_path / "one.rom", tmp_path / "two.rom")
    for number, path in enumerate(paths):
        path.write_bytes(bytes((number,)))
    flat = FlatConfig(tmp_path / "guest.bin", 0x8000)
    assert option_roms(config(flat=flat, option_roms=paths)) == [("one.rom", b"\0"), ("two.rom", b"\1")]
    paths[1].unlink()
    with pytest.raises(ImageError) as error:
        option_roms(config(flat=flat, option_roms=paths))
    assert str(error.value) == f"{paths[1]}: cannot be read: No such file or directory"


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "guest.bin"
    path.write_bytes(bytes(5 * KIB))
    monkeypatch.setattr(boot, "MAX_IMAGE", 4 * KIB)
    with pytest.raises(ImageError) as error:
        boot_image(config(flat=FlatConfig(path, 0x8000)))
    assert str(error.value) == f"{path}: 5 KiB; an image has at most 4 KiB"


def test_an_initial_ramdisk_that_is_not_there(tmp_path: Path) -> None:
    kernel = KernelConfig(tmp_path / "kernel", tmp_path / "initrd")
    with pytest.raises(ImageError) as error:
        boot_image(config(kernel=kernel))
    assert str(error.value) == f"{tmp_path / 'initrd'}: cannot be read: No such file or directory"
