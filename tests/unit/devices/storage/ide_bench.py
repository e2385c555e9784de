"""The IDE function on a PCI bus, and a host's driver for it that speaks ports only."""

from collections.abc import Sequence
from struct import pack

from floppy_fakes import FlatRam
from loading import loaded

from emuvisor.bus.bus import Bus
from emuvisor.bus.irq import InterruptLine
from emuvisor.devices.pci.pci_bus import PciBus
from emuvisor.devices.storage.ide import registers as r
from emuvisor.devices.storage.ide.drive import Drive
from emuvisor.devices.storage.ide.piix_ide import PiixIde

COMMAND_PORTS = (0x1F0, 0x170)
CONTROL_PORTS = (0x3F6, 0x376)
BUS_MASTER = 0xC000
TABLE = 0x1000
BUFFER = 0x10000
DMA_START, DMA_TO_MEMORY = 0x01, 0x08
DMA_ACTIVE, DMA_ERROR, DMA_INTERRUPT = 0x01, 0x02, 0x04


class Bench:
    def __init__(self, drives: Sequence[Drive | None], memory: FlatRam | None = None) -> None:
        self.memory = memory or FlatRam(1 << 20)
        self.interrupts: list[tuple[int, bool]] = []
        self.lines = tuple(InterruptLine(self._log(irq), f"irq{irq}") for irq in (14, 15))
        self.plug(PiixIde(irqs=self.lines, drives=drives))
        self.ide.config_write(0x20, BUS_MASTER, 4)
        self.ide.enable()

    def _log(self, irq: int):
        return lambda level: self.interrupts.append((irq, level))

    def plug(self, ide: PiixIde) -> None:
        self.ide = ide
        self.ports = Bus("port", 1 << 16)
        bus = PciBus(
            ports=self.ports,
            mmio=Bus("memory", 1 << 32),
            memory=self.memory,
            msi=lambda address, data: None,
            intx=lambda slot, pin, level: None,
        )
        bus.plug(ide, 1)

    def restore(self, drives: Sequence[Drive | None]) -> None:
        """The same bench with a function that was made anew, with the saved state."""
        self.plug(loaded(PiixIde(irqs=self.lines, drives=drives), self.ide.save()))

    # One channel's registers.

    def get(self, register: int, channel: int = 0, size: int = 1) -> int:
        return self.ports.read(COMMAND_PORTS[channel] + register, size)

    def put(self, register: int, value: int, channel: int = 0, size: int = 1) -> None:
        self.ports.write(COMMAND_PORTS[channel] + register, value, size)

    def control(self, value: int, channel: int = 0) -> None:
        self.ports.write(CONTROL_PORTS[channel], value, 1)

    def alternate_status(self, channel: int = 0) -> int:
        return self.ports.read(CONTROL_PORTS[channel], 1)

    def level(self, channel: int = 0) -> bool:
        return self.lines[channel].level

    def select(self, slave: int, channel: int = 0) -> None:
        self.put(r.DEVICE, 0xA0 | r.DEV * slave, channel)

    def address(self, lba: int, count: int, channel: int = 0, slave: int = 0) -> None:
        """A 28-bit address."""
        self.put(r.DEVICE, 0xA0 | r.LBA | r.DEV * slave | lba >> 24, channel)
        self.put(r.SECTOR_COUNT, count & 0xFF, channel)
        for i, register in enumerate((r.LBA_LOW, r.LBA_MID, r.LBA_HIGH)):
            self.put(register, lba >> 8 * i & 0xFF, channel)

    def address_ext(self, lba: int, count: int, channel: int = 0, slave: int = 0) -> None:
        """A 48-bit address: the high bytes first."""
        self.put(r.DEVICE, 0xA0 | r.LBA | r.DEV * slave, channel)
        for high in (1, 0):
            self.put(r.FEATURES, 0, channel)
            self.put(r.SECTOR_COUNT, count >> 8 * high & 0xFF, channel)
            for i, register in enumerate((r.LBA_LOW, r.LBA_MID, r.LBA_HIGH)):
                self.put(register, lba >> 8 * (i + 3 * high) & 0xFF, channel)

    def command(self, code: int, channel: int = 0) -> int:
        """Write a command; the status afterwards, which acknowledges the interrupt."""
        self.put(r.COMMAND, code, channel)
        return self.get(r.STATUS, channel)

    def read_words(self, count: int, channel: int = 0) -> bytes:
        return b"".join(self.get(r.DATA, channel, 2).to_bytes(2, "little") for _ in range(count))

    def write_words(self, data: bytes, channel: int = 0) -> None:
        for i in range(0, len(data), 2):
            self.put(r.DATA, int.from_bytes(data[i : i + 2], "little"), channel, 2)

    def shown_lba(self, channel: int = 0, *, ext: bool = False) -> int:
        registers = (r.LBA_LOW, r.LBA_MID, r.LBA_HIGH)
        lba = sum(self.get(register, channel) << 8 * i for i, register in enumerate(registers))
        if not ext:
            return lba | (self.get(r.DEVICE, channel) & 0xF) << 24
        self.control(r.HOB, channel)
        lba |= sum(self.get(register, channel) << 8 * i for i, register in enumerate(registers)) << 24
        self.control(0, channel)
        return lba

    # DMA

    def set_table(self, *entries: tuple[int, int], end: bool = True, channel: int = 0) -> None:
        """A table at TABLE; the last entry is marked."""
        table = b"".join(
            pack("<II", address, count & 0xFFFF | (0x8000_0000 if end and i == len(entries) - 1 else 0))
            for i, (address, count) in enumerate(entries)
        )
        self.memory.write(TABLE, table)
        self.dma_put(4, TABLE, 4, channel)

    def dma_put(self, register: int, value: int, size: int = 1, channel: int = 0) -> None:
        self.ports.write(BUS_MASTER + 8 * channel + register, value, size)

    def dma_status(self, channel: int = 0) -> int:
        return self.ports.read(BUS_MASTER + 8 * channel + 2, 1)

    def dma_start(self, *, to_memory: bool, channel: int = 0) -> int:
        """Clear the status, start, stop; the status in between."""
        direction = DMA_TO_MEMORY * to_memory
        self.dma_put(2, DMA_ERROR | DMA_INTERRUPT, 1, channel)
        self.dma_put(0, direction, 1, channel)
        self.dma_put(0, direction | DMA_START, 1, channel)
        status = self.dma_status(channel)
        self.dma_put(0, direction, 1, channel)
        return status

    # ATAPI

    def packet(self, cdb: bytes, *, limit: int = 0xFFFE, dma: bool = False, channel: int = 1) -> int:
        """Give a packet to the selected drive; the status afterwards."""
        self.put(r.FEATURES, r.PACKET_DMA * dma, channel)
        self.put(r.BYTE_COUNT_LOW, limit & 0xFF, channel)
        self.put(r.BYTE_COUNT_HIGH, limit >> 8, channel)
        self.put(r.COMMAND, r.PACKET, channel)
        self.write_words(cdb.ljust(12, b"\0"), channel)
        return self.get(r.STATUS, channel)

    def reply(self, cdb: bytes, *, limit: int = 0xFFFE, channel: int = 1) -> bytes:
        """What a packet returns by PIO; the command must succeed."""
        status = self.packet(cdb, limit=limit, channel=channel)
        data = b""
        while status & r.DRQ:
            assert self.get(r.INTERRUPT_REASON, channel) == r.IO
            length = self.get(r.BYTE_COUNT_LOW, channel) | self.get(r.BYTE_COUNT_HIGH, channel) << 8
            assert 0 < length <= limit
            data += self.read_words(-(-length // 2), channel)[:length]
            status = self.get(r.STATUS, channel)
        assert status == r.DRDY
        assert self.get(r.INTERRUPT_REASON, channel) == r.COD | r.IO
        return data

    def sense(self, channel: int = 1) -> tuple[int, int, int]:
        """Key, code and qualifier of REQUEST SENSE."""
        data = self.reply(bytes((0x03, 0, 0, 0, 18)), channel=channel)
        return data[2], data[12], data[13]
