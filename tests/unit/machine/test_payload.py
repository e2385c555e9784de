import gzip
import lzma
import struct

import pytest
from kernel_images import PACKERS

from emuvisor.errors import ImageError
from emuvisor.machine.loaders.payload import compression_of, unpack

DATA = b"emuvisor" * 1000


def refused(payload: bytes, limit: int = 1 << 20) -> str:
    with pytest.raises(ImageError) as error:
        unpack("k", payload, limit)
    return str(error.value)


@pytest.mark.parametrize("packer", PACKERS)
def test_round_trip(packer):
    assert compression_of(PACKERS[packer](DATA)) == packer
    assert unpack("k", PACKERS[packer](DATA)) == DATA


def test_lz4_blocks():
    data = bytes(9 << 20)
    assert unpack("k", PACKERS["lz4"](data)) == data


def test_unpacked_elf_passes():
    assert unpack("k", b"\x7fELF...") == b"\x7fELF..."


@pytest.mark.parametrize("packer", PACKERS)
def test_more_than_the_limit(packer):
    assert refused(PACKERS[packer](DATA), 4096) == (
        f"k: the {packer} payload declares 8000 bytes unpacked; the limit is 4096 (4 KiB)"
    )


@pytest.mark.parametrize("packer", [p for p in PACKERS if p != "lz4"])
def test_bomb_is_stopped_at_its_declared_size(packer):
    bomb = PACKERS[packer](bytes(10 << 20))[:-4] + struct.pack("<I", 100)
    assert refused(bomb) == f"k: damaged {packer} payload: it declares 100 bytes unpacked, it has more"


def test_lz4_bomb_is_stopped_at_its_declared_size():
    bomb = PACKERS["lz4"](bytes(10 << 20))[:-4] + struct.pack("<I", 100)
    assert refused(bomb).startswith("k: damaged lz4 payload: Decompression failed")


@pytest.mark.parametrize("packer", PACKERS)
def test_shorter_than_declared(packer):
    payload = PACKERS[packer](DATA)[:-4] + struct.pack("<I", 9000)
    assert refused(payload).startswith(f"k: damaged {packer} payload: ")


def test_truncated_stream():
    payload = gzip.compress(DATA)[:40] + struct.pack("<I", len(DATA))
    assert refused(payload).startswith("k: damaged gzip payload: it declares 8000 bytes unpacked, it has ")


def test_lzma_window_is_limited():
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 256 << 20}]
    packed = lzma.compress(DATA, filters=filters, check=lzma.CHECK_CRC32) + struct.pack("<I", len(DATA))
    assert refused(packed) == "k: damaged xz payload: Memory usage limit exceeded"


def test_lz4_block_beyond_the_end():
    payload = b"\x02\x21\x4c\x18" + struct.pack("<I", 1000) + b"abc" + struct.pack("<I", 50)
    assert refused(payload) == "k: damaged lz4 payload: block of 1000 bytes at 0x8, 3 are left"
