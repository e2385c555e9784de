"""The local APIC's registers, priorities, pins and errors: Intel SDM volume 3, chapter 10."""

from collections.abc import Callable

import pytest
from device_rigs import EXTINT_VECTOR, Rig

from emuvisor.devices.apic import registers as reg
from emuvisor.devices.apic.local_apic import LocalApic
from emuvisor.devices.apic.message import (
    ACTIVE_LOW,
    EXTINT,
    FIXED,
    INIT,
    LEVEL_TRIGGERED,
    MASKED,
    NMI,
    REMOTE_IRR,
    SMI,
    STARTUP,
)

TO_SELF = reg.ICR_TO_SELF
SPURIOUS = 0xFF


class Bench:
    def __init__(self, rig: Rig, enable: bool = True) -> None:
        self.rig = rig
        self.apic: LocalApic = rig.chips["lapic"]
        if enable:
            self.write(reg.SPURIOUS_VECTOR, reg.SVR_ENABLE | SPURIOUS)

    def read(self, register: int) -> int:
        return self.apic.read(register, 4)

    def write(self, register: int, value: int) -> None:
        self.apic.write(register, value, 4)

    def request(self, *vectors: int) -> None:
        for vector in vectors:
            self.write(reg.INTERRUPT_COMMAND_LOW, TO_SELF | vector)

    def eoi(self) -> None:
        self.write(reg.END_OF_INTERRUPT, 0)

    def vectors(self, first: int) -> set[int]:
        words = [self.read(first + 16 * word) for word in range(8)]
        return {32 * word + bit for word in range(8) for bit in range(32) if words[word] >> bit & 1}

    def errors(self) -> int:
        self.write(reg.ERROR_STATUS, 0)
        return self.read(reg.ERROR_STATUS)

    @property
    def intr(self) -> bool:
        return self.rig.level("intr")


@pytest.fixture
def bench(rig_of: Callable[[str], Rig]) -> Bench:
    return Bench(rig_of("apic"))


@pytest.fixture
def disabled(rig_of: Callable[[str], Rig]) -> Bench:
    return Bench(rig_of("apic"), enable=False)


# Register file: table 10-1, section 10.4.7.


def test_registers_after_reset(disabled: Bench) -> None:
    expected = {
        reg.VERSION: 0x00050014,
        reg.DESTINATION_FORMAT: 0xFFFFFFFF,
        reg.SPURIOUS_VECTOR: 0xFF,
        **dict.fromkeys(reg.LVT, MASKED),
    }
    for register in disabled.apic._readers:
        assert disabled.read(register) == expected.get(register, 0), hex(register)


@pytest.mark.parametrize(
    ("register", "kept"),
    [
        (reg.ID, 0xFF000000),
        (reg.VERSION, 0x00050014),
        (reg.TASK_PRIORITY, 0xFF),
        (reg.LOGICAL_DESTINATION, 0xFF000000),
        (reg.SPURIOUS_VECTOR, 0x3FF),
        (reg.INTERRUPT_COMMAND_HIGH, 0xFF000000),
        (reg.LVT_TIMER, 0x300FF),
        (reg.LVT_THERMAL, 0x107FF),
        (reg.LVT_PERFORMANCE, 0x107FF),
        (reg.LVT_LINT0, 0x1A7FF),
        (reg.LVT_LINT1, 0x1A7FF),
        (reg.LVT_ERROR, 0x100FF),
        (reg.INITIAL_COUNT, 0xFFFFFFFF),
        (reg.DIVIDE_CONFIGURATION, 0xB),
        (reg.REMOTE_READ, 0),
        (reg.IN_SERVICE, 0),
    ],
)
def test_the_writable_bits(bench: Bench, register: int, kept: int) -> None:
    bench.write(register, 0xFFFFFFFF)
    assert bench.read(register) == kept


def test_the_destination_format_has_four_bits(bench: Bench) -> None:
    bench.write(reg.DESTINATION_FORMAT, 0)
    assert bench.read(reg.DESTINATION_FORMAT) == 0x0FFFFFFF


def test_parts_of_registers_are_read_and_not_written(bench: Bench) -> None:
    bench.write(reg.TASK_PRIORITY, 0x20)
    bench.apic.write(reg.TASK_PRIORITY, 0x30, 1)
    bench.apic.write(reg.TASK_PRIORITY + 4, 0x30, 4)
    assert bench.apic.read(reg.TASK_PRIORITY, 1) == 0x20
    assert bench.apic.read(reg.VERSION + 2, 2) == 0x0005
    assert bench.apic.read(reg.VERSION + 4, 4) == 0
    assert bench.apic.read(reg.VERSION, 8) == 0x00050014
    bench.apic.write(reg.TASK_PRIORITY, 0x99_0000_0040, 8)
    assert bench.apic.read(reg.TASK_PRIORITY, 4) == 0x40
    assert bench.errors() == 0


