from collections.abc import Callable

import pytest
from device_rigs import Rig

from emuvisor.devices.keymap import (
    MAKE_CODES,
    SHORT_NAMES,
    TO_SET_1,
    key_called,
    keys_of,
    keysym_to_key,
    scan_codes,
    to_set_1,
)
from emuvisor.errors import SnapshotError, UsageError

OBF, SYS, A2 = 0x01, 0x04, 0x08
INT, XLAT, DISABLED = 0x01, 0x40, 0x10
ACK, NAK = 0xFA, 0xFE


class Bench:
    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.controller = rig.chips["i8042"]
        self.keyboard = rig.chips["keyboard"]

    def status(self) -> int:
        return self.controller.command.read(0, 1)

    def command(self, *values: int) -> None:
        """A command, and what goes with it to the data port."""
        self.controller.command.write(0, values[0], 1)
        for value in values[1:]:
            self.send(value)

    def send(self, value: int) -> None:
        self.controller.data.write(0, value, 1)

    def read_all(self) -> bytes:
        data = bytearray()
        while self.status() & OBF:
            data.append(self.controller.data.read(0, 1))
        return bytes(data)

    def ask(self, *values: int) -> bytes:
        self.command(*values)
        return self.read_all()

    def ask_keyboard(self, *values: int) -> bytes:
        """Bytes to the keyboard; all that it answers, untranslated."""
        self.command(0x60, INT)
        answer = b""
        for value in values:
            self.send(value)
            answer += self.read_all()
        return answer


@pytest.fixture
def bench(rig_of: Callable[[str], Rig]) -> Bench:
    return Bench(rig_of("i8042"))


def test_self_test_and_interface_tests(bench: Bench) -> None:
    assert bench.ask(0xAA) == b"\x55"
    assert bench.status() & SYS
    assert bench.ask(0xAB) == b"\x00"
    assert bench.ask(0xA4) == b"\xf1"
    assert bench.ask(0xC0) == b"\x80"
    assert bench.ask(0xE0) == b"\x00"


def test_there_is_no_second_port(bench: Bench) -> None:
    assert bench.ask(0xA9) == b"\x01"
    assert bench.ask(0xD3, 0x5A) == b"\x5a"
    bench.command(0xD3, 0x5A)
    assert bench.status() & 0x20 == 0  # not marked as the second port's data
    bench.read_all()
    assert bench.ask(0xD4, 0xFF) == b""


def test_the_command_byte_and_the_ram(bench: Bench) -> None:
    assert bench.ask(0x20) == bytes((INT | SYS | XLAT,))
    bench.command(0x60, 0x03)
    assert bench.ask(0x20) == b"\x03"
    assert not bench.status() & SYS
    bench.command(0x7F, 0x99)
    assert bench.ask(0x3F) == b"\x99"


def test_the_status_tells_command_from_data(bench: Bench) -> None:
    bench.command(0xD3)
    assert bench.status() & A2
    bench.send(0)
    assert not bench.status() & A2


def test_an_answer_waits_for_the_output_buffer(bench: Bench) -> None:
    bench.keyboard.press("KeyA")
    bench.command(0xAA)
    assert bench.read_all() == b"\x1e\x55"


def test_irq_1_has_an_edge_for_each_byte(bench: Bench) -> None:
    bench.keyboard.press("KeyA")
    bench.keyboard.press("KeyA", False)
    assert bench.rig.logged("irq1") == [True]
    assert bench.controller.data.read(0, 1) == 0x1E
    assert bench.rig.logged("irq1") == [True, False, True]
    assert bench.controller.data.read(0, 1) == 0x9E
    assert bench.rig.logged("irq1") == [True, False, True, False]
    assert bench.controller.data.read(0, 1) == 0x9E  # the buffer keeps its last byte
    bench.command(0x60, XLAT)
    bench.keyboard.press("KeyA")
    assert not bench.rig.level("irq1")
    bench.command(0x60, XLAT | INT)
    assert bench.rig.level("irq1")


