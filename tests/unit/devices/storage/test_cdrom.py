"""The CD-ROM drive: packets by PIO and DMA, sense data, the tray, errors of the image."""

from collections.abc import Callable
from struct import unpack

import pytest
from ide_bench import BUFFER, DMA_INTERRUPT, Bench
from loading import loaded
from storage_fakes import FakeDisk, pattern

from emuvisor.devices.storage.ide import mmc
from emuvisor.devices.storage.ide import registers as r
from emuvisor.devices.storage.ide.cdrom import CdRom

BLOCKS = 400
FAILED = r.DRDY | r.CHK
ATTENTION, NOT_READY, MEDIUM_ERROR, ILLEGAL = 6, 2, 3, 5


def disc(blocks: int = BLOCKS) -> FakeDisk:
    return FakeDisk(4 * blocks, read_only=True)


class CdBench(Bench):
    """A CD-ROM drive as secondary master, restored from saved state around every packet if `restoring`."""

    def __init__(self, restoring: bool, medium: FakeDisk | None) -> None:
        self.restoring = restoring
        super().__init__([None, None, CdRom(disc=medium)])
        self.select(0, 1)
        assert self.packet(bytes(12)) == FAILED  # power on
        assert self.sense() == (ATTENTION, 0x29, 0)

    @property
    def drive(self) -> CdRom:
        drive = self.ide.channels[1].drives[0]
        assert isinstance(drive, CdRom)
        return drive

    def again(self) -> None:
        if self.restoring:
            self.restore([None, None, CdRom(disc=self.drive.disc)])

    def packet(self, cdb: bytes, *, limit: int = 0xFFFE, dma: bool = False, channel: int = 1) -> int:
        self.again()
        status = super().packet(cdb, limit=limit, dma=dma, channel=channel)
        self.again()
        return status

    def fails(self, cdb: bytes, *sense: int) -> None:
        assert self.packet(cdb) == FAILED
        assert self.get(r.ERROR, 1) == sense[0] << 4 | r.ABRT
        assert self.get(r.INTERRUPT_REASON, 1) == r.COD | r.IO
        assert self.sense() == (*sense, *[0] * (3 - len(sense)))
        assert self.sense() == (0, 0, 0)


@pytest.fixture(params=[False, True], ids=["fresh", "restored"])
def make(request: pytest.FixtureRequest) -> Callable[..., CdBench]:
    return lambda medium: CdBench(request.param, medium)


@pytest.fixture
def bench(make: Callable[..., CdBench]) -> CdBench:
    return make(disc())


def read_10(block: int, count: int) -> bytes:
    return bytes((mmc.READ_10, 0)) + block.to_bytes(4, "big") + b"\0" + count.to_bytes(2, "big")


def read_12(block: int, count: int) -> bytes:
    return bytes((mmc.READ_12, 0)) + block.to_bytes(4, "big") + count.to_bytes(4, "big")


def allocate_10(
    code: int, length: int = 0xFFFE, *, b1: int = 0, b2: int = 0, b4: int = 0, b6: int = 0
) -> bytes:
    return bytes((code, b1, b2, 0, b4, 0, b6)) + length.to_bytes(2, "big")


def content(block: int, count: int) -> bytes:
    return pattern(4 * (block + count))[2048 * block :]


TEST_UNIT_READY = bytes(12)


# ---- the ATA side ----


def test_signature(bench: CdBench) -> None:
    bench.control(r.SRST, 1)
    assert bench.alternate_status(1) == r.BSY
    bench.control(0, 1)
    assert [bench.get(i, 1) for i in range(1, 8)] == [1, 1, 1, 0x14, 0xEB, 0, 0]


@pytest.mark.parametrize("command", [r.IDENTIFY_DEVICE, r.READ_SECTORS])
def test_disk_commands_abort_with_the_signature(bench: CdBench, command: int) -> None:
    assert bench.command(command, 1) == FAILED
    assert [bench.get(i, 1) for i in range(1, 6)] == [r.ABRT, 1, 1, 0x14, 0xEB]
    assert bench.command(r.FLUSH_CACHE, 1) == FAILED


def test_device_reset(bench: CdBench) -> None:
    bench.put(r.DEVICE, 0xA0, 1)
    bench.packet(read_10(0, 1))
    bench.get(r.STATUS, 1)
    assert bench.command(r.DEVICE_RESET, 1) == 0
    assert [bench.get(i, 1) for i in range(1, 6)] == [1, 1, 1, 0x14, 0xEB]
    assert not bench.level(1)


