"""Checkpoints of guests: going back in place, whatever became of the guest, and what is said where that cannot be."""

import re

import host_guests as guests
import pytest

from emuvisor.devices.storage.layered import LayeredDisk
from emuvisor.errors import HostError, SnapshotError, StateError
from emuvisor.host import GuestState, Host
from emuvisor.machine.config import DiskConfig
from emuvisor.machine.outcome import Ending
from emuvisor.units import MIB, PAGE_SIZE

PATIENCE_S = 60
ASK = """
mov dx, 0x3fd
w: in al, dx
test al, 1
jz w
mov dx, 0x3f8
in al, dx
mov byte ptr [0x7000], al
out dx, al
cmp al, 'o'
je off
cmp al, 'c'
je crash
cmp al, 'r'
je reset
mov dx, 0x3fd
jmp w
off: mov dx, 0x604
mov ax, 0x2000
out dx, ax
hlt
crash: lidt [0x9000]
int3
reset: mov al, 0xfe
out 0x64, al
hlt
"""
"""Print what is typed and note it at 7000h; 'o' powers off, 'c' crashes, 'r' resets."""


@pytest.fixture
def make(tmp_path):
    return guests.Maker(tmp_path)


@pytest.fixture(params=["host", "virtual"])
def host(request):
    with Host(16 * MIB, pcpus=2, slice_work=50_000, clock=request.param) as host:
        yield host
    assert host.pool.used == 0, "close gives everything back"


@pytest.fixture
def guest(host, make):
    guest = make(host, "g", guests.say("A", ASK))
    guest.start()
    assert guest.expect("A", PATIENCE_S)
    return guest


def refused(error, message):
    return pytest.raises(error, match=rf"^{re.escape(message)}$")


def noted(guest):
    return guest.memory.read(0x7000, 1)


def echo(guest, text):
    assert guest.expect(text, PATIENCE_S, send=text)


def test_back_and_forth(host, guest):
    with guest.checkpoint() as start:
        assert (start.guest, start.config) == ("g", guest.config)
        assert start.stop_ns > 0
        assert start.taken > 1.7e9
        for text in ("x", "yy", "x"):
            echo(guest, text)
            assert guest.reset_to(start) == 1
            assert guest.state is GuestState.RUNNING
            assert guest.console.text == "A"
            assert not guest.console.has_input
        guest.pause()
        assert noted(guest) == b"\0"
        assert guest.reset_to(start) == 0
    assert host.checkpoints == set()


def test_a_paused_guest_stays_paused(guest):
    guest.pause()
    start = guest.checkpoint()
    guest.resume()
    echo(guest, "x")
    guest.pause()
    guest.reset_to(start)
    assert (guest.state, guest.reason) == (GuestState.PAUSED, "paused")
    assert noted(guest) == b"\0"
    guest.resume()
    echo(guest, "y")


@pytest.mark.parametrize(
    ("key", "state", "ending"),
    [("o", GuestState.DEFINED, Ending.POWER_OFF), ("c", GuestState.CRASHED, Ending.SHUTDOWN)],
)
def test_back_from_the_end(guest, key, state, ending):
    start = guest.checkpoint()
    for _ in range(3):
        guest.type(key)
        assert guest.wait(PATIENCE_S)
        assert (guest.state, guest.outcome.ending) == (state, ending)
        guest.reset_to(start)
        assert (guest.state, guest.outcome) == (GuestState.RUNNING, None)
        assert guest.reason == "back at a checkpoint"
        echo(guest, "x")


def test_back_from_switched_off_and_from_the_reset_button(guest):
    start = guest.checkpoint()
    guest.stop()
    guest.reset_to(start)
    echo(guest, "x")
    guest.reset()
    assert guest.expect("A", PATIENCE_S)
    guest.reset_to(start)
    echo(guest, "y")
    guest.type("r")
    assert guest.expect("A", PATIENCE_S)
    assert guest.machine.resets == 1
    guest.reset_to(start)
    assert guest.machine.resets == 0
    assert guest.console.text == "A"


def test_a_text_ends_the_run_and_each_run_after_it(host, make):
    guest = make(host, "g", guests.say("A", ASK), until="xy")
    guest.start()
    assert guest.expect("A", PATIENCE_S)
    echo(guest, "x")
    start = guest.checkpoint()
    for _ in range(2):
        guest.type("y")
        assert guest.wait(PATIENCE_S)
        assert (guest.state, guest.outcome.ending) == (GuestState.PAUSED, Ending.UNTIL)
        there = guest.checkpoint()
        guest.reset_to(start)
        assert guest.state is GuestState.RUNNING
    guest.reset_to(there)
    assert guest.console.text == "Axy", "the text is there, but the run goes on"
    echo(guest, "xy")
    assert guest.state is GuestState.RUNNING


def test_what_expect_has_found_is_to_be_found_again(guest):
    echo(guest, "pqs")
    guest.pause()
    guest.console.searched = 2
    start = guest.checkpoint()
    for _ in range(2):
        assert guest.expect("qs", 0)
        assert not guest.expect("qs", 0)
        guest.reset_to(start)


