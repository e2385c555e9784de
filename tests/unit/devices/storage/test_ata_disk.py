"""The hard disk through the channel's ports: registers, PIO, settings, errors."""

from collections.abc import Callable
from struct import unpack

import pytest
from ide_bench import Bench
from loading import loaded
from storage_fakes import FakeDisk, pattern

from emuvisor.bus.irq import InterruptLine
from emuvisor.devices.storage.ide import registers as r
from emuvisor.devices.storage.ide.channel import FLOATING, IdeChannel
from emuvisor.devices.storage.ide.disk import AtaDisk
from emuvisor.devices.storage.ide.registers import Phase
from emuvisor.errors import SnapshotError, UsageError

SECTORS = 5000
READY = r.DRDY | r.DSC
DATA = READY | r.DRQ
FAILED = READY | r.ERR


class DiskBench(Bench):
    """One disk as primary master, restored from saved state before every command if `restoring`."""

    def __init__(self, restoring: bool, disk: FakeDisk | None = None) -> None:
        self.disk = disk or FakeDisk(SECTORS)
        self.restoring = restoring
        super().__init__([AtaDisk(disk=self.disk, serial="S1")])

    def again(self) -> None:
        if self.restoring:
            self.restore([AtaDisk(disk=self.disk, serial="S1")])

    def command(self, code: int, channel: int = 0) -> int:
        self.again()
        status = super().command(code, channel)
        self.again()
        return status

    @property
    def drive(self) -> AtaDisk:
        drive = self.ide.channels[0].drives[0]
        assert isinstance(drive, AtaDisk)
        return drive


@pytest.fixture(params=[False, True], ids=["fresh", "restored"])
def make(request: pytest.FixtureRequest) -> Callable[..., DiskBench]:
    return lambda disk=None: DiskBench(request.param, disk)


@pytest.fixture
def bench(make: Callable[..., DiskBench]) -> DiskBench:
    return make()


def identity(bench: Bench) -> tuple[int, ...]:
    assert bench.command(r.IDENTIFY_DEVICE) == DATA
    words = unpack("<256H", bench.read_words(256))
    assert bench.get(r.STATUS) == READY
    return words


def text(words: tuple[int, ...], first: int, count: int) -> str:
    return b"".join(word.to_bytes(2, "big") for word in words[first : first + count]).decode().rstrip()


# ---- identification ----


def test_identify_says_what_there_is(bench: DiskBench) -> None:
    words = identity(bench)
    assert words[0] == 0x0040
    assert (words[1], words[3], words[6]) == (4, 16, 63)
    assert (text(words, 10, 10), text(words, 23, 4), text(words, 27, 20)) == ("S1", "1.0", "emuvisor disk")
    assert words[47] == 0x8010
    assert words[49] & 0x0F00 == 0x0B00  # IORDY, LBA, DMA
    assert words[53] == 7
    assert words[54:59] == (4, 16, 63, 4 * 16 * 63, 0)
    assert words[60] | words[61] << 16 == SECTORS
    assert (words[63], words[88]) == (0x0007, 0x003F)
    assert words[80] == 0x70
    assert words[83] == 0x4000 | 1 << 10 | 1 << 12 | 1 << 13
    assert words[86] == 1 << 10 | 1 << 12 | 1 << 13
    assert words[100:104] == (SECTORS, 0, 0, 0)
    assert (words[105], words[169]) == (8, 1)
    assert words[93] & 0xDF61 == 0x4041  # what SeaBIOS takes for: device 0 answers for a missing device 1
    assert sum(b for word in words for b in (word & 0xFF, word >> 8)) & 0xFF == 0


def test_a_read_only_disk_cannot_discard() -> None:
    words = identity(Bench([AtaDisk(disk=FakeDisk(1, read_only=True))]))
    assert (words[105], words[169]) == (0, 0)


def test_identify_interrupts_once(bench: DiskBench) -> None:
    bench.put(r.COMMAND, r.IDENTIFY_DEVICE)
    assert bench.level()
    assert bench.alternate_status() == DATA
    assert bench.level()
    assert bench.get(r.STATUS) == DATA
    assert not bench.level()
    bench.read_words(256)
    assert not bench.level()


