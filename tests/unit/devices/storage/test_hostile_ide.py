"""Random accesses never raise and cost little; random legal commands do to the disk what a plain model says."""

from typing import Any

from floppy_fakes import FlatRam
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ide_bench import BUFFER, BUS_MASTER, TABLE, Bench
from storage_fakes import FakeDisk, TrimmingDisk

from emuvisor.devices.storage.ide import registers as r
from emuvisor.devices.storage.ide.bus_master import MAX_DESCRIPTORS
from emuvisor.devices.storage.ide.cdrom import CdRom
from emuvisor.devices.storage.ide.disk import AtaDisk

SECTORS = 600


class CountingRam(FlatRam):
    """Memory that counts accesses and bytes."""

    accesses = 0
    moved = 0

    def read(self, gpa: int, length: int) -> bytes:
        self.accesses += 1
        self.moved += length
        return super().read(gpa, length)

    def write(self, gpa: int, data: bytes | memoryview) -> None:
        self.accesses += 1
        self.moved += len(data)
        super().write(gpa, data)


ports = st.sampled_from(
    [*range(0x1F0, 0x1F8), 0x3F6, *range(0x170, 0x178), 0x376, *range(BUS_MASTER, BUS_MASTER + 16)]
)
sizes = st.sampled_from([1, 1, 1, 2, 4])
commands = st.sampled_from(
    [value for name, value in vars(r).items() if name.isupper() and isinstance(value, int) and value <= 0xFF]
)
accesses = st.one_of(
    st.tuples(st.just("read"), ports, sizes, st.just(0)),
    st.tuples(st.just("write"), ports, sizes, st.integers(0, 2**32 - 1)),
    st.tuples(st.just("write"), st.sampled_from([0x1F7, 0x177]), st.just(1), commands),
    st.tuples(st.just("write"), st.sampled_from([BUS_MASTER, BUS_MASTER + 8]), st.just(1), st.integers(0, 9)),
    st.tuples(st.just("packet"), st.binary(min_size=12, max_size=12), st.booleans(), st.just(0)),
    st.tuples(st.just("drain"), st.sampled_from([0x1F0, 0x170]), st.integers(1, 3000), st.just(0)),
)


def access(bench: Bench, what: tuple[Any, ...]) -> Any:
    kind, place, size, value = what
    if kind == "read":
        return bench.ports.read(place, size)
    if kind == "write":
        return bench.ports.write(place, value, size)
    if kind == "packet":
        bench.select(0, 1)
        return bench.packet(place, dma=size)
    return [bench.ports.read(place, 2) for _ in range(size)]


def drives(disks: tuple[FakeDisk, ...]) -> list[Any]:
    hard, second, disc = disks
    return [AtaDisk(disk=hard), AtaDisk(disk=second), CdRom(disc=disc)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    table=st.binary(max_size=64),
    sequence=st.lists(accesses, max_size=60),
    split=st.integers(0, 60),
)
def test_nothing_raises_and_no_access_costs_much(
    table: bytes, sequence: list[tuple[Any, ...]], split: int
) -> None:
    disks = (TrimmingDisk(SECTORS), FakeDisk(7, read_only=True), FakeDisk(64, read_only=True))
    disks[0].bad = {13, 400}
    memory = CountingRam()
    bench = Bench(drives(disks), memory)
    memory.write(TABLE, table * 100)
    for channel in (0, 1):
        bench.dma_put(4, TABLE, 4, channel)
    for number, what in enumerate(sequence):
        if number == split:
            bench.restore(drives(disks))
        memory.accesses = memory.moved = 0
        access(bench, what)
        assert memory.accesses <= 2 * MAX_DESCRIPTORS
        assert memory.moved <= 40 << 20


