"""Keyboard, mouse and tablet: what they say they are, whole groups of events, lights."""

import struct

import pytest
from driver import RAM, RING_IDS, RINGS, Driver
from hypothesis import given, settings
from hypothesis import strategies as st
from soon import Soon

from emuvisor.devices.keymap import MAKE_CODES, SHORT_NAMES
from emuvisor.devices.virtio.evdev import KEYS
from emuvisor.devices.virtio.input import MAX_EVENTS, Input
from emuvisor.errors import UsageError

EVENTS, STATUS = 0, 1
SYN, KEY, REL, ABS, LED, REP = 0, 1, 2, 3, 0x11, 0x14
ID_NAME, ID_SERIAL, ID_DEVIDS, PROP_BITS, EV_BITS, ABS_INFO = 1, 2, 3, 0x10, 0x11, 0x12
END = (SYN, 0, 0)


class Rig:
    def __init__(self, kind, **driver):
        self.soon = Soon()
        self.input = Input(name=f"virtio-{kind}", kind=kind, call_soon=self.soon)
        self.driver = Driver(self.input, **driver)

    def ask(self, select, subsel=0):
        """The answer of the configuration space."""
        self.driver.write_config(0, bytes((select,)))
        self.driver.write_config(1, bytes((subsel,)))
        config = self.driver.config(0, 136)
        assert config[:2] == bytes((select, subsel))
        size = config[2]
        assert not any(config[8 + size :])
        return config[8 : 8 + size]

    def codes(self, select, subsel=0):
        bits = int.from_bytes(self.ask(select, subsel), "little")
        return {i for i in range(1024) if bits >> i & 1}

    def offer(self, count=64):
        for _ in range(min(count, len(self.driver.rings[EVENTS].free))):
            self.driver.add(EVENTS, b"", [8])
        self.driver.kick(EVENTS)

    def events(self):
        """What the guest has got."""
        self.soon.run()
        return [struct.unpack("<HHi", data) for _, data in self.driver.used(EVENTS)]


@pytest.fixture
def keyboard():
    rig = Rig("keyboard")
    rig.offer()
    return rig


# ---- what it is ----


@pytest.mark.parametrize(("kind", "product"), [("keyboard", 1), ("mouse", 2), ("tablet", 3)])
def test_identity(kind, product):
    rig = Rig(kind)
    assert rig.ask(ID_NAME) == f"emuvisor {kind}".encode()
    assert rig.ask(ID_SERIAL) == f"virtio-{kind}".encode()
    assert struct.unpack("<HHHH", rig.ask(ID_DEVIDS)) == (6, 0x1AF4, product, 1)
    assert rig.ask(0) == rig.ask(0x77) == rig.ask(ID_NAME, 1) == rig.ask(PROP_BITS, 1) == b""


def test_what_a_keyboard_can_do():
    rig = Rig("keyboard")
    assert rig.codes(EV_BITS, KEY) == set(KEYS.values())
    assert rig.codes(EV_BITS, LED) == {0, 1, 2}
    assert rig.codes(EV_BITS, REP) == {0, 1}
    assert rig.ask(EV_BITS, REL) == rig.ask(EV_BITS, SYN) == rig.ask(PROP_BITS) == rig.ask(ABS_INFO) == b""


def test_what_a_mouse_can_do():
    rig = Rig("mouse")
    assert rig.codes(EV_BITS, KEY) == {0x110, 0x111, 0x112, 0x113, 0x114}
    assert rig.codes(EV_BITS, REL) == {0, 1, 6, 8}
    assert rig.codes(PROP_BITS) == {0}
    assert rig.ask(EV_BITS, ABS) == b""


def test_what_a_tablet_can_do():
    rig = Rig("tablet")
    assert rig.codes(EV_BITS, ABS) == {0, 1}
    assert rig.codes(EV_BITS, REL) == {6, 8}
    assert struct.unpack("<IIIII", rig.ask(ABS_INFO, 1)) == (0, 0x7FFF, 0, 0, 0)
    assert rig.ask(ABS_INFO, 2) == b""


