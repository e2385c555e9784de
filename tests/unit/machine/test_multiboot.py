import struct

import pytest
from kernel_images import elf32, multiboot

from emuvisor.errors import ImageError
from emuvisor.machine.loaders.boot import Boot, Piece
from emuvisor.machine.loaders.detect import load
from emuvisor.machine.loaders.zero_page import Extras


def piece(boot: Boot, what: str) -> Piece:
    return next(p for p in boot.pieces if p.what == what)


def information(boot: Boot) -> tuple[Piece, tuple[int, ...]]:
    info = piece(boot, "multiboot information")
    return info, struct.unpack_from("<22I", info.data)


def string(info: Piece, address: int) -> bytes:
    return info.data[address - info.gpa :].split(b"\0")[0]


def test_address_fields(memory):
    boot = load("kernel", multiboot(), memory)
    image = piece(boot, "multiboot image")
    assert (image.gpa, len(image.data), image.size) == (0x100000, 108, 108 + 0x1000)
    state = boot.state
    assert (state.rip, state.rax, state.rbx) == (0x10002C, 0x2BADB002, 0x11000)
    assert (state.cr0, state.cs.flags, state.rflags) == (0x11, 0xC09B00, 2)


def test_information(memory):
    boot = load("kernel", multiboot(), memory, Extras(initrd=b"module", cmdline="kernel -x"))
    info, words = information(boot)
    assert words[0] == 0b10_0100_1101
    assert words[1:3] == (639, 63 * 1024)
    assert (words[4], piece(boot, "command line").data) == (0x20000, b"kernel -x\0")
    module = struct.unpack_from("<4I", info.data, words[6] - info.gpa)
    assert (words[5], module[:2]) == (1, (0x3FFF000, 0x3FFF006))
    assert string(info, module[2]) == b""
    assert string(info, words[16]) == b"emuvisor"
    table = info.data[words[12] - info.gpa :][: words[11]]
    assert list(struct.iter_unpack("<IQQI", table)) == [
        (20, 0, 0x9FC00, 1),
        (20, 0x9FC00, 0x60400, 2),
        (20, 0x100000, 0x3F00000, 1),
    ]


def test_video_is_described_when_asked_for(memory):
    boot = load("kernel", multiboot(0x10007), memory)
    info, words = information(boot)
    assert words[0] & 1 << 12
    assert struct.unpack_from("<QIIIBB", info.data, 88) == (0xB8000, 160, 80, 25, 16, 2)


def test_elf_with_header(memory):
    header = struct.pack("<III", 0x1BADB002, 0, -0x1BADB002 & 0xFFFFFFFF)
    boot = load("kernel", elf32([(0x100000, header + b"\xf4" * 4, 100)], 0x10000C), memory)
    assert boot.format == "multiboot kernel"
    assert boot.state.rip == 0x10000C


def test_header_needs_alignment_and_checksum(memory):
    with pytest.raises(ImageError, match="not a kernel that emuvisor knows"):
        load("kernel", multiboot(pad=13), memory)
    damaged = bytearray(multiboot())
    damaged[12 + 8] ^= 1
    with pytest.raises(ImageError, match="not a kernel that emuvisor knows"):
        load("kernel", bytes(damaged), memory)
    with pytest.raises(ImageError, match="not a kernel that emuvisor knows"):
        load("kernel", multiboot(pad=8192), memory)


def addresses(**changes: int) -> bytes:
    image = bytearray(multiboot())
    names = ("header_addr", "load_addr", "load_end_addr", "bss_end_addr", "entry_addr")
    for name, value in changes.items():
        struct.pack_into("<I", image, 24 + 4 * names.index(name), value)
    return bytes(image)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (multiboot(0x10008), "k: the multiboot header requires unknown features (flags 0x8)"),
        (
            addresses(load_addr=0x90000),
            "k: multiboot load_addr 0x90000 does not fit header_addr 0x10000c of the header "
            "at file offset 0xc",
        ),
        (
            addresses(load_end_addr=0x100000),
            "k: multiboot load_end_addr 0x100000 is not behind load_addr 0x100000",
        ),
        (
            addresses(load_end_addr=0x200000),
            "k: truncated: the part from load_addr to load_end_addr needs bytes 0x0..0xfffff, "
            "the file has 0x6c",
        ),
        (addresses(entry_addr=0x200000), "k: the entry 0x200000 is in no loaded part"),
        (
            multiboot()[:30],
            "k: truncated: the multiboot address block needs bytes 0x18..0x2b, the file has 0x1e",
        ),
        (
            multiboot(load=0x10000),
            "k: GDT at 0x10000..0x1001f overlaps multiboot image at 0x10000..0x1106b",
        ),
    ],
)
def test_malformed(image, message, memory):
    with pytest.raises(ImageError) as error:
        load("k", image, memory)
    assert str(error.value) == message
