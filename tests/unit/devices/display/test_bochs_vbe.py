"""Bochs VBE: registers, what fits the memory, pixels of all depths, banks."""

import numpy as np
import pytest
from display_rig import (
    BANK,
    BPP,
    DAC_8BIT,
    ENABLE,
    ENABLED,
    GETCAPS,
    LFB,
    MEMORY_64K,
    NOCLEARMEM,
    SEQUENCER,
    VBE_DATA,
    VBE_INDEX,
    VIRT_HEIGHT,
    VIRT_WIDTH,
    X_OFFSET,
    XRES,
    Y_OFFSET,
    YRES,
    Bench,
    Vram,
)

from emuvisor.units import MIB

A0000 = 0xA0000


def test_identity_and_memory(bench: Bench) -> None:
    assert bench.vbe(0) == 0xB0C5
    bench.set_vbe(0, 0xB0C2)
    assert bench.vbe(0) == 0xB0C2
    bench.set_vbe(0, 0x1234)
    assert bench.vbe(0) == 0xB0C2
    assert bench.vbe(MEMORY_64K) == 256
    bench.set_vbe(MEMORY_64K, 1)
    assert bench.vbe(MEMORY_64K) == 256
    assert bench.vbe(0x0B) == 0
    bench.set_vbe(0xFFFF, 1)
    assert bench.ports.read(VBE_INDEX, 2) == 0xFFFF


def test_the_data_port_is_there_twice(bench: Bench) -> None:
    bench.ports.write(VBE_INDEX, XRES, 2)
    bench.ports.write(VBE_INDEX + 2, 800, 2)
    assert bench.ports.read(VBE_DATA, 2) == 800
    assert bench.ports.read(VBE_INDEX + 2, 2) == 800
    bench.ports.write(VBE_DATA, 0x12, 1)  # half a register: ignored
    assert bench.vbe(XRES) == 800


def test_capabilities(bench: Bench) -> None:
    bench.set_vbe(XRES, 640)
    bench.set_vbe(ENABLE, GETCAPS)
    assert [bench.vbe(index) for index in (XRES, YRES, BPP)] == [2560, 1600, 32]
    bench.set_vbe(ENABLE, 0)
    assert bench.vbe(XRES) == 640


def test_enabling_sets_up_the_virtual_screen(bench: Bench) -> None:
    bench.set_vbe(VIRT_WIDTH, 4000)
    bench.set_vbe(Y_OFFSET, 5)
    bench.linear(800, 600, 16)
    assert [bench.vbe(i) for i in (VIRT_WIDTH, VIRT_HEIGHT, X_OFFSET, Y_OFFSET)] == [
        800,
        16 * MIB // 1600,
        0,
        0,
    ]
    bench.set_vbe(VIRT_WIDTH, 1024)
    bench.set_vbe(X_OFFSET, 5000)
    bench.set_vbe(Y_OFFSET, 0xFFFF)
    assert [bench.vbe(i) for i in (VIRT_WIDTH, VIRT_HEIGHT, X_OFFSET, Y_OFFSET)] == [1024, 8192, 224, 7592]
    bench.set_vbe(VIRT_WIDTH, 10)
    assert bench.vbe(VIRT_WIDTH) == 800


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ((0, 0, 0), (1, 1, 8)),
        ((0xFFFF, 0xFFFF, 32), (2560, 1600, 32)),
        ((640, 480, 7), (640, 480, 8)),
        ((1366, 768, 24), (1366, 768, 24)),
        ((801, 600, 4), (808, 600, 4)),
        ((1024, 768, 4), (1024, 512, 4)),
    ],
)
def test_modes_are_brought_to_what_there_is(
    bench: Bench, asked: tuple[int, int, int], given: tuple[int, int, int]
) -> None:
    bench.linear(*asked)
    assert (bench.vbe(XRES), bench.vbe(YRES), bench.vbe(BPP)) == given
    screen = bench.vga.screen()
    assert (screen.width, screen.height, screen.text) == (*given[:2], None)


def test_a_small_memory_has_fewer_lines() -> None:
    bench = Bench(vram=Vram(1 * MIB))
    bench.linear(1024, 768, 32)
    assert (bench.vbe(YRES), bench.vga.screen().height) == (256, 256)
    bench.set_vbe(VIRT_WIDTH, 2048)  # would leave 128 lines
    assert bench.vbe(VIRT_WIDTH) == 1024


def test_a_mode_may_change_while_it_is_enabled(bench: Bench) -> None:
    bench.linear(640, 480, 32)
    bench.set_vbe(XRES, 320)
    assert bench.vga.screen().width == 320


def test_enabling_clears_what_is_not_clear(bench: Bench) -> None:
    bench.vram.data[5] = 1
    bench.vram.data[640 * 480 * 4 + 1] = 1
    bench.linear(640, 480, 32, ENABLED | LFB | NOCLEARMEM)
    assert bench.vram.data[5] == 1
    bench.linear(640, 480, 32)
    assert bench.vram.data[5] == 0
    assert bench.vram.data[640 * 480 * 4 + 1] == 1  # not shown
    assert bench.vram.writes == [(0, 0x10000)]
    bench.vga.window.planes[:] = 7
    bench.linear(640, 480, 4)
    assert not bench.vga.window.planes[: 80 * 480].any()
    assert bench.vga.window.planes[80 * 480 :].all()