def test_only_the_question_can_be_written():
    rig = Rig("mouse")
    rig.driver.write_config(0, struct.pack("<I", 0xFFFF_FF00 | ID_NAME))
    assert rig.driver.config(0, 3) == bytes((ID_NAME, 0xFF, 0))
    rig.driver.write_config(2, b"\x55")
    assert rig.driver.config(0, 3) == bytes((ID_NAME, 0xFF, 0))


def test_every_key_has_a_code_of_its_own():
    assert set(KEYS) >= set(MAKE_CODES) | set(SHORT_NAMES.values())
    assert len(set(KEYS.values())) == len(KEYS)
    linux = {"Escape": 1, "KeyA": 30, "KeyM": 50, "F11": 87, "IntlBackslash": 86, "NumpadDivide": 98,
             "PrintScreen": 99, "ArrowUp": 103, "Delete": 111, "Pause": 119, "MetaLeft": 125, "ContextMenu": 127,
             "Space": 57, "F10": 68, "Numpad7": 71, "NumpadDecimal": 83, "AltRight": 100}  # fmt: skip
    assert {name: KEYS[name] for name in linux} == linux


def test_another_kind():
    message = r"^i: no input device is a 'joystick'; there are keyboard, mouse, tablet$"
    with pytest.raises(UsageError, match=message):
        Input(name="i", kind="joystick", call_soon=Soon())


# ---- events ----


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_keys(ring):
    rig = Rig("keyboard", **ring)
    rig.offer(16)
    rig.input.key("ctrl")
    rig.input.key("KeyC")
    rig.input.key("c", down=False)
    rig.input.key("ctrl", down=False)
    assert rig.events() == [(KEY, 29, 1), END, (KEY, 46, 1), END, (KEY, 46, 0), END, (KEY, 29, 0), END]
    assert rig.driver.interrupts


def test_a_key_is_pressed_and_released_once(keyboard):
    keyboard.input.key("a", down=False)
    keyboard.input.key("a")
    keyboard.input.key("a")
    assert keyboard.events() == [(KEY, 30, 1), END]


def test_a_mouse_moves():
    rig = Rig("mouse")
    rig.offer()
    rig.input.move(3, -4)
    rig.input.move(0, 1 << 20)
    rig.input.move(0, 0)
    rig.input.wheel(2, -1)
    rig.input.button(3)
    assert rig.events() == [
        *[(REL, 0, 3), (REL, 1, -4), END],
        *[(REL, 1, 0x7FFF), END],
        *[(REL, 8, -2), (REL, 6, -1), END],
        *[(KEY, 0x111, 1), END],
    ]


def test_a_tablet_points():
    rig = Rig("tablet")
    rig.offer()
    rig.input.position(0, 0x7FFF)
    rig.input.button(1)
    rig.input.wheel(-1)
    assert rig.events() == [(ABS, 0, 0), (ABS, 1, 0x7FFF), END, (KEY, 0x110, 1), END, (REL, 8, 1), END]


@pytest.mark.parametrize(
    ("kind", "act", "message"),
    [
        ("mouse", lambda i: i.key("a"), "a mouse cannot do that; a keyboard can"),
        ("keyboard", lambda i: i.button(1), "a keyboard cannot do that; a mouse or a tablet can"),
        ("tablet", lambda i: i.move(1, 1), "a tablet cannot do that; a mouse can"),
        ("mouse", lambda i: i.position(1, 1), "a mouse cannot do that; a tablet can"),
        ("mouse", lambda i: i.button(6), "no button 6; there are 1 to 5"),
        ("tablet", lambda i: i.position(0, 0x8000), r"\(0, 32768\) is not on the tablet; each is 0 to 32767"),
    ],
)
def test_what_a_kind_cannot_do(kind, act, message):
    with pytest.raises(UsageError, match=f"^virtio-{kind}: {message}$"):
        act(Rig(kind).input)


def test_an_unknown_key(keyboard):
    with pytest.raises(UsageError, match=r"^no key is called 'hyper'; names are .*$"):
        keyboard.input.key("hyper")
    assert keyboard.events() == []


