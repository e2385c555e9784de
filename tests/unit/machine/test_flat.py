import pytest

from emuvisor.cpu.state import CpuState
from emuvisor.errors import ImageError
from emuvisor.machine.loaders.flat import load_firmware, load_flat


def test_real_mode(memory):
    boot = load_flat("boot.bin", b"\xf4", 0x7C05, "real16", memory)
    state = boot.state
    assert (state.cs.selector, state.cs.base, state.rip) == (0x7C0, 0x7C00, 5)
    assert (state.rsp, state.cr0 & 1) == (0x7C00, 0)
    assert [(p.gpa, p.data) for p in boot.pieces] == [(0x7C05, b"\xf4")]


@pytest.mark.parametrize(("mode", "cr0", "efer"), [("protected32", 0x11, 0), ("long64", 0x80000011, 0x500)])
def test_protected_modes(mode, cr0, efer, memory):
    boot = load_flat("k", b"\xf4", 0x200000, mode, memory)
    assert (boot.state.rip, boot.state.cr0, boot.state.efer) == (0x200000, cr0, efer)
    assert boot.format == f"flat binary ({mode})"


@pytest.mark.parametrize(
    ("data", "address", "mode", "message"),
    [
        (b"", 0, "real16", "k: the file is empty"),
        (
            b"x",
            0x100000,
            "real16",
            "k: address 0x100000 is not below 0x100000, the end of memory in mode real16",
        ),
        (b"x", -1, "long64", "k: address -0x1 is not below 0x100000000, the end of memory in mode long64"),
        (
            b"xx",
            0x9FBFF,
            "real16",
            "k: flat image at 0x9fbff..0x9fc00 is outside the guest's usable RAM "
            "(0x0..0x9fbff, 0x100000..0x3ffffff)",
        ),
        (
            b"x" * 32,
            0x11FF0,
            "long64",
            "k: page tables at 0x12000..0x17fff overlaps flat image at 0x11ff0..0x1200f",
        ),
    ],
)
def test_flat_misplaced(data, address, mode, message, memory):
    with pytest.raises(ImageError) as error:
        load_flat("k", data, address, mode, memory)
    assert str(error.value) == message


def test_firmware_ends_at_4_gib_and_at_1_mib():
    rom = bytes(range(256)) * 1024
    boot = load_firmware("bios.bin", rom)
    low, high = boot.roms
    assert (low.gpa, low.data) == (0xE0000, rom[128 << 10 :])
    assert (high.gpa, high.data) == (0x100000000 - (256 << 10), rom)
    assert boot.state == CpuState()
    assert boot.pieces == []


def test_small_firmware_is_shadowed_whole():
    assert [p.gpa for p in load_firmware("bios.bin", bytes(64 << 10)).roms] == [0xF0000, 0xFFFF0000]


@pytest.mark.parametrize("size", [0, 5000, 17 << 20])
def test_firmware_size(size):
    with pytest.raises(ImageError) as error:
        load_firmware("bios.bin", bytes(size))
    assert str(error.value) == (
        f"bios.bin: a firmware ROM has a multiple of 4 KiB up to 16 MiB, this file has {size} bytes"
    )