@pytest.mark.parametrize(
    ("bpp", "pixel", "colour"),
    [
        (32, b"\x11\x22\x33\xff", (0x33, 0x22, 0x11)),
        (24, b"\x11\x22\x33", (0x33, 0x22, 0x11)),
        (16, (31 << 11 | 32 << 5 | 1).to_bytes(2, "little"), (255, 130, 8)),
        (15, (31 << 10 | 16 << 5 | 1).to_bytes(2, "little"), (255, 132, 8)),
        (8, b"\x80", (130, 130, 130)),
    ],
)
def test_pixels(bench: Bench, bpp: int, pixel: bytes, colour: tuple[int, int, int]) -> None:
    bench.linear(64, 16, bpp)
    bench.grey_palette()
    place = (64 * 3 + 10) * len(pixel)
    bench.vram.data[place : place + len(pixel)] = pixel
    picture = bench.vga.screen().pixels
    assert tuple(picture[3, 10]) == colour
    assert np.argwhere(picture.any(axis=2)).tolist() == [[3, 10]]


def test_sixteen_colours_are_in_the_planes(bench: Bench) -> None:
    bench.linear(64, 16, 4)
    bench.set_colours(0x3F, [(63, 63, 63)])
    bench.set(SEQUENCER, 4, 0x06)
    bench.set(SEQUENCER, 2, 0x0F)
    bench.vga.graphics.registers[5] = 0
    bench.vga.graphics.registers[6] = 5
    bench.vga._configure()
    bench.memory.write(A0000 + 8 * 2 + 1, 0x80, 1)
    picture = bench.vga.screen().pixels
    assert np.argwhere(picture.any(axis=2)).tolist() == [[2, 8]]
    bench.set_vbe(VIRT_WIDTH, 128)
    bench.set_vbe(X_OFFSET, 8)
    assert np.argwhere(bench.vga.screen().pixels.any(axis=2)).tolist() == [[1, 0]]


def test_the_window_on_a_larger_virtual_screen(bench: Bench) -> None:
    bench.linear(64, 16, 32)
    bench.set_vbe(VIRT_WIDTH, 100)
    bench.set_vbe(X_OFFSET, 7)
    bench.set_vbe(Y_OFFSET, 2)
    bench.vram.data[(100 * 5 + 17) * 4] = 0xFF
    assert np.argwhere(bench.vga.screen().pixels.any(axis=2)).tolist() == [[3, 10]]
    bench.set_vbe(Y_OFFSET, 0xFFFF)  # the last lines of the memory
    assert bench.vga.screen().pixels.shape == (16, 64, 3)


def test_the_dac_may_have_8_bits(bench: Bench) -> None:
    bench.linear(16, 16, 8, ENABLED | LFB | DAC_8BIT)
    bench.set_colours(0, [(0xFF, 0x81, 0x02)])
    assert tuple(bench.vga.screen().pixels[0, 0]) == (0xFF, 0x81, 0x02)
    assert bench.vbe(ENABLE) == ENABLED | LFB | DAC_8BIT


def test_banks_through_the_window(bench: Bench) -> None:
    bench.linear(1024, 768, 8)
    bench.set_vbe(BANK, 3)
    bench.vga.graphics.registers[6] = 5
    bench.vga._configure()
    bench.memory.write(A0000 + 0x10, 0x44332211, 4)
    assert bench.vram.data[0x30010:0x30014] == b"\x11\x22\x33\x44"
    assert bench.memory.read(A0000 + 0x11, 2) == 0x3322
    assert bench.memory.read(0xB0000, 1) == 0xFF
    bench.memory.write(0xB0000, 0x55, 1)
    bench.set_vbe(BANK, 0xFFFF)
    assert bench.vbe(BANK) == 255
    bench.memory.write(A0000 + 0xFFFF, 0x5A, 1)
    assert bench.vram.data[-1] == 0x5A
    assert 0x55 not in bench.vram.data
    bench.set_vbe(ENABLE, 0)
    bench.memory.write(A0000, 0x77, 1)
    assert 0x77 not in bench.vram.data


def test_the_picture_can_be_switched_off(bench: Bench) -> None:
    bench.linear(16, 16, 32)
    bench.vram.data[0] = 0xFF
    assert bench.vga.screen().pixels.any()
    bench.ports.read(0x3DA, 1)
    bench.ports.write(0x3C0, 0, 1)
    assert not bench.vga.screen().pixels.any()


@pytest.mark.parametrize("bpp", [4, 8, 15, 16, 24, 32])
def test_a_restored_picture_is_the_same(bench: Bench, bpp: int) -> None:
    bench.linear(320, 200, bpp)
    bench.grey_palette()
    bench.vram.data[: 320 * 200 * 4] = bytes(range(256)) * 1000
    bench.vga.window.planes[:1000] = 0x5A
    bench.set_vbe(VIRT_WIDTH, 400)
    bench.set_vbe(Y_OFFSET, 9)
    before = bench.vga.screen().pixels
    again = bench.restored()
    assert before.any()
    assert (again.vga.screen().pixels == before).all()
    assert again.vga.save() == bench.vga.save()


def test_a_saved_mode_is_brought_to_a_smaller_memory(bench: Bench) -> None:
    bench.linear(1024, 768, 32)
    bench.set_vbe(BANK, 200)
    small = Bench(clock=bench.clock, vram=Vram(1 * MIB))
    small.vga.load(bench.vga.save())
    assert [small.vbe(i) for i in (YRES, BANK, MEMORY_64K)] == [256, 15, 16]
    assert small.vga.screen().height == 256
