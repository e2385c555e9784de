"""A session with a display: the guest's screen is drawn, and what is typed comes from its PC keyboard."""

import os
from pathlib import Path
from typing import Any

from emuvisor.cli.keyboard import Keyboard
from emuvisor.cli.screen import Screen
from emuvisor.cli.session import Session
from emuvisor.devices.display.screen import Screen as Picture
from emuvisor.host import Host
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.outcome import Ending
from emuvisor.units import MIB

PATIENCE_S = 120
# Scan codes go to COM1 until F10 goes up: a: in al, 64h; test al, 1; jz a; in al, 60h; mov dx, 3F8h; out dx, al;
# cmp al, 0C4h; jne a; mov dx, 604h; mov ax, 2000h; out dx, ax; hlt
SCAN_CODES = "e464 a801 74fa e460 baf803 ee 3cc4 75f0 ba0406 b80020 ef f4"
A, B, ENTER, F10, SHIFT, UP = 0x1E, 0x30, 0x1C, 0x44, 0x2A, 0x80


class Display:
    """Counts what it is shown."""

    def __init__(self) -> None:
        self.pictures: list[Picture] = []

    def update(self, picture: Picture) -> None:
        self.pictures.append(picture)


def test_keys_and_pictures(tmp_path: Path) -> None:
    path = tmp_path / "guest.bin"
    path.write_bytes(bytes.fromhex(SCAN_CODES))
    read, write = os.pipe()
    os.write(write, b"aB\r\x1b[21~")
    os.close(write)
    display: Any = Display()
    config = GuestConfig(memory=MIB, flat=FlatConfig(path, 0x8000), timeout_s=PATIENCE_S)
    codes: list[int] = []
    with Host(4 * MIB) as host:
        session = Session(
            host,
            Screen(None, ["guest"]),
            Keyboard(read, terminal=False),
            display,
            attach=lambda guest: guest.console.listeners.append(codes.extend),
        )
        (result,) = session.run([config])
    os.close(read)
    assert result.ending is Ending.POWER_OFF
    keys = [A, A | UP, SHIFT, B, B | UP, SHIFT | UP, ENTER, ENTER | UP, F10, F10 | UP]
    assert codes == keys
    assert {(picture.width, picture.height) for picture in display.pictures} == {(720, 400)}
