import struct

import pytest
from kernel_images import KERNEL_BASE, PACKERS, bzimage, elf32, elf64, vmlinux

from emuvisor.cpu.state import Segment
from emuvisor.errors import ImageError
from emuvisor.machine.loaders import entry
from emuvisor.machine.loaders.boot import Boot, Piece
from emuvisor.machine.loaders.detect import load
from emuvisor.machine.loaders.zero_page import Extras
from emuvisor.machine.memory_map import MemoryMap


def piece(boot: Boot, what: str) -> Piece:
    return next(p for p in boot.pieces if p.what == what)


def field(boot: Boot, offset: int, size: int) -> int:
    return int.from_bytes(piece(boot, "zero page").data[offset : offset + size], "little")


def refused(image: bytes, memory: MemoryMap, extras: Extras | None = None, **choices) -> str:
    with pytest.raises(ImageError) as error:
        load("vmlinuz", image, memory, extras or Extras(), **choices)
    return str(error.value)


@pytest.mark.parametrize("packer", PACKERS)
def test_payload_is_unpacked_and_placed(packer, memory):
    boot = load("vmlinuz", bzimage(PACKERS[packer](vmlinux())), memory)
    assert boot.format == "bzImage (64-bit, unpacked on the host)"
    segment = piece(boot, "segment 0")
    assert (segment.gpa, segment.data) == (KERNEL_BASE, bytes(1 + i % 251 for i in range(5000)))
    assert segment.size == 5000 + 0x2000
    assert (boot.state.rip, boot.state.rsi) == (KERNEL_BASE, entry.INFO_ADDRESS)


def test_entry_state_is_the_64_bit_boot_protocols(memory):
    state = load("vmlinuz", bzimage(PACKERS["gzip"](vmlinux())), memory).state
    assert (state.cs, state.ds) == (
        Segment(0x10, 0, 0xFFFFFFFF, 0xA09B00),
        Segment(0x18, 0, 0xFFFFFFFF, 0xC09300),
    )
    assert state.ss == state.es == state.ds
    assert (state.cr0, state.cr4, state.efer, state.rflags) == (0x80000011, 0x20, 0x500, 2)
    assert state.cr3 == 0x12000


def test_page_tables_map_4_gib_to_itself(memory):
    boot = load("vmlinuz", bzimage(PACKERS["gzip"](vmlinux())), memory)
    tables = piece(boot, "page tables")

    def entry_of(table: int, index: int) -> int:
        return struct.unpack_from("<Q", tables.data, table - tables.gpa + 8 * index)[0]

    for address in (0, 0x1234567, 0xC0000000, 0xFFFFFFFF):
        pdpt = entry_of(boot.state.cr3, address >> 39) & ~0xFFF
        directory = entry_of(pdpt, address >> 30 & 511) & ~0xFFF
        leaf = entry_of(directory, address >> 21 & 511)
        assert leaf == address & ~0x1FFFFF | 0x83
    gdt = piece(boot, "GDT")
    assert struct.unpack("<4Q", gdt.data) == (0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF)


def test_zero_page(memory):
    extras = Extras(initrd=b"i" * 5000, cmdline="console=ttyS0")
    boot = load("vmlinuz", bzimage(PACKERS["gzip"](vmlinux())), memory, extras)
    assert piece(boot, "zero page").data[0x202:0x206] == b"HdrS"
    assert field(boot, 0x210, 1) == 0xFF
    assert field(boot, 0x211, 1) == 1  # LOADED_HIGH, and KASLR_FLAG cleared
    assert piece(boot, "command line").gpa == field(boot, 0x228, 4)
    assert piece(boot, "command line").data == b"console=ttyS0\0"
    initrd = piece(boot, "initrd")
    assert (initrd.gpa, len(initrd.data)) == (field(boot, 0x218, 4), field(boot, 0x21C, 4))
    assert initrd.gpa == 0x4000000 - 0x2000
    table = piece(boot, "zero page").data[0x2D0:]
    assert field(boot, 0x1E8, 1) == 3
    assert [struct.unpack_from("<QQI", table, 20 * i) for i in range(3)] == [
        (0, 0x9FC00, 1),
        (0x9FC00, 0x60400, 2),
        (0x100000, 0x3F00000, 1),
    ]
    assert field(boot, 0x07, 1) == 0  # no display


def test_text_mode_is_told(memory):
    boot = load("vmlinuz", bzimage(), memory, Extras(text_mode=True))
    assert [field(boot, offset, 1) for offset in (0x06, 0x07, 0x0E, 0x0F)] == [3, 80, 25, 1]


def test_initrd_stays_below_the_kernels_limit():
    image = bzimage(initrd_addr_max=0x1FFFFFFF)
    boot = load("vmlinuz", image, MemoryMap.for_ram(4 << 30), Extras(initrd=b"i" * 4096))
    assert piece(boot, "initrd").end == 0x20000000


def test_guest_decompressor_runs_at_the_preferred_address(memory):
    boot = load("vmlinuz", bzimage(PACKERS["gzip"](vmlinux())), memory, decompressor="guest")
    assert boot.format == "bzImage (64-bit entry)"
    assert boot.state.rip == KERNEL_BASE + 0x200
    kernel = piece(boot, "kernel")
    assert (kernel.gpa, kernel.size) == (KERNEL_BASE, 0x100000)
    assert field(boot, 0x214, 4) == KERNEL_BASE


