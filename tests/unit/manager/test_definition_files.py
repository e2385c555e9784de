"""What a definition names has to be there when it is made; nothing is defined else."""

import os
from pathlib import Path
from typing import Any

import pytest

from emuvisor.errors import ConfigError, ImageError
from emuvisor.machine.config import DiskConfig, FlatConfig, GuestConfig, KernelConfig, ShareConfig
from emuvisor.manager.presence import require_files

NONE = Path("/no/such")
MISSING = "No such file or directory"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"kernel": KernelConfig(NONE)}, f"{NONE}: cannot be read: {MISSING}"),
        ({"kernel": KernelConfig(Path(__file__), NONE)}, f"{NONE}: cannot be read: {MISSING}"),
        ({"kernel": None, "flat": FlatConfig(NONE, 0x8000)}, f"{NONE}: cannot be read: {MISSING}"),
        ({"kernel": None, "flat": FlatConfig(Path("/"), 0x8000)}, "/: cannot be read: Is a directory"),
        ({"kernel": None, "firmware": NONE}, f"{NONE}: cannot be read: {MISSING}"),
        ({"option_roms": (NONE,)}, f"{NONE}: cannot be read: {MISSING}"),
        ({"disks": (DiskConfig(NONE),)}, f"{NONE}: cannot open the disk image: {MISSING}"),
        ({"disks": (DiskConfig(NONE, kind="cdrom"),)}, f"{NONE}: cannot open the CD image: {MISSING}"),
        ({"shares": (ShareConfig(NONE, "t"),)}, f"virtio-fs t: cannot share the folder {NONE}: {MISSING}"),
        (
            {"shares": (ShareConfig(Path(__file__), "t"),)},
            f"virtio-fs t: cannot share the folder {__file__}: Not a directory",
        ),
    ],
)
def test_what_is_missing(given: dict[str, Any], text: str) -> None:
    with pytest.raises((ConfigError, ImageError)) as error:
        require_files(GuestConfig(**({"kernel": KernelConfig(Path(__file__))} | given)))
    assert str(error.value) == text


def test_what_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError) as error:
        require_files(GuestConfig(kernel=KernelConfig(Path(__file__))))
    assert str(error.value) == f"{__file__}: cannot be read: Permission denied"


def test_what_a_start_makes_need_not_be_there(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.touch()
    require_files(
        GuestConfig(
            firmware="seabios",
            firmware_variables=NONE,
            disks=(DiskConfig(disk, overlay=tmp_path / "new"),),
            shares=(ShareConfig(tmp_path, "t"),),
        )
    )


def test_nothing_is_defined(manager: Any, define: Any) -> None:
    with pytest.raises(ConfigError):
        manager.create(define("web") | {"flat": {"path": str(NONE), "address": 0x8000}})
    assert manager.guests() == []
