"""A device whose buffers or rings lie in a page that the host has lost: the guest's machine hears of it, as of a fault
of the guest itself, and after a reset the device works again."""

import random

import pytest
from driver import RING_IDS, RINGS, Driver

from emuvisor.devices.virtio.rng import Rng
from emuvisor.errors import PageLost
from emuvisor.memory import FrameState
from emuvisor.memory.swapfile import SwapFile
from emuvisor.units import MIB, PAGE_SHIFT, PAGE_SIZE

QUEUE = 0


@pytest.fixture
def swap(tmp_path):
    swap = SwapFile(tmp_path / "swap", MIB)
    yield swap
    swap.close()


def counting(length):
    return bytes(i & 0xFF for i in range(length))


def lose(driver, swap, gpa):
    """The page at `gpa` is swapped, and the file is cut."""
    driver.memory.stores[FrameState.SWAPPED] = swap
    assert driver.memory.send_away(FrameState.SWAPPED, [(0, gpa >> PAGE_SHIFT)]) == 1
    with swap.path.open("r+b") as file:
        file.truncate(0)


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_a_buffer(ring, swap):
    driver = Driver(Rng(name="rng", source=counting), **ring)
    gpa, length = driver.buffer(random.Random(1).randbytes(64))
    driver.add_parts(QUEUE, [], [(gpa, length)])
    lose(driver, swap, gpa)
    with pytest.raises(PageLost, match=f"^guest physical address {gpa & -PAGE_SIZE:#x} is lost: swap file "):
        driver.kick(QUEUE)
    assert driver.device.failure is None, "the driver did nothing wrong"
    driver.device.reset()
    driver.memory.reset()
    assert swap.pages == 0


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
@pytest.mark.parametrize("area", ["descriptors", "driver_area", "device_area"])
def test_a_ring(ring, area, swap):
    driver = Driver(Rng(name="rng", source=counting), **ring)
    assert driver.request(QUEUE, b"", [8]) == counting(8)
    driver.add(QUEUE, b"", [8])
    gpa = getattr(driver.rings[QUEUE], area)
    lose(driver, swap, gpa)
    with pytest.raises(PageLost, match=f"^guest physical address {gpa:#x} is lost: swap file "):
        driver.kick(QUEUE)
    assert driver.device.failure is None
    driver.device.reset()
    driver.memory.reset()
    assert swap.pages == 0
