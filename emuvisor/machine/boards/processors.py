"""The local APICs of a board's processors."""

from collections.abc import Callable

from emuvisor.devices.apic.apic_bus import ApicBus
from emuvisor.devices.apic.local_apic import LocalApic
from emuvisor.devices.apic.local_apics import LocalApics
from emuvisor.machine.boards.wiring import Wiring

__all__ = ["make_local_apics"]


def make_local_apics(w: Wiring, bus: ApicBus, extint: Callable[[], int]) -> LocalApics:
    """One for each processor, with APIC IDs from 0 on; number 0 is the bootstrap processor's, which alone is wired to
    the 8259s (`extint` is their acknowledge cycle)."""
    return LocalApics(
        [
            LocalApic(
                clock=w.clock,
                apic_id=number,
                bus=bus,
                on_intr=pins.on_intr,
                on_nmi=pins.on_nmi,
                on_init=pins.on_init,
                on_sipi=pins.on_sipi,
                extint=extint,
                bootstrap=number == 0,
            )
            for number, pins in enumerate(w.processors)
        ]
    )
