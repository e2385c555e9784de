import struct

import pytest
from kernel_images import elf32, elf64

from emuvisor.errors import ImageError
from emuvisor.machine.loaders.elf import parse
from emuvisor.machine.loaders.linux import load_vmlinux
from emuvisor.machine.loaders.zero_page import Extras

CODE = [(0x200000, b"\xf4" * 16, 32)]
GOOD = elf64(CODE, 0x200000)


def changed(offset: int, layout: str, value: int) -> bytes:
    image = bytearray(GOOD)
    struct.pack_into(layout, image, offset, value)
    return bytes(image)


def test_both_classes():
    for bits, image in ((64, GOOD), (32, elf32(CODE, 0x200000))):
        elf = parse("k", image)
        assert (elf.bits, elf.entry, elf.end) == (bits, 0x200000, 0x200020)
        assert [(s.paddr, s.data, s.memory_size) for s in elf.segments] == CODE


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"MZ..", "k: not an ELF file: it begins with 4d 5a 2e 2e"),
        (b"\x7fELF", "k: truncated: e_ident[EI_CLASS] needs bytes 0x4..0x4, the file has 0x4"),
        (changed(4, "B", 3), "k: ELF class 3 is neither 1 (32-bit) nor 2 (64-bit)"),
        (changed(5, "B", 2), "k: ELF data encoding 2 is not 1 (little-endian)"),
        (changed(18, "<H", 183), "k: ELF machine 183 is not 62 (x86 of the file's class)"),
        (changed(16, "<H", 1), "k: ELF type 1 is not 2 (executable) or 3 (shared)"),
        (changed(54, "<H", 32), "k: e_phentsize 32 is less than 56"),
        (changed(56, "<H", 65), "k: e_phnum 65 is more than 64"),
        (changed(56, "<H", 0), "k: no PT_LOAD segment with anything in it"),
        (changed(32, "<Q", 1 << 40),
         "k: truncated: program header 0 needs bytes 0x10000000000..0x10000000037, "
         f"the file has {len(GOOD):#x}"),
        (changed(64 + 32, "<Q", 33), "k: segment 0: p_filesz 0x21 exceeds p_memsz 0x20"),
        (changed(64 + 24, "<Q", 1 << 63),
         "k: segment 0: it ends at 0x8000000000000020, behind the last physical address 0xfffffffffffff"),
        (GOOD[:-1], "k: truncated: segment 0 needs bytes 0x78..0x87, the file has 0x87"),
        (changed(24, "<Q", 0x300000), "k: the entry 0x300000 is in no segment"),
        (elf64([(1 << 32, b"\xf4", 1)], 1 << 32), "k: the entry 0x100000000 is not below 4 GiB"),
    ],
)  # fmt: skip
def test_malformed(image, message, memory):
    with pytest.raises(ImageError) as error:
        load_vmlinux("k", image, memory, Extras())
    assert str(error.value) == message


def test_segments_that_share_their_bytes_are_refused():
    body = b"\xf4" * 4096
    image = bytearray(
        elf64([(0x200000 + i * 0x1000, body if i == 0 else b"", 4096) for i in range(8)], 0x200000)
    )
    for i in range(8):
        struct.pack_into("<QQQQ", image, 64 + 56 * i + 8, 64 + 56 * 8, 0, 0x200000 + i * 0x1000, 4096)
    with pytest.raises(ImageError) as error:
        parse("k", bytes(image))
    assert str(error.value) == f"k: its segments hold more bytes than the file has ({len(image):#x})"
