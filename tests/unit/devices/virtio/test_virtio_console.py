"""The console: ports that open and close on both sides, input that waits, messages that stay bounded."""

import struct

import pytest
from driver import RAM, RING_IDS, RINGS, Driver
from hypothesis import given, settings
from hypothesis import strategies as st
from soon import Soon

from emuvisor.devices.virtio.console import BACKLOG, MAX_OUTPUT, MAX_PORTS, Console, ConsolePort
from emuvisor.errors import SnapshotError, UsageError

RX0, TX0, CONTROL_RX, CONTROL_TX, RX1, TX1 = range(6)
DEVICE_READY, PORT_ADD, _, PORT_READY, CONSOLE_PORT, RESIZE, PORT_OPEN, PORT_NAME = range(8)
F_SIZE, F_MULTIPORT, F_EMERG_WRITE = 1, 2, 4


class Rig:
    """A console of a terminal and a pipe, its driver, and what each port printed."""

    def __init__(self, ports=(("tty", True), ("pipe", False)), **driver):
        self.soon = Soon()
        self.printed = [[] for _ in ports]
        self.ports = [
            ConsolePort(name, sink.append, console)
            for (name, console), sink in zip(ports, self.printed, strict=True)
        ]
        self.console = Console(name="console", ports=self.ports, call_soon=self.soon)
        self.driver = Driver(self.console, **driver)

    def output(self, number):
        return b"".join(self.printed[number])

    def say(self, number, event, value=1):
        self.driver.request(CONTROL_TX, struct.pack("<IHH", number, event, value))

    def hear(self):
        """What the device has to say, as far as sixteen buffers go."""
        for _ in range(16):
            self.driver.add(CONTROL_RX, b"", [128])
        self.driver.kick(CONTROL_RX)
        heard = []
        for _, data in self.driver.used(CONTROL_RX):
            number, event, value = struct.unpack("<IHH", data[:8])
            heard.append((number, event, value, data[8:]) if data[8:] else (number, event, value))
        return heard

    def ready(self):
        self.say(0, DEVICE_READY)
        for number in range(len(self.ports)):
            self.say(number, PORT_READY)
            self.say(number, PORT_OPEN)
        self.hear()


# ---- configuration ----


def test_configuration():
    rig = Rig()
    assert struct.unpack("<HHII", rig.driver.config(0, 12)) == (0, 0, 2, 0)
    assert len(rig.console.queue_sizes) == 6


def test_emergency_writes_need_no_driver():
    rig = Rig(setup=False)
    for byte in b"Oops":
        rig.driver.write_config(8, struct.pack("<I", 0xABCD_EF00 | byte))
    rig.driver.write_config(0, b"\xff\xff")
    rig.driver.write_config(9, b"x")
    assert rig.output(0) == b"Oops"
    assert rig.console.columns == 0


@pytest.mark.parametrize("name", ["", "x" * 65, "é" * 33])
def test_names_have_a_length(name):
    with pytest.raises(UsageError, match=f"^console port {name!r}: a name has 1 to 64 bytes$"):
        ConsolePort(name, print)


def test_ports_have_a_number():
    for count in (0, MAX_PORTS + 1):
        ports = [ConsolePort(f"p{i}", print) for i in range(count)]
        with pytest.raises(UsageError, match=f"^c: {count} ports; a console has 1 to 31$"):
            Console(name="c", ports=ports, call_soon=Soon())
    with pytest.raises(UsageError, match=r"^c: two ports are called 'a'$"):
        Console(name="c", ports=[ConsolePort("a", print)] * 2, call_soon=Soon())
    most = [ConsolePort(f"p{i}", print) for i in range(MAX_PORTS)]
    assert len(Console(name="c", ports=most, call_soon=Soon()).queue_sizes) == 64


# ---- introduction ----


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_ports_introduce_themselves(ring):
    rig = Rig(**ring)
    assert rig.hear() == [], "nothing before the driver is ready"
    rig.say(0, DEVICE_READY)
    assert rig.hear() == [(0, PORT_ADD, 0), (1, PORT_ADD, 0)]
    rig.say(0, PORT_READY)
    rig.say(1, PORT_READY)
    assert rig.hear() == [
        (0, CONSOLE_PORT, 1),
        (0, PORT_NAME, 1, b"tty"),
        (0, PORT_OPEN, 1),
        (1, PORT_NAME, 1, b"pipe"),
        (1, PORT_OPEN, 1),
    ]


