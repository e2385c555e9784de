"""IMCR: MultiProcessor Specification 1.4, section 3.6.2.1."""

from collections.abc import Callable

import pytest
from device_rigs import Rig

from emuvisor.bus.irq import InterruptLine
from emuvisor.devices.imcr import Imcr


@pytest.fixture
def rig(rig_of: Callable[[str], Rig]) -> Rig:
    return rig_of("imcr")


def select(imcr: Imcr, through_apic: int) -> None:
    imcr.write(0, 0x70, 1)
    imcr.write(1, through_apic, 1)


def test_after_reset_the_8259s_drive_the_processor(rig: Rig) -> None:
    rig.chips["imcr"].pic_intr.set(True)
    assert rig.wires.log == [("direct", True)]


def test_the_mode_moves_the_line(rig: Rig) -> None:
    imcr = rig.chips["imcr"]
    imcr.pic_intr.set(True)
    select(imcr, 0x01)
    assert imcr.read(1, 1) == 1
    assert (rig.level("direct"), rig.level("lint0")) == (False, True)
    imcr.pic_intr.set(False)
    assert not rig.level("lint0")
    imcr.pic_intr.set(True)
    imcr.reset()
    assert imcr.read(1, 1) == 0
    assert (rig.level("direct"), rig.level("lint0")) == (True, False)


def test_other_addresses_are_nobodys(rig: Rig) -> None:
    imcr = rig.chips["imcr"]
    select(imcr, 0x01)
    imcr.write(0, 0x71, 1)
    assert imcr.read(1, 1) == 0
    imcr.write(1, 0x00, 1)
    imcr.pic_intr.set(True)
    assert imcr.read(0, 1) == 0
    assert rig.level("lint0")


def test_a_board_may_reset_to_the_apic() -> None:
    direct, lint0 = InterruptLine(lambda _: None), InterruptLine(lambda _: None)
    imcr = Imcr(direct=direct, lint0=lint0, through_apic_at_reset=True)
    imcr.pic_intr.set(True)
    select(imcr, 0)
    assert direct.level
    imcr.reset()
    assert (direct.level, lint0.level) == (False, True)
