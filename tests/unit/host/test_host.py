"""Guests' lives on a host: what people may ask for, and what one guest cannot do to the others."""

import re

import host_guests as guests
import numpy as np
import pytest

from emuvisor.errors import OutOfFrames, StateError, UsageError
from emuvisor.host import GuestState, Host
from emuvisor.machine.console import HISTORY
from emuvisor.machine.outcome import Ending
from emuvisor.units import KIB, MIB

PATIENCE_S = 120


@pytest.fixture
def make(tmp_path):
    return guests.Maker(tmp_path)


@pytest.fixture(
    params=[(1, "host"), (2, "host"), (2, "virtual")],
    ids=["one pCPU", "two pCPUs", "two pCPUs, virtual clock"],
)
def host(request):
    pcpus, clock = request.param
    with Host(16 * MIB, pcpus=pcpus, slice_work=50_000, clock=clock) as host:
        yield host
    assert host.pool.used == 0, "close gives everything back"


def refused(message):
    return pytest.raises(StateError, match=f"^{re.escape(message)}$")


# ---- life ----


def test_a_guest_that_powers_off(host, make):
    guest = make(host, "g", guests.say("bye", guests.POWER_OFF))
    assert (guest.state, guest.reason) == (GuestState.DEFINED, "")
    guest.start()
    assert guest.wait(PATIENCE_S)
    assert (guest.state, guest.outcome.ending, guest.reason) == (
        GuestState.DEFINED,
        Ending.POWER_OFF,
        "power-off",
    )
    assert guest.console.text == "bye"
    assert not guest.outcome.crashed
    guest.start()
    assert guest.wait(PATIENCE_S)
    assert guest.console.text == "byebye"


def test_a_guest_that_halts_for_good(host, make):
    guest = make(host, "g", guests.HALT)
    guest.start()
    assert guest.wait(PATIENCE_S)
    assert (guest.state, str(guest.outcome)) == (GuestState.DEFINED, "halted: HLT with interrupts disabled")


def test_pause_and_resume(host, make):
    guest = make(host, "g", guests.say("A", guests.COUNT))
    guest.start()
    assert guest.expect("A", PATIENCE_S)
    guest.pause()
    assert (guest.state, guest.reason) == (GuestState.PAUSED, "paused")
    work, count = guest.machine.vcpu.work, guest.machine.memory.read(0x7004, 4)
    assert (guest.machine.vcpu.work, guest.machine.memory.read(0x7004, 4)) == (work, count)
    guest.resume()
    assert guest.state is GuestState.RUNNING
    guest.pause()
    guest.resume()
    guest.stop()
    assert (guest.state, guest.reason) == (GuestState.DEFINED, "stopped")
    assert guest.machine.vcpu.work >= work


def test_pausing_an_idle_guest(host, make):
    guest = make(host, "g", guests.say("A", guests.IDLE))
    guest.start()
    assert guest.expect("A", PATIENCE_S)
    for _ in range(3):
        guest.pause()
        guest.resume()
    guest.stop()
    assert guest.state is GuestState.DEFINED


def test_stop_gives_memory_back(host, make):
    guest = make(host, "g", guests.TOUCH + ";" + guests.say("A"))
    guest.start()
    assert guest.expect("A", PATIENCE_S)
    assert host.pool.used > 100
    guest.stop()
    assert host.pool.used == 0


def test_reset_boots_again(host, make):
    guest = make(host, "g", guests.say("A", guests.SPIN))
    guest.start()
    for turn in range(1, 4):
        assert guest.expect("A", PATIENCE_S), turn
        guest.reset()
    guest.pause()
    guest.reset()
    assert guest.state is GuestState.PAUSED
    assert guest.machine.resets == 4
    assert guest.machine.vcpu.state.rip == 0
    guest.resume()
    assert guest.expect("A", PATIENCE_S)


def test_delete(host, make):
    guest = make(host, "g", guests.TOUCH + ";" + guests.say("A"))
    guest.start()
    assert guest.expect("A", PATIENCE_S)
    used = host.pool.used
    assert guest.delete() == used > 100
    assert (guest.state, host.guests, host.pool.used) == (GuestState.GONE, {}, 0)
    assert guest.delete() == 0
    make(host, "g", guests.SPIN).start()


def test_events(host, make):
    heard = []
    host.listeners.append(heard.append)
    guest = make(host, "g", guests.say("bye", guests.POWER_OFF))
    guest.start()
    guest.wait(PATIENCE_S)
    guest.delete()
    life = [(event.guest, event.old, event.new, event.reason) for event in heard]
    assert life == [
        ("g", "defined", "running", "started"),
        ("g", "running", "defined", "power-off"),
        ("g", "defined", "gone", "deleted"),
    ]
    assert list(host.events) == heard


