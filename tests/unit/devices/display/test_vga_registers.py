"""The VGA's ports: what reads back, the flip-flop, the DAC's steps, the beam."""

import pytest
from display_rig import ATTRIBUTE, CRTC, GRAPHICS, SEQUENCER, STATUS_1, Bench

from emuvisor.errors import SnapshotError
from emuvisor.units import NS_PER_S

IN_PICTURE, BLANK, RETRACE = 0x00, 0x01, 0x09


@pytest.mark.parametrize(
    ("port", "register", "reads"),
    [
        (SEQUENCER, 0, 0x03), (SEQUENCER, 1, 0x3D), (SEQUENCER, 2, 0x0F), (SEQUENCER, 3, 0x3F), (SEQUENCER, 4, 0x0E),
        (SEQUENCER, 5, 0), (SEQUENCER, 0xFF, 0),
        (GRAPHICS, 0, 0x0F), (GRAPHICS, 3, 0x1F), (GRAPHICS, 5, 0x7B), (GRAPHICS, 6, 0x0F), (GRAPHICS, 8, 0xFF),
        (GRAPHICS, 9, 0),
        (CRTC, 0x08, 0x7F), (CRTC, 0x0A, 0x3F), (CRTC, 0x14, 0x7F), (CRTC, 0x17, 0xEF), (CRTC, 0x18, 0xFF),
        (CRTC, 0x19, 0),
        (ATTRIBUTE, 0x00, 0x3F), (ATTRIBUTE, 0x10, 0xEF), (ATTRIBUTE, 0x14, 0x0F), (ATTRIBUTE, 0x15, 0),
    ],
)  # fmt: skip
def test_registers_read_back_the_bits_that_exist(bench: Bench, port: int, register: int, reads: int) -> None:
    bench.set(port, register, 0xFF)
    assert bench.get(port, register) == reads


def test_the_protect_bit_keeps_the_timing(bench: Bench) -> None:
    bench.set(CRTC, 0x11, 0x80)
    for register in range(8):
        bench.set(CRTC, register, 0x00)
    assert [bench.get(CRTC, i) for i in range(8)] == list(bytes.fromhex("5f4f50825581bf0f"))
    bench.set(CRTC, 0x11, 0x00)
    bench.set(CRTC, 0x00, 0x12)
    assert bench.get(CRTC, 0) == 0x12


def test_the_attribute_port_takes_index_and_data_by_turns(bench: Bench) -> None:
    bench.ports.read(STATUS_1, 1)
    for value in (0x01, 0x2A, 0x22, 0x15):
        bench.ports.write(ATTRIBUTE, value, 1)
    assert bench.ports.read(ATTRIBUTE, 1) == 0x22
    assert bench.ports.read(0x3C1, 1) == 0x15
    assert bench.get(ATTRIBUTE, 1) == 0x2A


def test_miscellaneous_output_moves_ports_to_the_monochrome_addresses(bench: Bench) -> None:
    assert bench.ports.read(0x3CC, 1) == 0x67
    bench.ports.write(CRTC, 0x0F, 1)
    assert bench.ports.read(0x3B4, 1) == 0xFF
    bench.ports.write(0x3C2, 0x66, 1)
    assert bench.ports.read(0x3B4, 1) == 0x0F
    assert bench.ports.read(CRTC, 1) == 0xFF
    bench.ports.write(0x3B5, 0x33, 1)
    bench.ports.write(CRTC + 1, 0x44, 1)
    assert bench.ports.read(0x3B5, 1) == 0x33


