"""What happens to a guest, as QMP's events say it."""

import pytest
from qmp_rig import PANIC, RESET, TRIPLE_FAULT, Rig

from emuvisor.host import GuestState
from emuvisor.qmp.events import GuestEvents
from emuvisor.units import MIB

PC = {"board": "pc", "memory": 16 * MIB}


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emuvisor.qmp.server.POLL_S", 0.005)


def test_a_kernel_that_panics(rig: Rig) -> None:
    guest = rig.guest(PANIC, start=False, **PC)
    client = rig.client(guest)
    guest.start()
    assert client.await_event("GUEST_PANICKED") == {"action": "pause"}
    client.await_event("STOP")


def test_a_triple_fault(rig: Rig) -> None:
    guest = rig.guest(TRIPLE_FAULT, start=False, **PC)
    client = rig.client(guest)
    guest.start()
    assert client.await_event("SHUTDOWN") == {"guest": True, "reason": "guest-reset"}
    client.await_event("STOP")


def test_a_guest_that_resets_itself(rig: Rig) -> None:
    guest = rig.guest(RESET)
    client = rig.client(guest)
    assert client.await_event("RESET") == {"guest": True, "reason": "guest-reset"}


def test_a_reset_by_others_than_clients(rig: Rig) -> None:
    guest = rig.guest()
    client = rig.client(guest)
    guest.reset()
    assert client.await_event("RESET") == {"guest": False, "reason": "host-qmp-system-reset"}
    guest.pause()
    client.await_event("STOP")
    assert [name for name, _ in client.events] == []


def test_the_balloon(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = rig.guest(board="microvm", memory=8 * MIB, balloon=True)
    client = rig.client(guest)
    client.ask("query-balloon")
    monkeypatch.setattr(type(guest.balloon), "ballooned_pages", 256)
    assert client.await_event("BALLOON_CHANGE") == {"actual": 7 * MIB}


def test_other_guests_are_not_its_affair(rig: Rig) -> None:
    guest = rig.guest()
    other = rig.guest(name="other")
    client = rig.client(guest)
    other.pause()
    guest.pause()
    client.await_event("STOP")
    assert client.ask("query-name") == {"name": "g"}
    assert client.events == []


def test_a_guest_that_moves(rig: Rig) -> None:
    guest = rig.guest()
    client = rig.client(guest)
    with rig.host.lock:
        rig.host.take_off(guest)
        rig.host.set_state(guest, GuestState.MIGRATING, "moves")
    assert client.ask("query-status") == {"status": "finish-migrate", "running": False}
    assert client.events == [("STOP", None)]


def test_nobody_looks_at_a_guest_that_is_gone(rig: Rig) -> None:
    guest = rig.guest()
    server = rig.serve(guest)
    events: GuestEvents = server._events
    guest.delete()
    events.poll()
    assert rig.connect(server).negotiate().ask("query-name") == {"name": "g"}