def test_identify_packet_device(bench: CdBench) -> None:
    assert bench.command(r.IDENTIFY_PACKET_DEVICE, 1) == r.DRDY | r.DRQ
    words = unpack("<256H", bench.read_words(256, 1))
    assert bench.get(r.STATUS, 1) == r.DRDY
    assert words[0] == 0x85C0
    assert b"".join(word.to_bytes(2, "big") for word in words[27:47]).rstrip() == b"emuvisor CD-ROM"
    assert words[49] & 0x0300 == 0x0300
    assert words[82] & 0x0210 == 0x0210


def test_set_features_and_power(bench: CdBench) -> None:
    bench.put(r.FEATURES, r.SET_TRANSFER_MODE, 1)
    bench.put(r.SECTOR_COUNT, 0x42, 1)
    assert bench.command(r.SET_FEATURES, 1) == r.DRDY
    bench.put(r.FEATURES, r.ENABLE_WRITE_CACHE, 1)
    assert bench.command(r.SET_FEATURES, 1) == FAILED
    for command, mode in ((r.STANDBY_IMMEDIATE, 0), (r.IDLE_IMMEDIATE, 0xFF)):
        assert bench.command(command, 1) == r.DRDY
        bench.command(r.CHECK_POWER_MODE, 1)
        assert bench.get(r.SECTOR_COUNT, 1) == mode


