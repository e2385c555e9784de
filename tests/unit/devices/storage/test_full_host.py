"""A host that is full pauses the guest: IDE disks and the BIOS's disk stay busy, and go on when it is resumed."""

import errno

import pytest
from floppy_fakes import FlatRam
from ide_bench import BUFFER, DMA_ACTIVE, DMA_INTERRUPT, Bench
from loading import loaded
from storage_fakes import FakeDisk, pattern

from emuvisor.bus.clock import VirtualClock
from emuvisor.devices.storage import biosdisk
from emuvisor.devices.storage.biosdisk import BiosDisk
from emuvisor.devices.storage.ide import registers as r
from emuvisor.devices.storage.ide.disk import AtaDisk

READY = r.DRDY | r.DSC
FAILED = READY | r.ERR
FULL = OSError(errno.ENOSPC, "No space left on device")
REASON = "disk fake.img: the host's file system is full (No space left on device); make room, then resume the guest"


class FullBench(Bench):
    """A host's disk without room, behind an IDE controller; `again`, the controller is saved and restored while the
    command waits."""

    def __init__(self, again: bool, sectors: int = 1000) -> None:
        self.disk = FakeDisk(sectors)
        self.disk.full = FULL
        self.clock = VirtualClock()
        self.reasons: list[str] = []
        self.again = again
        super().__init__([self.new_drive()], FlatRam(2 << 20))

    def new_drive(self) -> AtaDisk:
        return AtaDisk(disk=self.disk, clock=self.clock, on_suspend=self.reasons.append)

    def resume(self) -> None:
        """The guest goes on; a restored controller does it as well."""
        if self.again:
            self.clock = VirtualClock()
            self.restore([self.new_drive()])
        self.clock.fire_due()


@pytest.fixture(params=[False, True], ids=["same", "restored"])
def bench(request: pytest.FixtureRequest) -> FullBench:
    return FullBench(request.param)


def test_a_pio_write_waits(bench: FullBench) -> None:
    bench.address(10, 2)
    bench.command(r.WRITE_SECTORS)
    bench.write_words(b"x" * 512)
    assert bench.reasons == [REASON]
    assert bench.get(r.STATUS) == r.BSY
    bench.put(r.COMMAND, r.IDENTIFY_DEVICE)  # a busy drive takes nothing
    bench.resume()
    assert bench.reasons == [REASON, REASON]  # nobody made room
    bench.disk.full = None
    bench.resume()
    assert bench.get(r.STATUS) == READY | r.DRQ
    bench.write_words(b"y" * 512)
    assert bench.get(r.STATUS) == READY
    assert bench.disk.read(9, 4) == pattern(10)[9 * 512 :] + b"x" * 512 + b"y" * 512 + pattern(13)[12 * 512 :]
    assert bench.clock.next_deadline_ns() is None