def test_a_disabled_keyboard_waits(bench: Bench) -> None:
    bench.command(0xAD)
    bench.keyboard.press("KeyA")
    assert bench.read_all() == b""
    assert bench.ask(0x20)[0] & DISABLED
    bench.command(0xAE)
    assert bench.read_all() == b"\x1e"
    bench.command(0xAD)
    bench.send(0xEE)  # a byte to the keyboard enables it
    assert bench.read_all() == b"\xee"


def test_the_output_port_drives_a20_and_reset(bench: Bench) -> None:
    assert bench.ask(0xD0)[0] & 0x03 == 0x03
    bench.command(0xD1, 0xDD)
    assert bench.rig.logged("a20") == [False]
    assert bench.ask(0xD0)[0] & 0x03 == 0x01
    bench.command(0xD1, 0xDF)
    assert bench.rig.logged("a20") == [False, True]
    assert bench.rig.logged("reset") == []
    bench.command(0xD1, 0xDE)
    assert bench.rig.logged("reset") == [None]
    bench.command(0xD2, 0x42)
    assert bench.ask(0xD0)[1] & 0x10  # the buffer was full when the port was read
    assert bench.rig.logged("a20") == [False, True]


def test_pulses_of_pin_0_reset(bench: Bench) -> None:
    for command in (0xFF, 0xFD, 0xF1):
        bench.command(command)
    assert bench.rig.logged("reset") == []
    for command in (0xFE, 0xF0):
        bench.command(command)
    assert bench.rig.logged("reset") == [None, None]


def test_a_command_takes_back_the_one_before(bench: Bench) -> None:
    bench.command(0xD1)
    bench.command(0xAA)
    bench.send(0xEE)  # to the keyboard, not to the output port
    assert bench.read_all() == b"\x55\xee"
    assert bench.rig.logged("a20") == []


def test_reset_empties_the_controller(bench: Bench) -> None:
    bench.command(0x60, 0)
    bench.command(0xD2, 0x42)
    bench.controller.data.reset()
    assert bench.status() & OBF == 0
    assert not bench.rig.level("irq1")
    assert bench.ask(0x20) == bytes((INT | SYS | XLAT,))


def test_keyboard_commands(bench: Bench) -> None:
    assert bench.ask_keyboard(0xFF) == bytes((ACK, 0xAA))
    assert bench.ask_keyboard(0xF2) == bytes((ACK, 0xAB, 0x83))
    assert bench.ask_keyboard(0xEE) == b"\xee"
    assert bench.ask_keyboard(0xFE) == b"\xee"
    assert bench.ask_keyboard(0xED, 0x02) == bytes((ACK, ACK))
    assert bench.keyboard.leds == 2
    assert bench.ask_keyboard(0xF3, 0x20) == bytes((ACK, ACK))
    for command in (0xF4, 0xF5, 0xF6, 0xF8):
        assert bench.ask_keyboard(command) == bytes((ACK,))
    assert bench.ask_keyboard(0xEF) == bytes((NAK,))


def test_a_command_in_place_of_an_argument_is_a_command(bench: Bench) -> None:
    assert bench.ask_keyboard(0xED, 0xF2) == bytes((ACK, ACK, 0xAB, 0x83))
    assert bench.keyboard.leds == 0


def test_linux_identifies_through_the_translation(bench: Bench) -> None:
    bench.send(0xF2)
    assert bench.read_all() == bytes((ACK, 0xAB, 0x41))


def test_scan_code_sets(bench: Bench) -> None:
    assert bench.ask_keyboard(0xF0, 0x00) == bytes((ACK, ACK, 0x02))
    bench.keyboard.press("KeyA")
    bench.keyboard.press("KeyA", False)
    bench.keyboard.press("ArrowUp")
    bench.keyboard.press("ArrowUp", False)
    assert bench.read_all() == bytes.fromhex("1c f01c e075 e0f075")
    assert bench.ask_keyboard(0xF0, 0x01) == bytes((ACK, ACK))
    bench.keyboard.press("KeyA")
    bench.keyboard.press("KeyA", False)
    bench.keyboard.press("ArrowUp")
    bench.keyboard.press("ArrowUp", False)
    assert bench.read_all() == bytes.fromhex("1e 9e e048 e0c8")
    assert bench.ask_keyboard(0xF0, 0x00) == bytes((ACK, ACK, 0x01))
    assert bench.ask_keyboard(0xF0, 0x03) == bytes((ACK, NAK))
    assert bench.ask_keyboard(0xF6) == bytes((ACK,))
    assert bench.ask_keyboard(0xF0, 0x00) == bytes((ACK, ACK, 0x02))


