"""DMA between a disk and guest memory: tables good and bad, errors, the function's configuration."""

from struct import pack

import pytest
from floppy_fakes import FlatRam
from ide_bench import (
    BUFFER,
    BUS_MASTER,
    DMA_ACTIVE,
    DMA_ERROR,
    DMA_INTERRUPT,
    DMA_START,
    DMA_TO_MEMORY,
    TABLE,
    Bench,
)
from storage_fakes import FakeDisk, TrimmingDisk, pattern

from emuvisor.devices.storage.ide import registers as r
from emuvisor.devices.storage.ide.bus_master import MAX_DESCRIPTORS
from emuvisor.devices.storage.ide.disk import AtaDisk
from emuvisor.errors import OutOfFrames, UsageError

READY = r.DRDY | r.DSC
SECTORS = 5000


class DmaBench(Bench):
    def __init__(self, restoring: bool, disk: FakeDisk | None = None) -> None:
        self.disk = disk or FakeDisk(SECTORS)
        self.restoring = restoring
        super().__init__([AtaDisk(disk=self.disk)])

    def again(self) -> None:
        if self.restoring:
            self.restore([AtaDisk(disk=self.disk)])

    def command(self, code: int, channel: int = 0) -> int:
        status = super().command(code, channel)
        self.again()
        return status


@pytest.fixture(params=[False, True], ids=["fresh", "restored"])
def bench(request: pytest.FixtureRequest) -> DmaBench:
    return DmaBench(request.param)


@pytest.fixture(params=[False, True], ids=["fresh", "restored"])
def trimming(request: pytest.FixtureRequest) -> DmaBench:
    return DmaBench(request.param, TrimmingDisk(SECTORS))


def test_read_dma_scatters(bench: DmaBench) -> None:
    bench.set_table((BUFFER, 512), (BUFFER + 0x5002, 1000), (BUFFER + 0x2000, 24))
    bench.address(7, 3)
    assert bench.command(r.READ_DMA) == READY | r.DRQ
    assert not bench.level()
    assert bench.dma_start(to_memory=True) == DMA_INTERRUPT
    assert bench.level()
    assert bench.get(r.STATUS) == READY
    expected = pattern(10)[7 * 512 :]
    assert bench.memory.read(BUFFER, 512) == expected[:512]
    assert bench.memory.read(BUFFER + 0x5002, 1000) == expected[512:1512]
    assert bench.memory.read(BUFFER + 0x2000, 24) == expected[1512:]
    assert bench.interrupts.count((14, True)) == 1


def test_write_dma_ext_gathers(bench: DmaBench) -> None:
    data = bytes(range(256)) * 4
    bench.memory.write(BUFFER, data[:600])
    bench.memory.write(BUFFER + 0x3000, data[600:])
    bench.set_table((BUFFER, 600), (BUFFER + 0x3000, 424))
    bench.address_ext(100, 2)
    bench.command(r.WRITE_DMA_EXT)
    assert bench.dma_start(to_memory=False) == DMA_INTERRUPT
    assert bench.get(r.STATUS) == READY
    assert bench.disk.read(100, 2) == data


def test_started_before_the_command(bench: DmaBench) -> None:
    bench.set_table((BUFFER, 512))
    bench.dma_put(0, DMA_START | DMA_TO_MEMORY)
    bench.again()
    assert bench.dma_status() == DMA_ACTIVE
    bench.address(1, 1)
    assert bench.command(r.READ_DMA) == READY
    assert bench.memory.read(BUFFER, 512) == pattern(2)[512:]
    assert bench.dma_status() == DMA_INTERRUPT