def test_relocatable_kernel_goes_low_where_memory_is_short():
    boot = load("vmlinuz", bzimage(), MemoryMap.for_ram(16 << 20))
    assert piece(boot, "kernel").gpa == 0x200000


def test_image_without_payload_uses_the_32_bit_protocol(memory):
    image = bzimage(xloadflags=0, relocatable_kernel=0, version=0x20C)
    boot = load("memtest86+", image, memory)
    state = boot.state
    assert boot.format == "bzImage (32-bit entry)"
    assert (state.rip, state.rsi, state.cr0, state.efer) == (0x100000, entry.INFO_ADDRESS, 0x11, 0)
    assert state.cs == Segment(0x10, 0, 0xFFFFFFFF, 0xC09B00)
    assert (state.rbx, state.rbp, state.rdi) == (0, 0, 0)


def test_old_protocol_gets_its_defaults(memory):
    image = bzimage(version=0x202, syssize=0xFFFF0000, xloadflags=1)
    boot = load("old", image, memory, Extras(cmdline="x" * 255))
    assert boot.format == "bzImage (32-bit entry)"
    assert refused(image, memory, Extras(cmdline="x" * 256)) == (
        "vmlinuz: the command line has 256 bytes, the kernel takes 255"
    )


def test_32_bit_vmlinux(memory):
    elf = elf32([(0x1000000, b"\xf4", 1)], 0x1000000)
    boot = load("vmlinuz", bzimage(PACKERS["xz"](elf)), memory)
    assert boot.format == "bzImage (32-bit, unpacked on the host)"
    assert (boot.state.cr0, boot.state.rip) == (0x11, 0x1000000)


def test_bare_vmlinux_gets_a_zero_page(memory):
    boot = load("vmlinux", vmlinux(), memory, Extras(cmdline="quiet"))
    assert boot.format == "ELF64 executable"
    assert piece(boot, "zero page").data[0x1FE:0x208] == b"\x55\xaa\0\0HdrS\x0c\x02"
    assert boot.state.rsi == entry.INFO_ADDRESS


def test_virtual_entry_is_translated(memory):
    image = elf64([(0x200000, b"\xf4" * 16, 16)], 0xFFFFFFFF80200004, virtual_offset=0xFFFFFFFF80000000)
    assert load("kernel", image, memory).state.rip == 0x200004


def test_a_segment_may_be_longer_in_memory_than_in_the_file(memory):
    boot = load("kernel", elf64([(0x200000, b"\xf4" * 5000, 9000)], 0x200000), memory)
    assert piece(boot, "segment 0").data == b"\xf4" * 5000
    assert piece(boot, "segment 0").zeros == 4000


PAYLOAD = PACKERS["gzip"](vmlinux())


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "vmlinuz: not a kernel that emuvisor knows (0 bytes, beginning with nothing): no bzImage "
              '("HdrS" at 0x202), no multiboot header in the first 8 KiB, no ELF'),
        (bzimage(PAYLOAD)[:0x210],
         "vmlinuz: truncated: loadflags needs bytes 0x211..0x211, the file has 0x210"),
        (bzimage(version=0x201), "vmlinuz: boot protocol 2.01 is older than 2.02"),
        (bzimage(loadflags=0), "vmlinuz: a zImage (loadflags lacks LOADED_HIGH); only bzImages are loaded"),
        (bzimage(PAYLOAD)[:1500],
         "vmlinuz: truncated: setup_sects and syssize announce "
         f"{1024 + -(-(1024 + len(PAYLOAD)) // 16) * 16} bytes, the file has 1500"),
        (bzimage(PAYLOAD, payload_length=0x7FFFFFFF),
         "vmlinuz: truncated: the kernel payload needs bytes 0x800..0x800007fe, "
         f"the file has {len(bzimage(PAYLOAD)):#x}"),
        (bzimage(b"rubbish"), "vmlinuz: the kernel payload begins with 72 75 62 62 69 73, which is none of "
                              "gzip, bzip2, lzma, xz, lz4, zstd"),
        (bzimage(b"\x89LZO...."), "vmlinuz: the kernel is packed with lzo, which is not unpacked "
                                  'on the host; use decompressor = "guest"'),
        (bzimage(PACKERS["gzip"](b"not an ELF")),
         "vmlinuz (unpacked): not an ELF file: it begins with 6e 6f 74 20"),
        (bzimage(PAYLOAD, init_size=0x80000000),
         "vmlinuz: the kernel needs memory from 0x1000000 to 0x80ffffff; "
         "usable RAM is 0x0..0x9fbff, 0x100000..0x3ffffff"),
        (bzimage(relocatable_kernel=0, init_size=0x80000000),
         "vmlinuz: kernel at 0x100000..0x800fffff is outside the guest's usable RAM "
         "(0x0..0x9fbff, 0x100000..0x3ffffff)"),
    ],
)  # fmt: skip
def test_malformed(image, message, memory):
    assert refused(image, memory) == message


def test_what_comes_with_the_kernel_must_fit(memory):
    assert refused(bzimage(), memory, Extras(initrd=bytes(60 << 20))) == (
        "vmlinuz: the initrd has 62914560 bytes, 49283072 are free between the kernel's end 0x1100000 "
        "and 0x4000000"
    )
    assert refused(bzimage(), memory, Extras(cmdline="a\0b")) == (
        "vmlinuz: the command line has a NUL character at position 1"
    )
    assert refused(bzimage(), memory, Extras(cmdline="ä" * 1024)) == (
        "vmlinuz: the command line has 2048 bytes, the kernel takes 2047"
    )
