"""virtio-blk: every request, every limit, cache modes, a host that is full, hostile chains."""

import errno
from collections.abc import Iterator
from pathlib import Path
from struct import pack, unpack

import pytest
from driver import RING_IDS, RINGS, Driver
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_fakes import FakeDisk, TrimmingDisk, pattern

from emuvisor.devices.storage.meter import DiskStatistics
from emuvisor.devices.storage.rawdisk import RawDisk, create_raw
from emuvisor.devices.virtio import blk
from emuvisor.devices.virtio.blk import Blk, BlkFeature
from emuvisor.devices.virtio.blk import RequestStatus as Status
from emuvisor.devices.virtio.blk import RequestType as Type
from emuvisor.devices.virtio.features import Feature, mask_of
from emuvisor.errors import SnapshotError, UsageError

SECTORS = 1000
ALL = mask_of(*BlkFeature)


class ZeroingDisk(TrimmingDisk):
    """Remembers what it was told about zeros, and is otherwise a disk."""

    def __init__(self, sectors: int = SECTORS) -> None:
        super().__init__(sectors)
        self.zeroes: list[tuple[int, int, bool]] = []
        self.discards: list[tuple[int, int]] = []

    def write_zeroes(self, lba: int, count: int, *, unmap: bool) -> None:
        self.zeroes.append((lba, count, unmap))
        super().write_zeroes(lba, count, unmap=unmap)

    def discard(self, lba: int, count: int) -> None:
        if self.full is not None:
            raise self.full
        self.discards.append((lba, count))
        super().discard(lba, count)


def header(kind: int, sector: int = 0) -> bytes:
    return pack("<IIQ", kind, 0, sector)


def ranges(*entries: tuple[int, int, int]) -> bytes:
    return b"".join(pack("<QII", *entry) for entry in entries)


class BlkDriver(Driver):
    """Requests as a driver of disks makes them, each answered with its data and its status."""

    def __init__(self, disk: FakeDisk | None = None, **options: object) -> None:
        self.disk = disk or ZeroingDisk()
        queues = options.pop("queues", 1)
        super().__init__(Blk(self.disk, name="blk0", serial="S1", queues=queues), **options)

    def do(self, out: bytes | list[bytes], in_sizes: list[int] = (), queue: int = 0) -> tuple[bytes, int]:
        answer = self.request(queue, out, [*in_sizes, 1])
        assert answer is not None
        return answer[:-1], answer[-1]

    def read(self, sector: int, *sizes: int, queue: int = 0) -> tuple[bytes, int]:
        return self.do(header(Type.IN, sector), list(sizes), queue)

    def write(self, sector: int, *data: bytes) -> int:
        return self.do([header(Type.OUT, sector), *data])[1]

    def flush(self) -> int:
        return self.do(header(Type.FLUSH))[1]

    def discard(self, *entries: tuple[int, int, int]) -> int:
        return self.do([header(Type.DISCARD), ranges(*entries)])[1]

    def write_zeroes(self, *entries: tuple[int, int, int]) -> int:
        return self.do([header(Type.WRITE_ZEROES), ranges(*entries)])[1]


@pytest.fixture
def driver() -> BlkDriver:
    return BlkDriver()


# ---- configuration ----


def test_the_configuration_space(driver: BlkDriver) -> None:
    fields = unpack("<QIIHBBIBBHIBxHIIIIIB3x", driver.config(0, 60))
    assert fields == (
        *(SECTORS, 512 << 10, 126, 0, 0, 0),
        *(512, 3, 0, 8, 128),
        *(1, 1),
        *(1 << 21, 32, 8, 1 << 17, 1, 1),
    )
    own = driver.offered() & ~mask_of(*Feature)
    assert own == ALL & ~mask_of(BlkFeature.RO, BlkFeature.MQ)


def test_a_read_only_disk() -> None:
    driver = BlkDriver(FakeDisk(SECTORS, read_only=True))
    own = driver.offered() & ~mask_of(*Feature)
    assert own == ALL & ~mask_of(BlkFeature.MQ, BlkFeature.DISCARD, BlkFeature.WRITE_ZEROES)
    assert driver.read(3, 512) == (pattern(4)[3 * 512 :], Status.OK)
    assert driver.write(3, bytes(512)) == Status.IOERR
    assert driver.discard((0, 1, 0)) == Status.IOERR
    assert driver.write_zeroes((0, 1, 0)) == Status.IOERR
    assert driver.flush() == Status.OK
    assert driver.disk.bytes == pattern(SECTORS)


