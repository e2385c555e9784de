"""What the header of a qcow2 image may say, and what is refused with which words."""

from collections.abc import Callable
from pathlib import Path
from struct import pack

import pytest

from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.qcow2.create import create
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.qcow2.header import BITMAPS_EXTENSION, FEATURE_NAMES, Header
from emuvisor.devices.storage.qcow2.image import read_header
from emuvisor.devices.storage.qcow2.info import info
from emuvisor.errors import ImageError
from emuvisor.units import MIB

CLUSTER = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    create(path, MIB, cluster_size=CLUSTER)
    return path


def put(offset: int, form: str, number: int) -> Callable[[bytearray], None]:
    def change(image: bytearray) -> None:
        data = pack(form, number)
        image[offset : offset + len(data)] = data

    return change


def cut(length: int) -> Callable[[bytearray], None]:
    def change(image: bytearray) -> None:
        del image[length:]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(0, "B", 0), "not a qcow2 image"),
        (cut(0), "not a qcow2 image"),
        (cut(50), "the qcow2 image is cut short inside its header"),
        (cut(90), "the qcow2 image is cut short inside its header"),
        (put(4, ">I", 4), "the qcow2 image has version 4; 2 and 3 are supported"),
        (put(20, ">I", 8), "the qcow2 image has clusters of 2^8 bytes; 2^9 to 2^21 are supported"),
        (
            put(20, ">I", 2**32 - 1),
            "the qcow2 image has clusters of 2^4294967295 bytes; 2^9 to 2^21 are supported",
        ),
        (
            put(24, ">Q", 0),
            "a disk image cannot have 0 bytes; a positive multiple of the 512-byte sector is allowed",
        ),
        (
            put(24, ">Q", 1000),
            "a disk image cannot have 1000 bytes; a positive multiple of the 512-byte sector is allowed",
        ),
        (
            put(24, ">Q", 2**63),
            "a disk of 9223372036854775808 bytes is too large for clusters of 4 KiB; 8 TiB are possible",
        ),
        (put(32, ">I", 1), "the qcow2 image is encrypted (AES), which is not supported"),
        (put(32, ">I", 2), "the qcow2 image is encrypted (LUKS), which is not supported"),
        (put(32, ">I", 3), "the qcow2 image is encrypted (of unknown kind 3), which is not supported"),
        (put(36, ">I", 0), "the qcow2 image is damaged: its L1 table has 0 entries; the disk needs 1"),
        (
            put(36, ">I", 2**32 - 1),
            "the qcow2 image is damaged: its L1 table has 4294967295 entries; 4194304 are allowed",
        ),
        (
            put(40, ">Q", 100),
            "the qcow2 image is damaged: its L1 table is at byte 100, which is misaligned or outside the file",
        ),
        (
            put(40, ">Q", 0),
            "the qcow2 image is damaged: its L1 table is at byte 0, which is misaligned or outside the file",
        ),
        (
            put(48, ">Q", 1 << 63),
            "the qcow2 image is damaged: its refcount table is at byte 9223372036854775808, "
            "which is misaligned or outside the file",
        ),
        (
            put(56, ">I", 0),
            "the qcow2 image is damaged: its refcount table has 0 bytes; 1 to 8388608 are allowed",
        ),
        (
            put(60, ">I", 65537),
            "the qcow2 image is damaged: it has 65537 snapshots; at most 65536 are allowed",
        ),
        (
            put(60, ">I", 1),
            "the qcow2 image is damaged: its snapshot table is at byte 0, which is misaligned or outside the file",
        ),
        (put(72, ">Q", 4), "the qcow2 image uses a feature that is not supported: external data file"),
        (put(72, ">Q", 16), "the qcow2 image uses a feature that is not supported: extended L2 entries"),
        (
            put(72, ">Q", 1 << 40),
            "the qcow2 image uses a feature that is not supported: unknown incompatible feature 40",
        ),
        (
            put(96, ">I", 7),
            "the qcow2 image is damaged: its reference counts have 2^7 bits; at most 64 are allowed",
        ),
        (put(100, ">I", 8), "the qcow2 image is damaged: its header says to have 8 bytes"),
        (put(100, ">I", 109), "the qcow2 image is damaged: its header says to have 109 bytes"),
        (put(100, ">I", 8192), "the qcow2 image is damaged: its header says to have 8192 bytes"),
        (
            put(104, "B", 1),
            "the qcow2 image is damaged: its compression type and the feature bit for it disagree",
        ),
        (
            put(116, ">I", 5000),
            "the qcow2 image is damaged: its header extensions do not fit into the header",
        ),
    ],
)
def test_refused(path: Path, change: Callable[[bytearray], None], message: str) -> None:
    image = bytearray(path.read_bytes())
    change(image)
    path.write_bytes(image)
    with pytest.raises(ImageError) as error:
        Qcow2Disk(path)
    assert str(error.value) == f"{path}: {message}"