def test_wrong_states(host, make):
    guest = make(host, "g", guests.SPIN)
    with refused("guest 'g' is defined; pause needs it running"):
        guest.pause()
    with refused("guest 'g' is defined; resume needs it paused"):
        guest.resume()
    with refused("guest 'g' is defined; stop needs it running or paused"):
        guest.stop()
    with refused("guest 'g' is defined; reset needs it running or paused"):
        guest.reset()
    guest.start()
    with refused("guest 'g' is running; start needs it defined or crashed"):
        guest.start()
    with refused("guest 'g' is running; resume needs it paused"):
        guest.resume()
    guest.pause()
    with refused("guest 'g' is paused; pause needs it running"):
        guest.pause()
    with refused("guest 'g' is paused; start needs it defined or crashed"):
        guest.start()
    guest.delete()
    with refused("guest 'g' is gone; start needs it defined or crashed"):
        guest.start()


def test_impossible_hosts_and_names(make):
    for pcpus in (0, 33, -1):
        with pytest.raises(UsageError, match=f"^a host has 1 to 32 pCPUs, not {pcpus}$"):
            Host(MIB, pcpus=pcpus)
    with pytest.raises(UsageError, match=r"^a slice of 0 bytes of code is none$"):
        Host(MIB, slice_work=0)
    with Host(MIB) as host:
        make(host, "g", guests.SPIN)
        with pytest.raises(UsageError, match=r"^there is a guest 'g' already$"):
            make(host, "g", guests.SPIN)


def test_close_ends_guests_in_every_state(make):
    with Host(16 * MIB, pcpus=2) as host:
        running, paused, idle, defined = (
            make(host, name, source)
            for name, source in [
                ("r", guests.SPIN),
                ("p", guests.SPIN),
                ("i", guests.IDLE),
                ("d", guests.SPIN),
            ]
        )
        for guest in (running, paused, idle):
            guest.start()
        paused.pause()
    assert {guest.state for guest in (running, paused, idle, defined)} == {GuestState.GONE}
    assert host.pool.used == 0


def test_an_image_that_does_not_fit_the_pool(make):
    with Host(4 * 4 * KIB) as host:
        guest = make(host, "g", "nop\n" * 20_000)
        with pytest.raises(OutOfFrames):
            guest.start()
        assert guest.state is GuestState.DEFINED
        assert host.pool.used == 0, "what was loaded already is given back"


def test_waiting_in_vain(host, make):
    guest = make(host, "g", guests.SPIN)
    guest.start()
    assert not guest.wait(0.01)
    assert not guest.expect("never", 0.01)


# ---- the console ----


def test_typing(host, make):
    guest = make(host, "g", guests.ECHO)
    guest.start()
    assert guest.expect("hello, world", PATIENCE_S, send="hello, world")
    assert guest.expect("x" * 300, PATIENCE_S, send="x" * 300), "more than a FIFO holds"


def test_a_text_that_is_half_there_when_somebody_expects_it(host, make, monkeypatch):
    guest = make(host, "g", guests.SPIN)
    guest.start()
    guest.console.write(b"hello, wo")
    find = guest.console.find

    def find_and_print(pattern, start):
        found = find(pattern, start)
        guest.console.write(b"rld, hello")
        return found

    with monkeypatch.context() as printing:
        printing.setattr(guest.console, "find", find_and_print)
        assert guest.expect("world", PATIENCE_S)
    assert guest.expect("hello", PATIENCE_S), "it came with the other"
    assert not guest.expect("hello", 0)


def test_a_flood_is_bounded(host, make):
    flood = make(host, "flood", guests.FLOOD)
    quiet = make(host, "quiet", guests.ECHO)
    flood.start()
    quiet.start()
    while flood.machine.console.written < 3 * HISTORY:
        assert quiet.expect("ping", PATIENCE_S, send="ping"), "the other guest is served"
        # let a lot of it come at once
        for _ in range(200):
            flood.machine.console.write(b"x" * KIB)
    assert len(flood.console.text) <= HISTORY
    assert len(flood.machine.console._history) <= 2 * HISTORY + KIB
    assert len(flood.statistics().last_line) <= 2000


# ---- nobody harms the others ----


def lives(neighbour):
    return neighbour.expect("ping", PATIENCE_S, send="ping")


@pytest.fixture
def neighbour(host, make):
    guest = make(host, "neighbour", guests.ECHO)
    guest.start()
    return guest