@pytest.mark.parametrize("again", [False, True], ids=["same", "restored"])
def test_a_dma_write_waits_and_goes_on(again: bool) -> None:
    count = 2500  # more than the bus master takes at a time
    bench = FullBench(again, count)
    data = bytes(range(1, 251)) * (count * 512 // 250)
    bench.memory.write(BUFFER, data)
    size = 60 << 10
    entries = [(BUFFER + at, min(size, len(data) - at)) for at in range(0, len(data), size)]
    bench.set_table(*entries)
    bench.address_ext(0, count)
    bench.command(r.WRITE_DMA_EXT)
    bench.dma_put(0, 1)
    assert bench.dma_status() == DMA_ACTIVE
    assert bench.alternate_status() == r.BSY
    bench.disk.full = None
    bench.resume()
    assert bench.dma_status() == DMA_INTERRUPT
    assert bench.get(r.STATUS) == READY
    assert bench.disk.bytes == data
    assert bench.reasons == [REASON]


def test_a_flush_waits(bench: FullBench) -> None:
    bench.disk.flush_error = OSError(errno.EDQUOT, "Disk quota exceeded")
    bench.put(r.FEATURES, r.DISABLE_WRITE_CACHE)
    assert bench.command(r.SET_FEATURES) == r.BSY
    assert bench.reasons == [REASON.replace("No space left on device", "Disk quota exceeded")]
    bench.disk.flush_error = None
    bench.resume()
    assert bench.get(r.STATUS) == READY
    assert not bench.ide.channels[0].drives[0].write_cache
    assert bench.disk.flushes == 2


def test_a_reset_gives_up_what_waits(bench: FullBench) -> None:
    bench.address(10, 1)
    bench.command(r.WRITE_SECTORS)
    bench.write_words(b"x" * 512)
    bench.control(r.SRST)
    bench.control(0)
    bench.disk.full = None
    bench.resume()
    assert bench.get(r.STATUS) == READY
    assert bench.disk.bytes == pattern(1000)


def test_other_errors_fail_at_once(bench: FullBench) -> None:
    bench.disk.full = OSError(errno.EIO, "Input/output error")
    bench.address(10, 1)
    bench.command(r.WRITE_SECTORS)
    bench.write_words(b"x" * 512)
    assert bench.get(r.STATUS) == FAILED
    assert bench.reasons == []


def test_without_a_way_to_wait_the_write_fails() -> None:
    for drive in (
        AtaDisk(disk=FakeDisk(10)),
        AtaDisk(disk=FakeDisk(10), on_suspend=print),
        AtaDisk(disk=FakeDisk(10), clock=VirtualClock()),
    ):
        drive.disk.full = FULL
        bench = Bench([drive])
        bench.address(1, 1)
        bench.command(r.WRITE_SECTORS)
        bench.write_words(b"x" * 512)
        assert bench.get(r.STATUS) == FAILED


# ---- the BIOS's disk ----

DRIVE = 0x80


class BiosRig:
    def __init__(self, clock: VirtualClock | None) -> None:
        self.memory = FlatRam(1 << 16)
        self.disk = FakeDisk(100)
        self.disk.full = FULL
        self.reasons: list[str] = []
        self.clock = clock
        self.controller = self.make()

    def restore(self) -> None:
        self.clock = VirtualClock()
        state = self.controller.save()
        self.controller = loaded(self.make(), state)

    def make(self) -> BiosDisk:
        return BiosDisk(self.memory, {DRIVE: self.disk}, clock=self.clock, on_suspend=self.reasons.append)

    def write(self, lba: int, data: bytes) -> int:
        self.memory.write(0x1000, data)
        self.controller.write(biosdisk.DRIVE, DRIVE, 1)
        self.controller.write(biosdisk.COUNT, len(data) // 512, 2)
        self.controller.write(biosdisk.LBA, lba, 4)
        self.controller.write(biosdisk.BUFFER, 0x1000, 4)
        self.controller.write(biosdisk.COMMAND, biosdisk.CMD_WRITE, 1)
        return self.status

    @property
    def status(self) -> int:
        return self.controller.read(biosdisk.STATUS, 1)


@pytest.mark.parametrize("again", [False, True], ids=["same", "restored"])
def test_the_bios_disk_waits(again: bool) -> None:
    clock = VirtualClock()
    rig = BiosRig(clock)
    assert rig.write(7, b"z" * 1024) == biosdisk.BUSY
    assert rig.reasons == [REASON]
    rig.controller.write(biosdisk.LBA, 50, 4)  # a busy controller takes nothing
    rig.controller.write(biosdisk.COMMAND, biosdisk.CMD_WRITE, 1)
    assert rig.clock is not None
    rig.clock.fire_due()
    assert (rig.status, len(rig.reasons)) == (biosdisk.BUSY, 2)
    if again:
        rig.restore()
    rig.disk.full = None
    rig.clock.fire_due()
    assert rig.status == biosdisk.OK
    assert rig.disk.read(7, 2) == b"z" * 1024
    assert rig.controller.errors == 0
    assert rig.clock.next_deadline_ns() is None
    assert rig.write(9, b"w" * 512) == biosdisk.OK


def test_a_reset_of_the_bios_disk_gives_up_what_waits() -> None:
    clock = VirtualClock()
    rig = BiosRig(clock)
    rig.write(7, b"z" * 512)
    rig.controller.reset()
    rig.disk.full = None
    assert clock.fire_due() == 0
    assert rig.status == biosdisk.OK
    assert rig.disk.bytes == pattern(100)


def test_a_bios_disk_without_a_way_to_wait_fails() -> None:
    rig = BiosRig(None)
    assert rig.write(7, b"z" * 512) == biosdisk.CONTROLLER_FAILURE
    assert (rig.reasons, rig.controller.errors) == ([], 1)
    waiting = BiosRig(VirtualClock())
    assert waiting.write(7, b"z" * 512) == biosdisk.BUSY
    stuck = loaded(BiosDisk(waiting.memory, {DRIVE: waiting.disk}), waiting.controller.save())
    stuck.reset()
    assert stuck.read(biosdisk.STATUS, 1) == biosdisk.OK