@pytest.mark.parametrize(
    ("sectors", "geometry"),
    [
        (1, (1, 1, 1)),
        (62, (1, 1, 62)),
        (63 * 3 + 5, (1, 3, 63)),
        (63 * 16 * 2, (2, 16, 63)),
        (10**9, (16383, 16, 63)),
    ],
)
def test_geometry_is_plausible(sectors: int, geometry: tuple[int, int, int]) -> None:
    disk = FakeDisk(1)
    disk.sectors = sectors
    words = identity(Bench([AtaDisk(disk=disk)]))
    assert (words[1], words[3], words[6]) == geometry


def test_capacity_beyond_28_bits() -> None:
    disk = FakeDisk(1)
    disk.sectors = 1 << 33
    words = identity(Bench([AtaDisk(disk=disk)]))
    assert words[60] | words[61] << 16 == 0x0FFF_FFFF
    assert words[100:104] == (0, 0, 2, 0)


def test_a_serial_number_too_long_is_refused() -> None:
    for serial in ("x" * 21, "tab\t", "é"):
        with pytest.raises(UsageError) as error:
            AtaDisk(disk=FakeDisk(1), serial=serial)
        assert (
            str(error.value)
            == f"serial number {serial!r}: a drive's has at most 20 printable ASCII characters"
        )


# ---- PIO in ----


def test_read_sectors_interrupts_for_each(bench: DiskBench) -> None:
    bench.address(7, 3)
    bench.put(r.COMMAND, r.READ_SECTORS)
    for lba in (7, 8, 9):
        assert bench.level()
        assert bench.get(r.STATUS) == DATA
        assert not bench.level()
        bench.again()
        assert bench.read_words(256) == pattern(10)[lba * 512 : lba * 512 + 512]
    assert not bench.level()
    assert bench.get(r.STATUS) == READY
    assert bench.get(r.DATA, size=2) == 0


def test_a_count_of_zero_is_256(bench: DiskBench) -> None:
    bench.address(0, 0)
    bench.command(r.READ_SECTORS_NO_RETRY)
    data = b"".join(bench.read_words(256) for _ in range(256))
    assert data == pattern(256)
    assert bench.get(r.STATUS) == READY


def test_32_bit_access_to_the_data_register(bench: DiskBench) -> None:
    bench.address(5, 1)
    bench.command(r.READ_SECTORS)
    data = b"".join(bench.get(r.DATA, size=4).to_bytes(4, "little") for _ in range(128))
    assert data == pattern(6)[5 * 512 :]
    assert bench.get(r.STATUS) == READY


def test_an_odd_end_of_32_bit_access_does_not_touch_the_next_sector(bench: DiskBench) -> None:
    bench.address(5, 2)
    bench.command(r.READ_SECTORS)
    bench.read_words(255)
    assert bench.get(r.DATA, size=4) == 0x0505
    assert bench.read_words(2) == (6).to_bytes(4, "little")


def test_chs_addresses(bench: DiskBench) -> None:
    # Cylinder 2, head 3, sector 4 of 16 heads and 63 sectors.
    bench.put(r.DEVICE, 0xA0 | 3)
    for register, value in ((r.SECTOR_COUNT, 1), (r.LBA_LOW, 4), (r.LBA_MID, 2), (r.LBA_HIGH, 0)):
        bench.put(register, value)
    assert bench.command(r.READ_SECTORS) == DATA
    lba = (2 * 16 + 3) * 63 + 3
    assert bench.read_words(2) == lba.to_bytes(4, "little")