def test_small_registers(bench: Bench) -> None:
    bench.ports.write(STATUS_1, 0xFF, 1)
    assert bench.ports.read(0x3CA, 1) == 0x0B  # feature control
    bench.ports.write(0x3C3, 0x00, 1)
    assert bench.ports.read(0x3C3, 1) == 0x00
    assert bench.ports.read(0x3C2, 1) == 0x10
    bench.ports.write(0x3C6, 0x55, 1)
    assert bench.ports.read(0x3C6, 1) == 0x55
    bench.ports.write(SEQUENCER, 0x02, 1)
    bench.ports.write(GRAPHICS, 0x03, 1)
    assert [bench.ports.read(port, 1) for port in (SEQUENCER, GRAPHICS)] == [2, 3]
    assert bench.ports.read(0x3CB, 1) == 0xFF  # nobody's


def test_the_dac_steps_through_channels_and_entries(bench: Bench) -> None:
    bench.set_colours(0xFF, [(0x11, 0x22, 0xFF), (1, 2, 3)])  # wraps to entry 0; two of the bits do not exist
    assert bench.ports.read(0x3C7, 1) == 0x00
    assert bench.ports.read(0x3C8, 1) == 0x01
    bench.ports.write(0x3C7, 0xFF, 1)
    assert bench.ports.read(0x3C7, 1) == 0x03
    assert [bench.ports.read(0x3C9, 1) for _ in range(6)] == [0x11, 0x22, 0x3F, 1, 2, 3]


def beam(bench: Bench, line: int, column: int) -> int:
    """Input status 1 with the beam at a place of the first frame."""
    characters = line * 100 + column  # 100 character clocks a line
    at_ns = -(-characters * 9 * NS_PER_S // 28_322_000)
    bench.clock.skip(at_ns - bench.clock.now_ns())
    return bench.ports.read(STATUS_1, 1)


def test_status_1_follows_the_beam(bench: Bench) -> None:
    assert beam(bench, 0, 0) == IN_PICTURE
    assert beam(bench, 0, 79) == IN_PICTURE
    assert beam(bench, 0, 80) == BLANK
    assert beam(bench, 399, 79) == IN_PICTURE
    assert beam(bench, 400, 0) == BLANK
    assert beam(bench, 411, 99) == BLANK
    assert beam(bench, 412, 0) == RETRACE
    assert beam(bench, 413, 99) == RETRACE
    assert beam(bench, 414, 0) == BLANK
    assert beam(bench, 448, 99) == BLANK
    assert beam(bench, 449, 0) == IN_PICTURE  # the next frame


def test_the_retrace_comes_and_goes_whatever_the_registers_hold(bench: Bench) -> None:
    bench.set(CRTC, 0x11, 0)
    for register in range(0x19):
        bench.set(CRTC, register, 0)
    seen = set()
    for _ in range(10):
        bench.clock.skip(1000)
        seen.add(bench.ports.read(STATUS_1, 1) & 8)
    assert seen == {0, 8}


def test_half_the_dot_clock_takes_twice_as_long(bench: Bench) -> None:
    bench.clock.skip(20 * 9 * NS_PER_S // 28_322_000 + 1)
    assert bench.vga._beam() == (0, 0, 20)
    bench.set(SEQUENCER, 1, 0x08)
    assert bench.vga._beam() == (0, 0, 10)


def test_reset_and_power_on_are_the_same(bench: Bench) -> None:
    fresh = bench.vga.save()
    bench.vga.set_text_mode()
    bench.mode_13h()
    bench.linear(640, 480, 32)
    bench.memory.read(0xA0000, 1)
    bench.vga.reset()
    assert bench.vga.save() == fresh


def test_a_saved_part_is_missed_by_its_name(bench: Bench) -> None:
    state = bench.vga.save()
    del state["crtc"]
    with pytest.raises(SnapshotError) as error:
        bench.vga.load(state)
    assert str(error.value) == "vga: saved field 'crtc' is None; expected a saved state"
    state = bench.vga.save()
    state["sequencer"]["registers"] = b"123"
    with pytest.raises(SnapshotError) as error:
        bench.vga.load(state)
    assert str(error.value) == "vga sequencer: saved field 'registers' is b'123'; expected 5 to 5 bytes"
