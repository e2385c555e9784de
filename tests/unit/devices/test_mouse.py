"""The PS/2 mouse and the keyboard controller's auxiliary port, by the sections of IBM's reference."""

from collections.abc import Callable

import pytest
from device_rigs import Rig
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import loaded

from emuvisor.devices.mouse import Mouse
from emuvisor.errors import UsageError

OBF, AUX_OBF = 0x01, 0x20
INT, INT2, SYS, DISABLE_KEYBOARD, DISABLE_AUX, XLAT = 0x01, 0x02, 0x04, 0x10, 0x20, 0x40
ACK, NAK = 0xFA, 0xFE


class Bench:
    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.controller = rig.chips["i8042"]
        self.keyboard = rig.chips["keyboard"]
        self.mouse = rig.chips["mouse"]

    def status(self) -> int:
        return int(self.controller.command.read(0, 1))

    def command(self, *values: int) -> None:
        self.controller.command.write(0, values[0], 1)
        for value in values[1:]:
            self.controller.data.write(0, value, 1)

    def read_all(self, aux: bool = True) -> bytes:
        """Everything in the output buffer, all of it from the one device."""
        data = bytearray()
        while self.status() & OBF:
            assert bool(self.status() & AUX_OBF) == aux
            data.append(self.controller.data.read(0, 1))
        return bytes(data)

    def ask(self, *values: int) -> bytes:
        """Bytes to the mouse; all that it answers."""
        answer = b""
        for value in values:
            self.command(0xD4, value)
            answer += self.read_all()
        return answer

    def become(self, *rates: int) -> int:
        """The device type behind these sample rates."""
        for rate in rates:
            assert self.ask(0xF3, rate) == bytes((ACK, ACK))
        return self.ask(0xF2)[1]


@pytest.fixture
def bench(rig_of: Callable[[str], Rig]) -> Bench:
    return Bench(rig_of("ps2"))


# The controller's auxiliary port.


def test_the_interface_test_finds_the_second_port(bench: Bench) -> None:
    bench.command(0xA9)
    assert bench.read_all(aux=False) == b"\x00"


def test_commands_disable_and_enable_the_port(bench: Bench) -> None:
    bench.ask(0xF4)
    bench.command(0xA7)
    bench.mouse.move(1, 0)
    assert bench.read_all() == b""
    bench.command(0x20)
    assert bench.read_all(aux=False)[0] & DISABLE_AUX
    bench.command(0xA8)
    assert bench.read_all() == bytes((0x08, 1, 0))
    bench.command(0x20)
    assert not bench.read_all(aux=False)[0] & DISABLE_AUX


def test_a_byte_to_the_mouse_enables_its_port(bench: Bench) -> None:
    bench.command(0xA7)
    assert bench.ask(0xF2) == bytes((ACK, 0))


def test_the_loopback_is_marked_as_the_mouses(bench: Bench) -> None:
    bench.command(0x60, INT | INT2)
    bench.command(0xD3, 0x5A)
    assert (bench.rig.level("irq1"), bench.rig.level("irq12")) == (False, True)
    assert bench.read_all() == b"\x5a"
    bench.command(0xD2, 0xA5)
    assert (bench.rig.level("irq1"), bench.rig.level("irq12")) == (True, False)
    assert bench.read_all(aux=False) == b"\xa5"


def test_a_later_answer_is_not_marked(bench: Bench) -> None:
    bench.keyboard.press("a")
    bench.command(0xD3, 0x5A)  # waits behind the key
    bench.command(0xAA)
    assert bench.read_all(aux=False) == b"\x1e\x55"


def test_irq_12_has_an_edge_for_each_byte(bench: Bench) -> None:
    bench.command(0x60, INT2)
    bench.command(0xD4, 0xF2)
    assert bench.rig.logged("irq12") == [True]
    bench.controller.data.read(0, 1)
    assert bench.rig.logged("irq12") == [True, False, True]
    bench.controller.data.read(0, 1)
    assert bench.rig.logged("irq12") == [True, False, True, False]
    assert not bench.rig.logged("irq1")
    bench.command(0x60, 0)
    bench.command(0xD4, 0xF2)
    assert not bench.rig.level("irq12")
    assert bench.ask() == b""


def test_the_output_port_shows_whose_interrupt_it_is(bench: Bench) -> None:
    bench.command(0xD3, 0x42)
    bench.command(0xD0)
    assert bench.controller.data.read(0, 1) == 0x42
    assert bench.read_all(aux=False)[0] & 0x30 == 0x20


def test_keyboard_and_mouse_share_the_buffer_and_are_told_apart(bench: Bench) -> None:
    bench.ask(0xF4)
    bench.command(0x60, DISABLE_KEYBOARD | DISABLE_AUX)
    bench.mouse.move(2, -3)
    bench.keyboard.press("a")
    bench.command(0x60, 0)
    seen = []
    while bench.status() & OBF:
        seen.append((bool(bench.status() & AUX_OBF), bench.controller.data.read(0, 1)))
    assert seen == [(False, 0x1C), (True, 0x08), (True, 2), (True, 3)]