@settings(max_examples=60, deadline=None)
@given(sequence=st.lists(accesses, max_size=40), split=st.integers(0, 40))
def test_saving_in_the_middle_changes_nothing(sequence: list[tuple[Any, ...]], split: int) -> None:
    benches, media = [], []
    for _ in range(2):
        disks = (TrimmingDisk(SECTORS), FakeDisk(7, read_only=True), FakeDisk(64, read_only=True))
        bench = Bench(drives(disks))
        bench.set_table((BUFFER, 1000), (BUFFER + 0x2000, 0))
        bench.set_table((BUFFER, 3000), channel=1)
        benches.append(bench)
        media.append(disks)
    for number, what in enumerate(sequence):
        if number == split:
            benches[1].restore(drives(media[1]))
        assert access(benches[0], what) == access(benches[1], what)
    assert benches[0].ide.save() == benches[1].ide.save()
    assert benches[0].memory.bytes == benches[1].memory.bytes
    assert benches[0].interrupts == benches[1].interrupts
    assert [disk.bytes for disk in media[0]] == [disk.bytes for disk in media[1]]


READS = {"pio": r.READ_SECTORS, "multiple": r.READ_MULTIPLE, "dma": r.READ_DMA}
WRITES = {"pio": r.WRITE_SECTORS, "multiple": r.WRITE_MULTIPLE, "dma": r.WRITE_DMA}
EXTENDED_COMMAND = {
    r.READ_SECTORS: r.READ_SECTORS_EXT,
    r.READ_MULTIPLE: r.READ_MULTIPLE_EXT,
    r.READ_DMA: r.READ_DMA_EXT,
    r.WRITE_SECTORS: r.WRITE_SECTORS_EXT,
    r.WRITE_MULTIPLE: r.WRITE_MULTIPLE_EXT,
    r.WRITE_DMA: r.WRITE_DMA_EXT,
}

transfers = st.tuples(
    st.booleans(),
    st.sampled_from(["pio", "multiple", "dma"]),
    st.booleans(),
    st.integers(0, SECTORS - 1),
    st.integers(1, 24),
    st.integers(0, 255),
    st.integers(1, 5),
)


def transfer(bench: Bench, data: bytes, *, write: bool, how: str, ext: bool, lba: int, pieces: int) -> bytes:
    """Move `data` or as much; what was moved."""
    count = len(data) // 512
    (bench.address_ext if ext else bench.address)(lba, count)
    command = (WRITES if write else READS)[how]
    status = bench.command(EXTENDED_COMMAND[command] if ext else command)
    if how == "dma":
        step = -(-len(data) // (2 * pieces)) * 2
        places = [(BUFFER + 3 * at, min(step, len(data) - at)) for at in range(0, len(data), step)]
        bench.set_table(*places)
        done = 0
        for place, length in places:
            if write:
                bench.memory.write(place, data[done : done + length])
            done += length
        bench.dma_start(to_memory=not write)
        assert bench.get(r.STATUS) == r.DRDY | r.DSC
        return b"".join(bench.memory.read(place, length) for place, length in places)
    moved = b""
    block = 512 * (4 if how == "multiple" else 1)
    while status & r.DRQ:
        piece = data[len(moved) : len(moved) + block]
        if write:
            bench.write_words(piece)
            moved += piece
        else:
            moved += bench.read_words(len(piece) // 2)
        status = bench.get(r.STATUS)
    assert status == r.DRDY | r.DSC
    return moved


@settings(max_examples=25, deadline=None)
@given(sequence=st.lists(transfers, max_size=8))
def test_transfers_against_a_model(sequence: list[tuple[Any, ...]]) -> None:
    disk = FakeDisk(SECTORS)
    model = bytearray(disk.bytes)
    bench = Bench([AtaDisk(disk=disk)])
    bench.select(0)
    bench.put(r.SECTOR_COUNT, 4)
    bench.command(r.SET_MULTIPLE_MODE)
    for write, how, ext, lba, wanted, fill, pieces in sequence:
        length = 512 * min(wanted, SECTORS - lba)
        place = slice(512 * lba, 512 * lba + length)
        data = bytes((fill + i * 7) & 0xFF for i in range(length))
        if write:
            model[place] = data
        moved = transfer(bench, data, write=write, how=how, ext=ext, lba=lba, pieces=pieces)
        assert moved == model[place]
        assert disk.bytes == model