def test_input_that_waited_waits_again(guest):
    guest.pause()
    guest.type("pq")
    start = guest.checkpoint()
    for _ in range(2):
        guest.resume()
        assert guest.expect("pq", PATIENCE_S)
        guest.pause()
        guest.reset_to(start)
        assert guest.console.has_input


def test_a_checkpoint_keeps_its_own_pages(host, guest):
    echo(guest, "w")
    start = guest.checkpoint()
    echo(guest, "x")
    guest.pause()
    assert host.memory.statistics().checkpoints == PAGE_SIZE
    used = host.pool.used
    assert start.close() == 1
    assert host.pool.used == used - 1
    assert (start.close(), start.closed) == (0, True)
    with refused(SnapshotError, "the checkpoint of guest 'g' is closed"):
        guest.reset_to(start)
    assert noted(guest) == b"x"


def test_a_checkpoint_outlives_its_guest(host, guest, make):
    start = guest.checkpoint()
    guest.delete()
    assert host.pool.used > 0
    with refused(StateError, "guest 'g' is gone; reset_to needs it defined or running or paused or crashed"):
        guest.reset_to(start)
    other = make(host, "other", guests.SPIN)
    other.reset_to(start)
    echo(other, "x")


def test_states_in_which_there_is_nothing_to_keep(host, make):
    guest = make(host, "g", guests.HALT)
    with refused(StateError, "guest 'g' is defined; checkpoint needs it running or paused"):
        guest.checkpoint()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"memory": 2 * MIB}, "memory = 2097152, the checkpoint of guest 'g' 1048576"),
        ({"serial_ports": 2}, "serial_ports = 2, the checkpoint of guest 'g' 1"),
    ],
)
def test_a_guest_that_is_built_otherwise(host, guest, make, fields, text):
    start = guest.checkpoint()
    other = make(host, "other", guests.say("B", ASK), **fields)
    other.start()
    assert other.expect("B", PATIENCE_S)
    with refused(SnapshotError, f"guest 'other' has {text}"):
        other.reset_to(start)
    echo(other, "x")


@pytest.fixture
def disks(tmp_path):
    (tmp_path / "disk.img").write_bytes(b"first".ljust(MIB, b"\0"))
    return (DiskConfig(tmp_path / "disk.img", overlay="temporary"),)


def test_disks_go_back(host, make, disks):
    guest = make(host, "g", guests.say("A", ASK), disks=disks)
    guest.start()
    assert guest.expect("A", PATIENCE_S)
    guest.pause()
    image = guest.machine.drives[0].image
    assert isinstance(image, LayeredDisk)
    start = guest.checkpoint()
    for _ in range(2):
        image.write(0, b"second".ljust(512, b"\0"))
        assert image.read(0, 1).startswith(b"second")
        guest.reset_to(start)
        assert image.read(0, 1).startswith(b"first")


def test_disks_of_another_guest(host, make, disks):
    guest, other = (make(host, name, guests.say("A", ASK), disks=disks) for name in ("g", "other"))
    guest.start()
    other.start()
    start = guest.checkpoint()
    text = (
        f"guest 'other': its disk {disks[0].path} was never what it is in the checkpoint of guest 'g'; "
        "make a clone of that"
    )
    with refused(SnapshotError, text):
        other.reset_to(start)
    assert other.state is GuestState.RUNNING


def test_a_disk_that_fails(host, make, disks, monkeypatch):
    guest = make(host, "g", guests.say("A", ASK), disks=disks)
    guest.start()
    start = guest.checkpoint()

    def fail(_disk, _frozen):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(LayeredDisk, "go_back", fail)
        with refused(HostError, f"guest 'g': disk {disks[0].path}: Input/output error"):
            guest.reset_to(start)
    assert (guest.state, guest.reason) == (
        GuestState.CRASHED,
        f"it could not go back to a checkpoint: guest 'g': disk {disks[0].path}: Input/output error",
    )
    guest.reset_to(start)
    assert guest.state is GuestState.RUNNING


def test_a_checkpoint_that_fails_keeps_nothing(host, make, disks, monkeypatch):
    guest = make(host, "g", guests.say("A", ASK), disks=disks)
    guest.start()
    assert guest.expect("A", PATIENCE_S)
    monkeypatch.setattr(type(guest.memory), "clone", lambda _memory: 1 // 0)
    closed = []
    freeze = LayeredDisk.freeze

    def watched(disk):
        frozen = freeze(disk)
        monkeypatch.setattr(type(frozen), "close", lambda _frozen: closed.append(1))
        return frozen

    monkeypatch.setattr(LayeredDisk, "freeze", watched)
    with pytest.raises(ZeroDivisionError):
        guest.checkpoint()
    assert (closed, host.checkpoints) == ([1], set())
    echo(guest, "x")


def test_a_host_without_frames(make):
    with Host(64 * PAGE_SIZE) as host:
        guest = make(host, "g", guests.say("A", "l: " + guests.TOUCH + ";jmp l"), memory=MIB)
        guest.start()
        assert guest.wait(PATIENCE_S), "it starves"
        assert guest.out_of_memory
        start = guest.checkpoint()
        guest.reset_to(start)
        assert guest.state is GuestState.PAUSED
        start.close()
        guest.delete()
        assert host.pool.used == 0