def test_several_queues() -> None:
    driver = BlkDriver(queues=4)
    assert driver.device.queue_sizes == (128,) * 4
    assert driver.device.has(BlkFeature.MQ)
    assert driver.config(34, 2) == b"\x04\0"
    for queue in range(4):
        assert driver.read(queue, 512, queue=queue) == (pattern(5)[queue * 512 :][:512], Status.OK)


def test_names_and_numbers_that_cannot_be() -> None:
    for serial in ("x" * 21, "\xe9", "a\nb"):
        with pytest.raises(UsageError) as error:
            Blk(FakeDisk(1), name="blk0", serial=serial)
        assert str(error.value) == (
            f"blk0: serial number {serial!r}; a disk's has at most 20 printable ASCII characters"
        )
    for queues in (0, 65):
        with pytest.raises(UsageError) as error:
            Blk(FakeDisk(1), name="blk0", serial="", queues=queues)
        assert str(error.value) == f"blk0: {queues} queues; a disk has 1 to 64"


# ---- requests ----


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_reading_and_writing(ring: dict[str, bool]) -> None:
    driver = BlkDriver(**ring)
    assert driver.read(7, 512, 1024) == (pattern(10)[7 * 512 :], Status.OK)
    assert driver.write(8, b"a" * 1000, b"b" * 24) == Status.OK
    expected = bytearray(pattern(SECTORS))
    expected[8 * 512 : 10 * 512] = b"a" * 1000 + b"b" * 24
    assert driver.disk.bytes == expected
    assert driver.device.statistics == DiskStatistics(reads=1, writes=1, read_bytes=1536, written_bytes=1024)


def test_any_layout_of_the_pieces(driver: BlkDriver) -> None:
    """Section 2.6.4: a device does not rely on how a message is cut into descriptors."""
    message = header(Type.OUT, 5) + b"z" * 1024
    assert driver.do([message[:3], message[3:20], message[20:]]) == (b"", Status.OK)
    answer = driver.request(0, header(Type.IN, 4), [100, 4 * 512 - 100 + 1])
    assert answer == pattern(5)[4 * 512 :] + b"z" * 1024 + pattern(8)[7 * 512 :] + b"\0"


def test_flush(driver: BlkDriver) -> None:
    assert driver.flush() == Status.OK
    assert (driver.disk.flushes, driver.device.statistics.flushes) == (1, 1)
    driver.disk.flush_error = OSError(errno.EIO, "Input/output error")
    assert driver.flush() == Status.IOERR
    assert driver.device.statistics == DiskStatistics(flushes=1, errors=1)


def test_the_serial_number(driver: BlkDriver) -> None:
    assert driver.do(header(Type.GET_ID), [20]) == (b"S1" + bytes(18), Status.OK)
    assert driver.do(header(Type.GET_ID), [30]) == (b"S1" + bytes(28), Status.OK)
    assert driver.do(header(Type.GET_ID), [19])[1] == Status.IOERR
    long = Driver(Blk(FakeDisk(1), name="blk0", serial="0123456789abcdefghij"))
    assert long.request(0, header(Type.GET_ID), [20, 1]) == b"0123456789abcdefghij\0"


def test_discard(driver: BlkDriver) -> None:
    assert driver.discard((10, 5, 0), (100, 0, 0), (SECTORS - 1, 1, 0)) == Status.OK
    assert driver.disk.discards == [(10, 5), (100, 0), (SECTORS - 1, 1)]
    assert driver.device.statistics.discards == 1


def test_write_zeroes(driver: BlkDriver) -> None:
    assert driver.write_zeroes((10, 5, 0)) == Status.OK
    assert driver.write_zeroes((20, 5, blk.UNMAP)) == Status.OK
    assert driver.disk.zeroes == [(10, 5, False), (20, 5, True)]
    assert driver.disk.read(9, 7) == pattern(10)[9 * 512 :] + bytes(5 * 512) + pattern(16)[15 * 512 :]
    assert driver.device.statistics == DiskStatistics(writes=2, written_bytes=10 * 512)