@pytest.mark.parametrize(
    ("key", "pressed", "released"),
    [
        ("KeyA", "1e", "9e"),
        ("Enter", "1c", "9c"),
        ("F7", "41", "c1"),
        ("ControlRight", "e01d", "e09d"),
        ("Delete", "e053", "e0d3"),
        ("PrintScreen", "e02ae037", "e0b7e0aa"),
        ("Pause", "e11d45e19dc5", ""),
    ],
)
def test_the_translated_codes_are_those_of_set_1(bench: Bench, key: str, pressed: str, released: str) -> None:
    for down, codes in ((True, pressed), (False, released)):
        bench.keyboard.press(key, down)
        assert bench.read_all() == bytes.fromhex(codes)
        assert to_set_1(scan_codes(key, down)) == bytes.fromhex(codes)


def test_every_key_has_its_own_codes() -> None:
    assert len(set(MAKE_CODES.values())) == len(MAKE_CODES) > 95
    assert len({to_set_1(codes) for codes in MAKE_CODES.values()}) == len(MAKE_CODES)
    assert len(TO_SET_1) == 256


def test_keys_wait_for_room_in_the_fifo(bench: Bench) -> None:
    bench.command(0x60, INT | DISABLED)
    for _ in range(40):
        bench.keyboard.press("a")
        bench.keyboard.release("a")
    bench.keyboard.send_keys("ctrl-alt-delete")
    bench.command(0x60, INT)
    assert bench.read_all() == bytes.fromhex("1c f01c" * 40 + "14 11 e071 e0f071 f011 f014")


def test_keys_that_nobody_takes_are_lost_and_the_guest_is_told(bench: Bench) -> None:
    bench.command(0x60, INT | DISABLED)
    for _ in range(10_000):
        bench.keyboard.press("KeyA")
    bench.command(0x60, INT)
    codes = bench.read_all()
    assert codes == b"\x1c" * 16 + b"\x00" + b"\x1c" * 8192
    bench.keyboard.press("KeyB")
    assert bench.read_all() == b"\x32"


def test_a_keyboard_that_is_off_types_nothing(bench: Bench) -> None:
    bench.ask_keyboard(0xF5)
    bench.keyboard.press("KeyB")
    assert bench.keyboard.type_text("a") == 1
    bench.keyboard.press("KeyC")  # behind text that waits, keys wait too
    assert bench.read_all() == b""
    assert bench.ask_keyboard(0xF4) == bytes((ACK,)) + bytes.fromhex("1c f01c 21")


@pytest.mark.parametrize("chord", ["ctrl-alt-nonsense", "nonsense", "", "ctrl-"])
def test_a_chord_with_an_unknown_key_presses_nothing(bench: Bench, chord: str) -> None:
    with pytest.raises(UsageError) as error:
        bench.keyboard.send_keys(chord)
    name = chord.rsplit("-", maxsplit=1)[-1]
    assert str(error.value) == (
        f"no key is called {name!r}; names are short ones, such as 'a', 'ret' or 'ctrl', "
        "or those of W3C UI Events, such as 'KeyA'"
    )
    assert bench.read_all() == b""


def test_a_letter_with_shift_held_makes_the_short_and_the_w3c_name_alike(bench: Bench) -> None:
    for shift, letter in (("shift", "a"), ("ShiftLeft", "KeyA")):
        bench.keyboard.send_keys(f"{shift}-{letter}")
        assert bench.read_all() == bytes.fromhex("2a 1e 9e aa")


def test_every_short_name_is_of_a_key_that_has_codes() -> None:
    for name in SHORT_NAMES:
        assert scan_codes(key_called(name), True)


