"""Guests that move from one manager to another."""

import queue
import threading

import pytest
from manager_rig import definition, expect, managed

from emuvisor.errors import MigrationError, StateError, UsageError
from emuvisor.host import GuestState
from emuvisor.manager import moves
from emuvisor.migration import Insecure

TOKEN = "a token that nobody guesses"


@pytest.fixture
def pair(tmp_path):
    """Two managers."""
    (tmp_path / "other").mkdir()
    with managed(tmp_path) as here, managed(tmp_path / "other") as there:
        yield here, there


def receiving(manager, **options):
    """A thread that receives one guest at a port of loopback: its address, and where its result will be."""
    ready, results = queue.SimpleQueue(), queue.SimpleQueue()

    def run():
        try:
            results.put(manager.receive("tcp:127.0.0.1:0", ready=ready.put, timeout_s=30, **options))
        except Exception as error:
            results.put(error)

    threading.Thread(target=run, daemon=True).start()
    return f"tcp:{ready.get(timeout=30)}", results


@pytest.mark.parametrize("options", [{}, {"token": TOKEN}])
def test_there(pair, tmp_path, options):
    here, there = pair
    here.create(definition(tmp_path, "web", "echo"))
    here.start("web")
    address, results = receiving(there, **options)
    heard = []
    status = here.migrate("web", address, progress=heard.append, **options)
    assert (status.guest, status.to, status.phase, status.remaining) == ("web", address, "moved", 0)
    assert status.downtime_ms > 0
    assert heard[-1].phase == "moved"
    assert here.migration("web").phase == "moved"
    assert (here.state("web"), here.guests()[0].reason) == (GuestState.DEFINED, f"migrated to {address}")
    assert here.host.guests == {}
    info = results.get(timeout=30)
    assert (info.name, info.state, info.reason) == ("web", "running", "migrated to here")
    with there.console("web") as console:
        console.write(b"hello")
        expect(console, b"hello")
    assert [event.kind for event in there.events()] == ["imported", "running"]
    there.stop("web")
    assert there.state("web") is GuestState.DEFINED


def test_a_paused_one_stays_paused(pair, tmp_path):
    here, there = pair
    here.create(definition(tmp_path, "web"))
    here.start("web", paused=True)
    address, results = receiving(there)
    here.migrate("web", address, mode="post-copy")
    assert results.get(timeout=30).state == "paused"


def test_one_whose_name_is_taken_there_stays(pair, tmp_path):
    here, there = pair
    for manager in pair:
        manager.create(definition(tmp_path, "web"))
    here.start("web")
    address, _ = receiving(there)
    with pytest.raises(MigrationError, match="there is a guest 'web' already"):
        here.migrate("web", address)
    assert here.state("web") is GuestState.RUNNING
    assert here.migration("web").phase == "stayed"
    assert here._entries["web"].busy == ""
    assert there.state("web") is GuestState.DEFINED


def test_nobody_receives(pair, tmp_path):
    here, there = pair
    here.create(definition(tmp_path, "web"))
    with pytest.raises(StateError) as error:
        here.migrate("web", "tcp:127.0.0.1:1")
    assert str(error.value) == "guest 'web' is defined; migrate needs it running or paused"
    here.start("web")
    assert here.migration("web") is None
    with pytest.raises(StateError, match=r"^guest 'web' is not being migrated$"):
        here.cancel_migration("web")
    with pytest.raises(MigrationError):
        here.migrate("web", f"unix:{tmp_path}/nobody")
    assert here.state("web") is GuestState.RUNNING
    with pytest.raises(MigrationError, match="no guest has come"):
        there.receive(f"unix:{tmp_path}/socket", timeout_s=0.01)


def test_cancelled(pair, tmp_path):
    here, there = pair
    here.create(definition(tmp_path, "web"))
    here.start("web")
    address, _ = receiving(there)

    def cancel(status):
        if status.phase == "copying":
            here.cancel_migration("web")

    with pytest.raises(MigrationError):
        here.migrate("web", address, progress=cancel)
    assert here.state("web") is GuestState.RUNNING


def test_one_that_cannot_be_defined_there_does_not_run(pair, tmp_path, monkeypatch):
    here, _ = pair
    here.create(definition(tmp_path, "web"))
    here.start("web")
    guest = here.guest("web")

    def fail(*args, **details):
        raise StateError("no")

    monkeypatch.setattr(here, "_add", fail)
    with pytest.raises(StateError, match="no"):
        here._welcome(guest)
    assert guest.state is GuestState.GONE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token": 5}, "migration: token is 5; a text is wanted"),
        ({"token": TOKEN, "ca": "x"}, "migration: a token goes without certificates"),
        ({"key": "x"}, "migration: certificate is missing; certificate, key and ca go together"),
        ({"mode": "x"}, "receive: there is no option 'mode'; there are: token, certificate, key, ca, peer"),
    ],
)
def test_options(manager, options, message):
    with pytest.raises(UsageError) as error:
        manager.receive("tcp:127.0.0.1:0", **options)
    assert str(error.value) == message


def test_security(monkeypatch):
    made = []
    monkeypatch.setattr(moves, "Certificates", lambda *args: made.append(args) or Insecure())
    moves._security({"certificate": "a", "key": "b", "ca": "c", "peer": "d"})
    assert [str(part) for part in made[0]] == ["a", "b", "c", "d"]
