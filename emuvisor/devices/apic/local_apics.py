"""The local APICs of all processors at the one address at which each processor sees its own."""

from collections.abc import Iterator, Sequence

from emuvisor.devices.apic.local_apic import LocalApic

__all__ = ["LocalApics"]


class LocalApics:
    """The APIC page: the APIC of the processor that runs answers, `select` says which that is.

    Item n is processor n's. `reset` resets them all, as the reset line does.
    """

    name = "local-apic"

    def __init__(self, apics: Sequence[LocalApic]) -> None:
        self._apics = tuple(apics)
        self._running = self._apics[0]

    def __len__(self) -> int:
        return len(self._apics)

    def __getitem__(self, number: int) -> LocalApic:
        return self._apics[number]

    def __iter__(self) -> Iterator[LocalApic]:
        return iter(self._apics)

    def select(self, number: int) -> None:
        """Processor `number` runs now."""
        self._running = self._apics[number]

    def read(self, offset: int, size: int) -> int:
        """A register of the running processor's APIC."""
        return self._running.read(offset, size)

    def write(self, offset: int, value: int, size: int) -> None:
        """Set a register of the running processor's APIC."""
        self._running.write(offset, value, size)

    def parts(self) -> dict[str, LocalApic]:
        """By the names under which a board saves them."""
        return {f"local APIC {number}": apic for number, apic in enumerate(self._apics)}

    def reset(self) -> None:
        """As after power-on; all but the bootstrap processor's wait for a SIPI."""
        for apic in self._apics:
            apic.reset()
