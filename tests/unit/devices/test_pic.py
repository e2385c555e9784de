from collections.abc import Callable

import pytest
from device_rigs import Rig

from emuvisor.devices.pic import PicPair

COMMAND, DATA = 0, 1
ICW1 = 0x11
ICW1_SINGLE_LEVEL = 0x1B
MASTER_BASE, SLAVE_BASE = 0x20, 0x28
NORMAL, AEOI, SFNM = 0x01, 0x03, 0x11
EOI, ROTATE_EOI = 0x20, 0xA0
READ_IRR, READ_ISR, POLL = 0x0A, 0x0B, 0x0C
SET_SMM, CLEAR_SMM = 0x68, 0x48


class Bench:
    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.pic: PicPair = rig.chips["pic"]
        self.master, self.slave = self.pic.master, self.pic.slave
        self.initialize()

    def initialize(self, master_icw4: int = NORMAL, slave_icw4: int = NORMAL) -> None:
        for chip, base, wiring, icw4 in (
            (self.master, MASTER_BASE, 0x04, master_icw4),
            (self.slave, SLAVE_BASE, 0x02, slave_icw4),
        ):
            chip.write(COMMAND, ICW1, 1)
            for word in (base, wiring, icw4):
                chip.write(DATA, word, 1)

    @property
    def intr(self) -> bool:
        return self.rig.level("intr")

    def raise_irqs(self, *irqs: int) -> None:
        for irq in irqs:
            self.pic.lines[irq].pulse()

    def acknowledge(self) -> int:
        """The IRQ number of the vector that the CPU gets."""
        return self.pic.acknowledge() - MASTER_BASE

    def eoi(self, irq: int) -> None:
        if irq >= 8:
            self.slave.write(COMMAND, EOI, 1)
        self.master.write(COMMAND, EOI, 1)

    def isr(self) -> int:
        for chip in (self.slave, self.master):
            chip.write(COMMAND, READ_ISR, 1)
        return self.slave.read(COMMAND, 1) << 8 | self.master.read(COMMAND, 1)

    def irr(self) -> int:
        for chip in (self.slave, self.master):
            chip.write(COMMAND, READ_IRR, 1)
        return self.slave.read(COMMAND, 1) << 8 | self.master.read(COMMAND, 1)


@pytest.fixture
def bench(rig_of: Callable[[str], Rig]) -> Bench:
    return Bench(rig_of("pic"))


def test_an_edge_interrupts_and_gives_its_vector(bench: Bench) -> None:
    assert not bench.intr
    bench.pic.lines[4].set(True)
    assert bench.intr
    assert bench.pic.acknowledge() == MASTER_BASE + 4
    assert not bench.intr
    assert bench.isr() == 0x10
    bench.eoi(4)
    assert bench.isr() == 0
    assert not bench.intr  # a level that stays high is no new edge
    bench.pic.lines[4].set(False)
    bench.pic.lines[4].set(True)
    assert bench.intr


def test_a_pulse_stays_latched(bench: Bench) -> None:
    bench.raise_irqs(0)
    assert bench.irr() == 1
    assert bench.acknowledge() == 0
    assert bench.irr() == 0


def test_nothing_interrupts_before_initialization() -> None:
    rig = Rig("pic")
    pic = rig.chips["pic"]
    pic.lines[1].set(True)
    assert not rig.level("intr")
    pic.master.write(DATA, 0xFB, 1)
    assert pic.master.read(DATA, 1) == 0xFB  # kernels probe for the chip with its mask


def test_initialization_clears_mask_service_and_latched_edges(bench: Bench) -> None:
    bench.raise_irqs(3, 1)
    bench.acknowledge()
    bench.master.write(DATA, 0xF0, 1)
    bench.initialize()
    assert (bench.isr(), bench.irr(), bench.master.read(DATA, 1)) == (0, 0, 0)
    assert not bench.intr


def test_no_interrupt_inside_the_initialization_sequence(bench: Bench) -> None:
    bench.master.write(COMMAND, ICW1, 1)
    bench.raise_irqs(1)
    for word in (0x40, 0x04):
        bench.master.write(DATA, word, 1)
        assert not bench.intr
    bench.master.write(DATA, NORMAL, 1)
    assert bench.pic.acknowledge() == 0x41