def test_events_wait_for_buffers():
    rig = Rig("mouse")
    rig.offer(2)
    rig.input.move(1, 2)
    assert rig.events() == [(REL, 0, 1), (REL, 1, 2)]
    rig.offer(2)
    assert rig.events() == [END]


def test_without_a_driver_nothing_is_kept():
    rig = Rig("keyboard", setup=False)
    rig.input.key("a")
    rig.soon.run()
    rig.driver.setup()
    rig.offer()
    rig.input.key("a", down=False)
    assert rig.events() == []


def test_a_guest_that_does_not_listen_misses_whole_groups():
    rig = Rig("mouse")
    rig.input.button(1)
    rig.input.wheel(1)
    for step in range(1, MAX_EVENTS):
        rig.input.move(step, step)
    rig.input.button(2)  # there is no room: the guest never hears of it
    rig.input.button(2, down=False)
    rig.input.button(1, down=False)
    rig.soon.run()
    seen = []
    while True:
        rig.offer()
        if not (events := rig.events()):
            break
        seen += events
    assert len(seen) <= MAX_EVENTS + 2
    assert rig.input.dropped > 600
    assert seen[:4] == [(KEY, 0x110, 1), END, (REL, 8, -1), END]
    assert seen[-2:] == [(KEY, 0x110, 0), END], "what is down comes up"
    groups = [seen[i : i + 3] for i in range(4, len(seen) - 2, 3)]
    assert groups == [[(REL, 0, n), (REL, 1, n), END] for n in range(1, len(groups) + 1)]


def test_a_reset_forgets_what_was_pressed(keyboard):
    keyboard.input.key("shift")
    keyboard.events()
    keyboard.driver.setup()
    keyboard.offer()
    keyboard.input.key("shift", down=False)
    assert keyboard.events() == []
    assert keyboard.ask(0) == b""


# ---- lights ----


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_lights(ring):
    rig = Rig("keyboard", **ring)
    event = struct.Struct("<HHi").pack
    for data in (event(LED, 1, 1), event(LED, 0, 1), event(SYN, 0, 0), event(LED, 1, 1), event(LED, 0, 0)):
        assert rig.driver.request(STATUS, data) == b""
    for data in (event(LED, 9, 1), event(REP, 0, 250), b"short"):
        rig.driver.request(STATUS, data)
    assert rig.input.leds == {"CapsLock"}
    rig.driver.setup()
    assert rig.input.leds == set()


# ---- saved state ----


def test_a_restored_keyboard_goes_on():
    rig = Rig("keyboard")
    rig.ask(ID_NAME)
    rig.input.key("shift")
    rig.soon.run()
    rig.driver.request(STATUS, struct.pack("<HHi", LED, 2, 1))
    state = rig.input.save_device()
    twin = Rig("keyboard")
    twin.input.load_device(state)
    twin.input.key("shift", down=False)
    twin.offer()
    assert twin.events() == [(KEY, 42, 1), END, (KEY, 42, 0), END]
    assert twin.input.leds == {"ScrollLock"}
    assert twin.driver.config(0, 1) == bytes((ID_NAME,))
    state["events"] = b"half"
    twin.input.load_device(state)
    assert twin.events() == []


# ---- hostile drivers ----


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 1),
            st.binary(max_size=12),
            st.lists(
                st.tuples(st.integers(0, (1 << 64) - 1) | st.integers(0, RAM), st.integers(0, 1 << 20)),
                max_size=3,
            ),
            st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 130)),
        ),
        max_size=12,
    )
)
def test_any_requests(steps):
    rig = Rig("tablet")
    for queue, data, parts, (select, subsel, offset) in steps:
        if rig.driver.needs_reset:
            rig.driver.setup()
        if data or parts:
            rig.driver.add_parts(queue, [rig.driver.buffer(data)] if data else [], parts)
        rig.driver.kick(queue)
        rig.ask(select, subsel)
        rig.driver.write_config(offset, data[:4])
        rig.input.position(1, 2)
        rig.soon.run()
    rig.driver.setup()
    rig.offer()
    rig.input.button(1)
    assert rig.events() == [(KEY, 0x110, 1), END]