def test_requests_that_do_not_exist(driver: BlkDriver) -> None:
    for kind in (2, 3, 5, 10, 14, 0xFFFF_FFFF):
        assert driver.do(header(kind), [512])[1] == Status.UNSUPP
    assert driver.device.statistics.errors == 6


def test_many_at_once_give_one_interrupt(driver: BlkDriver) -> None:
    tokens = [driver.add(0, header(Type.IN, i), [512, 1]) for i in range(32)]
    driver.kick(0)
    assert driver.interrupts == 1
    answers = dict(driver.used(0))
    for i, token in enumerate(tokens):
        assert answers[token] == pattern(i + 1)[i * 512 :] + b"\0"


# ---- limits ----


@pytest.mark.parametrize(
    ("sector", "sizes"),
    [
        (SECTORS, [512]),
        (SECTORS - 1, [1024]),
        (1 << 63, [512]),
        ((1 << 64) - 1, [512]),
        (0, [511]),
        (0, [513]),
        (0, [256, 255]),
    ],
)
def test_what_is_not_on_the_disk_is_refused(driver: BlkDriver, sector: int, sizes: list[int]) -> None:
    assert driver.read(sector, *sizes)[1] == Status.IOERR
    assert driver.write(sector, *[b"x" * size for size in sizes]) == Status.IOERR
    assert driver.disk.bytes == pattern(SECTORS)
    assert driver.device.statistics == DiskStatistics(errors=2)


def test_nothing_can_be_moved_anywhere(driver: BlkDriver) -> None:
    assert driver.read(SECTORS) == (b"", Status.OK)
    assert driver.write(SECTORS) == Status.OK


def test_a_header_that_is_cut_short(driver: BlkDriver) -> None:
    assert driver.do(header(Type.IN)[:15], [512])[1] == Status.IOERR
    assert driver.do(b"", [512])[1] == Status.IOERR


def test_segments(tmp_path: Path) -> None:
    create_raw(tmp_path / "disk.img", 8 << 20)
    with RawDisk(tmp_path / "disk.img") as disk:
        for features, status in ((ALL, Status.IOERR), (0, Status.OK)):
            driver = Driver(Blk(disk, name="blk0", serial=""), features=features)
            most, too_many = [512] * 126, [512] * 127
            assert driver.request(0, header(Type.IN), [*most, 1]) == bytes(126 * 512 + 1)
            assert driver.request(0, header(Type.IN), [*too_many, 1])[-1] == status
            assert driver.request(0, [header(Type.OUT), *[bytes(512)] * 126], [1]) == b"\0"
            assert driver.request(0, [header(Type.OUT), *[bytes(512)] * 127], [1])[-1] == status
            assert driver.request(0, header(Type.IN), [512 << 10, 1024, 1])[-1] == Status.OK
            assert driver.request(0, header(Type.IN), [(512 << 10) + 512, 1])[-1] == status
            assert driver.request(0, [header(Type.OUT), bytes((512 << 10) + 512)], [1])[-1] == status


def test_limits_of_discard(driver: BlkDriver) -> None:
    assert driver.discard(*[(0, 1, 0)] * 32) == Status.OK
    driver.disk.discards.clear()
    assert driver.discard(*[(0, 1, 0)] * 33) == Status.IOERR
    assert driver.discard() == Status.IOERR
    assert driver.do([header(Type.DISCARD), bytes(17)])[1] == Status.IOERR
    assert driver.discard((0, 1, 0), (SECTORS, 1, 0)) == Status.IOERR
    assert driver.discard((0, 1, 0), ((1 << 64) - 1, 1, 0)) == Status.IOERR
    for flags in (blk.UNMAP, 2, 1 << 31):
        assert driver.discard((0, 1, 0), (0, 1, flags)) == Status.UNSUPP
    driver.disk.sectors = 1 << 30
    assert driver.discard((0, (1 << 21) + 1, 0)) == Status.IOERR
    assert driver.disk.discards == []


def test_limits_of_write_zeroes(driver: BlkDriver) -> None:
    assert driver.write_zeroes((0, 1, 0), (2, 1, 0)) == Status.IOERR
    assert driver.write_zeroes((SECTORS - 1, 2, 0)) == Status.IOERR
    for flags in (2, 3):
        assert driver.write_zeroes((0, 1, flags)) == Status.UNSUPP
    driver.disk.sectors = 1 << 30
    assert driver.write_zeroes((0, (1 << 17) + 1, 0)) == Status.IOERR
    assert driver.disk.zeroes == []