# Errors: 10.5.3.


def test_reserved_registers_are_errors(bench: Bench) -> None:
    assert bench.read(0x010) == 0
    assert bench.read(reg.ERROR_STATUS) == 0  # not before it is written
    assert bench.errors() == reg.ESR_ILLEGAL_REGISTER
    assert bench.errors() == 0
    bench.write(0x3F0, 1)
    assert bench.errors() == reg.ESR_ILLEGAL_REGISTER


def test_illegal_vectors_are_errors(bench: Bench) -> None:
    bench.write(reg.INTERRUPT_COMMAND_LOW, TO_SELF | 15)
    assert bench.errors() == reg.ESR_SEND_ILLEGAL_VECTOR
    bench.apic.receive(FIXED | 15)
    assert bench.errors() == reg.ESR_RECEIVE_ILLEGAL_VECTOR
    assert bench.vectors(reg.INTERRUPT_REQUEST) == set()


def test_an_error_interrupts(bench: Bench) -> None:
    bench.write(reg.LVT_ERROR, 0x50)
    bench.request(3)
    assert bench.apic.acknowledge() == 0x50


def test_an_error_interrupt_with_an_illegal_vector_is_none(bench: Bench) -> None:
    bench.write(reg.LVT_ERROR, 0x05)
    bench.request(3)
    assert not bench.intr
    assert bench.errors() == reg.ESR_SEND_ILLEGAL_VECTOR


# Priorities: 10.8.3.


def test_an_interrupt_goes_from_request_to_service_to_its_end(bench: Bench) -> None:
    bench.request(0x41)
    assert bench.intr
    assert bench.vectors(reg.INTERRUPT_REQUEST) == {0x41}
    assert bench.apic.acknowledge() == 0x41
    assert not bench.intr
    assert bench.vectors(reg.INTERRUPT_REQUEST) == set()
    assert bench.vectors(reg.IN_SERVICE) == {0x41}
    assert bench.read(reg.PROCESSOR_PRIORITY) == 0x40
    bench.eoi()
    assert bench.vectors(reg.IN_SERVICE) == set()
    assert bench.read(reg.PROCESSOR_PRIORITY) == 0


def test_interrupts_nest_by_class(bench: Bench) -> None:
    bench.request(0x41)
    assert bench.apic.acknowledge() == 0x41
    bench.request(0x4F, 0x52)
    assert bench.apic.acknowledge() == 0x52
    assert not bench.intr  # 4Fh is of the class in service
    bench.eoi()
    assert bench.vectors(reg.IN_SERVICE) == {0x41}
    assert not bench.intr
    bench.eoi()
    assert bench.apic.acknowledge() == 0x4F


def test_one_of_a_kind_waits_behind_the_one_in_service(bench: Bench) -> None:
    bench.request(0x41, 0x41)
    bench.apic.acknowledge()
    bench.request(0x41, 0x41)
    bench.eoi()
    assert bench.apic.acknowledge() == 0x41
    bench.eoi()
    assert not bench.intr


def test_an_end_of_nothing_does_nothing(bench: Bench) -> None:
    before = bench.apic.save()
    bench.eoi()
    assert bench.apic.save() == before


def test_the_task_priority_holds_back_its_class_and_below(bench: Bench) -> None:
    bench.write(reg.TASK_PRIORITY, 0x45)
    assert bench.read(reg.PROCESSOR_PRIORITY) == 0x45
    bench.request(0x4F)
    assert not bench.intr
    bench.request(0x50)
    assert bench.apic.acknowledge() == 0x50
    assert bench.read(reg.PROCESSOR_PRIORITY) == 0x50
    bench.eoi()
    bench.write(reg.TASK_PRIORITY, 0x3F)
    assert bench.intr


def test_a_request_that_has_gone_is_spurious(bench: Bench) -> None:
    bench.request(0x41)
    bench.write(reg.TASK_PRIORITY, 0xF0)
    assert not bench.intr
    assert bench.apic.acknowledge() == SPURIOUS
    assert bench.vectors(reg.IN_SERVICE) == set()  # no EOI follows
    bench.write(reg.TASK_PRIORITY, 0)
    assert bench.apic.acknowledge() == 0x41


def test_cr8_is_the_task_priority_class(bench: Bench) -> None:
    bench.write(reg.TASK_PRIORITY, 0x5A)
    assert bench.apic.tpr_cr8 == 5
    bench.apic.tpr_cr8 = 0x17
    assert bench.read(reg.TASK_PRIORITY) == 0x70


