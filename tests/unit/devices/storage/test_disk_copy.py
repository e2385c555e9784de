"""A disk is copied while it is written: whoever copies has all of it at the end."""

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage_fakes import FakeDisk, pattern

from emuvisor.devices.storage.diskcopy import DiskCopy
from emuvisor.devices.storage.layered import LayeredDisk
from emuvisor.devices.storage.overlay import TemporaryOverlay
from emuvisor.devices.storage.overlay_format import CLUSTER_SIZE
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.units import MIB

CLUSTER = CLUSTER_SIZE // 512
SECTORS = 20 * CLUSTER + 3
A = b"a" * 512


def test_the_whole_disk_in_pieces_and_then_what_was_written() -> None:
    disk = LayeredDisk(FakeDisk(SECTORS))
    with DiskCopy(disk) as copy:
        assert copy.remaining == SECTORS * 512
        assert copy.next_ranges() == [(0, 16 * CLUSTER)]
        disk.write(3, A)
        disk.write(19 * CLUSTER, A)
        assert copy.next_ranges(1) == [(16 * CLUSTER, CLUSTER)]
        assert copy.next_ranges(64 * MIB) == [(17 * CLUSTER, 3 * CLUSTER + 3)]
        assert (copy.passes, copy.remaining) == (0, CLUSTER_SIZE)
        assert copy.next_ranges() == [(0, CLUSTER)]
        assert (copy.passes, copy.remaining) == (1, 0)
        assert copy.next_ranges() == []
        copy.give_back([(CLUSTER, CLUSTER), (20 * CLUSTER, 3)])
        assert copy.remaining == CLUSTER_SIZE + 3 * 512
        assert copy.next_ranges() == [(CLUSTER, CLUSTER), (20 * CLUSTER, 3)]
    copy.close()
    disk.write(0, A)
    assert (copy.remaining, disk.layer.watchers) == (0, [])


def test_only_where_there_is_data(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.touch()
    with path.open("r+b") as file:
        file.truncate(SECTORS * 512)
    with closing(LayeredDisk(RawDisk(path))) as disk:
        disk.write(2 * CLUSTER, A)
        disk.write(7 * CLUSTER, A)
        with DiskCopy(disk) as copy:
            assert copy.next_ranges() == [(2 * CLUSTER, CLUSTER), (7 * CLUSTER, CLUSTER)]


def test_only_the_top_layer() -> None:
    disk = LayeredDisk(TemporaryOverlay(FakeDisk(SECTORS)))
    disk.write(5 * CLUSTER, A)
    with DiskCopy(disk, top_only=True) as copy:
        assert copy.next_ranges() == [(5 * CLUSTER, CLUSTER)]


def test_a_freeze_while_it_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(pattern(SECTORS))
    disk = LayeredDisk(RawDisk(path))
    with DiskCopy(disk) as copy:
        while copy.next_ranges():
            pass
        frozen = disk.freeze(tmp_path / "top")
        disk.write(0, A)
        assert copy.next_ranges() == [(0, CLUSTER)]
    assert disk.layer.watchers == []
    disk.close()
    frozen.close()


steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "zero", "copy", "copy", "freeze", "layer", "back", "give back"]),
        st.integers(0, SECTORS - 1),
        st.integers(1, 3 * CLUSTER),
    ),
    max_size=30,
)


@given(steps=steps)
@settings(suppress_health_check=list(HealthCheck), max_examples=80, deadline=None)
def test_the_copy_is_whole_at_the_end(steps: list[tuple[str, int, int]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "disk.img"
        path.write_bytes(pattern(SECTORS))
        disk = LayeredDisk(RawDisk(path))
        target = FakeDisk(SECTORS)
        target.bytes = bytearray(SECTORS * 512)
        copy = DiskCopy(disk)
        frozen = [disk.freeze()]

        def copied(most: int) -> bool:
            ranges = copy.next_ranges(most)
            for lba, count in ranges:
                target.write(lba, disk.read(lba, count))
            return bool(ranges)

        for number, (step, lba, length) in enumerate(steps):
            count = min(length, SECTORS - lba)
            if step == "write":
                disk.write(lba, bytes([number + 1]) * count * 512)
            elif step == "zero":
                disk.write_zeroes(lba, count, unmap=True)
            elif step == "freeze":
                frozen.append(disk.freeze())
            elif step == "layer":
                frozen.append(disk.freeze(Path(folder) / str(number)))
            elif step == "back":
                disk.go_back(frozen[lba % len(frozen)])
            elif step == "give back":
                copy.give_back(copy.next_ranges(count * 512))
            else:
                copied(count * 512)
        while copied(MIB):
            pass
        assert bytes(target.bytes) == disk.read(0, SECTORS)
        for closable in (copy, disk, *frozen):
            closable.close()