def test_what_was_not_negotiated_does_not_exist() -> None:
    driver = BlkDriver(features=0)
    assert driver.discard((0, 1, 0)) == Status.UNSUPP
    assert driver.write_zeroes((0, 1, 0)) == Status.UNSUPP
    assert driver.disk.bytes == pattern(SECTORS)


# ---- cache modes: sections 5.2.5.2 and 5.2.6.2 ----


def changes(driver: BlkDriver) -> Iterator[int]:
    """Flushes after each kind of request that changes the disk."""
    for change in (lambda: driver.write(1, bytes(512)), lambda: driver.write_zeroes((2, 1, 0))):
        before = driver.disk.flushes
        assert change() == Status.OK
        yield driver.disk.flushes - before


def test_with_a_cache_nothing_is_flushed_unasked(driver: BlkDriver) -> None:
    assert driver.config(32, 1) == b"\1"
    assert list(changes(driver)) == [0, 0]


def test_the_driver_chooses_writethrough(driver: BlkDriver) -> None:
    driver.write_config(32, b"\0")
    assert driver.config(32, 1) == b"\0"
    assert list(changes(driver)) == [1, 1]
    driver.write_config(32, b"\1")
    assert list(changes(driver)) == [0, 0]
    driver.write_config(32, b"\0")
    driver.setup()
    assert driver.config(32, 1) == b"\1"


def test_only_that_field_can_be_written(driver: BlkDriver) -> None:
    before = driver.config(0, 60)
    for place in (*range(32), *range(33, 60)):
        driver.write_config(place, b"\0")
    assert driver.config(0, 60) == before


def test_a_driver_that_cannot_flush_need_not() -> None:
    for features in (ALL & ~mask_of(BlkFeature.FLUSH), mask_of(BlkFeature.WRITE_ZEROES)):
        driver = BlkDriver(features=features)
        driver.write_config(32, b"\1")
        assert driver.config(32, 1) == b"\0"
        assert list(changes(driver)) == [1, 1]


def test_a_driver_that_did_not_negotiate_the_choice_has_none() -> None:
    driver = BlkDriver(features=ALL & ~mask_of(BlkFeature.CONFIG_WCE))
    driver.write_config(32, b"\0")
    assert list(changes(driver)) == [0, 0]


# ---- the host's trouble ----


def test_a_sector_that_the_host_cannot_read(driver: BlkDriver) -> None:
    driver.disk.bad = {5}
    assert driver.read(4, 1024)[1] == Status.IOERR
    assert driver.write(5, bytes(512)) == Status.IOERR
    assert driver.discard((5, 1, 0)) == Status.IOERR
    assert driver.write_zeroes((5, 1, 0)) == Status.IOERR
    assert driver.read(6, 512)[1] == Status.OK
    assert driver.suspensions == []


FULL = OSError(errno.ENOSPC, "No space left on device")
REASON = "disk fake.img: the host's file system is full (No space left on device); make room, then resume the guest"


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_a_full_host_pauses_the_guest(ring: dict[str, bool]) -> None:
    driver = BlkDriver(**ring)
    driver.disk.full = FULL
    first = driver.add(0, [header(Type.OUT, 3), b"x" * 512], [1])
    second = driver.add(0, header(Type.IN, 3), [512, 1])
    driver.kick(0)
    assert driver.suspensions == [REASON]
    assert driver.used(0) == []
    assert driver.clock.fire_due() == 1  # resumed, but nobody made room
    assert driver.suspensions == [REASON, REASON]
    driver.disk.full = None
    driver.run_timers()
    assert dict(driver.used(0)) == {first: b"\0", second: b"x" * 512 + b"\0"}
    assert len(driver.suspensions) == 2
    assert driver.device.statistics.errors == 0


def test_a_flush_for_which_the_host_is_full(driver: BlkDriver) -> None:
    driver.disk.flush_error = OSError(errno.EDQUOT, "Disk quota exceeded")
    token = driver.add(0, header(Type.FLUSH), [1])
    driver.kick(0)
    assert driver.suspensions == [REASON.replace("No space left on device", "Disk quota exceeded")]
    driver.disk.flush_error = None
    driver.run_timers()
    assert driver.used(0) == [(token, b"\0")]


