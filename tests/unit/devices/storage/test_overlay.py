"""Overlays: what is written shadows the base, lasts, and is refused when it is damaged."""

import fcntl
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage_fakes import FakeDisk, pattern

from emuvisor import holes
from emuvisor.devices.storage import overlay as overlay_module
from emuvisor.devices.storage.overlay import OverlayDisk, TemporaryOverlay
from emuvisor.devices.storage.overlay_format import Layout, identity_of
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.errors import ImageError

CLUSTER = 4096
SECTORS = 8 * 10 + 3
"""Ten clusters and three sectors."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "changes.overlay"


def create(path: Path, sectors: int = SECTORS) -> OverlayDisk:
    return OverlayDisk.create(FakeDisk(sectors), path, cluster_size=CLUSTER)


def reopen(path: Path) -> OverlayDisk:
    return OverlayDisk(FakeDisk(SECTORS), path)


def test_an_empty_overlay_shows_the_base(path: Path) -> None:
    with create(path) as disk:
        assert (disk.name, disk.sectors, disk.read_only) == (str(path), SECTORS, False)
        assert (disk.clusters_present, disk.cluster_size, disk.host_path) == (0, CLUSTER, path)
        assert disk.read(0, SECTORS) == pattern(SECTORS)


def test_writes_shadow_the_base_and_last(path: Path) -> None:
    expected = bytearray(pattern(SECTORS))
    base = FakeDisk(SECTORS)
    with OverlayDisk.create(base, path, cluster_size=CLUSTER) as disk:
        for lba, count, fill in ((3, 2, b"a"), (6, 20, b"b"), (82, 1, b"c"), (4, 1, b"d")):
            disk.write(lba, fill * count * 512)
            expected[lba * 512 : (lba + count) * 512] = fill * count * 512
            assert disk.read(0, SECTORS) == expected
        assert disk.clusters_present == 5
    assert base.bytes == pattern(SECTORS)
    assert base.closed
    with reopen(path) as disk:
        assert disk.read(0, SECTORS) == expected
        assert disk.clusters_present == 5


def test_only_what_is_written_takes_space(path: Path) -> None:
    with OverlayDisk.create(FakeDisk(1 << 14), path) as disk:
        disk.write(1000, bytes(512))
    assert path.stat().st_size > 8 << 20
    assert path.stat().st_blocks * 512 < 1 << 20


def test_discarded_clusters_are_zeros(path: Path) -> None:
    expected = bytearray(pattern(SECTORS))
    expected[8 * 512 : 24 * 512] = bytes(16 * 512)
    expected[80 * 512 :] = bytes(3 * 512)
    with create(path) as disk:
        disk.write(10, b"x" * 512)
        disk.discard(5, 22)  # two whole clusters
        disk.discard(78, 5)  # the last one, which is short
        disk.discard(33, 2)  # none
        assert disk.read(0, SECTORS) == expected
    with reopen(path) as disk:
        assert disk.read(0, SECTORS) == expected


def test_zeros_take_space_only_when_they_should(path: Path) -> None:
    with OverlayDisk.create(FakeDisk(1 << 12), path) as disk:
        disk.flush()
        empty = disk.allocated
        assert empty == path.stat().st_blocks * 512
        disk.write_zeroes(0, 1 << 12, unmap=True)
        disk.flush()
        assert disk.allocated == empty
        disk.write_zeroes(0, 1 << 11, unmap=False)
        disk.flush()
        assert disk.allocated >= empty + (1 << 20)
        assert disk.read(0, 1 << 12) == bytes(1 << 21)


def test_a_host_without_holes_keeps_what_was_discarded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holes, "_fallocate", None)
    with create(path) as disk:
        disk.write(8, b"x" * CLUSTER)
        disk.discard(0, 24)
        assert disk.read(0, 24) == pattern(24)[:CLUSTER] + b"x" * CLUSTER + pattern(24)[2 * CLUSTER :]


def test_what_was_flushed_survives_a_crash(path: Path, tmp_path: Path) -> None:
    disk = create(path)
    disk.write(0, b"a" * 512)
    disk.flush()
    disk.flush()
    disk.write(8, b"b" * 512)
    crashed = tmp_path / "crashed.overlay"
    crashed.write_bytes(path.read_bytes())
    disk.close()
    disk.close()
    with OverlayDisk(FakeDisk(SECTORS), crashed) as again:
        assert again.read(0, 9) == b"a" * 512 + pattern(9)[512:]


def test_data_is_stored_before_the_bitmap_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = create(path)
    events: list[str] = []
    write_from, write, flush = disk._store.write_from, disk._store.write, disk._store.flush
    monkeypatch.setattr(
        disk._store, "write_from", lambda at, views: (events.append("data"), write_from(at, views))
    )
    monkeypatch.setattr(disk._store, "write", lambda at, data: (events.append("bitmap"), write(at, data)))
    monkeypatch.setattr(disk._store, "flush", lambda: (events.append("flush"), flush()))
    disk.write(0, bytes(512))
    disk.flush()
    assert events == ["data", "flush", "bitmap", "flush"]
    disk.close()


def test_a_flush_that_fails_is_not_forgotten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = create(path)
    disk.write(0, b"a" * 512)

    def full() -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(disk._store, "flush", full)
        with pytest.raises(OSError, match="No space left"):
            disk.flush()
    disk.close()
    with reopen(path) as disk:
        assert disk.read(0, 1) == b"a" * 512


def test_a_close_that_cannot_flush_closes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = create(path)
    disk.write(0, b"a" * 512)

    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk._store, "flush", full)
    with pytest.raises(OSError, match="No space left"):
        disk.close()
    disk.close()
    reopen(path).close()


# ---- refusals ----


def refused(path: Path, sectors: int = SECTORS, base: FakeDisk | None = None) -> str:
    with pytest.raises(ImageError) as error:
        OverlayDisk(base or FakeDisk(sectors), path)
    return str(error.value)


def test_an_existing_file_is_not_overwritten(path: Path) -> None:
    path.write_bytes(b"precious")
    with pytest.raises(ImageError) as error:
        create(path)
    assert str(error.value) == f"{path}: cannot make the overlay: File exists"
    assert path.read_bytes() == b"precious"


def test_a_cluster_size_that_the_format_does_not_have(path: Path) -> None:
    for size in (2048, 6000, 4 << 20):
        with pytest.raises(ImageError) as error:
            OverlayDisk.create(FakeDisk(9), path, cluster_size=size)
        assert (
            str(error.value)
            == f"{path}: the overlay's clusters have {size} bytes; a power of two from 4096 to 2097152 is allowed"
        )
    assert not path.exists()


def test_a_file_that_cannot_be_filled_is_removed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(layout: Layout, file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(overlay_module, "_write_empty", full)
    with pytest.raises(ImageError) as error:
        create(path)
    assert str(error.value) == f"{path}: cannot make the overlay: No space left on device"
    assert not path.exists()


def test_missing_and_foreign_files(path: Path) -> None:
    assert refused(path) == f"{path}: cannot open the overlay: No such file or directory"
    path.write_bytes(b"")
    assert refused(path) == f"{path}: not an overlay file"
    path.write_bytes(bytes(100000))
    assert refused(path) == f"{path}: not an overlay file"


def test_another_base(path: Path) -> None:
    create(path).close()
    assert (
        refused(path, sectors=SECTORS + 1)
        == f"{path}: the overlay is of a disk with {SECTORS * 512} bytes; fake.img has {(SECTORS + 1) * 512}"
    )
    other = FakeDisk(SECTORS)
    other.bytes[0] ^= 1
    assert (
        refused(path, base=other)
        == f"{path}: the overlay is of another base, or fake.img was changed after it was made"
    )


def test_a_base_that_cannot_be_read(path: Path) -> None:
    create(path).close()
    base = FakeDisk(SECTORS)
    base.bad = {0}
    assert refused(path, base=base) == f"{path}: cannot read the overlay: no such luck"


def test_two_guests_cannot_share_an_overlay(path: Path) -> None:
    with create(path):
        assert refused(path) == f"{path}: the overlay is in use by another guest or program"
    reopen(path).close()


def test_a_lock_that_fails_otherwise(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(path).close()

    def no_locks(fd: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert refused(path) == f"{path}: cannot lock the overlay: No locks available"


def test_every_cut_is_noticed(path: Path) -> None:
    with create(path) as disk:
        disk.write(0, b"x" * 512)
    whole = path.read_bytes()
    for length in (7, 8, 20, 59):
        path.write_bytes(whole[:length])
        reason = "not an overlay file" if length < 8 else "the overlay is cut short inside its header"
        assert refused(path) == f"{path}: {reason}"
    for length in (60, 4096, 4500, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert (
            refused(path)
            == f"{path}: the overlay has {length} bytes instead of {len(whole)}; it was cut short or extended"
        )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 59) | st.integers(4096, 4096 + 511), bit=st.integers(0, 7))
def test_every_flipped_bit_of_header_and_bitmap_is_noticed(path: Path, place: int, bit: int) -> None:
    path.unlink(missing_ok=True)
    create(path).close()
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)
    message = refused(path)
    assert message.startswith(f"{path}: ")
    if place >= 4096:
        assert message == f"{path}: the overlay is damaged: the checksum of bitmap sector 0 is wrong"
    elif place >= 8:
        assert message == f"{path}: the overlay is damaged: the checksum of its header is wrong"


def with_header(path: Path, place: int, value: bytes, checksum: int = 56) -> None:
    """Change a header field, and its checksum with it."""
    data = bytearray(path.read_bytes())
    data[place : place + len(value)] = value
    data[checksum : checksum + 4] = zlib.crc32(data[:checksum]).to_bytes(4, "little")
    path.write_bytes(data)


def test_headers_that_are_whole_but_wrong(path: Path) -> None:
    create(path).close()
    with_header(path, 8, b"\x03", checksum=72)
    assert refused(path) == f"{path}: the overlay has version 3; this emuvisor reads 1 and 2"
    with_header(path, 8, b"\x01")
    with_header(path, 12, b"\x01")
    assert (
        refused(path)
        == f"{path}: the overlay's clusters have 4097 bytes; a power of two from 4096 to 2097152 is allowed"
    )


def test_a_bitmap_with_clusters_behind_the_end(path: Path) -> None:
    create(path).close()
    data = bytearray(path.read_bytes())
    data[4096 + 1] = 0x08  # cluster 11 of 11
    data[4096 + 508 : 4096 + 512] = zlib.crc32(data[4096 : 4096 + 508], 0).to_bytes(4, "little")
    path.write_bytes(data)
    assert refused(path) == f"{path}: the overlay is damaged: its bitmap names clusters behind the disk's end"


def test_large_bitmaps_have_several_sectors(tmp_path: Path) -> None:
    image = tmp_path / "base.img"
    with image.open("wb") as file:
        file.truncate(5000 * CLUSTER)
    path = tmp_path / "large.overlay"
    with OverlayDisk.create(RawDisk(image, read_only=True), path, cluster_size=CLUSTER) as disk:
        disk.write(8 * 4063, b"a" * 2 * CLUSTER)  # across the two bitmap sectors
    with OverlayDisk(RawDisk(image, read_only=True), path) as disk:
        assert disk.read(8 * 4063 - 1, 18) == bytes(512) + b"a" * 2 * CLUSTER + bytes(512)
        assert disk.clusters_present == 2


def test_identity_covers_first_and_last_sectors() -> None:
    disk = FakeDisk(1000)
    before = identity_of(disk)
    for place in (0, 1000 * 512 - 1):
        disk.bytes[place] ^= 1
        assert identity_of(disk) != before
        disk.bytes[place] ^= 1
    assert identity_of(disk) == before
    assert identity_of(FakeDisk(1)) != identity_of(FakeDisk(2))


# ---- temporary overlays ----


def test_a_temporary_overlay_leaves_nothing(tmp_path: Path) -> None:
    base = FakeDisk(SECTORS)
    disk = TemporaryOverlay(base, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert (disk.name, disk.sectors, disk.read_only) == ("fake.img", SECTORS, False)
    assert (disk.host_path, disk.allocated) == (tmp_path, 0)
    disk.write(5, b"x" * 1024)
    disk.flush()
    assert disk.read(4, 4) == pattern(5)[4 * 512 :] + b"x" * 1024 + pattern(8)[7 * 512 :]
    assert base.bytes == pattern(SECTORS)
    disk.close()
    assert base.closed


def test_a_temporary_overlay_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as error:
        TemporaryOverlay(FakeDisk(1), tmp_path / "none")
    assert str(error.value) == f"{tmp_path}/none: cannot make a temporary overlay: No such file or directory"
    assert TemporaryOverlay(FakeDisk(1)).read(0, 1) == pattern(1)


def test_a_temporary_overlay_in_a_full_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = TemporaryOverlay(FakeDisk(SECTORS), tmp_path)

    def full(fd: int, views: list[memoryview], offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(OSError, match="No space left"):
        disk.write(0, bytes(512))
    assert disk.read(0, 1) == pattern(1)


# ---- against a model ----

operations = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "read", "zero", "unmap", "discard", "flush", "reopen"]),
        st.integers(0, SECTORS - 1),
        st.integers(1, 40),
        st.integers(0, 255),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=operations)
def test_like_a_bytearray(path: Path, operations: list[tuple[str, int, int, int]]) -> None:
    path.unlink(missing_ok=True)
    model = bytearray(pattern(SECTORS))
    disk = create(path)
    for what, lba, wanted, fill in operations:
        count = min(wanted, SECTORS - lba)
        place = slice(lba * 512, (lba + count) * 512)
        if what == "write":
            model[place] = bytes([fill]) * count * 512
            data = memoryview(bytes(model[place]))
            disk.write_from(lba, [data[:100], data[100:100], data[100:]])
        elif what == "read":
            into = bytearray(count * 512)
            disk.read_into(lba, [memoryview(into)[:1000], memoryview(into)[1000:]])
            assert into == model[place]
        elif what in ("zero", "unmap"):
            model[place] = bytes(count * 512)
            disk.write_zeroes(lba, count, unmap=what == "unmap")
        elif what == "discard":
            disk.discard(lba, count)
            after = disk.read(0, SECTORS)
            for i in range(lba, lba + count):
                sector = after[i * 512 : i * 512 + 512]
                assert sector in (bytes(512), model[i * 512 : i * 512 + 512])
                model[i * 512 : i * 512 + 512] = sector
        elif what == "flush":
            disk.flush()
        else:
            disk.close()
            disk = reopen(path)
        assert disk.read(0, SECTORS) == model
    disk.close()
    with reopen(path) as disk:
        assert disk.read(0, SECTORS) == model