def test_the_packet_protocol(bench: CdBench) -> None:
    bench.put(r.FEATURES, 0, 1)
    bench.put(r.BYTE_COUNT_LOW, 0x00, 1)
    bench.put(r.BYTE_COUNT_HIGH, 0x0C, 1)  # 3072
    bench.put(r.COMMAND, r.PACKET, 1)
    assert bench.get(r.INTERRUPT_REASON, 1) == r.COD
    assert bench.get(r.STATUS, 1) == r.DRDY | r.DRQ
    assert not bench.level(1)
    bench.write_words(read_10(2, 2).ljust(12, b"\0"), 1)
    data = b""
    for length in (3072, 1024):
        assert bench.level(1)
        assert bench.get(r.INTERRUPT_REASON, 1) == r.IO
        assert (bench.get(r.BYTE_COUNT_LOW, 1), bench.get(r.BYTE_COUNT_HIGH, 1)) == (
            length & 0xFF,
            length >> 8,
        )
        assert bench.get(r.STATUS, 1) == r.DRDY | r.DRQ
        bench.again()
        data += bench.read_words(length // 2, 1)
    assert bench.level(1)
    assert bench.get(r.INTERRUPT_REASON, 1) == r.COD | r.IO
    assert bench.get(r.STATUS, 1) == r.DRDY
    assert data == content(2, 2)


@pytest.mark.parametrize("limit", [0, 1, 2, 2048, 2049, 4097, 0xFFFF])
def test_byte_count_limits(bench: CdBench, limit: int) -> None:
    # An odd limit holds for the last piece only; 0 and FFFFh mean FFFEh.
    effective = {0: 0xFFFE, 1: 2, 0xFFFF: 0xFFFE}.get(limit, limit)
    status = bench.packet(read_10(0, 3), limit=limit)
    data, pieces = b"", []
    while status & r.DRQ:
        pieces.append(bench.get(r.BYTE_COUNT_LOW, 1) | bench.get(r.BYTE_COUNT_HIGH, 1) << 8)
        data += bench.read_words(pieces[-1] // 2, 1)
        status = bench.get(r.STATUS, 1)
    assert data == content(0, 3)
    assert set(pieces[:-1]) <= {effective & ~1}
    assert pieces[-1] <= effective


def test_a_reply_of_odd_length_is_padded(bench: CdBench) -> None:
    assert len(bench.reply(bytes((mmc.INQUIRY, 0, 0, 0, 5)))) == 5


def test_read_by_dma(bench: CdBench) -> None:
    bench.set_table((BUFFER, 3000), (BUFFER + 0x4000, 5192), channel=1)
    assert bench.packet(read_12(10, 4), dma=True) == r.DRDY | r.DRQ
    assert not bench.level(1)
    assert bench.dma_start(to_memory=True, channel=1) == DMA_INTERRUPT
    assert bench.get(r.STATUS, 1) == r.DRDY
    assert bench.memory.read(BUFFER, 3000) + bench.memory.read(BUFFER + 0x4000, 5192) == content(10, 4)


def test_short_replies_by_dma(bench: CdBench) -> None:
    bench.set_table((BUFFER, 0), channel=1)
    bench.packet(bytes((mmc.READ_CAPACITY,)), dma=True)
    bench.dma_start(to_memory=True, channel=1)
    assert bench.memory.read(BUFFER, 9) == (BLOCKS - 1).to_bytes(4, "big") + (2048).to_bytes(4, "big") + b"\0"
    assert bench.packet(TEST_UNIT_READY, dma=True) == r.DRDY


def test_mode_select_is_taken_and_ignored(bench: CdBench) -> None:
    assert bench.packet(allocate_10(mmc.MODE_SELECT_10, 30), limit=20) == r.DRDY | r.DRQ
    for length in (20, 10):
        assert bench.get(r.INTERRUPT_REASON, 1) == 0
        assert bench.get(r.BYTE_COUNT_LOW, 1) == length
        assert bench.get(r.STATUS, 1) == r.DRDY | r.DRQ
        bench.write_words(bytes(length), 1)
    assert bench.get(r.STATUS, 1) == r.DRDY
    bench.set_table((BUFFER, 12), channel=1)
    bench.packet(bytes((mmc.MODE_SELECT_6, 0, 0, 0, 12)), dma=True)
    assert bench.dma_start(to_memory=False, channel=1) == DMA_INTERRUPT
    assert bench.get(r.STATUS, 1) == r.DRDY


# ---- errors ----


def test_unknown_commands_and_fields(bench: CdBench) -> None:
    bench.fails(bytes((0x99,)), ILLEGAL, 0x20)
    for cdb in (
        bytes((mmc.INQUIRY, 1, 0, 0, 36)),
        allocate_10(mmc.READ_TOC, b2=5),
        allocate_10(mmc.READ_TOC, b6=2),
        allocate_10(mmc.GET_CONFIGURATION, b1=3),
        allocate_10(mmc.GET_EVENT_STATUS_NOTIFICATION, b4=0x10),
        allocate_10(mmc.MODE_SENSE_10, b2=0x0E),
        bytes((mmc.READ_CD, 0, 0, 0, 0, 0, 0, 0, 1, 0xF8)),
    ):
        bench.fails(cdb, ILLEGAL, 0x24)
    bench.fails(allocate_10(mmc.MODE_SENSE_10, b2=0xC0 | 0x2A), ILLEGAL, 0x39)
    bench.fails(bytes((mmc.READ_DVD_STRUCTURE,)), ILLEGAL, 0x30, 0x02)


def test_blocks_behind_the_end(bench: CdBench) -> None:
    for cdb in (
        read_10(BLOCKS - 1, 2),
        read_12(BLOCKS, 0xFFFF_FFFF),
        read_10(0xFFFF_FFFF, 1),
        bytes((mmc.SEEK_10, 0)) + BLOCKS.to_bytes(4, "big"),
        bytes((mmc.READ_CD, 0)) + BLOCKS.to_bytes(4, "big") + bytes((0, 0, 1)),
    ):
        bench.fails(cdb, ILLEGAL, 0x21)


def test_the_work_of_one_command_is_bounded(make: Callable[..., CdBench]) -> None:
    medium = disc(1)
    medium.sectors = 4 << 20
    bench = make(medium)
    bench.fails(read_12(0, 0x10000), ILLEGAL, 0x24)


@pytest.mark.parametrize("dma", [False, True])
def test_a_block_that_the_host_cannot_read(bench: CdBench, dma: bool) -> None:
    bench.drive.disc.bad = {4 * 7 + 2}
    bench.set_table((BUFFER, 0), channel=1)
    status = bench.packet(read_10(5, 4), dma=dma)
    if dma:
        bench.dma_start(to_memory=True, channel=1)
        status = bench.get(r.STATUS, 1)
        assert bench.memory.read(BUFFER, 4096) == content(5, 2)
    assert status == FAILED
    sense = bench.reply(bytes((mmc.REQUEST_SENSE, 0, 0, 0, 18)))
    assert (sense[0], sense[2], sense[12]) == (0xF0, MEDIUM_ERROR, 0x11)
    assert int.from_bytes(sense[3:7], "big") == 7
    if not bench.restoring:  # a counter of the process's, not of the guest's
        assert bench.drive.host_errors == 1


def test_a_block_that_can_be_read_at_the_second_attempt(bench: CdBench) -> None:
    medium = bench.drive.disc
    medium.bad = {9}
    read, attempts = medium.read, []

    def read_and_mend(lba: int, count: int) -> bytes:
        attempts.append((lba, count))
        if len(attempts) == 4:  # all of them, half of them, the good half
            medium.bad = set()
        return read(lba, count)

    medium.read = read_and_mend
    assert bench.reply(read_10(0, 4)) == content(0, 4)


# ---- the medium ----


def test_no_disc(make: Callable[..., CdBench]) -> None:
    bench = make(None)
    for code in (0x00, mmc.READ_CAPACITY, mmc.READ_10, mmc.READ_TOC, mmc.READ_DISC_INFORMATION):
        bench.fails(bytes((code,)), NOT_READY, 0x3A, 0x01)
    assert bench.reply(bytes((mmc.INQUIRY, 0, 0, 0, 36)))[:8] == bytes((5, 0x80, 0, 0x21, 31, 0, 0, 0))


def event(bench: CdBench) -> tuple[int, int]:
    reply = bench.reply(allocate_10(mmc.GET_EVENT_STATUS_NOTIFICATION, b1=1, b4=0x10))
    assert reply[:4] == bytes((0, 6, 4, 0x10))
    return reply[4], reply[5]


def test_another_disc(bench: CdBench) -> None:
    assert event(bench) == (0, 2)
    bench.drive.insert(disc(50))
    assert event(bench) == (2, 2)
    assert event(bench) == (0, 2)
    bench.fails(TEST_UNIT_READY, ATTENTION, 0x28)
    assert bench.reply(bytes((mmc.READ_CAPACITY,)))[:4] == (49).to_bytes(4, "big")
    bench.drive.insert(None)
    assert event(bench) == (3, 0)
    bench.fails(TEST_UNIT_READY, ATTENTION, 0x28)
    bench.fails(TEST_UNIT_READY, NOT_READY, 0x3A, 1)


def test_a_disc_that_is_taken_out_while_it_is_read(bench: CdBench) -> None:
    assert bench.packet(read_10(0, 2), limit=2048) == r.DRDY | r.DRQ
    bench.drive.insert(None)
    assert bench.read_words(1024, 1) == content(0, 1)  # what the drive had already read
    assert bench.get(r.STATUS, 1) == FAILED
    assert bench.sense() == (NOT_READY, 0x3A, 1)


def test_a_smaller_disc_takes_the_place_of_one_that_is_read(bench: CdBench) -> None:
    bench.packet(read_10(5, 2), limit=2048)
    bench.drive.insert(disc(6))
    bench.read_words(1024, 1)
    assert bench.get(r.STATUS, 1) == FAILED
    assert bench.sense() == (ILLEGAL, 0x21, 0)


def test_request_sense_reports_the_attention(bench: CdBench) -> None:
    bench.drive.insert(disc(50))
    assert bench.sense() == (ATTENTION, 0x28, 0)
    assert bench.packet(TEST_UNIT_READY) == r.DRDY


def start_stop(bits: int) -> bytes:
    return bytes((mmc.START_STOP_UNIT, 0, 0, 0, bits))


def test_the_guest_opens_and_closes_the_tray(bench: CdBench) -> None:
    assert bench.packet(start_stop(1)) == r.DRDY  # spins up
    assert bench.packet(start_stop(2)) == r.DRDY
    assert event(bench) == (3, 1)
    bench.fails(TEST_UNIT_READY, NOT_READY, 0x3A, 2)
    assert bench.reply(allocate_10(mmc.MECHANISM_STATUS, b1=0)[:8] + b"\0\x08") == bytes(
        (0, 0x10, 0, 0, 0, 0, 0, 0)
    )
    assert bench.packet(start_stop(3)) == r.DRDY
    assert event(bench) == (2, 2)
    bench.fails(TEST_UNIT_READY, ATTENTION, 0x28)
    assert bench.packet(TEST_UNIT_READY) == r.DRDY
    assert bench.packet(start_stop(3)) == r.DRDY
    assert event(bench) == (0, 2)


def test_an_empty_tray_is_no_event(make: Callable[..., CdBench]) -> None:
    bench = make(None)
    assert bench.packet(start_stop(2)) == r.DRDY
    assert event(bench) == (0, 1)


def test_a_locked_tray(bench: CdBench) -> None:
    prevent = bytes((mmc.PREVENT_ALLOW_MEDIUM_REMOVAL, 0, 0, 0, 1))
    assert bench.packet(prevent) == r.DRDY
    bench.fails(start_stop(2), ILLEGAL, 0x53, 2)
    assert bench.reply(bytes((mmc.MODE_SENSE_6, 0, 0x2A, 0, 255)))[10] & 2
    assert bench.packet(prevent[:4] + b"\0") == r.DRDY
    assert bench.packet(start_stop(2)) == r.DRDY


# ---- what the drive tells ----


def test_table_of_contents(bench: CdBench) -> None:
    def toc(**fields: int) -> bytes:
        return bench.reply(allocate_10(mmc.READ_TOC, **fields))

    end = BLOCKS.to_bytes(4, "big")
    lead_out = bytes((0, 0x14, 0xAA, 0))
    assert toc() == bytes((0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0)) + lead_out + end
    assert toc(b6=0xAA) == bytes((0, 10, 1, 1)) + lead_out + end
    # 400 + 150 frames are 7 seconds and 25 frames.
    assert toc(b1=2, b6=0xAA)[-4:] == bytes((0, 0, 7, 25))
    assert toc(b2=1) == bytes((0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0))
    full = toc(b2=2)
    assert full[:4] == bytes((0, 46, 1, 1))
    points = [full[i : i + 11] for i in range(4, 48, 11)]
    assert [(p[3], p[8:]) for p in points] == [
        (0xA0, bytes((1, 0, 0))),
        (0xA1, bytes((1, 0, 0))),
        (0xA2, bytes((0, 7, 25))),
        (1, bytes((0, 2, 0))),
    ]
    # The place of the format in SFF-8020i.
    assert bench.reply(allocate_10(mmc.READ_TOC) + b"\x40") == toc(b2=1)
    assert toc(length=4) == bytes((0, 18, 1, 1))


def test_read_cd(bench: CdBench) -> None:
    def read_cd(flags: int) -> bytes:
        return bytes((mmc.READ_CD, 0, 0, 0, 0, 9, 0, 0, 2, flags))

    assert bench.reply(read_cd(0x10)) == content(9, 2)
    assert bench.reply(read_cd(0)) == b""


def test_disc_information(bench: CdBench) -> None:
    reply = bench.reply(allocate_10(mmc.READ_DISC_INFORMATION))
    assert reply == bytes((0, 32, 0x0E, 1, 1, 1, 1, 0x20)) + bytes(26)


def test_configuration(make: Callable[..., CdBench]) -> None:
    dvd = disc(1)
    dvd.sectors = 4 * 99 * 60 * 75 + 4
    for medium, profile in ((disc(), 8), (dvd, 0x10), (None, 0)):
        bench = make(medium)
        reply = bench.reply(allocate_10(mmc.GET_CONFIGURATION))
        assert int.from_bytes(reply[:4], "big") == len(reply) - 4
        assert int.from_bytes(reply[6:8], "big") == profile
        features, at = {}, 8
        while at < len(reply):
            features[int.from_bytes(reply[at : at + 2], "big")] = reply[at + 2] & 1
            at += 4 + reply[at + 3]
        assert at == len(reply)
        on_disc = {0x10: int(profile != 0), 0x1E: int(profile == 8), 0x1F: int(profile == 0x10)}
        assert features == {0: 1, 1: 1, 3: 1} | on_disc
    assert len(bench.reply(allocate_10(mmc.GET_CONFIGURATION, b1=2))) == 8 + 12
    current = bench.reply(allocate_10(mmc.GET_CONFIGURATION, b1=1))
    assert len(current) == 8 + 12 + 12 + 8


def test_other_event_classes(bench: CdBench) -> None:
    reply = bench.reply(allocate_10(mmc.GET_EVENT_STATUS_NOTIFICATION, b1=1, b4=0x02))
    assert reply == bytes((0, 2, 0x80, 0x10))


def test_mode_pages(bench: CdBench) -> None:
    six = bench.reply(bytes((mmc.MODE_SENSE_6, 0, 0x2A, 0, 255)))
    ten = bench.reply(allocate_10(mmc.MODE_SENSE_10, b2=0x2A))
    assert (six[0], six[4:6]) == (len(six) - 1, bytes((0x2A, 18)))
    assert (int.from_bytes(ten[:2], "big"), ten[8:]) == (len(ten) - 2, six[4:])
    everything = bench.reply(allocate_10(mmc.MODE_SENSE_10, b2=0x3F))
    assert everything[8:] == bytes((1, 6, 0, 0, 0, 0, 0, 0)) + ten[8:]
    changeable = bench.reply(allocate_10(mmc.MODE_SENSE_10, b2=0x40 | 0x2A))
    assert changeable[8:] == bytes((0x2A, 18)) + bytes(18)


def test_seek_and_speed(bench: CdBench) -> None:
    assert bench.packet(bytes((mmc.SEEK_10, 0, 0, 0, 0, 9))) == r.DRDY
    assert bench.packet(bytes((mmc.SET_CD_SPEED,))) == r.DRDY
    assert bench.packet(read_10(5, 0)) == r.DRDY


def test_a_drive_is_restored_alone() -> None:
    drive = CdRom(disc=disc())
    drive.insert(None)
    assert loaded(CdRom(), drive.save()).save() == drive.save()
