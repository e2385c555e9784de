"""The I/O APIC: 82093AA data sheet, section 3."""

from collections.abc import Callable

import pytest
from device_rigs import EXTINT_VECTOR, Rig

from emuvisor.devices.apic import registers as lapic_reg
from emuvisor.devices.apic.apic_bus import ApicBus
from emuvisor.devices.apic.io_apic import (
    EOI,
    IOAPICARB,
    IOAPICID,
    IOAPICVER,
    IOREDTBL,
    IOREGSEL,
    IOWIN,
    IoApic,
)
from emuvisor.devices.apic.local_apic import LocalApic
from emuvisor.devices.apic.message import (
    ACTIVE_LOW,
    EXTINT,
    LEVEL_TRIGGERED,
    LOWEST_PRIORITY,
    MASKED,
    NMI,
    REMOTE_IRR,
)
from emuvisor.errors import SnapshotError, UsageError

VECTOR = 0x41
PIN = 10


class Bench:
    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.ioapic: IoApic = rig.chips["ioapic"]
        self.lapic: LocalApic = rig.chips["lapic"]
        self.line = self.ioapic.lines[PIN]
        self.enable()

    def enable(self) -> None:
        self.lapic.write(lapic_reg.SPURIOUS_VECTOR, lapic_reg.SVR_ENABLE | 0xFF, 4)

    def read(self, register: int) -> int:
        self.ioapic.write(IOREGSEL, register, 4)
        return self.ioapic.read(IOWIN, 4)

    def write(self, register: int, value: int) -> None:
        self.ioapic.write(IOREGSEL, register, 4)
        self.ioapic.write(IOWIN, value, 4)

    def redirect(self, low: int, destination: int = 0) -> None:
        self.write(IOREDTBL + 2 * PIN + 1, destination << 24)
        self.write(IOREDTBL + 2 * PIN, low)

    @property
    def entry(self) -> int:
        return self.read(IOREDTBL + 2 * PIN)

    def serve(self) -> int | None:
        """Acknowledge and end what is pending."""
        if not self.rig.level("intr"):
            return None
        vector = self.lapic.acknowledge()
        self.lapic.write(lapic_reg.END_OF_INTERRUPT, 0, 4)
        return vector


@pytest.fixture
def bench(rig_of: Callable[[str], Rig]) -> Bench:
    return Bench(rig_of("apic"))


def test_registers_after_reset(bench: Bench) -> None:
    assert bench.read(IOAPICID) == 0
    assert bench.read(IOAPICVER) == 0x00170020
    assert bench.read(IOAPICARB) == 0
    for pin in range(24):
        assert bench.read(IOREDTBL + 2 * pin) == MASKED
        assert bench.read(IOREDTBL + 2 * pin + 1) == 0
    for register in (0x03, 0x0F, 0x40, 0xFF):
        bench.write(register, 0xFFFFFFFF)
        assert bench.read(register) == 0


def test_the_writable_bits(bench: Bench) -> None:
    bench.write(IOAPICVER, 0)
    assert bench.read(IOAPICVER) == 0x00170020
    bench.write(IOAPICID, 0xFFFFFFFF)
    assert bench.read(IOAPICID) == 0x0F000000
    assert bench.read(IOAPICARB) == 0x0F000000
    bench.redirect(0xFFFFFFFF, 0xAB)
    assert bench.entry == 0x0001AFFF
    assert bench.read(IOREDTBL + 2 * PIN + 1) == 0xAB000000
    assert bench.ioapic.read(IOREGSEL, 4) == IOREDTBL + 2 * PIN + 1


def test_the_index_takes_bytes_and_the_window_does_not(bench: Bench) -> None:
    bench.ioapic.write(IOREGSEL, IOAPICVER, 1)
    assert bench.ioapic.read(IOWIN, 1) == 0x20
    bench.ioapic.write(IOREGSEL, IOAPICID, 1)
    bench.ioapic.write(IOWIN, 0xFF, 1)
    bench.ioapic.write(IOWIN + 4, 0xFFFFFFFF, 4)
    assert bench.read(IOAPICID) == 0
    assert bench.ioapic.read(EOI, 4) == 0


def test_an_edge_interrupts_once(bench: Bench) -> None:
    bench.redirect(VECTOR)
    bench.line.set(True)
    assert bench.serve() == VECTOR
    assert bench.serve() is None
    bench.line.set(False)
    assert bench.serve() is None
    bench.line.pulse()
    assert bench.serve() == VECTOR


def test_an_edge_is_lost_while_it_is_masked(bench: Bench) -> None:
    bench.line.set(True)
    bench.redirect(VECTOR)
    assert bench.serve() is None


def test_a_level_interrupts_until_it_goes(bench: Bench) -> None:
    bench.line.set(True)
    bench.redirect(LEVEL_TRIGGERED | VECTOR)
    assert bench.entry == LEVEL_TRIGGERED | REMOTE_IRR | VECTOR
    assert bench.serve() == VECTOR
    assert bench.serve() == VECTOR
    assert bench.lapic.acknowledge() == VECTOR
    bench.line.set(False)
    bench.lapic.write(lapic_reg.END_OF_INTERRUPT, 0, 4)
    assert bench.serve() is None
    assert bench.entry == LEVEL_TRIGGERED | VECTOR
    bench.line.set(True)
    assert bench.serve() == VECTOR