def test_a_single_chip_without_icw4_takes_one_more_word() -> None:
    rig = Rig("pic")
    master = rig.chips["pic"].master
    master.write(COMMAND, 0x12, 1)
    master.write(DATA, 0x77, 1)
    master.write(DATA, 0x01, 1)
    assert master.vector_base == 0x70
    assert master.read(DATA, 1) == 0x01  # already the mask


def test_a_mask_holds_a_request_back(bench: Bench) -> None:
    bench.master.write(DATA, 0x02, 1)
    bench.raise_irqs(1)
    assert not bench.intr
    assert bench.irr() == 2
    bench.master.write(DATA, 0, 1)
    assert bench.acknowledge() == 1


def test_lower_numbers_go_first_and_nest(bench: Bench) -> None:
    bench.raise_irqs(5, 3)
    assert bench.acknowledge() == 3
    assert not bench.intr  # 5 waits for the end of 3
    bench.raise_irqs(1)
    assert bench.acknowledge() == 1
    assert bench.isr() == 0x0A
    bench.eoi(1)
    assert not bench.intr
    bench.eoi(3)
    assert bench.acknowledge() == 5


def test_the_slave_comes_through_irq_2(bench: Bench) -> None:
    bench.raise_irqs(12)
    assert bench.acknowledge() == 12
    assert bench.isr() == 0x1004
    bench.raise_irqs(8)  # higher on the slave, but the master serves IRQ 2 already
    assert not bench.intr
    bench.eoi(12)
    assert bench.acknowledge() == 8
    bench.eoi(8)
    assert bench.isr() == 0


def test_the_slave_ranks_between_irq_1_and_irq_3(bench: Bench) -> None:
    bench.raise_irqs(3, 15, 1)
    served = []
    while bench.intr:
        served.append(bench.acknowledge())
        bench.eoi(served[-1])
    assert served == [1, 15, 3]


def test_special_fully_nested_mode_lets_the_slave_nest(bench: Bench) -> None:
    bench.initialize(master_icw4=SFNM)
    bench.raise_irqs(12)
    assert bench.acknowledge() == 12
    bench.raise_irqs(14, 3)
    assert not bench.intr  # both rank below
    bench.raise_irqs(8)
    assert bench.acknowledge() == 8


def test_automatic_eoi_leaves_nothing_in_service(bench: Bench) -> None:
    bench.initialize(master_icw4=AEOI, slave_icw4=AEOI)
    bench.raise_irqs(9, 10)
    assert [bench.acknowledge(), bench.acknowledge()] == [9, 10]
    assert bench.isr() == 0


def test_specific_eoi_ends_the_level_it_names(bench: Bench) -> None:
    bench.raise_irqs(3)
    bench.acknowledge()
    bench.raise_irqs(1)
    bench.acknowledge()
    bench.master.write(COMMAND, 0x63, 1)
    assert bench.isr() == 0x02
    bench.master.write(COMMAND, 0x40, 1)  # no operation
    assert bench.isr() == 0x02


def test_rotation_on_nonspecific_eoi_makes_the_served_level_the_last(bench: Bench) -> None:
    served = []
    bench.raise_irqs(3, 4)
    for _ in range(3):
        served.append(bench.acknowledge())
        bench.master.write(COMMAND, ROTATE_EOI, 1)
        bench.raise_irqs(served[-1])
    assert served == [3, 4, 3]


def test_rotation_on_specific_eoi_and_set_priority(bench: Bench) -> None:
    bench.raise_irqs(6)
    bench.acknowledge()
    bench.master.write(COMMAND, 0xE6, 1)
    bench.raise_irqs(0, 7)
    assert bench.acknowledge() == 7
    bench.eoi(7)
    bench.master.write(COMMAND, 0xC7, 1)
    bench.raise_irqs(7)
    assert bench.acknowledge() == 0


def test_rotation_with_automatic_eoi(bench: Bench) -> None:
    bench.initialize(master_icw4=AEOI)
    bench.master.write(COMMAND, 0x80, 1)
    bench.raise_irqs(3, 4)
    assert bench.acknowledge() == 3
    bench.raise_irqs(3)
    assert bench.acknowledge() == 4
    assert bench.acknowledge() == 3
    bench.master.write(COMMAND, 0x00, 1)
    bench.raise_irqs(3, 4)
    assert bench.acknowledge() == 4
    assert bench.acknowledge() == 3


