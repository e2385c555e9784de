"""A real VNC viewer, vncdotool, at a display without a guest and at a guest: it looks, types and points."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from compatibility import Compatibility
from guests import boot_disks, disk, see
from numpy.typing import NDArray

from emuvisor.bus.clock import VirtualClock
from emuvisor.devices.display.vga import Vga
from emuvisor.host import Host
from emuvisor.images.cache import Image
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import MIB
from emuvisor.vnc.server import VncServer

PATIENCE_S = 240
LOOK_S = 0.01
VNCDOTOOL = shutil.which("vncdotool", path=str(Path(sys.executable).parent)) or shutil.which("vncdotool")
PASSWORD = "secret"  # the protocol has no better ones
KEY_DELAY_MS = 100
"""Between a viewer's actions: a PC's keyboard buffer holds 15 keys, and GRUB has to come and take them."""
TEXT_COLUMNS, TEXT_LINES = 80, 25

assert VNCDOTOOL is not None, "vncdotool comes with the test extra"


class Desk:
    """A display with something on it, served by VNC, and what a viewer did at it."""

    def __init__(self, password: str | None) -> None:
        memory = GuestMemory(FramePool(32 * MIB), [(0, MIB)])
        self.vga = Vga(clock=VirtualClock(), vram=memory.add_region(16 * MIB))
        self.log: list[tuple[object, ...]] = []
        self.server = VncServer(
            "127.0.0.1:0",
            screen=self.vga.screen,
            key=lambda name, pressed: self.log.append((name, pressed)),
            pointer=lambda dx, dy, buttons: self.log.append((dx, dy, buttons)),
            password=password,
        )

    def text(self, line: str) -> None:
        self.vga.set_text_mode()
        for i, code in enumerate(line.encode("cp437")):
            self.vga.window.write(0x18000 + 2 * i, 0x1E00 | code, 2)

    def gradient(self) -> None:
        """1024 by 768 pixels in all colours."""
        self.vga.set_text_mode()
        for register, value in ((1, 1024), (2, 768), (3, 32), (4, 0x41)):
            self.vga.vbe.write_register(register, value)
        x, y = np.meshgrid(np.arange(1024), np.arange(768))
        pixels = np.stack((x // 4, y // 3, x + y, 0 * x), axis=2).astype(np.uint8)
        self.vga.vram.write(0, pixels.tobytes())

    def visit(self, *actions: str, password: str | None = None) -> subprocess.CompletedProcess[str]:
        """A viewer does `actions` and leaves; until the server has taken all that it sent."""
        options = () if password is None else ("--password", password)
        done = visit(self.server, *options, *actions)
        pause, end = threading.Event(), time.monotonic() + PATIENCE_S
        while self.server.viewers:
            assert time.monotonic() < end
            pause.wait(LOOK_S)
        return done


def visit(server: VncServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the viewer with `arguments`, options before actions."""
    assert VNCDOTOOL is not None
    host, port = server.address.split(":")
    options = ["--server", f"{host}::{port}", "--force-caps", "--timeout", str(PATIENCE_S)]
    return subprocess.run(
        [VNCDOTOOL, *options, *arguments],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )


def picture(path: Path) -> NDArray[np.uint8]:
    """The pixels of a PNG file, read by a library that is not ours."""
    from PIL import Image as Pillow

    with Pillow.open(path) as image:
        return np.array(image.convert("RGB"))


@pytest.fixture(params=[None, PASSWORD], ids=["open", "password"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    desk = Desk(request.param)
    with desk.server:
        yield desk


@pytest.mark.parametrize("show", ["text", "gradient"])
def test_it_sees_the_screen(desk: Desk, show: str, tmp_path: Path) -> None:
    if show == "text":
        desk.text("The quick brown fox")
    else:
        desk.gradient()
    done = desk.visit("capture", str(tmp_path / "captured.png"), password=PASSWORD)
    assert done.returncode == 0, done.stderr
    assert (picture(tmp_path / "captured.png") == desk.vga.screen().pixels).all()
    (tmp_path / "ours.png").write_bytes(desk.vga.screen().png())
    done = desk.visit("expect", str(tmp_path / "ours.png"), "0", password=PASSWORD)
    assert done.returncode == 0, done.stderr


def test_it_types_and_points(desk: Desk) -> None:
    desk.text("login:")
    actions = (
        "type",
        "Ab",
        "key",
        "ctrl-c",
        "key",
        "enter",
        "move",
        "10",
        "20",
        "move",
        "15",
        "18",
        "click",
        "1",
    )
    done = desk.visit(*actions, password=PASSWORD)
    assert done.returncode == 0, done.stderr
    keys = [
        ("ShiftLeft", True), ("KeyA", True), ("KeyA", False), ("ShiftLeft", False),
        ("KeyB", True), ("KeyB", False),
        ("ControlLeft", True), ("KeyC", True), ("KeyC", False), ("ControlLeft", False),
        ("Enter", True), ("Enter", False),
    ]  # fmt: skip
    assert [event for event in desk.log if len(event) == 2] == keys
    assert [event for event in desk.log if len(event) == 3] == [(5, -2, 0), (0, 0, 1), (0, 0, 0)]


def test_the_wrong_password_is_refused() -> None:
    desk = Desk(PASSWORD)
    with desk.server:
        done = desk.visit("key", "enter", password="guess")
    assert done.returncode != 0
    assert "wrong password" in done.stderr
    assert not desk.log


@pytest.mark.system
def test_it_types_at_grub_and_sees_the_answer(
    host: Host, grub: Image, tmp_path: Path, compatibility: Compatibility
) -> None:
    guest = boot_disks(host, disk(grub))
    see(guest, "command-line")
    with VncServer("127.0.0.1:0", screen=guest.screen, key=guest.press, pointer=guest.point) as server:
        done = visit(server, "key", "c")
        assert done.returncode == 0, done.stderr
        see(guest, "^grub> *$")
        done = visit(server, "--delay", str(KEY_DELAY_MS), "type", "echo hello-vnc", "key", "enter")
        assert done.returncode == 0, done.stderr
        see(guest, "^hello-vnc *\\n+grub> *$")
        captured_path = tmp_path / "captured.png"
        done = visit(
            server, "move", "10", "20", "move", "30", "10", "click", "1", "capture", str(captured_path)
        )
        assert done.returncode == 0, done.stderr
    screen = guest.screen()
    captured = picture(captured_path)
    assert captured.shape == screen.pixels.shape
    assert screen.cursor is not None
    column, line = screen.cursor
    width, height = screen.width // TEXT_COLUMNS, screen.height // TEXT_LINES
    differs = (captured != screen.pixels).any(axis=2)
    # The cursor blinks, and the two pictures were not taken at the same time.
    differs[line * height : (line + 1) * height, column * width : (column + 1) * width] = False
    assert not differs.any()
    compatibility.row(
        guest="GRUB (Debian's package), seen by vncdotool",
        boots="from an IDE disk, SeaBIOS; VNC",
        checked="a command typed over VNC; its answer on the screen; the captured picture, pixel by pixel",
    )