@pytest.mark.parametrize(
    ("keysym", "key"),
    [
        (ord("a"), "KeyA"),
        (ord("A"), "KeyA"),
        (ord("!"), "Digit1"),
        (ord("~"), "Backquote"),
        (0x20, "Space"),
        (0xFF0D, "Enter"),
        (0xFF52, "ArrowUp"),
        (0xFFBE, "F1"),
        (0xFFC9, "F12"),
        (0xFFB0, "Numpad0"),
        (0xFFB9, "Numpad9"),
        (0xFF9F, "NumpadDecimal"),
        (0xFFEA, "AltRight"),
        (0xFFBD, "Equal"),
        (0xFFFF, "Delete"),
        (0xE4, None),
        (0x1F, None),
        (0, None),
        (0xFFFF_FFFF, None),
    ],
)
def test_the_key_of_a_keysym(keysym: int, key: str | None) -> None:
    assert keysym_to_key(keysym) == key


def test_every_keysym_that_is_known_has_a_key() -> None:
    keys = {keysym_to_key(keysym) for keysym in range(0x1_0000)} - {None}
    assert {key_called(str(key)) for key in keys} == keys
    assert keys > set(MAKE_CODES) - {"IntlBackslash"}


def test_text_is_typed_as_the_guest_takes_it(bench: Bench) -> None:
    text = "Hello, World! (42)\n" * 20
    assert bench.keyboard.type_text(text) == len(text)
    keys = [event for character in text for event in keys_of(character)]
    expected = b"".join(to_set_1(scan_codes(key, down)) for key, down in keys)
    assert bench.read_all() == expected


def test_the_text_that_waits_is_bounded(bench: Bench) -> None:
    bench.command(0xAD)
    assert bench.keyboard.type_text("x" * 10_000) == 4096
    assert bench.keyboard.type_text("x" * 10_000) == 5  # as many are in the FIFO, three bytes each
    assert bench.keyboard.type_text("x") == 0


def test_replies_come_before_keys(bench: Bench) -> None:
    bench.command(0xAD)
    bench.keyboard.press("KeyA")
    bench.command(0x60, INT | DISABLED)
    bench.send(0xED)
    assert bench.read_all() == bytes((ACK, 0x1C))


def test_an_unknown_key_and_an_untypable_character_are_refused(bench: Bench) -> None:
    with pytest.raises(UsageError) as caught:
        bench.keyboard.press("A")
    assert str(caught.value) == (
        "no key is called 'A'; names are short ones, such as 'a', 'ret' or 'ctrl', "
        "or those of W3C UI Events, such as 'KeyA'"
    )
    with pytest.raises(UsageError) as caught:
        scan_codes("a", True)  # here only W3C names are known
    assert str(caught.value).startswith("no key is called 'a'; ")
    with pytest.raises(UsageError) as caught:
        bench.keyboard.type_text("aé")
    assert str(caught.value) == "the US keyboard layout cannot type 'é'"
    assert bench.read_all() == b""


def test_a_saved_key_that_does_not_exist_is_refused(bench: Bench) -> None:
    states = bench.rig.save()
    states["keyboard"]["waiting"] = b"KeyA -Key\xff"
    with pytest.raises(SnapshotError) as caught:
        Rig("i8042", states)
    assert str(caught.value) == (
        "ps2-keyboard: saved field 'waiting': no key is called 'Key\ufffd'; names are short ones, such as 'a', "
        "'ret' or 'ctrl', or those of W3C UI Events, such as 'KeyA'"
    )


def test_a_keyboard_works_without_a_controller() -> None:
    from emuvisor.devices.keyboard import Keyboard

    keyboard = Keyboard()
    keyboard.press("KeyA")
    assert [keyboard.has_data, keyboard.take(), keyboard.has_data] == [True, 0x1C, False]


def test_resetting_the_keyboard_drops_keys_and_text(bench: Bench) -> None:
    bench.command(0xAD)
    bench.keyboard.type_text("some text that is longer than the FIFO")
    bench.keyboard.reset()
    bench.command(0xAE)
    assert bench.read_all() == b""