def test_special_mask_mode_lets_lower_levels_through(bench: Bench) -> None:
    bench.raise_irqs(1)
    bench.acknowledge()
    bench.raise_irqs(6)
    assert not bench.intr
    bench.master.write(DATA, 0x02, 1)
    bench.master.write(COMMAND, SET_SMM, 1)
    assert bench.acknowledge() == 6
    bench.eoi(6)
    assert bench.isr() == 0x02  # the masked level is not seen by a non-specific EOI
    bench.master.write(COMMAND, CLEAR_SMM, 1)
    bench.raise_irqs(6)
    assert not bench.intr


def test_poll_mode_acknowledges_by_a_read(bench: Bench) -> None:
    bench.raise_irqs(5)
    bench.master.write(COMMAND, POLL, 1)
    assert bench.master.read(COMMAND, 1) == 0x85
    assert not bench.intr
    assert bench.isr() == 0x20
    bench.eoi(5)
    bench.master.write(COMMAND, POLL, 1)
    assert bench.master.read(DATA, 1) == 0
    assert bench.master.read(DATA, 1) == 0  # the mask again


def test_a_level_request_that_goes_away_is_spurious_irq_7(bench: Bench) -> None:
    bench.pic.elcr.write(0, 0xFF, 1)
    assert bench.pic.elcr.read(0, 1) == 0xF8
    bench.pic.lines[5].set(True)
    assert bench.intr
    bench.pic.lines[5].set(False)
    assert not bench.intr
    assert bench.acknowledge() == 7
    assert bench.isr() == 0


def test_a_slave_request_that_goes_away_is_spurious_irq_15(bench: Bench) -> None:
    bench.pic.elcr.write(1, 0xFF, 1)
    assert bench.pic.elcr.read(1, 1) == 0xDE
    bench.pic.lines[10].set(True)
    bench.pic.lines[10].set(False)
    assert bench.acknowledge() == 15  # the master had latched the slave's edge
    assert bench.isr() == 0x0004
    bench.master.write(COMMAND, EOI, 1)
    assert bench.acknowledge() == 7


def test_a_level_interrupts_until_it_is_low(bench: Bench) -> None:
    bench.pic.elcr.write(1, 0x08, 1)
    bench.pic.lines[11].set(True)
    for _ in range(2):
        assert bench.acknowledge() == 11
        bench.eoi(11)
        assert bench.intr
    bench.pic.lines[11].set(False)
    bench.slave.write(COMMAND, READ_IRR, 1)
    assert bench.slave.read(COMMAND, 1) == 0


def test_making_an_input_level_triggered_sees_its_level(bench: Bench) -> None:
    bench.pic.lines[5].set(True)
    bench.acknowledge()
    bench.eoi(5)
    assert not bench.intr
    bench.pic.elcr.write(0, 0x20, 1)
    assert bench.intr
    bench.pic.elcr.reset()
    assert bench.pic.elcr.read(0, 1) == 0


def test_icw1_can_make_all_inputs_level_triggered() -> None:
    rig = Rig("pic")
    pic = rig.chips["pic"]
    pic.lines[1].set(True)
    pic.master.write(COMMAND, ICW1_SINGLE_LEVEL, 1)
    pic.master.write(DATA, 0x20, 1)
    pic.master.write(DATA, AEOI, 1)
    assert [pic.acknowledge(), pic.acknowledge()] == [0x21, 0x21]


def test_reset_is_silent(bench: Bench) -> None:
    bench.raise_irqs(1, 9)
    bench.pic.reset()
    assert not bench.intr
    assert bench.irr() == 0


def test_a_restored_pair_gives_its_lines_their_levels(bench: Bench) -> None:
    bench.pic.lines[1].set(True)
    bench.pic.lines[12].set(True)
    assert bench.acknowledge() == 1
    again = bench.rig.restored()
    pic = again.chips["pic"]
    assert [irq for irq, line in enumerate(pic.lines) if line.level] == [1, 2, 12]
    pic.lines[1].set(True)  # its device finds it as it was: no new edge
    pic.master.write(COMMAND, EOI, 1)
    assert again.level("intr")
    assert pic.acknowledge() == SLAVE_BASE + 4