def test_a_masked_level_waits(bench: Bench) -> None:
    bench.redirect(MASKED | LEVEL_TRIGGERED | VECTOR)
    bench.line.set(True)
    assert bench.serve() is None
    bench.redirect(LEVEL_TRIGGERED | VECTOR)
    assert bench.serve() == VECTOR


def test_the_polarity_bit_changes_nothing(bench: Bench) -> None:
    bench.redirect(ACTIVE_LOW | LEVEL_TRIGGERED | VECTOR)
    assert bench.serve() is None
    bench.line.set(True)
    assert bench.serve() == VECTOR


def test_the_eoi_register_ends_a_level_interrupt(bench: Bench) -> None:
    bench.redirect(LEVEL_TRIGGERED | VECTOR)
    bench.line.set(True)
    bench.lapic.irr = 0  # as if another processor's APIC had lost it
    bench.ioapic.write(EOI, VECTOR + 1, 4)
    assert bench.lapic.irr == 0
    bench.ioapic.write(EOI, VECTOR, 4)
    assert bench.lapic.irr == 1 << VECTOR


def test_making_it_an_edge_ends_a_level_interrupt(bench: Bench) -> None:
    bench.redirect(LEVEL_TRIGGERED | VECTOR)
    bench.line.set(True)
    bench.redirect(MASKED | VECTOR)
    bench.redirect(MASKED | LEVEL_TRIGGERED | VECTOR)
    assert bench.entry == MASKED | LEVEL_TRIGGERED | VECTOR


def test_a_level_that_nobody_accepts_waits_for_somebody(bench: Bench) -> None:
    bench.lapic.write(lapic_reg.SPURIOUS_VECTOR, 0xFF, 4)
    bench.redirect(LEVEL_TRIGGERED | VECTOR)
    bench.line.set(True)
    assert bench.entry == LEVEL_TRIGGERED | VECTOR
    bench.enable()
    assert bench.serve() == VECTOR


def test_the_destination_is_asked(bench: Bench) -> None:
    bench.redirect(LOWEST_PRIORITY | VECTOR, destination=7)
    bench.line.pulse()
    assert bench.serve() is None
    bench.redirect(LOWEST_PRIORITY | VECTOR, destination=0)
    bench.line.pulse()
    assert bench.serve() == VECTOR


@pytest.mark.parametrize("trigger", [0, LEVEL_TRIGGERED])
def test_nmi_and_external_interrupts_are_edges(bench: Bench, trigger: int) -> None:
    bench.redirect(NMI | trigger)
    bench.line.set(True)
    assert bench.rig.logged("nmi") == [None]
    assert not bench.entry & REMOTE_IRR
    bench.line.set(False)
    bench.redirect(EXTINT | trigger)
    bench.line.set(True)
    assert bench.serve() == EXTINT_VECTOR  # virtual wire mode through the I/O APIC
    assert bench.serve() is None


def test_two_pins_may_share_a_vector(bench: Bench) -> None:
    bench.redirect(LEVEL_TRIGGERED | VECTOR)
    bench.write(IOREDTBL + 2 * 11, LEVEL_TRIGGERED | VECTOR)
    bench.ioapic.lines[11].set(True)
    bench.line.set(True)
    assert bench.lapic.acknowledge() == VECTOR
    bench.line.set(False)
    bench.lapic.write(lapic_reg.END_OF_INTERRUPT, 0, 4)
    assert bench.serve() == VECTOR


def test_a_reset_masks_all_and_keeps_the_levels(bench: Bench) -> None:
    bench.redirect(LEVEL_TRIGGERED | VECTOR)
    bench.line.set(True)
    bench.ioapic.reset()
    assert bench.entry == MASKED
    bench.redirect(LEVEL_TRIGGERED | 0x42)
    assert 0x42 in (bench.serve(), bench.serve())


@pytest.mark.parametrize("pins", [0, 121])
def test_the_number_of_pins_is_limited(pins: int) -> None:
    with pytest.raises(UsageError) as caught:
        IoApic(bus=ApicBus(), pins=pins)
    assert str(caught.value) == f"io-apic: {pins} pins; an I/O APIC has 1 to 120"


@pytest.mark.parametrize(
    ("entries", "shown"),
    [
        ([MASKED] * 23, "[65536, 65536, 65536, 65536, 65536, 65536, ...]"),
        ([-1] * 24, "[-1, -1, -1, -1, -1, -1, ...]"),
        (None, "None"),
    ],
)
def test_saved_entries_are_checked(entries: list[int] | None, shown: str) -> None:
    state = {**IoApic(bus=ApicBus()).save(), "entries": entries}
    with pytest.raises(SnapshotError) as caught:
        IoApic(bus=ApicBus()).load(state)
    assert str(caught.value) == f"io-apic: saved field 'entries' is {shown}; expected 24 entries"
