"""A processor of a guest: what its vCPU asks of the board and of its own local APIC."""

from emuvisor.cpu.models import CpuModel
from emuvisor.cpu.topology import processor_cpuid
from emuvisor.machine.boards.wiring import Board

__all__ = ["Processor"]

IA32_APIC_BASE = 0x1B
"""Model-specific register: where the local APIC is, and whether it is on (Intel SDM vol. 4, table 2-2)."""


class Processor:
    """Processor `number` of `count` on `board`: the `Handler` of its vCPU."""

    def __init__(self, board: Board, model: CpuModel, number: int, count: int) -> None:
        self._apic = None if board.local_apics is None else board.local_apics[number]
        self._board = board
        self._number = number
        self.port_read = board.ports.read
        self.port_write = board.ports.write
        self.mmio_read = board.mmio.read
        self.mmio_write = board.mmio.write
        self.cpuid = processor_cpuid(model, number, count)

    @property
    def waits_for_sipi(self) -> bool:
        """It has had an INIT, or has never run: a start-up IPI starts it."""
        return self._apic is not None and self._apic.waiting_for_sipi

    def acknowledge(self) -> int | None:
        """The vector of the interrupt that it takes now."""
        return self._board.acknowledge(self._number)

    def msr_read(self, index: int, /) -> int | None:
        """IA32_APIC_BASE."""
        apic = self._apic
        return apic.base_msr if apic is not None and index == IA32_APIC_BASE else None

    def msr_write(self, index: int, value: int, /) -> bool:
        """IA32_APIC_BASE."""
        apic = self._apic
        return apic is not None and index == IA32_APIC_BASE and apic.write_base_msr(value)

    def read_cr8(self) -> int:
        """The task priority; 0 without a local APIC."""
        return 0 if self._apic is None else self._apic.tpr_cr8

    def write_cr8(self, value: int, /) -> None:
        """Set the task priority, where there is a local APIC."""
        if self._apic is not None:
            self._apic.tpr_cr8 = value
