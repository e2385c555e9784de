"""memtest86+ starts through the 32-bit boot protocol and tests memory."""

import re
import threading

import pytest

from emuvisor.host import Guest, Host
from emuvisor.images.cache import Image
from emuvisor.machine.config import GuestConfig, KernelConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system

TEXT_MEMORY = 0xB8000
COLUMNS, LINES = 80, 25
PATIENCE_S = 60
LOOK_S = 0.5


def screen(guest: Guest) -> str:
    """The text mode screen: characters without their attributes."""
    cells = guest.machine.memory.read(TEXT_MEMORY, COLUMNS * LINES * 2)
    text = cells[::2].decode("cp437").replace("\0", " ")
    return "\n".join(text[i : i + COLUMNS].rstrip() for i in range(0, len(text), COLUMNS))


def progress(shown: str) -> int:
    """Per cent of the first pass."""
    found = re.search(r"Pass\s+(\d+)%", shown)
    return int(found[1]) if found else 0


def test_screen_and_first_pass_progress(memtest: Image) -> None:
    with Host(64 * MIB) as host:
        guest = host.create(GuestConfig(name="memtest", memory=16 * MIB, kernel=KernelConfig(memtest.kernel)))
        guest.start()
        pause = threading.Event()
        shown = ""
        for _ in range(int(PATIENCE_S / LOOK_S)):
            pause.wait(LOOK_S)  # a test program has no output to wait for but its screen
            shown = screen(guest)
            if progress(shown) >= 1 or guest.wait(0):
                break
        assert "Memtest86+" in shown.splitlines()[0], f"{guest.state} {guest.reason}\n{shown}"
        assert progress(shown) >= 1, f"{guest.state} {guest.reason}\n{shown}"
        assert re.search(r"Errors:\s+0\b", shown), shown