def test_arbitration_priority_is_the_highest_of_all(bench: Bench) -> None:
    bench.write(reg.TASK_PRIORITY, 0x45)
    assert bench.read(reg.ARBITRATION_PRIORITY) == 0x45
    bench.request(0x62)
    assert bench.read(reg.ARBITRATION_PRIORITY) == 0x60
    bench.apic.acknowledge()
    assert bench.read(reg.ARBITRATION_PRIORITY) == 0x60


# Disabled by software: 10.4.7.2.


def test_disabled_by_software_only_fixed_interrupts_are_refused(disabled: Bench) -> None:
    disabled.request(0x41)
    assert disabled.vectors(reg.INTERRUPT_REQUEST) == set()
    disabled.write(reg.LVT_ERROR, 0x50)
    assert disabled.read(reg.LVT_ERROR) == MASKED | 0x50
    disabled.write(reg.INTERRUPT_COMMAND_LOW, TO_SELF | NMI)
    assert disabled.rig.logged("nmi") == [None]


def test_disabling_masks_the_vector_table_and_keeps_requests(bench: Bench) -> None:
    bench.write(reg.LVT_TIMER, 0x60)
    bench.request(0x41)
    bench.write(reg.SPURIOUS_VECTOR, SPURIOUS)
    assert bench.read(reg.LVT_TIMER) == MASKED | 0x60
    assert bench.apic.acknowledge() == 0x41
    bench.write(reg.SPURIOUS_VECTOR, reg.SVR_ENABLE | SPURIOUS)
    assert bench.read(reg.LVT_TIMER) == MASKED | 0x60


# IA32_APIC_BASE: 10.4.4.


def test_disabled_for_good_the_registers_are_gone(bench: Bench) -> None:
    assert bench.apic.base_msr == 0xFEE00900
    bench.request(0x41)
    assert bench.apic.write_base_msr(0xFEE00100)
    assert bench.apic.base_msr == 0xFEE00100
    assert not bench.intr
    assert bench.read(reg.VERSION) == 0xFFFFFFFF
    bench.write(reg.TASK_PRIORITY, 0x50)
    assert not bench.apic.receive(NMI)
    assert bench.rig.logged("nmi") == []
    assert bench.apic.write_base_msr(0xFEE00900)
    assert bench.read(reg.TASK_PRIORITY) == 0
    assert bench.read(reg.SPURIOUS_VECTOR) == 0xFF


@pytest.mark.parametrize("value", [0xFEE00D00, 0xFEE01900, 0xFEC00900, 0x1FEE00900, 0xFEE00901])
def test_another_base_and_reserved_bits_are_refused(bench: Bench, value: int) -> None:
    bench.request(0x41)
    assert not bench.apic.write_base_msr(value)
    assert bench.apic.base_msr == 0xFEE00900
    assert bench.intr


# The pins: 10.5.1.


def test_a_fixed_pin_interrupts_at_its_edge(bench: Bench) -> None:
    bench.write(reg.LVT_LINT0, FIXED | 0x41)
    bench.apic.lint0.set(True)
    assert bench.apic.acknowledge() == 0x41
    bench.eoi()
    assert not bench.intr
    bench.apic.lint0.pulse()
    assert bench.apic.acknowledge() == 0x41


def test_an_edge_is_lost_while_the_pin_is_masked(bench: Bench) -> None:
    bench.apic.lint0.set(True)
    bench.write(reg.LVT_LINT0, FIXED | 0x41)
    assert not bench.intr


@pytest.mark.parametrize(("register", "pin"), [(reg.LVT_LINT0, "lint0"), (reg.LVT_LINT1, "lint1")])
def test_a_level_interrupts_until_it_goes(bench: Bench, register: int, pin: str) -> None:
    line = getattr(bench.apic, pin)
    line.set(True)
    bench.write(register, LEVEL_TRIGGERED | 0x41)
    assert bench.read(register) == LEVEL_TRIGGERED | REMOTE_IRR | 0x41
    assert bench.apic.acknowledge() == 0x41
    assert bench.vectors(reg.TRIGGER_MODE) == {0x41}
    bench.write(register, LEVEL_TRIGGERED | ACTIVE_LOW | 0x41)
    assert not bench.intr  # one is under way
    bench.eoi()
    assert bench.apic.acknowledge() == 0x41
    line.set(False)
    bench.eoi()
    assert not bench.intr
    assert bench.read(register) == LEVEL_TRIGGERED | ACTIVE_LOW | 0x41
    bench.request(0x41)
    assert bench.vectors(reg.TRIGGER_MODE) == set()  # an edge now