def test_a_triple_fault(host, make, neighbour):
    guest = make(host, "g", guests.CRASH)
    guest.start()
    assert guest.wait(PATIENCE_S)
    assert (guest.state, guest.outcome.ending, guest.outcome.crashed) == (
        GuestState.CRASHED,
        Ending.SHUTDOWN,
        True,
    )
    assert re.fullmatch(r"triple-fault: at RIP 0x[0-9a-f]+", guest.reason)
    assert lives(neighbour)
    guest.start()
    assert guest.wait(PATIENCE_S)
    assert guest.state is GuestState.CRASHED


class Broken:
    name = "broken"

    def read(self, offset, size):
        raise ZeroDivisionError("of the device")

    def write(self, offset, value, size):
        pass

    def reset(self):
        pass


def test_a_device_that_raises_costs_its_own_guest(host, make, neighbour):
    guest = make(host, "g", guests.BROKEN)
    guest.machine.board.ports.attach(0x300, 1, Broken())
    guest.start()
    assert guest.wait(PATIENCE_S)
    assert guest.state is GuestState.CRASHED
    assert guest.reason == "engine-error: ZeroDivisionError: of the device"
    assert lives(neighbour)


@pytest.mark.parametrize("pcpus", [1, 2])
def test_spinning_guests_share_the_pcpus(make, pcpus):
    # Exactly: tests/guest/test_cpu_shares.py.
    with Host(16 * MIB, pcpus=pcpus, slice_work=2_000_000) as host:
        neighbour = make(host, "neighbour", guests.ECHO)
        neighbour.start()
        spinners = [make(host, f"s{i}", guests.SPIN) for i in range(5)]
        for spinner in spinners:
            spinner.start()
        assert lives(neighbour)
        before = [spinner.cpu_ns for spinner in spinners]  # from here on all of them run
        ran = [0] * len(spinners)
        while min(ran) < 50_000_000:
            assert lives(neighbour)
            ran = [spinner.cpu_ns - start for spinner, start in zip(spinners, before, strict=True)]
            assert max(ran) < 100 * 50_000_000, "somebody gets nothing"


def test_a_guest_that_rewrites_its_own_code_does_not_hold_a_pcpu(make):
    """Each turn of its loop costs two translations, a thousand times the time of other code."""
    with Host(16 * MIB, slice_work=50_000_000) as host:
        neighbour = make(host, "neighbour", guests.ECHO)
        neighbour.start()
        guest = make(host, "g", guests.REWRITE)
        guest.start()
        for _ in range(3):
            assert lives(neighbour)
        guest.pause()
        assert guest.state is GuestState.PAUSED


def test_starvation_pauses_one_guest_and_the_others_go_on(make):
    with Host(150 * 4 * KIB, slice_work=50_000) as host:
        neighbour = make(host, "neighbour", guests.ECHO)
        neighbour.start()
        assert lives(neighbour)
        hoard = [host.pool.take() for _ in range(100)]
        guest = make(host, "g", guests.TOUCH + ";" + guests.say("done", guests.POWER_OFF))
        guest.start()
        assert guest.wait(PATIENCE_S)
        assert guest.state is GuestState.PAUSED
        assert guest.reason == (
            "no memory: 0 of the host's 150 frames are available, 0 more can be gained, and 1 are needed at once"
        )
        assert lives(neighbour)
        guest.resume()  # still nothing
        assert guest.wait(PATIENCE_S)
        assert guest.state is GuestState.PAUSED
        neighbour.delete()
        host.pool.release(np.array(hoard, np.uint32))
        with Host(MIB) as roomy:
            needed = make(roomy, "g", guests.TOUCH + ";" + guests.say("done", guests.POWER_OFF))
            needed.start()
            assert needed.wait(PATIENCE_S)
            assert needed.statistics().resident > 60, "or the test shows nothing"
        with host.lock:  # resumed when there is memory
            assert host.changed.wait_for(lambda: guest.state is GuestState.DEFINED, PATIENCE_S)
        assert guest.console.text == "done"


def test_statistics(host, make):
    guest = make(host, "g", guests.say("line one\nline two", guests.POWER_OFF))
    guest.start()
    guest.wait(PATIENCE_S)
    numbers = guest.statistics()
    assert (numbers.name, numbers.state, numbers.reason) == ("g", "defined", "power-off")
    assert numbers.exits["port_write"] == 18
    assert (numbers.console_bytes, numbers.last_line) == (17, "line two")
    assert numbers.retired > 17 * 3
    assert numbers.slices >= 1
    assert numbers.cpu_ns > 0
    assert numbers.resident >= 1
    assert numbers.as_dict()["frames"]["resident"] == numbers.resident
