"""Delivery of an interrupt or exception, with double and triple faults (Intel SDM volume 3, 6.15)."""

from dataclasses import dataclass

from emuvisor.cpu.reference import long_mode, protected_mode, real_mode
from emuvisor.cpu.reference.attempt import Attempt, clone
from emuvisor.cpu.reference.faults import Event, Fault, Kind, after_second_fault
from emuvisor.cpu.reference.physical import PhysicalMemory
from emuvisor.cpu.registers import CR0_PE, in_long_mode
from emuvisor.cpu.state import CpuState

__all__ = ["Delivery", "deliver"]


@dataclass
class Delivery:
    """What came of an event.

    `attempts` are the events that were tried, in order; all but the last one faulted. `state` is the
    processor's new state: at the last one's handler or, on `shutdown` (triple fault), as before but for CR2.
    """

    state: CpuState
    shutdown: bool
    attempts: list[Event]

    def __str__(self) -> str:
        names = " then ".join(f"vector {event.vector:#04x}" for event in self.attempts)
        where = "shutdown" if self.shutdown else f"{self.state.cs.selector:04x}:{self.state.rip:x}"
        return f"{names}: {where}"


def deliver(state: CpuState, memory: PhysicalMemory, event: Event) -> Delivery:
    """Deliver `event`; `state` itself is not changed, `memory` is."""
    original = state
    attempts: list[Event] = []
    while True:
        attempts.append(event)
        attempt = Attempt(state, memory, event)
        try:
            _enter_handler(attempt)
        except Fault as fault:
            state = attempt.checkpoint
            if event.kind is Kind.SOFTWARE and not attempt.switched_task:
                state.rip = event.instruction
            if fault.address is not None:
                state.cr2 = fault.address
            next_event = after_second_fault(event, fault.event)
            if next_event is None:
                unchanged = clone(original)
                unchanged.cr2 = state.cr2
                return Delivery(unchanged, True, attempts)
            event = next_event
        else:
            attempt.state.interrupt_shadow = False
            return Delivery(attempt.state, False, attempts)


def _enter_handler(attempt: Attempt) -> None:
    if not attempt.state.cr0 & CR0_PE:
        real_mode.deliver(attempt)
    elif in_long_mode(attempt.state.efer):
        long_mode.deliver(attempt)
    else:
        protected_mode.deliver(attempt)