def test_a_full_host_keeps_what_was_discarded(driver: BlkDriver) -> None:
    driver.disk.full = FULL
    assert driver.discard((0, 8, 0)) == Status.OK
    assert driver.suspensions == []
    assert driver.disk.bytes == pattern(SECTORS)


# ---- saved state ----


def test_the_cache_mode_is_saved(driver: BlkDriver) -> None:
    driver.write_config(32, b"\0")
    state = driver.device.save()
    driver.take_over(Blk(driver.disk, name="blk0", serial="S1"))
    assert driver.device.write_through
    assert driver.device.save() == state
    state["type"]["write_through"] = 3
    with pytest.raises(SnapshotError) as error:
        driver.device.load(state)
    assert str(error.value) == "virtio-blk: saved field 'write_through' is 3; expected True or False"


def test_a_request_that_waits_is_saved() -> None:
    driver = BlkDriver()
    driver.disk.full = FULL
    token = driver.add(0, [header(Type.OUT, 3), b"x" * 512], [1])
    driver.kick(0)
    driver.take_over(Blk(driver.disk, name="blk0", serial="S1"))
    driver.disk.full = None
    driver.run_timers()
    assert driver.used(0) == [(token, b"\0")]
    assert driver.disk.read(3, 1) == b"x" * 512


# ---- hostile drivers ----


def test_a_request_without_a_status_byte(driver: BlkDriver) -> None:
    driver.add(0, header(Type.FLUSH), [])
    driver.kick(0)
    assert driver.needs_reset
    assert driver.device.failure == "blk0: a request without a status byte"
    assert driver.disk.flushes == 0
    driver.setup()
    assert driver.flush() == Status.OK


@pytest.mark.parametrize("kind", [Type.IN, Type.OUT])
def test_data_that_is_not_in_memory(driver: BlkDriver, kind: Type) -> None:
    nowhere = (1 << 40, 512)
    request = driver.buffer(header(kind, 1))
    status = driver.buffer(1)
    readable, writable = ([request], [nowhere, status]) if kind is Type.IN else ([request, nowhere], [status])
    driver.add_parts(0, readable, writable)
    driver.kick(0)
    assert driver.needs_reset
    assert driver.disk.bytes == pattern(SECTORS)


pieces = st.lists(st.integers(1, 1500), max_size=5)
kinds = st.sampled_from([*Type, 2, 77])
sectors = st.integers(0, SECTORS + 2) | st.integers(0, (1 << 64) - 1)
range_lists = st.lists(
    st.tuples(sectors, st.integers(0, 2000) | st.just(0xFFFF_FFFF), st.sampled_from([0, 0, 1, 2])), max_size=3
).map(lambda entries: ranges(*entries))


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(
        st.tuples(
            kinds, sectors, st.binary(max_size=600) | range_lists | st.just(b"d" * 1024), pieces, pieces
        ),
        max_size=12,
    ),
    packed=st.booleans(),
)
def test_nothing_raises_and_every_request_ends(
    requests: list[tuple[int, int, bytes, list[int], list[int]]], packed: bool
) -> None:
    driver = BlkDriver(packed=packed)
    driver.disk.bad = {17}
    for kind, sector, data, cuts, in_sizes in requests:
        message, out = header(kind, sector) + data, []
        for length in cuts:
            out.append(message[:length])
            message = message[length:]
        before = bytes(driver.disk.bytes)
        answer = driver.request(0, [*out, message], in_sizes)
        if not in_sizes:
            assert driver.needs_reset
            driver.setup()
            continue
        assert answer is not None
        assert len(answer) == sum(in_sizes)
        status = answer[-1]
        assert status in tuple(Status)
        if status == Status.OK and kind == Type.IN:
            length = sum(in_sizes) - 1
            assert answer[:-1] == before[sector * 512 : sector * 512 + length]
        elif status != Status.OK or kind in (Type.FLUSH, Type.GET_ID, Type.IN):
            assert driver.disk.bytes == before or kind == Type.DISCARD
        elif kind == Type.OUT:
            assert driver.disk.bytes[sector * 512 :][: len(data)] == data
