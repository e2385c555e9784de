"""Small guests on disk, and a process without standard input."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emuvisor import firmware

POWER_OFF = "ba0406 b80020 ef f4"  # mov dx, 604h; mov ax, 2000h; out dx, ax; hlt
PROGRAMS = {
    "halted": "fa f4",  # cli; hlt
    "endless": "ebfe",  # jmp $
    "debug-exit": "b002 e6f4 ebfe",  # mov al, 2; out 0F4h, al; jmp $
    "triple-fault": "0f011e0090 0f0b",  # lidt [9000h], which is zeros; ud2
    # mov dx, 3F8h; mov al, 'A'; out dx, al, three times without an end of line; then power-off
    "aaa": "baf803 b041 ee ee ee" + POWER_OFF,
    # "HI" at the top of the screen, then endless, or halted for good
    "hi": "b800b8 8ec0 26c70600004807 26c70602004907 ebfe",
    "hi-idle": "b800b8 8ec0 26c70600004807 26c70602004907 fb f4 ebfd",
    "hi-off": "b800b8 8ec0 26c70600004807 26c70602004907" + POWER_OFF,
    # Bochs VBE's registers (index 1CEh, data 1CFh) 1, 2, 3: 320 by 200 by 8 bits; 4: enabled, linear
    "graphics": "bace01 b80100ef 42 b84001ef 4a b80200ef 42 b8c800ef"
    "4a b80300ef 42 b80800ef 4a b80400ef 42 b84100ef ebfe",
    # COM1 gets DTR and RTS, then every byte received is sent back; '!' switches off
    "echo": "bafc03 b003 ee bafd03 ec a801 74f8 baf803 ec ee 3c21 75ef" + POWER_OFF,
}


@pytest.fixture(autouse=True)
def _no_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """program(name): the path of a flat program of PROGRAMS, or else of a firmware image."""

    def write(name: str) -> Path:
        path = tmp_path / f"{name}.bin"
        path.write_bytes(bytes.fromhex(PROGRAMS[name]) if name in PROGRAMS else firmware.image(name))
        return path

    return write
