"""A real VNC viewer, vncdotool, at a display without a guest: it looks, types and points."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from emuvisor.bus.clock import VirtualClock
from emuvisor.devices.display.vga import Vga
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import MIB
from emuvisor.vnc.server import VncServer

PATIENCE_S = 60
VNCDOTOOL = shutil.which("vncdotool", path=str(Path(sys.executable).parent)) or shutil.which("vncdotool")
PASSWORD = "secret"  # the protocol has no better ones

pytestmark = pytest.mark.skipif(VNCDOTOOL is None, reason="no vncdotool: pip install vncdotool")


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
        assert VNCDOTOOL is not None
        host, port = self.server.address.split(":")
        options = ["--server", f"{host}::{port}", "--force-caps", "--timeout", str(PATIENCE_S)]
        if password is not None:
            options += ["--password", password]
        return subprocess.run(
            [VNCDOTOOL, *options, *actions],
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )


@pytest.fixture(params=[None, PASSWORD], ids=["open", "password"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    desk = Desk(request.param)
    with desk.server:
        yield desk


@pytest.mark.parametrize("show", ["text", "gradient"])
def test_it_sees_the_screen(desk: Desk, show: str, tmp_path: Path) -> None:
    from PIL import Image

    if show == "text":
        desk.text("The quick brown fox")
    else:
        desk.gradient()
    done = desk.visit("capture", str(tmp_path / "captured.png"), password=PASSWORD)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "captured.png") as image:
        captured = np.asarray(image.convert("RGB"))
    assert (captured == desk.vga.screen().pixels).all()
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
