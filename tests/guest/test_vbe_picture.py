"""The picture that the guest `vbe` draws, computed again and compared as PNG."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emuvisor import firmware
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.devices.display.png import encode_png
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.machine import Machine
from emuvisor.memory import FramePool
from emuvisor.units import MIB

WIDTH, HEIGHT = 640, 480


def picture(frame: int) -> NDArray[np.uint8]:
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    red = x * (65536 // WIDTH) >> 8
    green = y * (65536 // HEIGHT) >> 8
    blue = x + y + 4 * frame
    pixels = np.stack((red, green, blue), axis=2).astype(np.uint8)
    pixels[40 : 40 + 90, 40 : 40 + 160] = 255
    pixels[(x - 420) ** 2 + (y - 260) ** 2 <= 120**2] = (255, 255, 0)
    return pixels


@pytest.mark.parametrize("frames", [1, 3])
def test_vbe_draws_its_picture(tmp_path: Path, frames: int) -> None:
    image = tmp_path / "vbe.bin"
    image.write_bytes(firmware.image("vbe"))
    pool = FramePool(64 * MIB)
    config = GuestConfig(board="pc", memory=16 * MIB, flat=FlatConfig(image, firmware.FLAT_ADDRESS))
    machine = Machine(config, pool)
    try:
        machine.boot()
        machine.memory.write(firmware.PARAMETERS, frames.to_bytes(8, "little"))
        outcome = machine.run(Pcpu(pool, machine.model), seconds=60)
        assert outcome is not None
        assert str(outcome.ending) == "power-off"
        assert machine.console.text == f"vbe: 640 x 480 pixels of 32 bits\nvbe: frames: {frames}\n"
        assert machine.board.display is not None
        assert machine.board.display.screen().png() == encode_png(picture(frames - 1))
    finally:
        machine.close()
