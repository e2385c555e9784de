"""Synthetic images for the loaders' tests."""

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable

import lz4.block
import zstandard

KERNEL_BASE = 0x1000000


def elf64(
    segments: list[tuple[int, bytes, int]],
    entry: int,
    *,
    machine: int = 62,
    e_type: int = 2,
    virtual_offset: int = 0,
) -> bytes:
    """An ELF64 with (paddr, data, memory size) segments."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        e_type,
        machine,
        1,
        entry,
        64,
        0,
        0,
        64,
        56,
        len(segments),
        0,
        0,
        0,
    )
    offset = 64 + 56 * len(segments)
    table = body = b""
    for paddr, data, memory_size in segments:
        table += struct.pack(
            "<IIQQQQQQ",
            1,
            7,
            offset + len(body),
            paddr + virtual_offset,
            paddr,
            len(data),
            memory_size,
            0x1000,
        )
        body += data
    return header + table + body


def elf32(segments: list[tuple[int, bytes, int]], entry: int) -> bytes:
    header = struct.pack(
        "<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01", 2, 3, 1, entry, 52, 0, 0, 52, 32, len(segments), 0, 0, 0
    )
    offset = 52 + 32 * len(segments)
    table = body = b""
    for paddr, data, memory_size in segments:
        table += struct.pack("<8I", 1, offset + len(body), paddr, paddr, len(data), memory_size, 7, 0x1000)
        body += data
    return header + table + body


def vmlinux(size: int = 5000) -> bytes:
    """A 64-bit "kernel" whose code is a pattern."""
    return elf64([(KERNEL_BASE, bytes(1 + i % 251 for i in range(size)), size + 0x2000)], KERNEL_BASE)


def _sized(packed: bytes, data: bytes) -> bytes:
    return packed + struct.pack("<I", len(data))


def _lz4_legacy(data: bytes) -> bytes:
    out = b"\x02\x21\x4c\x18"
    for start in range(0, len(data), 8 << 20):
        block = lz4.block.compress(data[start : start + (8 << 20)], store_size=False)
        out += struct.pack("<I", len(block)) + block
    return out


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": lambda data: _sized(bz2.compress(data), data),
    "lzma": lambda data: _sized(lzma.compress(data, lzma.FORMAT_ALONE), data),
    "xz": lambda data: _sized(lzma.compress(data), data),
    "lz4": lambda data: _sized(_lz4_legacy(data), data),
    "zstd": lambda data: _sized(zstandard.compress(data), data),
}


def bzimage(payload: bytes = b"", **fields: int) -> bytes:
    """A bzImage whose protected-mode part is 1 KiB of code and `payload`."""
    code = b"\x90" * 1024
    values = {
        "setup_sects": 1,
        "version": 0x20F,
        "loadflags": 1 | 2,
        "initrd_addr_max": 0x7FFFFFFF,
        "kernel_alignment": 0x200000,
        "relocatable_kernel": 1,
        "xloadflags": 1,
        "cmdline_size": 2047,
        "payload_offset": len(code),
        "payload_length": len(payload),
        "pref_address": KERNEL_BASE,
        "init_size": 0x100000,
        "syssize": -(-(len(code) + len(payload)) // 16),
        **fields,
    }
    setup = bytearray(1024)
    layout = {
        "setup_sects": (0x1F1, 1),
        "syssize": (0x1F4, 4),
        "version": (0x206, 2),
        "loadflags": (0x211, 1),
        "initrd_addr_max": (0x22C, 4),
        "kernel_alignment": (0x230, 4),
        "relocatable_kernel": (0x234, 1),
        "xloadflags": (0x236, 2),
        "cmdline_size": (0x238, 4),
        "payload_offset": (0x248, 4),
        "payload_length": (0x24C, 4),
        "pref_address": (0x258, 8),
        "init_size": (0x260, 4),
    }
    setup[0x1FE:0x206] = b"\x55\xaa\xeb\x6aHdrS"
    for name, value in values.items():
        offset, size = layout[name]
        setup[offset : offset + size] = value.to_bytes(size, "little")
    return bytes(setup) + code + payload


def multiboot(flags: int = 0x10003, body: bytes = b"\xf4" * 64, load: int = 0x100000, pad: int = 12) -> bytes:
    """A multiboot file with address fields; the header stands `pad` bytes into it."""
    checksum = -(0x1BADB002 + flags) & 0xFFFFFFFF
    header = struct.pack("<III", 0x1BADB002, flags, checksum)
    end = load + pad + 32 + len(body)
    addresses = struct.pack("<5I", load + pad, load, end, end + 0x1000, load + pad + 32)
    return bytes(pad) + header + addresses + body