def test_a_driver_that_fails_is_told_nothing():
    rig = Rig()
    rig.say(0, DEVICE_READY, 0)
    rig.say(0, PORT_READY, 0)
    rig.say(7, PORT_READY)
    rig.say(7, PORT_OPEN)
    rig.say(1, 99)
    rig.driver.request(CONTROL_TX, b"short")
    assert rig.hear() == []
    assert not any(port.guest_connected for port in rig.ports)


def test_messages_are_coalesced():
    rig = Rig()
    for _ in range(100):
        rig.say(0, DEVICE_READY)
        rig.say(1, PORT_READY)
    assert rig.hear() == [(0, PORT_ADD, 0), (1, PORT_ADD, 0), (1, PORT_NAME, 1, b"pipe"), (1, PORT_OPEN, 1)]


# ---- opening and closing ----


def test_the_host_sees_the_guest_open_and_close():
    rig = Rig()
    seen = []
    rig.ports[1].on_guest_connected = seen.append
    rig.say(1, PORT_OPEN, 1)
    rig.say(1, PORT_OPEN, 1)
    assert rig.ports[1].guest_connected
    rig.say(1, PORT_OPEN, 0)
    assert not rig.ports[1].guest_connected
    rig.say(1, PORT_OPEN, 1)
    rig.driver.setup()
    assert seen == [True, False, True, False], "a reset closes it, too"


def test_the_guest_sees_the_host_open_and_close():
    rig = Rig()
    rig.ports[1].connect(False)
    rig.soon.run()
    rig.say(0, DEVICE_READY)
    rig.say(1, PORT_READY)
    assert (1, PORT_OPEN, 1) not in rig.hear()
    rig.ports[1].connect()
    rig.ports[1].connect(False)
    rig.ports[1].connect()
    rig.soon.run()
    assert set(rig.hear()) == {(1, PORT_OPEN, 1)}, "as it is when the guest looks"


def test_a_port_without_a_console_goes_nowhere():
    port = ConsolePort("alone", print)
    port.connect(False)
    assert port.feed(b"x") == 1
    assert not port.host_connected


# ---- output ----


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_output(ring):
    rig = Rig(**ring)
    assert rig.driver.request(TX0, [b"Hello, ", b"terminal"]) == b""
    rig.driver.request(TX1, b"\0\xff" * 50_000)
    assert rig.output(0) == b"Hello, terminal"
    assert rig.output(1) == b"\0\xff" * 50_000
    assert max(map(len, rig.printed[1])) <= 64 * 1024


def test_one_request_prints_so_much():
    rig = Rig()
    rig.driver.add_parts(TX0, [(0, 8 << 20)], [])
    rig.driver.kick(TX0)
    assert len(rig.output(0)) == MAX_OUTPUT


# ---- input ----


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_input_waits_for_buffers(ring):
    rig = Rig(**ring)
    rig.ready()
    assert rig.ports[1].feed(b"abcdef") == 6
    assert rig.soon.run() == 1
    token = rig.driver.add(RX1, b"", [4])
    rig.driver.kick(RX1)
    assert rig.driver.used(RX1) == [(token, b"abcd")]
    more = [rig.driver.add(RX1, b"", [2, 3]) for _ in range(2)]
    rig.driver.kick(RX1)
    assert rig.driver.used(RX1) == [(more[0], b"ef")]
    rig.ports[1].feed(b"gh")
    rig.soon.run()
    assert rig.driver.used(RX1) == [(more[1], b"gh")]
    assert rig.driver.interrupts


def test_input_waits_for_the_port_to_be_opened():
    rig = Rig()
    rig.say(0, DEVICE_READY)
    token = rig.driver.add(RX1, b"", [16])
    rig.driver.kick(RX1)
    rig.ports[1].feed(b"early")
    rig.soon.run()
    assert rig.driver.used(RX1) == []
    rig.say(1, PORT_OPEN)
    assert rig.driver.used(RX1) == [(token, b"early")]


def test_a_driver_without_ports_has_the_first_one_open():
    rig = Rig(features=F_SIZE)
    rig.driver.add(RX0, b"", [16])
    rig.driver.kick(RX0)
    rig.ports[0].feed(b"typed")
    rig.soon.run()
    assert [data for _, data in rig.driver.used(RX0)] == [b"typed"]
    rig.say(0, DEVICE_READY)
    assert rig.hear() == []


