"""Four processors on one bus: destinations, arbitration, INIT and SIPI (SDM 10.6, 8.4), and MSI (SDM 10.11)."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from emuvisor.bus.clock import VirtualClock
from emuvisor.devices.apic import registers as reg
from emuvisor.devices.apic.apic_bus import ApicBus
from emuvisor.devices.apic.local_apic import LocalApic
from emuvisor.devices.apic.message import (
    INIT,
    LEVEL_ASSERT,
    LEVEL_TRIGGERED,
    LOGICAL,
    LOWEST_PRIORITY,
    NMI,
    STARTUP,
)

VECTOR = 0x41
ALL = {0, 1, 2, 3}


@dataclass
class Processors:
    bus: ApicBus = field(default_factory=ApicBus)
    log: list[tuple[int, Any]] = field(default_factory=list)
    apics: list[LocalApic] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number in range(4):
            apic = self.apic(number)
            apic.write(reg.SPURIOUS_VECTOR, reg.SVR_ENABLE | 0xFF, 4)
            apic.write(reg.LOGICAL_DESTINATION, 1 << reg.ID_SHIFT + number, 4)
            self.apics.append(apic)

    def apic(self, number: int) -> LocalApic:
        return LocalApic(
            clock=VirtualClock(),
            apic_id=number,
            bus=self.bus,
            on_intr=lambda level: self.log.append((number, level)),
            on_nmi=lambda: self.log.append((number, "nmi")),
            on_init=lambda: self.log.append((number, "init")),
            on_sipi=lambda vector: self.log.append((number, vector)),
            bootstrap=number == 0,
        )

    def send(self, sender: int, command: int, destination: int = 0) -> None:
        self.apics[sender].write(reg.INTERRUPT_COMMAND_HIGH, destination << reg.ID_SHIFT, 4)
        self.apics[sender].write(reg.INTERRUPT_COMMAND_LOW, command, 4)

    def requested(self) -> set[int]:
        return {number for number, apic in enumerate(self.apics) if apic.irr == 1 << VECTOR}

    def cluster(self) -> None:
        """Processors 0 and 1 in cluster 0, 2 and 3 in cluster 1."""
        for number, apic in enumerate(self.apics):
            apic.write(reg.DESTINATION_FORMAT, 0, 4)
            apic.write(reg.LOGICAL_DESTINATION, (number // 2 << 4 | 1 << number % 2) << reg.ID_SHIFT, 4)


@pytest.fixture
def four() -> Processors:
    return Processors()


@pytest.mark.parametrize(
    ("shorthand", "receivers"),
    [(reg.ICR_TO_SELF, {2}), (reg.ICR_TO_ALL, ALL), (reg.ICR_TO_OTHERS, {0, 1, 3})],
)
def test_shorthands(four: Processors, shorthand: int, receivers: set[int]) -> None:
    four.send(2, shorthand | VECTOR)
    assert four.requested() == receivers


@pytest.mark.parametrize(("destination", "receivers"), [(0, {0}), (3, {3}), (4, set()), (0xFF, ALL)])
def test_physical_destinations(four: Processors, destination: int, receivers: set[int]) -> None:
    four.send(1, VECTOR, destination)
    assert four.requested() == receivers


@pytest.mark.parametrize(
    ("destination", "receivers"), [(0, set()), (0b0100, {2}), (0b1010, {1, 3}), (0xFF, ALL)]
)
def test_the_flat_model(four: Processors, destination: int, receivers: set[int]) -> None:
    four.send(1, LOGICAL | VECTOR, destination)
    assert four.requested() == receivers


@pytest.mark.parametrize(
    ("destination", "receivers"),
    [(0x01, {0}), (0x03, {0, 1}), (0x12, {3}), (0x1F, {2, 3}), (0x21, set()), (0xFF, ALL)],
)
def test_the_cluster_model(four: Processors, destination: int, receivers: set[int]) -> None:
    four.cluster()
    four.send(1, LOGICAL | VECTOR, destination)
    assert four.requested() == receivers


def test_lowest_priority_goes_to_the_least_urgent(four: Processors) -> None:
    for number, priority in enumerate((0x30, 0x20, 0x10, 0x20)):
        four.apics[number].write(reg.TASK_PRIORITY, priority, 4)
    four.send(0, LOGICAL | LOWEST_PRIORITY | VECTOR, 0xF)
    assert four.requested() == {2}
    four.apics[2].acknowledge()  # now it serves class 4
    four.send(0, LOGICAL | LOWEST_PRIORITY | VECTOR, 0xF)
    assert four.requested() == {1}  # the lower ID of two that are equal


def test_lowest_priority_passes_by_who_is_disabled(four: Processors) -> None:
    four.apics[0].write(reg.SPURIOUS_VECTOR, 0xFF, 4)
    assert four.bus.send(LOGICAL | LOWEST_PRIORITY | VECTOR, 0b0011)
    assert four.requested() == {1}
    assert not four.bus.send(LOGICAL | LOWEST_PRIORITY | VECTOR, 0b0001)


def test_starting_the_other_processors(four: Processors) -> None:
    four.send(0, reg.ICR_TO_OTHERS | STARTUP | 0x9A)  # after power-on they wait already
    assert four.log == [(1, 0x9A), (2, 0x9A), (3, 0x9A)]
    four.log.clear()
    four.send(0, reg.ICR_TO_OTHERS | STARTUP | 0x9B)
    assert four.log == []
    four.send(0, INIT | LEVEL_ASSERT | LEVEL_TRIGGERED, 2)
    four.send(0, INIT | LEVEL_TRIGGERED, 2)  # the de-assertion
    four.send(0, STARTUP | 0x10, 2)
    four.send(0, STARTUP | 0x10, 2)  # the second is for processors that missed the first
    assert four.log == [(2, "init"), (2, 0x10)]
    assert four.apics[2].read(reg.SPURIOUS_VECTOR, 4) == 0xFF


def test_a_processor_that_runs_keeps_running_when_its_apic_is_disabled(four: Processors) -> None:
    four.apics[1].receive(STARTUP | 0x9A)
    for value in (0xFEE00000, 0xFEE00800):
        assert four.apics[1].write_base_msr(value)
    four.log.clear()
    four.apics[1].receive(STARTUP | 0x9A)
    assert four.log == []


def test_nmi_to_others(four: Processors) -> None:
    four.send(3, reg.ICR_TO_OTHERS | NMI)
    assert four.log == [(0, "nmi"), (1, "nmi"), (2, "nmi")]


def test_ipis_are_edges(four: Processors) -> None:
    four.send(0, LEVEL_TRIGGERED | LEVEL_ASSERT | VECTOR, 1)
    assert four.apics[1].tmr == 0


# Message-signalled interrupts


@pytest.mark.parametrize(
    ("address", "receivers"),
    [
        (0xFEE00000, {0}),
        (0xFEE03000, {3}),
        (0xFEEFF000, ALL),
        (0xFEE0A004, {1, 3}),
        (0xFEE0A00C, {1}),  # redirection hint: one of them
        (0xFEE03008, {3}),  # the hint means nothing for one processor
        (0xFED00000, set()),
        (0x1FEE00000, set()),
    ],
)
def test_the_message_address(four: Processors, address: int, receivers: set[int]) -> None:
    four.bus.send_msi(address, VECTOR)
    assert four.requested() == receivers


def test_the_message_data(four: Processors) -> None:
    four.bus.send_msi(0xFEE01000, NMI)
    assert four.log == [(1, "nmi")]
    four.bus.send_msi(0xFEE01000, LEVEL_TRIGGERED | VECTOR)  # a de-assertion
    assert four.requested() == set()
    four.bus.send_msi(0xFEE01000, LEVEL_TRIGGERED | LEVEL_ASSERT | VECTOR)
    assert four.apics[1].tmr == 1 << VECTOR
    four.bus.send_msi(0xFEE02000, LOGICAL | VECTOR)  # a reserved bit there
    assert four.requested() == {1, 2}
    four.bus.send_msi(0xFEE0C004, LOWEST_PRIORITY | 0x99)
    assert [apic.irr >> 0x99 for apic in four.apics] == [0, 0, 0, 1]  # processor 2 has more to do