def test_an_unknown_compression(path: Path) -> None:
    image = bytearray(path.read_bytes())
    put(72, ">Q", 8)(image)
    image[104] = 2
    path.write_bytes(image)
    with pytest.raises(ImageError) as error:
        Qcow2Disk(path)
    assert str(error.value) == f"{path}: the qcow2 image has compression type 2, which is not supported"


def test_an_unknown_feature_has_the_name_that_its_writer_gave_it(path: Path) -> None:
    image = bytearray(path.read_bytes())
    put(72, ">Q", 1 << 40)(image)
    table = image.index(FEATURE_NAMES.to_bytes(4, "big")) + 8
    image[table : table + 48] = pack("BB46s", 0, 40, b"time\x1b travel")
    path.write_bytes(image)
    with pytest.raises(ImageError) as error:
        info(path)
    assert str(error.value) == f"{path}: the qcow2 image uses a feature that is not supported: time travel"


@pytest.mark.parametrize(
    ("name", "length", "message"),
    [
        (b"base.img", 2000, "the name of its backing file has 2000 bytes; 1 to 1023 are allowed"),
        (b"base.img", 0, "the name of its backing file has 0 bytes; 1 to 1023 are allowed"),
        (b"\xff", 1, "the name of its backing file is not UTF-8"),
        (b"a\0b", 3, "the name of its backing file has a zero byte"),
    ],
)
def test_backing_names_that_cannot_be_right(path: Path, name: bytes, length: int, message: str) -> None:
    image = bytearray(path.read_bytes())
    image[2048 : 2048 + len(name)] = name
    image[8:20] = pack(">QI", 2048, length)
    path.write_bytes(image)
    with pytest.raises(ImageError) as error:
        Qcow2Disk(path)
    assert str(error.value) == f"{path}: the qcow2 image is damaged: {message}"


def test_a_backing_name_outside_the_header(path: Path) -> None:
    image = bytearray(path.read_bytes())
    image[8:20] = pack(">QI", CLUSTER - 2, 8)
    path.write_bytes(image)
    with pytest.raises(ImageError) as error:
        Qcow2Disk(path)
    assert (
        str(error.value)
        == f"{path}: the qcow2 image is damaged: the name of its backing file lies outside its header"
    )


def test_what_we_do_not_know_is_kept(path: Path) -> None:
    """Unknown extensions and header fields stay when the header is written."""
    image = bytearray(path.read_bytes())
    end = image.index(FEATURE_NAMES.to_bytes(4, "big"))
    old = image[end:1024]
    unknown = pack(">II8s", 0x1234_5678, 5, b"hello")
    image[104:112] = b"\0somemor"
    image[end : end + len(unknown) + len(old)] = unknown + old
    put(88, ">Q", 1 << 7)(image)  # an auto-clear feature
    path.write_bytes(image)
    with Qcow2Disk(path) as disk:
        disk.write(0, bytes(512))
        assert disk.image.header.autoclear_features == 0
        assert disk.image.header.extension(0x1234_5678) == b"hello"
    after = path.read_bytes()
    put(88, ">Q", 0)(image)
    assert after[88:1024] == image[88:1024]


def test_extensions_are_encoded_and_decoded() -> None:
    header = Header(
        version=2,
        cluster_bits=9,
        size=512,
        l1_size=1,
        l1_table_offset=512,
        refcount_table_offset=1024,
        refcount_table_clusters=1,
        extensions=((BITMAPS_EXTENSION, b"abc"),),
        backing_file="base",
    )
    decoded = Header.decode(header.encode().ljust(512, b"\0"), 2048, "x")
    assert decoded.extensions == header.extensions
    assert decoded.backing_file == "base"
    assert decoded.backing_format is None


def test_a_corrupt_image_can_only_be_read(path: Path) -> None:
    image = bytearray(path.read_bytes())
    put(72, ">Q", 2)(image)
    path.write_bytes(image)
    with Qcow2Disk(path, read_only=True) as disk:
        assert disk.read(0, 8) == bytes(4096)
    with pytest.raises(ImageError) as error:
        Qcow2Disk(path)
    assert str(error.value) == (
        f"{path}: the qcow2 image is marked as corrupt and can only be opened read-only; check and repair it first"
    )


def test_small_clusters_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    with pytest.raises(ImageError) as error:
        create(path, 1 << 40, cluster_size=512)
    assert str(error.value) == (
        f"{path}: a disk of 1099511627776 bytes is too large for clusters of 512 bytes; 128 GiB are possible"
    )
    assert not path.exists()


def test_more_extensions_than_anybody_needs(path: Path) -> None:
    image = bytearray(path.read_bytes())
    image[112 : 112 + 8 * 100] = pack(">II", 0x1234_5678, 0) * 100
    path.write_bytes(image)
    file = ImageFile(path, read_only=True)
    with pytest.raises(ImageError, match="its header extensions do not fit into the header"):
        read_header(file)
    file.close()
