"""A pc board without a vCPU: configuration space, ports and memory as a guest would reach them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from emuvisor.bus.clock import VirtualClock
from emuvisor.devices.pci.function import PciFunction
from emuvisor.machine.boards.pc import PcBoard
from emuvisor.machine.boards.wiring import Drive, ProcessorPins, Wiring
from emuvisor.machine.memory_map import MemoryMap
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import MIB

RAM = 4 * MIB
ADDRESS, DATA = 0xCF8, 0xCFC


class Disk:
    """A disk of zeros."""

    read_only = False
    block_size = 512

    def __init__(self, sectors: int) -> None:
        self.sectors = sectors

    def read(self, lba: int, count: int) -> bytes:
        return bytes(512 * count)

    def write(self, lba: int, data: bytes) -> None:
        pass

    def flush(self) -> None:
        pass


class BoardRig:
    def __init__(
        self, pool: FramePool, *, drives: Sequence[Drive] = (), processors: int = 1, **wiring: Any
    ) -> None:
        self.log: list[tuple[str, Any]] = []
        self.memory = GuestMemory(pool, ((0, RAM),))
        self.clock = VirtualClock()
        self.intr = False
        self.board = PcBoard(
            Wiring(
                clock=self.clock,
                memory=self.memory,
                memory_map=MemoryMap.for_ram(RAM),
                epoch=datetime(2025, 1, 1, tzinfo=UTC),
                serial=[lambda data: self.log.append(("serial", data))],
                drives=drives,
                processors=[self._pins(number) for number in range(processors)],
                on_a20=lambda level: self.log.append(("a20", level)),
                on_reset=lambda: self.log.append(("reset", None)),
                on_shutdown=lambda: self.log.append(("off", None)),
                on_exit=lambda code: self.log.append(("exit", code)),
                on_debug=lambda data: self.log.append(("debug", data)),
                on_panic=lambda: self.log.append(("panic", None)),
                on_suspend=lambda reason: self.log.append(("suspend", reason)),
                **wiring,
            )
        )

    def _pins(self, number: int) -> ProcessorPins:
        """The bootstrap processor's events are logged by their names, the others' with their number."""
        which = number or None

        def intr(level: bool) -> None:
            if number:
                self.log.append(("intr", (number, level)))
            else:
                self.intr = level

        return ProcessorPins(
            on_intr=intr,
            on_nmi=lambda: self.log.append(("nmi", which)),
            on_init=lambda: self.log.append(("init", which)),
            on_sipi=lambda vector: self.log.append(("sipi", (number, vector))),
        )

    def close(self) -> None:
        self.memory.close()

    def inb(self, port: int) -> int:
        return self.board.ports.read(port, 1)

    def outb(self, port: int, value: int) -> None:
        self.board.ports.write(port, value, 1)

    def cmos(self, address: int) -> int:
        self.outb(0x70, address)
        return self.inb(0x71)

    def select(self, slot: int, offset: int, number: int = 0) -> None:
        self.board.ports.write(ADDRESS, 1 << 31 | slot << 11 | number << 8 | offset & 0xFC, 4)

    def cfg(self, slot: int, offset: int, size: int = 4, number: int = 0) -> int:
        self.select(slot, offset, number)
        return self.board.ports.read(DATA + offset % 4, size)

    def set(self, slot: int, offset: int, value: int, size: int = 4, number: int = 0) -> None:
        self.select(slot, offset, number)
        self.board.ports.write(DATA + offset % 4, value, size)

    def layout(self) -> list[tuple[str, int, int]]:
        """What answers where."""
        ranges = [(r.device.name, r.start, r.length) for b in (self.board.ports, self.board.mmio) for r in b]
        return ranges + [("region", region.gpa or 0, region.length) for region in self.memory.regions]

    def functions(self) -> list[PciFunction]:
        return list(self.board.pci)
