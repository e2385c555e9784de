"""A guest's driver for the floppy controller on a bench."""

from device_rigs import Rig

RQM, DIO, NON_DMA, CMD_BSY = 0x80, 0x40, 0x20, 0x10
SECTOR = 512
BUFFER = 0x1_0000
"""Where DMA goes."""
READ, WRITE, VERIFY, READ_DELETED, WRITE_DELETED = 0xE6, 0xC5, 0xF6, 0xCC, 0xC9
"""Opcodes with MFM, and multi-track (and skip) where it does no harm."""
DMA_TO_MEMORY, DMA_FROM_MEMORY = 0x46, 0x4A
"""Modes: single, channel 2."""


class FloppyDriver:
    """What a driver does with ports, interrupts and DMA."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.chip = rig.chips["floppy"]
        self.dma = rig.chips["dma"]
        self.disk = rig.wires.disk
        self.ram = rig.wires.memory.bytes

    def restored(self) -> "FloppyDriver":
        """The same bench again, from saved state alone."""
        return FloppyDriver(self.rig.restored())

    # ports

    def status(self) -> int:
        return int(self.chip.read(4, 1))

    def set_dor(self, value: int) -> None:
        self.chip.write(2, value, 1)

    def set_rate(self, rate: int) -> None:
        self.chip.rate_and_change.write(0, rate, 1)

    def send(self, *values: int) -> None:
        for value in values:
            assert self.status() & (RQM | DIO) == RQM
            self.chip.write(5, value, 1)

    def results(self) -> bytes:
        data = bytearray()
        while self.status() & (RQM | DIO | CMD_BSY) == RQM | DIO | CMD_BSY:
            data.append(self.chip.read(5, 1))
        return bytes(data)

    def ask(self, *values: int) -> bytes:
        """A command that answers at once."""
        self.send(*values)
        return self.results()

    @property
    def irq(self) -> bool:
        return self.rig.level("irq6")

    def wait(self) -> None:
        """Until the interrupt, which does not come at once."""
        assert not self.irq
        while not self.irq:
            deadline = self.rig.wires.clock.next_deadline_ns()
            assert deadline is not None, "no interrupt will come"
            self.rig.run_ns(deadline - self.rig.wires.clock.now_ns())

    # what drivers do

    def start(self, drive: int = 0) -> "FloppyDriver":
        """Out of reset, motor on, 500 kb/s, DMA, head on track 0."""
        self.set_dor(0x0C | drive | 0x10 << drive)
        self.wait()
        for number in range(4):
            assert self.ask(0x08) == bytes((0xC0 | number, self.chip.drives[number].cylinder))
        self.send(0x03, 0xAF, 0x02)
        self.set_rate(0)
        return self

    def recalibrate(self, drive: int = 0) -> bytes:
        self.send(0x07, drive)
        self.wait()
        return self.ask(0x08)

    def seek(self, cylinder: int, drive: int = 0) -> bytes:
        self.send(0x0F, drive, cylinder)
        self.wait()
        return self.ask(0x08)

    def program_dma(self, mode: int, length: int, address: int = BUFFER) -> None:
        first, pages = self.dma.first, self.dma.pages
        first.write(0xA, 0x06, 1)
        first.write(0xC, 0, 1)
        first.write(0xB, mode, 1)
        for value in (address & 0xFF, address >> 8 & 0xFF):
            first.write(4, value, 1)
        for value in (length - 1 & 0xFF, length - 1 >> 8):
            first.write(5, value, 1)
        pages.write(0, address >> 16, 1)
        first.write(0xA, 0x02, 1)

    def command(
        self,
        opcode: int,
        cylinder: int,
        head: int,
        sector: int,
        *,
        drive: int = 0,
        last: int = 18,
        n: int = 2,
    ) -> None:
        """The bytes of a read, write or verify."""
        self.send(opcode, head << 2 | drive, cylinder, head, sector, n, last, 0x1B, 0xFF)

    def transfer(self, opcode: int, cylinder: int, head: int, sector: int, **more: int) -> bytes:
        """The whole command; its result."""
        self.command(opcode, cylinder, head, sector, **more)
        self.wait()
        return self.results()

    def memory(self, length: int) -> bytes:
        return bytes(self.ram[BUFFER : BUFFER + length])