def test_the_marks_of_an_empty_buffer_are_clear(bench: Bench) -> None:
    bench.ask(0xF2)
    assert bench.status() & (OBF | AUX_OBF) == 0


def test_resetting_the_controller_lowers_both_lines(bench: Bench) -> None:
    bench.command(0x60, INT | INT2)
    bench.command(0xD4, 0xF2)
    bench.controller.reset()
    assert not bench.rig.level("irq12")


# The mouse's commands.


def test_reset_and_identification(bench: Bench) -> None:
    assert bench.ask(0xFF) == bytes((ACK, 0xAA, 0x00))
    assert bench.ask(0xF2) == bytes((ACK, 0x00))


def test_an_unknown_command_is_refused(bench: Bench) -> None:
    assert bench.ask(0xE1) == bytes((NAK,))


def test_the_status_shows_the_settings_and_the_buttons(bench: Bench) -> None:
    assert bench.ask(0xE9) == bytes((ACK, 0x00, 2, 100))
    bench.ask(0xF3, 200, 0xE8, 3, 0xE7, 0xF4)
    bench.mouse.button(1, True)
    bench.mouse.button(3, True)
    bench.read_all()
    assert bench.ask(0xE9)[:4] == bytes((ACK, 0x35, 3, 200))
    bench.mouse.button(1, False)
    bench.mouse.button(2, True)
    bench.read_all()
    assert bench.ask(0xF0, 0xE9)[1:5] == bytes((ACK, 0x73, 3, 200))
    bench.ask(0xF6)
    assert bench.ask(0xE9) == bytes((ACK, 0x03, 2, 100))


def test_arguments_out_of_range_are_refused(bench: Bench) -> None:
    assert bench.ask(0xF3, 99) == bytes((ACK, NAK))
    assert bench.ask(0xE8, 4) == bytes((ACK, NAK))
    assert bench.ask(0xE9) == bytes((ACK, 0x00, 2, 100))


def test_wrap_mode_echoes_all_but_its_end_and_reset(bench: Bench) -> None:
    assert bench.ask(0xEE) == bytes((ACK,))
    assert bench.ask(0xF2, 0x12, 0xEE, 0xF4) == bytes((0xF2, 0x12, 0xEE, 0xF4))
    assert bench.ask(0xEC, 0xF2) == bytes((ACK, ACK, 0))
    assert bench.ask(0xEE, 0xFF) == bytes((ACK, ACK, 0xAA, 0x00))
    assert bench.ask(0xF2) == bytes((ACK, 0))


def test_resend_repeats_the_last_answer_or_packet(bench: Bench) -> None:
    assert bench.ask(0xFE) == b""  # nothing was sent yet
    bench.ask(0xE9)
    assert bench.ask(0xFE) == bench.ask(0xFE) == bytes((ACK, 0x00, 2, 100))
    bench.ask(0xF4)
    bench.mouse.move(5, 6)
    bench.mouse.move(7, 8)
    assert bench.read_all() == bytes((0x28, 5, 0xFA)) + bytes((0x28, 7, 0xF8))
    assert bench.ask(0xFE) == bytes((0x28, 7, 0xF8))


# Packets.


def test_nothing_is_told_before_the_mouse_is_enabled(bench: Bench) -> None:
    bench.mouse.move(1, 1)
    bench.mouse.button(1, True)
    bench.mouse.wheel(1)
    assert bench.ask(0xF4) == bytes((ACK,))
    bench.mouse.move(1, 0)
    assert bench.read_all() == bytes((0x09, 1, 0))  # the button is still held


def test_movement_is_counted_upwards_and_in_nine_bits(bench: Bench) -> None:
    bench.ask(0xF4)
    bench.mouse.move(10, -20)
    assert bench.read_all() == bytes((0x08, 10, 20))
    bench.mouse.move(-1, 2)
    assert bench.read_all() == bytes((0x38, 0xFF, 0xFE))
    bench.mouse.move(300, 300)
    assert bench.read_all() == bytes((0x28, 255, 0x00)) + bytes((0x28, 45, 0xD4))


def test_buttons_by_their_bits(bench: Bench) -> None:
    bench.ask(0xF4)
    for number, bit in ((1, 0x01), (2, 0x04), (3, 0x02)):
        bench.mouse.button(number, True)
        bench.mouse.button(number, True)  # it is down already
        assert bench.read_all() == bytes((0x08 | bit, 0, 0))
        bench.mouse.button(number, False)
        assert bench.read_all() == bytes((0x08, 0, 0))


def test_an_unknown_button_is_refused(bench: Bench) -> None:
    with pytest.raises(UsageError) as caught:
        bench.mouse.button(6, True)
    assert str(caught.value) == "ps2-mouse: no button 6; there are 1 to 5"


def test_remote_mode_tells_when_it_is_asked(bench: Bench) -> None:
    assert bench.ask(0xF0) == bytes((ACK,))
    bench.mouse.move(3, 4)
    assert bench.read_all() == b""
    assert bench.ask(0xEB) == bytes((ACK, 0x28, 3, 0xFC))
    assert bench.ask(0xEB) == bytes((ACK, 0x08, 0, 0))
    assert bench.ask(0xEA) == bytes((ACK,))


