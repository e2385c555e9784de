"""The 8237As and the page registers, by the sections of Intel's data sheet."""

from collections.abc import Callable

import pytest
from device_rigs import Rig
from floppy_fakes import MEMORY_SIZE
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.devices.dma import DmaController

VERIFY, WRITE, READ = 0x00, 0x04, 0x08
SINGLE, CASCADE, DECREMENT, AUTOINIT = 0x40, 0xC0, 0x20, 0x10
PAGES = (0x87, 0x83, 0x81, 0x82, 0x8F, 0x8B, 0x89, 0x8A)


class Bench:
    """The controllers at their ports."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.dma: DmaController = rig.chips["dma"]
        self.ram = rig.wires.memory.bytes

    def out(self, port: int, *values: int) -> None:
        for value in values:
            chip, offset = self._at(port)
            chip.write(offset, value, 1)

    def inb(self, port: int) -> int:
        chip, offset = self._at(port)
        return int(chip.read(offset, 1))

    def _at(self, port: int) -> tuple[object, int]:
        if port < 0x10:
            return self.dma.first, port
        if port >= 0xC0:
            return self.dma.second, port - 0xC0
        return self.dma.pages, port - 0x81

    def program(self, channel: int, address: int, transfers: int, mode: int) -> None:
        """As drivers do. `address` and `transfers` count bytes, or words for the second controller."""
        spacing, base, page_shift = (1, 0x00, 16) if channel < 4 else (2, 0xC0, 16)
        self.out(base + 0xA * spacing, 0x04 | channel % 4)
        self.out(base + 0xC * spacing, 0)
        self.out(base + 0xB * spacing, mode | channel % 4)
        self.out(base + 2 * (channel % 4) * spacing, address & 0xFF, address >> 8 & 0xFF)
        self.out(base + (2 * (channel % 4) + 1) * spacing, transfers - 1 & 0xFF, transfers - 1 >> 8)
        self.out(PAGES[channel], address >> page_shift if channel < 4 else address >> 15 & 0xFE)
        self.out(base + 0xA * spacing, channel % 4)

    def current(self, channel: int) -> tuple[int, int]:
        """The current address and count."""
        self.out(0x0C, 0)
        low, high = self.inb(2 * channel), self.inb(2 * channel)
        count_low, count_high = self.inb(2 * channel + 1), self.inb(2 * channel + 1)
        return high << 8 | low, count_high << 8 | count_low


@pytest.fixture
def bench(rig_of: Callable[[str], Rig]) -> Bench:
    return Bench(rig_of("dma"))


def test_a_run_goes_to_memory_and_counts(bench: Bench) -> None:
    bench.program(2, 0x1_2340, 512, SINGLE | WRITE)
    assert bench.dma.channels[2].to_memory(b"abc") == (3, False)
    assert bench.ram[0x1_233F:0x1_2344] == b"\0abc\0"
    assert bench.current(2) == (0x2343, 508)


def test_a_run_comes_from_memory(bench: Bench) -> None:
    bench.ram[0x2_0000:0x2_0004] = b"wxyz"
    bench.program(1, 0x2_0000, 4, SINGLE | READ)
    assert bench.dma.channels[1].from_memory(3) == (b"wxy", False)
    assert bench.dma.channels[1].from_memory(512) == (b"z", True)


def test_the_terminal_count_masks_the_channel_and_is_told_once(bench: Bench) -> None:
    bench.program(2, 0, 2, SINGLE | WRITE)
    assert bench.dma.channels[2].to_memory(b"abcd") == (2, True)
    assert bench.ram[:4] == b"ab\0\0"
    assert bench.inb(0x0F) == 0x0F
    assert bench.inb(0x08) == 0x04
    assert bench.inb(0x08) == 0
    assert bench.current(2) == (2, 0xFFFF)
    assert bench.dma.channels[2].to_memory(b"x") == (0, False)


def test_autoinitialize_starts_again_from_the_base(bench: Bench) -> None:
    bench.program(3, 0x100, 4, SINGLE | AUTOINIT | WRITE)
    channel = bench.dma.channels[3]
    assert channel.to_memory(b"abcdef") == (4, True)
    assert bench.current(3) == (0x100, 3)
    assert channel.to_memory(b"ef") == (2, False)
    assert bench.ram[0x100:0x104] == b"efcd"


def test_the_address_wraps_inside_its_page(bench: Bench) -> None:
    bench.program(2, 0x1_FFFE, 4, SINGLE | WRITE)
    assert bench.dma.channels[2].to_memory(b"abcd") == (4, True)
    assert bench.ram[0x1_FFFE:0x2_0000] == b"ab"
    assert bench.ram[0x1_0000:0x1_0002] == b"cd"
    assert bench.ram[0x2_0000] == 0


def test_a_decrementing_channel_goes_down_and_wraps(bench: Bench) -> None:
    bench.program(2, 0x1_0001, 4, SINGLE | DECREMENT | WRITE)
    assert bench.dma.channels[2].to_memory(b"abcd") == (4, True)
    assert bench.ram[0x1_0000:0x1_0002] == b"ba"
    assert bench.ram[0x1_FFFE:0x2_0000] == b"dc"
    bench.program(2, 0x1_0001, 4, SINGLE | DECREMENT | READ)
    assert bench.dma.channels[2].from_memory(4) == (b"abcd", True)


def test_words_have_their_own_address_lines(bench: Bench) -> None:
    bench.program(5, 0x1_0000, 3, SINGLE | WRITE)  # words: byte address 2_0000h
    assert bench.dma.channels[5].to_memory(b"abcdefgh") == (6, True)
    assert bench.ram[0x2_0000:0x2_0008] == b"abcdef\0\0"
    bench.program(6, 0x1_0000, 3, SINGLE | READ)
    assert bench.dma.channels[6].from_memory(5) == (b"abcd", False)  # whole words only
    bench.program(7, 0x1_FFFF, 2, SINGLE | WRITE)
    assert bench.dma.channels[7].to_memory(b"wxyz") == (4, True)
    assert bench.ram[0x3_FFFE:0x4_0000] == b"wx"
    assert bench.ram[0x2_0000:0x2_0002] == b"yz"  # 128 KiB, by the page's low bit that is not used


def test_words_go_down_whole(bench: Bench) -> None:
    bench.program(5, 1, 2, SINGLE | DECREMENT | WRITE)
    assert bench.dma.channels[5].to_memory(b"abcd") == (4, True)
    assert bench.ram[:4] == b"cdab"


def test_verify_counts_and_moves_nothing(bench: Bench) -> None:
    bench.ram[:4] = b"keep"
    bench.program(2, 0, 4, SINGLE | VERIFY)
    assert bench.dma.channels[2].to_memory(b"xy") == (2, False)
    assert bench.dma.channels[2].from_memory(9) == (b"\xff\xff", True)
    assert bench.ram[:4] == b"keep"


@pytest.mark.parametrize(
    ("port", "value"),
    [
        (0x0A, 0x06),  # one mask bit
        (0x0F, 0x04),  # all mask bits
        (0x08, 0x04),  # controller disable
        (0x0B, CASCADE | WRITE | 2),
        (0x0B, SINGLE | READ | 2),  # the other direction
        (0x0B, SINGLE | READ | WRITE | 2),  # illegal
        (0x0D, 0),  # master clear
    ],
)
def test_a_channel_that_is_not_ready_takes_nothing(bench: Bench, port: int, value: int) -> None:
    bench.program(2, 0, 512, SINGLE | WRITE)
    bench.out(port, value)
    assert bench.dma.channels[2].to_memory(b"abc") == (0, False)
    assert bench.ram[:3] == b"\0\0\0"


def test_the_mask_registers(bench: Bench) -> None:
    assert bench.inb(0x0F) == 0x0F
    bench.out(0x0A, 0x02)
    assert bench.inb(0x0F) == 0x0B
    bench.out(0x0A, 0x06)
    assert bench.inb(0x0F) == 0x0F
    bench.out(0x0E, 0)
    assert bench.inb(0x0F) == 0
    bench.out(0x0F, 0xF5)
    assert bench.inb(0x0F) == 0x05


def test_software_requests_show_in_the_status(bench: Bench) -> None:
    bench.out(0x09, 0x05)
    assert bench.inb(0x08) == 0x20
    bench.out(0x09, 0x01)
    assert bench.inb(0x08) == 0
    bench.out(0x09, 0x06)
    bench.program(2, 0, 1, SINGLE | WRITE)
    bench.dma.channels[2].to_memory(b"x")
    assert bench.inb(0x08) == 0x04  # the terminal count takes the request back


def test_registers_that_are_write_only(bench: Bench) -> None:
    assert [bench.inb(port) for port in (0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E)] == [255, 255, 255, 255, 0, 255]


def test_the_byte_pointer_tells_low_from_high(bench: Bench) -> None:
    bench.out(0x0C, 0)
    bench.out(0x04, 0x34)
    bench.out(0x0C, 0)
    bench.out(0x04, 0x78, 0x56)
    assert bench.current(2)[0] == 0x5678
    bench.out(0x05, 0x11)
    bench.out(0x0D, 0)
    bench.out(0x05, 0x22)
    assert bench.current(2)[1] == 0x22


def test_page_registers_are_storage(bench: Bench) -> None:
    for port in range(0x81, 0x90):
        bench.out(port, port ^ 0x55)
    assert [bench.inb(port) for port in range(0x81, 0x90)] == [port ^ 0x55 for port in range(0x81, 0x90)]


def test_the_second_controller_is_at_every_other_port(bench: Bench) -> None:
    assert bench.inb(0xDE) == bench.inb(0xDF) == 0x0E  # the cascade is open
    bench.out(0xDC, 0)
    assert bench.inb(0xDE) == 0


def test_outside_memory_writes_are_lost_and_reads_are_ones(bench: Bench) -> None:
    bench.program(2, MEMORY_SIZE - 2, 16, SINGLE | WRITE)
    bench.out(0x81, MEMORY_SIZE >> 16)
    assert bench.dma.channels[2].to_memory(b"abcd") == (4, False)
    bench.program(1, 0xFF_0000, 4, SINGLE | READ)
    assert bench.dma.channels[1].from_memory(4) == (b"\xff" * 4, True)


def test_a_run_that_leaves_memory_loses_only_that_page(bench: Bench) -> None:
    del bench.ram[0x1_8000:]
    bench.program(2, 0x1_7FFE, 4, SINGLE | WRITE)
    assert bench.dma.channels[2].to_memory(b"abcd") == (4, True)
    assert bench.ram[0x1_7FFE:] == b"ab"
    bench.program(2, 0x1_7FFE, 4, SINGLE | READ)
    assert bench.dma.channels[2].from_memory(4) == (b"ab\xff\xff", True)


def test_reset_masks_all_but_the_cascade(bench: Bench) -> None:
    bench.program(2, 0x1_0000, 4, SINGLE | WRITE)
    bench.program(5, 0x1_0000, 4, SINGLE | WRITE)
    bench.dma.reset()
    assert (bench.inb(0x0F), bench.inb(0xDE), bench.inb(0x81)) == (0x0F, 0x0E, 0)


@settings(max_examples=60, deadline=None)
@given(
    channel=st.sampled_from([0, 1, 2, 3, 5, 6, 7]),
    start=st.integers(0, 0x3_FFFF),
    transfers=st.integers(1, 0x3000),
    direction=st.sampled_from([0, DECREMENT]),
    lengths=st.lists(st.integers(0, 5000), max_size=5),
)
def test_runs_are_the_bytes_that_one_at_a_time_would_move(
    channel: int, start: int, transfers: int, direction: int, lengths: list[int]
) -> None:
    bench = Bench(Rig("dma"))
    unit = 2 if channel > 3 else 1
    bench.program(channel, start // unit, transfers, SINGLE | direction | WRITE)
    space = 0x1_0000 * unit
    page, at = start // space * space, start % space // unit * unit
    expected = bytearray(MEMORY_SIZE)
    left = transfers
    fill = 0
    for length in lengths:
        data = bytes((fill + i) % 251 for i in range(length))
        fill += length
        taken, terminal_count = bench.dma.channels[channel].to_memory(data)
        assert taken == min(length // unit, left) * unit
        for i in range(0, taken, unit):
            expected[page + at : page + at + unit] = data[i : i + unit]
            at = (at - unit if direction else at + unit) % space
        left -= taken // unit
        assert terminal_count == (left == 0 and taken > 0)
    assert bench.ram == expected
