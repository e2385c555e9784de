"""One page, at which every processor finds its own local APIC."""

from functools import partial
from typing import Any

from emuvisor.bus.clock import VirtualClock
from emuvisor.devices.apic import registers as reg
from emuvisor.devices.apic.apic_bus import ApicBus
from emuvisor.devices.apic.local_apic import LocalApic
from emuvisor.devices.apic.local_apics import LocalApics

TO_OTHERS_INIT, TO_OTHERS_STARTUP = 0xC4500, 0xC4600


class Bench:
    def __init__(self, count: int) -> None:
        self.log: list[tuple[Any, ...]] = []
        bus, clock = ApicBus(), VirtualClock()
        self.apics = LocalApics(
            [
                LocalApic(
                    clock=clock,
                    apic_id=number,
                    bus=bus,
                    on_intr=partial(self._note, "intr", number),
                    on_nmi=partial(self._note, "nmi", number),
                    on_init=partial(self._note, "init", number),
                    on_sipi=partial(self._note, "sipi", number),
                    bootstrap=number == 0,
                )
                for number in range(count)
            ]
        )

    def _note(self, *what: str | int) -> None:
        self.log.append(what)

    def write(self, offset: int, value: int) -> None:
        self.apics.write(offset, value, 4)


def test_the_running_processors_answers() -> None:
    bench = Bench(3)
    assert len(bench.apics) == 3
    assert [apic.apic_id for apic in bench.apics] == [0, 1, 2]
    for number in (2, 0, 1):
        bench.apics.select(number)
        assert bench.apics.read(reg.ID, 4) == number << reg.ID_SHIFT
        bench.write(reg.TASK_PRIORITY, 0x10 * number)
    assert [bench.apics[number].tpr for number in range(3)] == [0, 0x10, 0x20]


def test_the_bootstrap_processor_starts_the_others() -> None:
    bench = Bench(3)
    assert [apic.waiting_for_sipi for apic in bench.apics] == [False, True, True]
    bench.write(reg.INTERRUPT_COMMAND_LOW, TO_OTHERS_INIT)
    bench.write(reg.INTERRUPT_COMMAND_LOW, TO_OTHERS_STARTUP | 9)
    bench.write(reg.INTERRUPT_COMMAND_LOW, TO_OTHERS_STARTUP | 9)
    assert bench.log == [("init", 1), ("init", 2), ("sipi", 1, 9), ("sipi", 2, 9)]
    assert not any(apic.waiting_for_sipi for apic in bench.apics)


def test_reset_reaches_all() -> None:
    bench = Bench(2)
    bench.write(reg.INTERRUPT_COMMAND_LOW, TO_OTHERS_STARTUP | 9)
    bench.write(reg.TASK_PRIORITY, 0x20)
    bench.apics.reset()
    assert bench.apics[0].tpr == 0
    assert bench.apics[1].waiting_for_sipi