def test_another_translation(bench: DiskBench) -> None:
    bench.put(r.DEVICE, 0xA0 | 3)
    bench.put(r.SECTOR_COUNT, 10)
    assert bench.command(r.INITIALIZE_DEVICE_PARAMETERS) == READY
    words = identity(bench)
    assert words[54:57] == (SECTORS // 40, 4, 10)
    bench.put(r.DEVICE, 0xA0 | 1)
    for register, value in ((r.SECTOR_COUNT, 1), (r.LBA_LOW, 2), (r.LBA_MID, 1), (r.LBA_HIGH, 0)):
        bench.put(register, value)
    bench.command(r.READ_SECTORS)
    assert bench.read_words(2) == (40 + 10 + 1).to_bytes(4, "little")


def test_read_48_bits(bench: DiskBench) -> None:
    bench.address_ext(4000, 300)
    assert bench.command(r.READ_SECTORS_EXT) == DATA
    data = b"".join(bench.read_words(256) for _ in range(300))
    assert data == pattern(4300)[4000 * 512 :]
    assert bench.get(r.STATUS) == READY


def test_the_older_bytes_are_read_with_hob(bench: DiskBench) -> None:
    bench.address_ext(0x060504030201, 0x0807)
    bench.again()
    assert [bench.get(i) for i in range(2, 6)] == [7, 1, 2, 3]
    bench.control(r.HOB)
    bench.again()
    assert [bench.get(i) for i in range(2, 6)] == [8, 4, 5, 6]
    bench.put(r.LBA_LOW, 9)  # any write to the command block ends it
    assert [bench.get(i) for i in range(2, 6)] == [7, 9, 2, 3]


def test_read_multiple(bench: DiskBench) -> None:
    bench.address(0, 5)
    assert bench.command(r.READ_MULTIPLE) == FAILED
    bench.put(r.SECTOR_COUNT, 4)
    assert bench.command(r.SET_MULTIPLE_MODE) == READY
    assert identity(bench)[59] == 0x0104
    bench.address(10, 6)
    bench.put(r.COMMAND, r.READ_MULTIPLE)
    assert bench.get(r.STATUS) == DATA
    assert bench.read_words(4 * 256) == pattern(14)[10 * 512 :]
    assert bench.level()
    assert bench.get(r.STATUS) == DATA
    assert bench.read_words(2 * 256) == pattern(16)[14 * 512 :]
    assert bench.get(r.STATUS) == READY


@pytest.mark.parametrize("count", [3, 32])
def test_multiple_counts_are_powers_of_two_up_to_16(bench: DiskBench, count: int) -> None:
    bench.put(r.SECTOR_COUNT, count)
    assert bench.command(r.SET_MULTIPLE_MODE) == FAILED
    assert bench.get(r.ERROR) == r.ABRT


# ---- PIO out ----


def test_write_sectors(bench: DiskBench) -> None:
    data = bytes(range(256)) * 4
    bench.address(20, 2)
    bench.put(r.COMMAND, r.WRITE_SECTORS)
    assert not bench.level()  # none for the first block
    assert bench.get(r.STATUS) == DATA
    bench.write_words(data[:500])
    bench.again()
    bench.write_words(data[500:512])
    assert bench.level()
    assert bench.get(r.STATUS) == DATA
    for i in range(512, 1024, 4):
        bench.put(r.DATA, int.from_bytes(data[i : i + 4], "little"), size=4)
    assert bench.level()
    assert bench.get(r.STATUS) == READY
    assert bench.disk.read(19, 4) == pattern(20)[19 * 512 :] + data + pattern(23)[22 * 512 :]


def test_write_multiple_ext(bench: DiskBench) -> None:
    bench.address_ext(0, 3)
    assert bench.command(r.WRITE_MULTIPLE_EXT) == FAILED
    bench.put(r.SECTOR_COUNT, 2)
    bench.command(r.SET_MULTIPLE_MODE)
    bench.address_ext(30, 3)
    assert bench.command(r.WRITE_MULTIPLE_EXT) == DATA
    bench.write_words(b"\xaa" * 1024)
    assert bench.get(r.STATUS) == DATA
    bench.write_words(b"\xbb" * 512)
    assert bench.get(r.STATUS) == READY
    assert bench.disk.read(30, 3) == b"\xaa" * 1024 + b"\xbb" * 512


def test_data_that_nobody_asked_for_goes_nowhere(bench: DiskBench) -> None:
    bench.put(r.DATA, 0x1234, size=2)
    assert bench.get(r.STATUS) == READY


def test_a_read_only_disk_aborts_writes(make: Callable[..., DiskBench]) -> None:
    bench = make(FakeDisk(100, read_only=True))
    for command in (r.WRITE_SECTORS, r.WRITE_DMA):
        bench.address(1, 1)
        assert bench.command(command) == FAILED
        assert bench.get(r.ERROR) == r.ABRT


def test_without_write_cache_a_write_is_flushed(bench: DiskBench) -> None:
    def write() -> int:
        bench.address(1, 1)
        bench.command(r.WRITE_SECTORS)
        bench.write_words(bytes(512))
        return bench.disk.flushes

    assert write() == 0
    bench.put(r.FEATURES, r.DISABLE_WRITE_CACHE)
    assert bench.command(r.SET_FEATURES) == READY
    assert not identity(bench)[85] & 1 << 5
    before = bench.disk.flushes
    assert write() == before + 1


# ---- errors ----


def test_a_bad_sector_is_named(bench: DiskBench) -> None:
    bench.disk.bad = {9}
    bench.address(7, 5)
    bench.command(r.READ_SECTORS)
    bench.read_words(256)
    bench.get(r.STATUS)
    bench.read_words(256)
    assert bench.level()
    assert bench.get(r.STATUS) == FAILED
    assert bench.get(r.ERROR) == r.UNC
    assert bench.shown_lba() == 9
    bench.address(10, 1)
    assert bench.command(r.READ_SECTORS) == DATA


def test_a_bad_sector_inside_a_block_is_named_in_48_bits(bench: DiskBench) -> None:
    bench.disk.sectors = 1 << 40
    bench.disk.bad = {0x12_3456_789A + 5}
    bench.disk.bytes = bytearray()
    bench.put(r.SECTOR_COUNT, 16)
    bench.command(r.SET_MULTIPLE_MODE)
    bench.address_ext(0x12_3456_789A, 16)
    assert bench.command(r.READ_MULTIPLE_EXT) == FAILED
    assert bench.get(r.ERROR) == r.UNC
    assert bench.shown_lba(ext=True) == 0x12_3456_789F


def test_a_bad_sector_is_named_by_chs(bench: DiskBench) -> None:
    bench.disk.bad = {(2 * 16 + 3) * 63 + 3}
    bench.put(r.DEVICE, 0xA0 | 3)
    for register, value in ((r.SECTOR_COUNT, 3), (r.LBA_LOW, 3), (r.LBA_MID, 2), (r.LBA_HIGH, 0)):
        bench.put(register, value)
    assert bench.command(r.READ_VERIFY) == FAILED
    assert (bench.get(r.DEVICE), bench.get(r.LBA_LOW), bench.get(r.LBA_MID)) == (0xA3, 4, 2)


def test_a_write_that_the_host_refuses(bench: DiskBench) -> None:
    bench.disk.bad = {33}
    bench.put(r.SECTOR_COUNT, 8)
    bench.command(r.SET_MULTIPLE_MODE)
    bench.address(30, 8)
    bench.command(r.WRITE_MULTIPLE)
    bench.write_words(b"\xcc" * 4096)
    assert bench.get(r.STATUS) == FAILED
    assert bench.get(r.ERROR) == r.ABRT
    assert bench.shown_lba() == 33
    assert bench.disk.read(30, 3) == b"\xcc" * 1536
    assert bench.drive.host_errors == 1


@pytest.mark.parametrize(("lba", "count", "first_bad"), [(4999, 2, 5000), (6000, 1, 6000)])
def test_sectors_behind_the_end(bench: DiskBench, lba: int, count: int, first_bad: int) -> None:
    bench.address(lba, count)
    assert bench.command(r.READ_DMA) == FAILED
    assert bench.get(r.ERROR) == r.IDNF
    assert bench.shown_lba() == first_bad


@pytest.mark.parametrize(("cylinder", "head", "sector"), [(4, 0, 1), (0, 0, 0), (0, 0, 64)])
def test_chs_addresses_that_do_not_exist(bench: DiskBench, cylinder: int, head: int, sector: int) -> None:
    bench.put(r.DEVICE, 0xA0 | head)
    for register, value in ((r.SECTOR_COUNT, 1), (r.LBA_LOW, sector), (r.LBA_MID, cylinder), (r.LBA_HIGH, 0)):
        bench.put(register, value)
    for command in (r.READ_SECTORS, r.SEEK):
        assert bench.command(command) == FAILED
        assert bench.get(r.ERROR) == r.IDNF


def test_a_flush_that_fails(bench: DiskBench) -> None:
    for command in (r.FLUSH_CACHE, r.FLUSH_CACHE_EXT):
        assert bench.command(command) == READY
    assert bench.disk.flushes == 2
    bench.disk.flush_error = OSError(28, "full")
    assert bench.command(r.FLUSH_CACHE) == FAILED
    assert bench.get(r.ERROR) == r.ABRT


UNKNOWN = (r.NOP, r.DEVICE_RESET, r.PACKET, r.IDENTIFY_PACKET_DEVICE, r.DATA_SET_MANAGEMENT, 0xB0, 0xF5, 0xFF)


@pytest.mark.parametrize("command", UNKNOWN)
def test_other_commands_are_aborted(bench: DiskBench, command: int) -> None:
    assert bench.command(command) == FAILED
    assert bench.get(r.ERROR) == r.ABRT
    assert bench.command(r.IDENTIFY_DEVICE) == DATA
    assert bench.get(r.ERROR) == 0


# ---- commands without data ----


def test_seek_recalibrate_and_verify(bench: DiskBench) -> None:
    for command in (r.SEEK, r.RECALIBRATE, r.RECALIBRATE + 15, r.READ_VERIFY):
        bench.address(100, 1)
        assert bench.command(command) == READY
        assert bench.level() is False
    bench.address_ext(0, SECTORS)
    assert bench.command(r.READ_VERIFY_EXT) == READY
    bench.address_ext(1, SECTORS)
    assert bench.command(r.READ_VERIFY_EXT) == FAILED


def test_power_modes(bench: DiskBench) -> None:
    def mode() -> int:
        assert bench.command(r.CHECK_POWER_MODE) == READY
        return bench.get(r.SECTOR_COUNT)

    assert mode() == 0xFF
    for command in (r.STANDBY, r.STANDBY_IMMEDIATE, r.SLEEP):
        assert bench.command(command) == READY
        assert mode() == 0
        bench.command(r.IDLE_IMMEDIATE)
        assert mode() == 0xFF
    bench.command(r.STANDBY)
    bench.address(0, 1)
    bench.command(r.READ_VERIFY)
    assert mode() == 0xFF


@pytest.mark.parametrize(
    ("mode", "word_63", "word_88"),
    [(0x22, 0x0407, 0x003F), (0x45, 0x0007, 0x203F), (0x0C, 0x0007, 0x003F), (0x01, 0x0007, 0x003F)],
)
def test_transfer_modes(bench: DiskBench, mode: int, word_63: int, word_88: int) -> None:
    bench.put(r.FEATURES, r.SET_TRANSFER_MODE)
    bench.put(r.SECTOR_COUNT, mode)
    assert bench.command(r.SET_FEATURES) == READY
    words = identity(bench)
    assert (words[63], words[88]) == (word_63, word_88)


@pytest.mark.parametrize("mode", [0x23, 0x46, 0x0D, 0x10, 0x80])
def test_transfer_modes_that_there_are_not(bench: DiskBench, mode: int) -> None:
    bench.put(r.FEATURES, r.SET_TRANSFER_MODE)
    bench.put(r.SECTOR_COUNT, mode)
    assert bench.command(r.SET_FEATURES) == FAILED


def test_other_features(bench: DiskBench) -> None:
    bench.put(r.FEATURES, r.DISABLE_READ_LOOK_AHEAD)
    assert bench.command(r.SET_FEATURES) == READY
    assert not identity(bench)[85] & 1 << 6
    bench.put(r.FEATURES, 0x99)
    assert bench.command(r.SET_FEATURES) == FAILED
    bench.put(r.FEATURES, 0)
    bench.address(0, 0)
    bench.put(r.SECTOR_COUNT, 0)
    assert bench.command(r.INITIALIZE_DEVICE_PARAMETERS) == FAILED


def test_native_max(bench: DiskBench) -> None:
    bench.select(0)
    assert bench.command(r.READ_NATIVE_MAX) == READY
    assert bench.shown_lba() == SECTORS - 1
    bench.disk.sectors = 1 << 35
    assert bench.command(r.READ_NATIVE_MAX) == READY
    assert bench.shown_lba() == 0x0FFF_FFFE
    assert bench.command(r.READ_NATIVE_MAX_EXT) == READY
    assert bench.shown_lba(ext=True) == (1 << 35) - 1


# ---- reset and interrupts ----


def signature(bench: Bench, channel: int = 0) -> tuple[int, ...]:
    return tuple(bench.get(i, channel) for i in range(1, 8))


DISK_SIGNATURE = (1, 1, 1, 0, 0, 0, READY)


def test_signature_after_power_on_and_reset(bench: DiskBench) -> None:
    assert signature(bench) == DISK_SIGNATURE
    bench.address(1, 2)
    bench.ide.reset()
    bench.ide.enable()
    assert signature(bench) == DISK_SIGNATURE


def test_software_reset(bench: DiskBench) -> None:
    bench.put(r.SECTOR_COUNT, 8)
    bench.command(r.SET_MULTIPLE_MODE)
    bench.address(3, 4)
    bench.put(r.COMMAND, r.READ_SECTORS)
    bench.control(r.SRST)
    bench.again()
    assert not bench.level()
    assert bench.alternate_status() == r.BSY
    bench.put(r.LBA_LOW, 0x55)
    bench.put(r.COMMAND, r.IDENTIFY_DEVICE)
    bench.put(r.COMMAND, r.EXECUTE_DEVICE_DIAGNOSTIC)
    assert bench.alternate_status() == r.BSY
    bench.control(0)
    assert not bench.level()
    assert signature(bench) == DISK_SIGNATURE
    assert identity(bench)[59] == 0


def test_settings_can_outlive_a_software_reset(bench: DiskBench) -> None:
    bench.put(r.FEATURES, r.DISABLE_REVERTING)
    bench.command(r.SET_FEATURES)
    bench.put(r.SECTOR_COUNT, 8)
    bench.command(r.SET_MULTIPLE_MODE)
    bench.control(r.SRST)
    bench.control(0)
    assert identity(bench)[59] == 0x0108
    bench.put(r.FEATURES, r.ENABLE_REVERTING)
    bench.command(r.SET_FEATURES)
    bench.control(r.SRST)
    bench.control(0)
    assert identity(bench)[59] == 0


def test_diagnostic(bench: DiskBench) -> None:
    bench.address(3, 4)
    bench.put(r.COMMAND, r.EXECUTE_DEVICE_DIAGNOSTIC)
    assert bench.level()
    assert signature(bench) == DISK_SIGNATURE
    assert not bench.level()


def test_interrupts_switched_off(bench: DiskBench) -> None:
    bench.control(r.NIEN)
    bench.put(r.COMMAND, r.IDENTIFY_DEVICE)
    assert not bench.level()
    bench.control(0)
    assert bench.level()
    bench.put(r.COMMAND, r.FLUSH_CACHE)  # acknowledges, and interrupts again
    assert bench.interrupts[-2:] == [(14, False), (14, True)]


# ---- which drive answers ----


def test_two_drives_share_a_channel() -> None:
    bench = Bench([AtaDisk(disk=FakeDisk(100), serial="one"), AtaDisk(disk=FakeDisk(200), serial="two")])
    names = []
    for slave in (0, 1):
        bench.select(slave)
        words = identity(bench)
        names.append((text(words, 10, 10), words[60], words[93]))
    assert names == [("one", 100, 0x603B), ("two", 200, 0x6B00)]
    # Both hear register writes; the interrupt is the selected drive's.
    bench.select(0)
    bench.put(r.LBA_LOW, 0x42)
    bench.put(r.COMMAND, r.FLUSH_CACHE)
    bench.select(1)
    assert not bench.level()
    assert bench.get(r.LBA_LOW) == 0x42
    bench.select(0)
    assert bench.level()
    bench.put(r.COMMAND, r.EXECUTE_DEVICE_DIAGNOSTIC)
    assert signature(bench) == DISK_SIGNATURE
    bench.put(r.DEVICE, r.DEV)
    assert signature(bench) == (1, 1, 1, 0, 0, 0x10, READY)


def test_device_0_answers_for_a_missing_device_1(bench: DiskBench) -> None:
    bench.select(1)
    bench.put(r.SECTOR_COUNT, 0x55)
    bench.put(r.LBA_LOW, 0xAA)
    bench.again()
    assert (bench.get(r.SECTOR_COUNT), bench.get(r.LBA_LOW), bench.get(r.DEVICE)) == (0x55, 0xAA, 0xB0)
    assert (bench.get(r.STATUS), bench.alternate_status()) == (0, 0)
    bench.put(r.COMMAND, r.IDENTIFY_DEVICE)
    assert bench.get(r.STATUS) == 0
    assert not bench.level()
    bench.select(0)
    assert bench.get(r.STATUS) == READY


def test_a_missing_device_0_and_an_empty_channel_float() -> None:
    bench = Bench([None, AtaDisk(disk=FakeDisk(10))])
    for channel in (0, 1):
        bench.select(0, channel)
        bench.put(r.SECTOR_COUNT, 0x55, channel)
        bench.put(r.COMMAND, r.IDENTIFY_DEVICE, channel)
        bench.put(r.COMMAND, r.EXECUTE_DEVICE_DIAGNOSTIC, channel)
        assert {bench.get(i, channel) for i in range(8)} == {FLOATING}
        assert bench.alternate_status(channel) == FLOATING
        assert bench.get(r.DATA, channel, 2) == 0xFF7F
        assert not bench.level(channel)
        bench.put(r.DATA, 1, channel, 2)
    bench.select(1, 1)
    assert bench.get(r.STATUS, 1) == FLOATING
    bench.select(1)
    assert bench.get(r.STATUS) == READY


def test_registers_are_8_bits_wide(bench: DiskBench) -> None:
    bench.put(r.SECTOR_COUNT, 0x2211, size=2)
    assert bench.get(r.SECTOR_COUNT, size=2) == 0x2211
    assert bench.get(r.SECTOR_COUNT, size=4) == 0x0000_2211


def test_a_saved_channel_has_the_same_places(bench: DiskBench) -> None:
    irq = InterruptLine(lambda level: None)
    saved = bench.ide.channels[0].save()
    with pytest.raises(SnapshotError) as error:
        IdeChannel(irq=irq, name="ide0").load(saved)
    assert str(error.value) == "ide-channel: ide0 has none as master, the saved state has one"
    drives = {"master": AtaDisk(disk=bench.disk), "slave": AtaDisk(disk=bench.disk)}
    with pytest.raises(SnapshotError) as error:
        IdeChannel(irq=irq, **drives).load(saved)
    assert str(error.value) == "ide-channel: ide has one as slave, the saved state has none"


@pytest.mark.parametrize(
    ("phase", "read_only", "error"),
    [
        (Phase.DMA_IN, False, r.IDNF),
        (Phase.DMA_OUT, False, r.IDNF),
        (Phase.DMA_OUT, True, r.ABRT),
        (Phase.PIO_OUT, False, r.IDNF),
    ],
)
def test_a_saved_transfer_behind_the_end_fails(phase: int, read_only: bool, error: int) -> None:
    disk = FakeDisk(10, read_only=read_only)
    state = AtaDisk(disk=disk).save()
    state |= {
        "phase": phase,
        "command": r.READ_DMA_EXT,
        "position": 9 * 512,
        "end": 11 * 512,
        "block": bytes(1024),
    }
    drive = loaded(AtaDisk(disk=disk), state)
    if phase == Phase.DMA_IN:
        assert drive.dma_peek(1024) == b""
    elif phase == Phase.DMA_OUT:
        drive.dma_accept(bytes(1024))
    else:
        for _ in range(512):
            drive.write_data(0, 2)
    assert (drive.status, drive.error, drive.phase) == (FAILED, error, Phase.IDLE)
    assert disk.bytes == pattern(10)


def test_a_channel_is_restored_alone() -> None:
    irq = InterruptLine(lambda level: None)
    channel = IdeChannel(irq=irq)
    channel.write(r.DEVICE, r.DEV, 1)
    assert loaded(IdeChannel(irq=irq), channel.save()).save() == channel.save()


def test_a_drive_is_restored_alone() -> None:
    disk = FakeDisk(10)
    drive = AtaDisk(disk=disk)
    drive.write_register(r.LBA_LOW, 7)
    again = loaded(AtaDisk(disk=disk), drive.save())
    assert again.save() == drive.save()