def test_a_pin_may_be_an_nmi_or_an_init(bench: Bench) -> None:
    bench.write(reg.LVT_LINT1, NMI)
    bench.apic.lint1.pulse()
    assert bench.rig.logged("nmi") == [None]
    bench.write(reg.LVT_LINT1, INIT)
    bench.apic.lint1.pulse()
    assert bench.rig.logged("init") == [None]
    assert bench.read(reg.SPURIOUS_VECTOR) == 0xFF


def test_the_8259s_interrupt_past_all_priorities(bench: Bench) -> None:
    bench.write(reg.TASK_PRIORITY, 0xFF)
    bench.write(reg.LVT_LINT0, EXTINT)
    assert not bench.intr
    bench.apic.lint0.set(True)
    assert bench.intr
    assert bench.apic.acknowledge() == EXTINT_VECTOR
    assert bench.vectors(reg.IN_SERVICE) == set()
    bench.write(reg.LVT_LINT0, EXTINT | MASKED)
    assert not bench.intr
    bench.write(reg.LVT_LINT0, EXTINT)
    assert bench.intr
    bench.apic.lint0.set(False)
    assert not bench.intr


def test_an_external_interrupt_may_come_as_a_message(bench: Bench) -> None:
    bench.apic.receive(EXTINT)
    assert bench.intr
    assert bench.apic.acknowledge() == EXTINT_VECTOR
    assert not bench.intr


def test_while_the_apic_is_disabled_the_pins_are_intr_and_nmi(disabled: Bench) -> None:
    disabled.apic.lint0.set(True)
    disabled.apic.lint1.pulse()
    assert disabled.intr
    assert disabled.apic.acknowledge() == EXTINT_VECTOR
    assert disabled.rig.logged("nmi") == [None]
    disabled.write(reg.SPURIOUS_VECTOR, reg.SVR_ENABLE)
    assert not disabled.intr
    disabled.apic.write_base_msr(0xFEE00000)
    disabled.apic.lint1.pulse()
    assert disabled.intr
    assert disabled.rig.logged("nmi") == [None, None]
    disabled.apic.lint0.set(False)
    assert not disabled.intr
    assert disabled.apic.acknowledge() == EXTINT_VECTOR  # the 8259s answer for a request that has gone


def test_the_bypass_leads_to_the_processor(bench: Bench) -> None:
    bench.apic.bypass.set(True)
    assert bench.intr
    assert bench.apic.acknowledge() == EXTINT_VECTOR
    bench.apic.bypass.set(False)
    assert not bench.intr


def test_virtual_wire_mode(disabled: Bench) -> None:
    disabled.apic.set_virtual_wire()
    assert disabled.read(reg.SPURIOUS_VECTOR) == 0x1FF
    assert disabled.read(reg.LVT_LINT0) == EXTINT
    assert disabled.read(reg.LVT_LINT1) == NMI
    disabled.apic.lint0.set(True)
    assert disabled.apic.acknowledge() == EXTINT_VECTOR


# Messages: 10.6.1, 10.4.7.3.


def test_an_init_resets_all_but_the_id(bench: Bench) -> None:
    bench.write(reg.ID, 0x05000000)
    bench.write(reg.TASK_PRIORITY, 0x50)
    bench.request(0x41)
    bench.apic.receive(INIT)
    assert bench.rig.logged("init") == [None]
    assert bench.read(reg.ID) == 0x05000000
    assert bench.read(reg.TASK_PRIORITY) == 0
    assert bench.vectors(reg.INTERRUPT_REQUEST) == set()
    bench.apic.reset()
    assert bench.read(reg.ID) == 0


def test_a_bootstrap_processor_needs_no_sipi(bench: Bench) -> None:
    bench.apic.receive(INIT)
    bench.apic.receive(STARTUP | 0x9A)
    assert bench.rig.logged("sipi") == []


@pytest.mark.parametrize("mode", [SMI, EXTINT, 0x300])
def test_what_the_icr_cannot_send(bench: Bench, mode: int) -> None:
    before = bench.apic.save()
    bench.write(reg.INTERRUPT_COMMAND_LOW, TO_SELF | mode | 0x41)
    assert bench.apic.save() == {**before, "icr_low": TO_SELF | mode | 0x41}


def test_intr_hears_changes_only(bench: Bench) -> None:
    bench.request(0x41, 0x42, 0x51)
    assert bench.apic.acknowledge() == 0x51
    bench.eoi()
    assert bench.apic.acknowledge() == 0x42
    assert bench.rig.logged("intr") == [True, False, True, False]