def test_a_count_of_zero_is_64_kib_and_large_transfers_go_in_pieces(bench: DmaBench) -> None:
    bench.memory = FlatRam(8 << 20)
    bench.ide._host.memory = bench.memory
    sectors = 4096
    bench.set_table(*[(0x100000 + (i << 16), 0) for i in range(sectors // 128)])
    bench.address_ext(3, sectors)
    bench.put(r.COMMAND, r.READ_DMA_EXT)
    assert bench.dma_start(to_memory=True) == DMA_INTERRUPT
    assert bench.memory.read(0x100000, sectors * 512) == pattern(3 + sectors)[3 * 512 :]


def test_a_table_that_is_too_long_stays_active(bench: DmaBench) -> None:
    bench.set_table((BUFFER, 512), (BUFFER + 512, 512))
    bench.address(1, 1)
    bench.command(r.READ_DMA)
    assert bench.dma_start(to_memory=True) == DMA_ACTIVE | DMA_INTERRUPT
    assert bench.dma_status() == DMA_INTERRUPT  # stopped
    assert bench.memory.read(BUFFER + 512, 512) == bytes(512)


@pytest.mark.parametrize("to_memory", [True, False])
def test_a_table_that_is_too_short_leaves_the_drive_waiting(bench: DmaBench, to_memory: bool) -> None:
    bench.set_table((BUFFER, 700))
    bench.address(1, 2)
    bench.command(r.READ_DMA if to_memory else r.WRITE_DMA)
    assert bench.dma_start(to_memory=to_memory) == 0
    bench.again()
    assert bench.get(r.STATUS) == READY | r.DRQ
    assert not bench.level()
    # Another table takes the rest.
    bench.set_table((BUFFER + 700, 324))
    bench.memory.write(BUFFER + 0x8000, b"")
    if not to_memory:
        bench.memory.write(BUFFER, pattern(12)[10 * 512 :])
    assert bench.dma_start(to_memory=to_memory) == DMA_INTERRUPT
    assert bench.get(r.STATUS) == READY
    if to_memory:
        assert bench.memory.read(BUFFER, 1024) == pattern(3)[512:]
    else:
        assert bench.disk.read(1, 2)[700:] == pattern(12)[10 * 512 + 700 :]


def test_the_wrong_direction_waits(bench: DmaBench) -> None:
    bench.set_table((BUFFER, 512))
    bench.address(1, 1)
    bench.command(r.READ_DMA)
    assert bench.dma_start(to_memory=False) == DMA_ACTIVE
    assert bench.get(r.STATUS) == READY | r.DRQ
    assert bench.dma_start(to_memory=True) == DMA_INTERRUPT


def test_without_bus_mastering_nothing_moves(bench: DmaBench) -> None:
    bench.ide.config_write(0x04, 0x0001, 2)
    bench.set_table((BUFFER, 512))
    bench.address(1, 1)
    bench.command(r.READ_DMA)
    assert bench.dma_start(to_memory=True) == DMA_ACTIVE
    assert bench.memory.read(BUFFER, 512) == bytes(512)


def test_a_table_of_two_byte_entries_without_end(bench: DmaBench) -> None:
    bench.memory.write(TABLE, pack("<II", BUFFER, 2) * (2 * MAX_DESCRIPTORS))
    bench.dma_put(4, TABLE, 4)
    bench.address_ext(0, 1000)
    bench.command(r.READ_DMA_EXT)
    assert bench.dma_start(to_memory=True) == DMA_ERROR
    assert bench.get(r.STATUS) == READY | r.DRQ
    bench.control(r.SRST)
    bench.control(0)
    assert bench.get(r.STATUS) == READY


def test_a_table_at_the_end_of_memory_and_behind(bench: DmaBench) -> None:
    top = len(bench.memory.bytes)
    bench.memory.write(top - 8, pack("<II", BUFFER, 512))
    for place in (top - 8, top - 4, top, 0xFFFF_FFFC):
        bench.dma_put(4, place, 4)
        bench.address(1, 2)
        bench.command(r.READ_DMA)
        bench.dma_start(to_memory=True)
    assert bench.memory.read(BUFFER, 512) == pattern(2)[512:]


def test_a_table_across_pages(bench: DmaBench) -> None:
    entries = [(BUFFER + 512 * i, 512) for i in range(20)]
    table = b"".join(pack("<II", address, count) for address, count in entries)
    for place in (0x2FC0, 0x2FC4):  # ends between two entries, and inside one
        bench.memory.write(BUFFER, bytes(20 * 512))
        bench.memory.write(place, table)
        bench.dma_put(4, place, 4)
        bench.address(5, 20)
        bench.command(r.READ_DMA)
        bench.dma_start(to_memory=True)
        assert bench.memory.read(BUFFER, 20 * 512) == pattern(25)[5 * 512 :]


def test_memory_that_is_not_there_reads_as_ones_and_swallows(bench: DmaBench) -> None:
    bench.set_table((0xE000_0000, 512))
    bench.address(1, 1)
    bench.command(r.WRITE_DMA)
    assert bench.dma_start(to_memory=False) == DMA_INTERRUPT
    assert bench.disk.read(1, 1) == b"\xff" * 512
    bench.address(1, 1)
    bench.command(r.READ_DMA)
    assert bench.dma_start(to_memory=True) == DMA_INTERRUPT


def test_what_lies_before_a_bad_sector_arrives(bench: DmaBench) -> None:
    bench.disk.bad = {8}
    bench.set_table((BUFFER, 4096))
    bench.address(5, 8)
    bench.command(r.READ_DMA)
    assert bench.dma_start(to_memory=True) == DMA_ACTIVE | DMA_INTERRUPT
    assert bench.get(r.STATUS) == READY | r.ERR
    assert bench.get(r.ERROR) == r.UNC
    assert bench.shown_lba() == 8
    assert bench.memory.read(BUFFER, 2048) == pattern(8)[5 * 512 :] + bytes(512)


def test_a_write_that_fails(bench: DmaBench) -> None:
    bench.disk.bad = {6}
    bench.set_table((BUFFER, 4096))
    bench.address(5, 8)
    bench.command(r.WRITE_DMA)
    bench.dma_start(to_memory=False)
    assert bench.get(r.STATUS) == READY | r.ERR
    assert bench.get(r.ERROR) == r.ABRT
    assert bench.shown_lba() == 6
    assert bench.disk.read(5, 1) == bytes(512)


class FullPool(FlatRam):
    """Memory that can supply nothing above `limit`."""

    limit = 1 << 20

    def write(self, gpa: int, data: bytes | memoryview) -> None:
        if gpa + len(data) > self.limit:
            raise OutOfFrames("no frame")
        super().write(gpa, data)


def test_a_host_without_memory_lets_the_access_be_made_again(bench: DmaBench) -> None:
    memory = FullPool(1 << 20)
    bench.memory = bench.ide._host.memory = memory
    bench.set_table((BUFFER, 512), (BUFFER + 0x1000, 512))
    bench.address(1, 2)
    bench.put(r.COMMAND, r.READ_DMA)
    memory.limit = BUFFER + 0x800
    with pytest.raises(OutOfFrames):
        bench.dma_put(0, DMA_START | DMA_TO_MEMORY)
    memory.limit = 1 << 20
    bench.dma_put(0, DMA_START | DMA_TO_MEMORY)
    assert bench.dma_status() == DMA_INTERRUPT
    assert bench.memory.read(BUFFER, 512) + bench.memory.read(BUFFER + 0x1000, 512) == pattern(3)[512:]


# ---- TRIM ----


def trim(bench: DmaBench, *ranges: tuple[int, int], blocks: int = 1) -> int:
    entries = b"".join((count << 48 | lba).to_bytes(8, "little") for lba, count in ranges)
    bench.memory.write(BUFFER, entries.ljust(512 * blocks, b"\0"))
    bench.set_table((BUFFER, 300), (BUFFER + 300, 512 * blocks - 300))
    bench.address_ext(0, blocks)
    bench.put(r.FEATURES, 0)
    bench.put(r.FEATURES, 1)
    status = bench.command(r.DATA_SET_MANAGEMENT)
    if status & r.DRQ:
        bench.dma_start(to_memory=False)
        status = bench.get(r.STATUS)
    return status


def test_trim(trimming: DmaBench) -> None:
    assert trim(trimming, (10, 5), (100, 1), (0, 0)) == READY
    data = bytearray(pattern(SECTORS))
    data[10 * 512 : 15 * 512] = bytes(5 * 512)
    data[100 * 512 : 101 * 512] = bytes(512)
    assert trimming.disk.bytes == data


def test_trim_that_cannot_be(trimming: DmaBench) -> None:
    assert trim(trimming, (10, 5), (SECTORS - 1, 2)) == READY | r.ERR
    trimming.disk.bad = {10}
    assert trim(trimming, (10, 5)) == READY  # advice: what the host cannot do is left
    assert trim(trimming, (20, 1), blocks=9) == READY | r.ERR
    assert trimming.disk.bytes == pattern(SECTORS)
    trimming.disk.read_only = True
    assert trim(trimming, (10, 5)) == READY | r.ERR


# ---- registers and configuration ----


def test_bus_master_registers(bench: DmaBench) -> None:
    bench.dma_put(0, 0xFF & ~DMA_START)
    assert bench.ports.read(BUS_MASTER, 4) == DMA_TO_MEMORY
    bench.dma_put(2, 0x60)
    assert bench.dma_status() == 0x60
    bench.dma_put(4, 0x12345677, 4)
    bench.dma_put(4 + 2, 0xABCD, 2)
    bench.again()
    assert bench.ports.read(BUS_MASTER + 4, 4) == 0xABCD5674
    assert bench.ports.read(BUS_MASTER + 8 + 4, 4) == 0  # the other channel's
    bench.put(r.COMMAND, r.FLUSH_CACHE)
    assert bench.dma_status() == 0x60 | DMA_INTERRUPT
    bench.dma_put(2, 0x60 | DMA_INTERRUPT)
    assert bench.dma_status() == 0x60
    bench.ports.find(BUS_MASTER).device.reset()
    assert bench.ports.read(BUS_MASTER, 8) == 0


def test_the_function(bench: DmaBench) -> None:
    assert bench.ide.config_read(0x00, 4) == 0x7010_8086
    assert bench.ide.config_read(0x08, 4) == 0x0101_8000
    assert bench.ide.config_read(0x20, 4) == BUS_MASTER | 1
    assert bench.ide.config_read(0x3C, 4) == 0
    bench.ide.config_write(0x44, 0xFFFF_FFFF, 4)
    assert bench.ide.config_read(0x44, 4) == 0xFF


def test_channels_decode_only_while_enabled(bench: DmaBench) -> None:
    assert bench.get(r.STATUS) == READY
    bench.ide.config_write(0x41, 0x00, 1)
    assert bench.ports.find(0x1F0) is None
    assert bench.ports.find(0x3F6) is None
    assert bench.ports.find(0x170) is not None
    bench.ide.config_write(0x04, 0, 2)
    assert list(bench.ports) == []
    bench.ide.enable()
    assert bench.get(r.STATUS) == READY
    assert [(p.start, p.length) for p in bench.ports] == [
        (0x170, 8),
        (0x1F0, 8),
        (0x376, 1),
        (0x3F6, 1),
        (BUS_MASTER, 16),
    ]
    bench.ide.reset()
    assert list(bench.ports) == []


def test_five_drives_are_too_many() -> None:
    with pytest.raises(UsageError) as error:
        Bench([None] * 5)
    assert str(error.value) == "piix3-ide: 5 drives; there are places for 4, two on each channel"
