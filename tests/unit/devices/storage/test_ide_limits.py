"""IDE disks and the BIOS's disk keep to their limits: a command that has to wait is busy."""

import pytest
from floppy_fakes import FlatRam
from ide_bench import BUFFER, DMA_ACTIVE, DMA_INTERRUPT, Bench
from loading import loaded
from storage_fakes import FakeDisk, pattern

from emuvisor.bus.clock import VirtualClock
from emuvisor.devices.limits import DiskLimits, Rate
from emuvisor.devices.storage import biosdisk
from emuvisor.devices.storage.biosdisk import BiosDisk
from emuvisor.devices.storage.ide import registers as r
from emuvisor.devices.storage.ide.disk import AtaDisk
from emuvisor.devices.storage.meter import DiskMeter
from emuvisor.units import NS_PER_MS, NS_PER_S

READY = r.DRDY | r.DSC
SECTORS = 1000


class LimitedBench(Bench):
    """A disk with limits behind an IDE controller; `again`, the controller is saved and restored while it waits."""

    def __init__(self, limits: DiskLimits, again: bool = False) -> None:
        self.disk = FakeDisk(SECTORS)
        self.limits = limits
        self.clock = VirtualClock()
        self.again = again
        super().__init__([self.new_drive()], FlatRam(2 << 20))

    def new_drive(self) -> AtaDisk:
        self.meter = DiskMeter(self.limits)
        self.drive = AtaDisk(disk=self.disk, clock=self.clock, meter=self.meter)
        return self.drive

    def run(self, until_ns: int) -> None:
        if self.again:
            now = self.clock.now_ns()
            self.clock = VirtualClock()
            self.clock.skip(now)
            self.restore([self.new_drive()])
        while (deadline := self.clock.next_deadline_ns()) is not None and deadline <= until_ns:
            self.clock.skip(deadline - self.clock.now_ns())
            self.clock.fire_due()
        self.clock.skip(until_ns - self.clock.now_ns())


@pytest.mark.parametrize("again", [False, True], ids=["same", "restored"])
def test_a_pio_read_is_busy_until_it_may_begin(again: bool) -> None:
    bench = LimitedBench(DiskLimits(read_bytes=Rate(10_240, 1024)), again)
    bench.address(5, 1)
    assert bench.command(r.READ_SECTORS) == READY | r.DRQ
    assert bench.read_words(256) == pattern(6)[5 * 512 :]
    bench.address(7, 2)
    assert bench.command(r.READ_SECTORS) == r.BSY
    bench.put(r.COMMAND, r.IDENTIFY_DEVICE)  # a busy drive takes nothing
    bench.run(50 * NS_PER_MS - 1)
    assert bench.get(r.STATUS) == r.BSY
    bench.run(50 * NS_PER_MS)
    assert bench.level()
    for sector in (7, 8):
        assert bench.get(r.STATUS) == READY | r.DRQ
        assert bench.read_words(256) == pattern(9)[sector * 512 :][:512]
    assert bench.get(r.STATUS) == READY
    assert bench.meter.throttled.summary().max_ns == 50 * NS_PER_MS
    assert bench.clock.next_deadline_ns() is None


@pytest.mark.parametrize("again", [False, True], ids=["same", "restored"])
def test_dma_waits_in_both_directions(again: bool) -> None:
    bench = LimitedBench(DiskLimits(total_iops=Rate(1, 1)), again)
    bench.memory.write(BUFFER, b"w" * 1024)
    bench.set_table((BUFFER, 1024))
    bench.address(10, 2)
    bench.command(r.WRITE_DMA)
    bench.dma_start(to_memory=False)
    assert bench.disk.read(10, 2) == b"w" * 1024
    bench.memory.write(BUFFER, bytes(1024))
    bench.address(10, 2)
    assert bench.command(r.READ_DMA) == r.BSY
    bench.dma_put(0, 9)
    assert bench.dma_status() & DMA_ACTIVE
    bench.run(NS_PER_S)
    assert bench.dma_status() & (DMA_ACTIVE | DMA_INTERRUPT) == DMA_INTERRUPT
    assert bench.memory.read(BUFFER, 1024) == b"w" * 1024
    assert bench.get(r.STATUS) == READY


