"""Where disks have data."""

import errno
import os
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.devices.storage.extents import aligned_extents, data_extents, file_extents, nonzero_runs
from emuvisor.devices.storage.qcow2.create import create
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.rawdisk import RawDisk, create_raw
from emuvisor.units import KIB, MIB

GRANULE = 4 * KIB


class PlainDisk:
    """A disk that knows nothing of its zeros."""


class SparseDisk:
    def data_extents(self, lba, count):
        yield lba + 1, lba + count


def test_extents_of_a_disk():
    assert list(data_extents(PlainDisk(), 3, 5)) == [(3, 8)]
    assert list(data_extents(PlainDisk(), 3, 0)) == []
    assert list(data_extents(SparseDisk(), 3, 5)) == [(4, 8)]


@pytest.fixture
def sparse_file(tmp_path: Path) -> Path:
    """4 MiB with data in the second and the last."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(4 * MIB)
        for offset in (MIB, 3 * MIB):
            file.seek(offset)
            file.write(b"d" * MIB)
    return path


@pytest.mark.parametrize(
    ("offset", "length", "extents"),
    [
        (0, 4 * MIB, [(MIB, 2 * MIB), (3 * MIB, 4 * MIB)]),
        (MIB + 512, 1024, [(MIB + 512, MIB + 1536)]),
        (0, MIB, []),
        (2 * MIB, 512, []),
        (0, 0, []),
    ],
)
def test_extents_of_a_file(sparse_file, offset, length, extents):
    with sparse_file.open("rb") as file:
        assert list(file_extents(file.fileno(), offset, length)) == extents


def test_a_file_that_ends_in_a_hole(tmp_path):
    path = tmp_path / "hole"
    path.touch()
    os.truncate(path, MIB)
    with path.open("rb") as file:
        assert list(file_extents(file.fileno(), 0, MIB)) == []


def test_a_file_system_that_does_not_tell(monkeypatch, sparse_file):
    def refuse(_fd, _offset, _whence):
        raise OSError(errno.EINVAL, "no holes here")

    monkeypatch.setattr(os, "lseek", refuse)
    assert list(file_extents(0, 512, 1024)) == [(512, 1536)]


def test_a_file_that_cannot_be_read():
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match="Illegal seek"):
            list(file_extents(reading, 0, 512))
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("preallocation", ["off", "metadata"])
@pytest.mark.parametrize("seed", range(5))
def test_outside_of_its_extents_a_qcow2_image_reads_as_zeros(tmp_path, preallocation, seed):
    chance = random.Random(seed)
    base, path = tmp_path / "base.img", tmp_path / "top.qcow2"
    create_raw(base, 300 * 512)
    with RawDisk(base) as disk:
        disk.write(100, b"b" * 150 * 512)
    on_base = preallocation == "off"
    create(
        path,
        500 * 512,
        cluster_size=4 * KIB,
        preallocation=preallocation,
        backing="base.img" if on_base else None,
        backing_format="raw" if on_base else None,
    )
    with Qcow2Disk(path) as disk:
        for number in range(12):
            lba, count = chance.randrange(470), chance.randrange(1, 30)
            if number % 3:
                disk.write(lba, b"w" * count * 512)
            else:
                disk.write_zeroes(lba, count, unmap=True)
        disk.write_compressed(chance.randrange(62), b"c" * 4 * KIB)
        lba = chance.randrange(100)
        extents = list(data_extents(disk, lba, 500 - lba))
        content = disk.read(0, 500)
    position = lba
    for start, end in [*extents, (500, 500)]:
        assert position <= start <= end
        assert not any(content[position * 512 : start * 512])
        position = end
    # There are holes that no write fills: only some of the sectors are named.
    assert sum(end - start for start, end in extents) < 500 - lba


EXTENTS = st.lists(st.integers(0, 200), unique=True, max_size=20).map(
    lambda edges: list(zip(*[iter(sorted(edges))] * 2, strict=False))
)


@given(EXTENTS, st.sampled_from([1, 4, 8]), st.integers(0, 20))
def test_alignment_keeps_all_and_adds_no_whole_unit(extents, unit, more):
    end = max((stop for _, stop in extents), default=0) + more
    aligned = list(aligned_extents(extents, unit, end))
    wanted = {i // unit for start, stop in extents for i in range(start, stop)}
    assert [i // unit for start, stop in aligned for i in range(start, stop, unit)] == sorted(wanted)
    assert all(start % unit == 0 and (stop % unit == 0 or stop == end) for start, stop in aligned)
    assert all(before[1] < behind[0] for before, behind in pairwise(aligned))


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 7), st.integers(0, GRANULE - 1))
def test_runs_of_other_bytes_than_zero(used, tail_sectors, place):
    pieces = [(b"\0" * place + b"x").ljust(GRANULE, b"\0") if flag else bytes(GRANULE) for flag in used]
    tail = b"y" * (512 * tail_sectors)
    data = b"".join(pieces) + tail
    flags = [*used, *([True] if tail else [])]
    runs = nonzero_runs(data, GRANULE)
    assert [i // GRANULE for start, stop in runs for i in range(start, stop, GRANULE)] == [
        number for number, flag in enumerate(flags) if flag
    ]
    assert all(start % GRANULE == 0 and (stop % GRANULE == 0 or stop == len(data)) for start, stop in runs)
    assert len(runs) == sum(flag and not before for before, flag in zip([False, *flags], flags, strict=False))


def test_a_short_end_of_zeros():
    assert nonzero_runs(b"x" * GRANULE + bytes(512), GRANULE) == [(0, GRANULE)]