def test_what_a_port_cannot_take_stays_with_who_feeds_it():
    rig = Rig()
    room = []
    rig.ports[0].on_room = lambda: room.append(True)
    assert rig.ports[0].feed(b"x" * (BACKLOG - 1)) == BACKLOG - 1
    assert rig.ports[0].feed(b"yz") == 1
    assert rig.ports[0].feed(b"z") == 0
    rig.ready()
    rig.driver.add(RX0, b"", [BACKLOG - 1])
    rig.driver.kick(RX0)
    assert not room
    rig.driver.add(RX0, b"", [10])
    rig.driver.kick(RX0)
    assert [len(data) for _, data in rig.driver.used(RX0)] == [BACKLOG - 1, 1]
    assert room == [True]
    assert rig.ports[0].feed(b"z") == 1


def test_input_survives_a_reset():
    rig = Rig()
    rig.ports[0].feed(b"typed early")
    rig.soon.run()
    rig.driver.setup()
    rig.ready()
    rig.driver.add(RX0, b"", [32])
    rig.driver.kick(RX0)
    assert [data for _, data in rig.driver.used(RX0)] == [b"typed early"]


# ---- size ----


def test_a_resize_is_told_to_terminals():
    rig = Rig()
    rig.ready()
    before = rig.driver.interrupts
    rig.console.resize(132, 43)
    assert rig.console.columns == 0, "not before the guest's turn"
    rig.soon.run()
    assert struct.unpack("<HH", rig.driver.config(0, 4)) == (132, 43)
    assert rig.driver.interrupts == before + 1
    assert rig.hear() == [(0, RESIZE, 0, struct.pack("<HH", 132, 43))]
    rig.driver.setup()
    rig.say(0, PORT_READY)
    assert (0, RESIZE, 0, struct.pack("<HH", 132, 43)) in rig.hear(), "the next driver hears it, too"
    with pytest.raises(UsageError, match=r"^console: a size of 65536 x 1; each has 16 bits$"):
        rig.console.resize(65536, 1)


# ---- saved state ----


def test_a_restored_console_goes_on():
    rig = Rig()
    rig.ready()
    rig.ports[1].feed(b"waiting")
    rig.soon.run()
    rig.ports[1].connect(False)
    rig.console.resize(100, 30)
    rig.soon.run()
    rig.driver.add(RX1, b"", [16])  # not told to the device yet
    for _ in range(8):
        rig.driver.used(CONTROL_RX)
    state = rig.console.save()
    twin = Rig(setup=False)
    twin.driver.memory.write(0, rig.driver.memory.read(0, RAM))
    twin.console.load(state)
    twin.driver.rings = rig.driver.rings
    assert twin.driver.run_timers() == 1
    assert [data for _, data in twin.driver.used(RX1)] == [b"waiting"]
    assert (twin.console.columns, twin.console.rows) == (100, 30)
    assert twin.ports[1].guest_connected
    assert not twin.ports[1].host_connected
    assert twin.ports[1].added


def test_messages_that_wait_are_saved():
    rig = Rig()
    rig.say(0, DEVICE_READY)
    rig.say(1, PORT_READY)
    twin = Rig()
    twin.console.load_device(rig.console.save_device())
    assert twin.hear() == rig.hear() != []
    state = rig.console.save_device()
    state["messages"] = b"\x03\0abc\x08"
    twin.console.load_device(state)
    assert twin.hear() == []


def test_a_state_of_fewer_ports():
    rig, twin = Rig(ports=(("one", False),)), Rig()
    with pytest.raises(
        SnapshotError, match=r"^virtio-console: saved field 'port 1' is None; expected a saved state$"
    ):
        twin.console.load_device(rig.console.save_device())


# ---- hostile drivers ----


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 5),
            st.binary(max_size=12)
            | st.builds(struct.Struct("<IHH").pack, st.integers(0, 3), st.integers(0, 8), st.integers(0, 1)),
            st.lists(
                st.tuples(st.integers(0, (1 << 64) - 1) | st.integers(0, RAM), st.integers(0, 1 << 20)),
                max_size=3,
            ),
        ),
        max_size=12,
    )
)
def test_any_requests(steps):
    rig = Rig()
    for queue, data, parts in steps:
        if rig.driver.needs_reset:
            rig.driver.setup()
        if data or parts:
            rig.driver.add_parts(queue, [rig.driver.buffer(data)] if data else [], parts)
        rig.driver.kick(queue)
        rig.ports[0].feed(b"input")
        rig.soon.run()
    assert len(rig.console.messages) <= 2 * 8 * 128
    rig.driver.setup()
    before = len(rig.output(0))
    assert rig.driver.request(TX0, b"still there") == b""
    assert rig.output(0)[before:] == b"still there"