def test_a_pio_write_and_a_verification_wait() -> None:
    bench = LimitedBench(DiskLimits(write_iops=Rate(1, 1), read_iops=Rate(1, 1)))
    for begin in (0, NS_PER_S):
        bench.address(3, 1)
        bench.put(r.COMMAND, r.WRITE_SECTORS)
        bench.run(begin)
        assert bench.get(r.STATUS) == READY | r.DRQ
        bench.write_words(b"x" * 512)
    for end in (NS_PER_S, 2 * NS_PER_S):
        bench.address(3, 1)
        bench.put(r.COMMAND, r.READ_VERIFY)
        bench.run(end)
        assert bench.get(r.STATUS) == READY
    assert (bench.meter.statistics.writes, bench.meter.statistics.reads) == (2, 2)
    assert bench.meter.throttled.count == 2


def test_a_reset_ends_the_wait_and_a_change_of_limits_shortens_it() -> None:
    bench = LimitedBench(DiskLimits(read_iops=Rate(1, 1)))
    for _ in range(2):
        bench.address(0, 1)
        bench.put(r.COMMAND, r.READ_SECTORS)
    bench.read_words(256)
    bench.address(0, 1)
    assert bench.command(r.READ_SECTORS) == r.BSY
    bench.control(r.SRST)
    bench.control(0)
    assert bench.clock.next_deadline_ns() is None
    bench.address(0, 1)
    assert bench.command(r.READ_SECTORS) == r.BSY
    bench.meter.throttle.change(DiskLimits(), 0)
    bench.run(0)
    assert bench.get(r.STATUS) == READY | r.DRQ
    bench.meter.throttle.change(DiskLimits(read_iops=Rate(1)), 0)
    assert bench.clock.next_deadline_ns() is None


def test_addresses_that_do_not_exist_fail_at_once_and_cost_nothing() -> None:
    bench = LimitedBench(DiskLimits(read_iops=Rate(1, 1)))
    for _ in range(3):
        bench.address(SECTORS, 1)
        assert bench.command(r.READ_SECTORS) == READY | r.ERR
    bench.address(0, 1)
    assert bench.command(r.READ_SECTORS) == READY | r.DRQ


def bios(disk: FakeDisk, memory: FlatRam, clock: VirtualClock, meter: DiskMeter) -> BiosDisk:
    return BiosDisk(memory, {0x80: disk}, clock=clock, meters={0x80: meter})


@pytest.mark.parametrize("again", [False, True], ids=["same", "restored"])
def test_the_disk_of_the_bios_is_busy_meanwhile(again: bool) -> None:
    disk, memory, clock = FakeDisk(100), FlatRam(1 << 16), VirtualClock()
    meter = DiskMeter(DiskLimits(total_bytes=Rate(10_240, 1024)))
    controller = bios(disk, memory, clock, meter)

    def read(lba: int, command: int = biosdisk.CMD_READ, buffer: int = 0x1000) -> int:
        for offset, value, size in ((0, 0x80, 1), (2, 2, 2), (4, lba, 4), (8, 0, 4), (12, buffer, 4)):
            controller.write(offset, value, size)
        controller.write(biosdisk.COMMAND, command, 1)
        return controller.read(biosdisk.STATUS, 1)

    assert read(0, buffer=1 << 30) == biosdisk.DMA_BOUNDARY
    assert read(1) == biosdisk.BUSY
    controller.write(4, 50, 4)  # a busy controller takes nothing
    if again:
        state = controller.save()
        clock = VirtualClock()
        controller = loaded(bios(disk, memory, clock, meter), state)
    clock.skip(100 * NS_PER_MS)
    while clock.fire_due():
        pass
    assert controller.read(biosdisk.STATUS, 1) == biosdisk.OK
    assert memory.read(0x1000, 1024) == pattern(3)[512:]
    assert read(5, biosdisk.CMD_WRITE) == biosdisk.BUSY
    meter.throttle.change(DiskLimits(), clock.now_ns())
    clock.fire_due()
    assert controller.read(biosdisk.STATUS, 1) == biosdisk.OK
    assert disk.read(5, 2) == pattern(3)[512:]
    assert (meter.statistics.reads, meter.statistics.writes) == (1, 1)
    meter.throttle.change(DiskLimits(), 0)
    assert clock.next_deadline_ns() is None
