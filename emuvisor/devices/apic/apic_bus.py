"""What connects local APICs, I/O APICs and devices with message-signalled interrupts.

Source: Intel SDM volume 3, sections 10.6.2 (destinations), 10.6.2.4 (lowest priority), 10.8.5 (EOI), 10.11 (MSI).
"""

from collections.abc import Sequence
from typing import Protocol

from emuvisor.devices.apic.message import (
    BROADCAST,
    DELIVERY_MODE,
    FIXED,
    LEVEL_ASSERT,
    LEVEL_TRIGGERED,
    LOGICAL,
    LOWEST_PRIORITY,
    VECTOR,
)

__all__ = ["ApicBus", "LevelSource", "Receiver"]

# Message address register (SDM figure 10-24)
MSI_WINDOW_SHIFT = 20
MSI_WINDOW = 0xFEE
MSI_DESTINATION_SHIFT = 12
MSI_REDIRECTION_HINT = 0x8
MSI_DESTINATION_MODE = 0x4
MSI_DATA_FIELDS = VECTOR | DELIVERY_MODE | LEVEL_ASSERT | LEVEL_TRIGGERED


class Receiver(Protocol):
    """A local APIC as the bus sees it."""

    apic_id: int

    def matches_logical(self, destination: int) -> bool:
        """Whether it belongs to the logical destination."""
        ...

    def takes_fixed(self) -> bool:
        """Whether it would accept a fixed interrupt."""
        ...

    def arbitration_priority(self) -> int:
        """How urgent what its processor does is; the lowest wins an arbitration."""
        ...

    def receive(self, message: int) -> bool:
        """Take a message; whether it did."""
        ...


class LevelSource(Protocol):
    """An I/O APIC as the bus sees it."""

    def end_of_interrupt(self, vector: int) -> None:
        """A local APIC ended the level-triggered interrupt `vector`."""
        ...

    def offer_again(self) -> None:
        """Send again what is asserted and nobody accepted."""
        ...


class ApicBus:
    """Carries messages (see `message`) at once, in the order in which the APICs were connected."""

    def __init__(self) -> None:
        self._receivers: list[Receiver] = []
        self._sources: list[LevelSource] = []

    def connect(self, receiver: Receiver) -> None:
        """Add a local APIC."""
        self._receivers.append(receiver)

    def connect_source(self, source: LevelSource) -> None:
        """Add an I/O APIC."""
        self._sources.append(source)

    def send(self, message: int, destination: int) -> bool:
        """Deliver `message` to the 8-bit `destination`; whether anybody accepted it."""
        if message & LOGICAL:
            targets = [r for r in self._receivers if r.matches_logical(destination)]
        elif destination == BROADCAST:
            targets = self._receivers
        else:
            targets = [r for r in self._receivers if r.apic_id == destination]
        return self._deliver(message, targets)

    def send_to_all(self, message: int, but: Receiver | None = None) -> bool:
        """Deliver `message` to every local APIC except `but`; whether anybody accepted it."""
        return self._deliver(message, [r for r in self._receivers if r is not but])

    def send_msi(self, address: int, data: int) -> None:
        """A device's message-signalled interrupt: a write of `data` to `address`.

        Nothing happens for an address outside FEExxxxxh: there is no interrupt controller.
        """
        if address >> MSI_WINDOW_SHIFT != MSI_WINDOW:
            return
        message = data & MSI_DATA_FIELDS
        if message & LEVEL_TRIGGERED and not message & LEVEL_ASSERT:
            return
        if address & MSI_DESTINATION_MODE:
            message |= LOGICAL
            if address & MSI_REDIRECTION_HINT and message & DELIVERY_MODE == FIXED:
                message |= LOWEST_PRIORITY
        self.send(message, address >> MSI_DESTINATION_SHIFT & BROADCAST)

    def end_of_interrupt(self, vector: int) -> None:
        """Broadcast that the level-triggered interrupt `vector` has been served."""
        for source in self._sources:
            source.end_of_interrupt(vector)

    def offer_again(self) -> None:
        """A local APIC was enabled: whoever found nobody to take a level-triggered interrupt may try again."""
        for source in self._sources:
            source.offer_again()

    def _deliver(self, message: int, targets: Sequence[Receiver]) -> bool:
        if message & DELIVERY_MODE == LOWEST_PRIORITY:
            able = [r for r in targets if r.takes_fixed()]
            # Hardware may choose any of the equal; the lowest ID keeps runs the same.
            targets = sorted(able, key=lambda r: (r.arbitration_priority(), r.apic_id))[:1]
        accepted = False
        for receiver in targets:
            accepted |= receiver.receive(message)
        return accepted