def test_scaling_acts_on_what_is_told_unasked(bench: Bench) -> None:
    bench.ask(0xE7, 0xF4)
    for count, scaled in ((1, 1), (2, 1), (3, 3), (4, 6), (5, 9), (6, 12), (100, 200), (200, 255)):
        bench.mouse.move(count, 0)
        assert bench.read_all() == bytes((0x08, scaled, 0))
    bench.mouse.move(-4, 0)
    assert bench.read_all() == bytes((0x18, 0xFA, 0))
    bench.ask(0xE6)
    bench.mouse.move(5, 0)
    assert bench.read_all() == bytes((0x08, 5, 0))


def test_the_wheel_after_its_knock(bench: Bench) -> None:
    assert bench.become(200, 100, 80) == 3
    bench.ask(0xF4)
    bench.mouse.wheel(1)
    assert bench.read_all() == bytes((0x08, 0, 0, 1))
    bench.mouse.wheel(-1)
    assert bench.read_all() == bytes((0x08, 0, 0, 0xFF))
    bench.mouse.wheel(9)
    assert bench.read_all() == bytes((0x08, 0, 0, 7)) + bytes((0x08, 0, 0, 2))
    bench.mouse.button(4, True)
    assert bench.read_all() == bytes((0x08, 0, 0, 0))
    assert bench.ask(0xFF, 0xF2) == bytes((ACK, 0xAA, 0, ACK, 0))


def test_five_buttons_after_their_knock(bench: Bench) -> None:
    assert bench.become(200, 100, 80, 200, 200, 80) == 4
    bench.ask(0xF4)
    bench.mouse.button(4, True)
    assert bench.read_all() == bytes((0x08, 0, 0, 0x10))
    bench.mouse.button(5, True)
    assert bench.read_all() == bytes((0x08, 0, 0, 0x30))
    bench.mouse.wheel(-2)
    assert bench.read_all() == bytes((0x08, 0, 0, 0x3E))


def test_other_sample_rates_are_no_knock(bench: Bench) -> None:
    assert bench.become(200, 100, 60, 80) == 0


def test_a_standard_mouse_has_no_wheel(bench: Bench) -> None:
    bench.ask(0xF4)
    bench.mouse.wheel(1)
    assert bench.read_all() == b""


def test_movement_adds_up_while_nobody_takes_it(bench: Bench) -> None:
    bench.ask(0xF4)
    bench.command(0xA7)
    for _ in range(100):
        bench.mouse.move(1, 0)
    bench.command(0xA8)
    packets = bench.read_all()
    assert packets == bytes((0x08, 1, 0)) * 5 + bytes((0x08, 95, 0))


def test_movement_has_a_limit(bench: Bench) -> None:
    bench.ask(0xF4)
    bench.command(0xA7)
    for _ in range(10):
        bench.mouse.move(10_000, 0)
    bench.command(0xA8)
    packets = bench.read_all()
    assert sum(packets[1::3]) == 5 * 255 + 0x7FFF


def test_a_command_drops_packets_but_not_what_is_held(bench: Bench) -> None:
    bench.ask(0xF4)
    bench.command(0xA7)
    bench.mouse.button(1, True)
    bench.mouse.move(1, 1)
    bench.command(0xD4, 0xF2)
    assert bench.read_all() == bytes((ACK, 0)) + bytes((0x09, 0, 0))


def test_a_reset_mouse_holds_no_button(bench: Bench) -> None:
    bench.ask(0xF4)
    bench.mouse.button(1, True)
    bench.mouse.reset()
    bench.read_all()
    assert bench.ask(0xE9) == bytes((ACK, 0x00, 2, 100))


def test_a_mouse_works_without_a_controller() -> None:
    mouse = Mouse()
    mouse.send(0xF4)
    assert [mouse.has_data, mouse.take(), mouse.has_data] == [True, ACK, False]


commands = st.tuples(st.just("send"), st.integers(0, 0xFF))
moves = st.tuples(st.just("move"), st.integers(-99_999, 99_999))
buttons = st.tuples(st.just("button"), st.integers(1, 5))
wheels = st.tuples(st.just("wheel"), st.integers(-99, 99))


@settings(max_examples=100, deadline=None)
@given(actions=st.lists(commands | moves | buttons | wheels, max_size=80))
def test_nothing_makes_it_raise_or_grow(actions: list[tuple[str, int]]) -> None:
    mouse = Mouse()
    for action, number in actions:
        if action == "send":
            mouse.send(number)
        elif action == "move":
            mouse.move(number, -number)
        elif action == "button":
            mouse.button(number, not mouse.buttons)
        else:
            mouse.wheel(number)
        assert loaded(Mouse(), mouse.save()).save() == mouse.save()
    taken = 0
    while mouse.has_data:
        mouse.take()
        taken += 1
    assert taken <= 4 * (16 + 0x7FFF // 7)
