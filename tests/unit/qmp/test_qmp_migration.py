"""Migration by QMP: what a target is asked for, and what clients hear of it."""

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from qmp_rig import PATIENCE_S, Client, Rig

from emuvisor.errors import HostError
from emuvisor.host import Guest
from emuvisor.manager.records import MigrationStatus
from emuvisor.qmp import PlainGuest

PAGES = MigrationStatus(
    guest="g", to="h:1", phase="copying", round=2, total=100, sent=80, remaining=20, bytes_sent=1234, bytes_per_s=1e6
)  # fmt: skip


class Moved(PlainGuest):
    """A guest that is moved when `go` is set, and ends as `last`."""

    def __init__(self, guest: Guest, last: str, error: str = "") -> None:
        super().__init__(guest)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.go = threading.Event()
        self.status: MigrationStatus | None = None
        self._last = last
        self._error = error

    def migrate(self, to: str, options: Mapping[str, Any]) -> None:
        self.asked.append((to, dict(options)))
        self.status = PAGES
        assert self.go.wait(PATIENCE_S)
        self.status = MigrationStatus(guest="g", to=to, phase=self._last, downtime_ms=12.4, error=self._error)
        if self._error:
            raise HostError(self._error)

    def migration(self) -> MigrationStatus | None:
        return self.status

    def cancel_migration(self) -> None:
        self._last = "stayed"
        self.go.set()


def events_on(client: Client) -> None:
    assert (
        client.ask("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}]) == {}
    )


def test_from_the_beginning_to_the_end(rig: Rig) -> None:
    target = Moved(rig.guest(), "moved")
    client = rig.client(target)
    events_on(client)
    assert client.ask("query-migrate") == {}
    assert client.ask("migrate", uri="tcp:h:1", detach=True) == {}
    assert client.await_event("MIGRATION") == {"status": "setup"}
    while client.ask("query-migrate").get("status") == "setup":
        pass
    assert client.ask("query-migrate") == {
        "status": "active",
        "ram": {
            "total": 100 * 4096,
            "remaining": 20 * 4096,
            "transferred": 1234,
            "normal": 80,
            "normal-bytes": 80 * 4096,
            "duplicate": 0,
            "mbps": 8.0,
            "dirty-sync-count": 2,
            "dirty-pages-rate": 0,
            "page-size": 4096,
        },
    }
    assert client.ask("migrate", uri="tcp:h:2") == "GenericError: There's a migration process in progress"
    target.go.set()
    assert client.await_event("MIGRATION") == {"status": "completed"}
    done = client.ask("query-migrate")
    assert (done["status"], done["downtime"]) == ("completed", 12)
    assert client.human("info migrate").splitlines()[:2] == ["Migration status: completed", "downtime: 12 ms"]
    assert target.asked == [("tcp:h:1", {"downtime_ms": 300})]


def test_parameters_and_capabilities(rig: Rig) -> None:
    target = Moved(rig.guest(), "moved")
    target.go.set()
    client = rig.client(target)
    assert client.ask("query-migrate-parameters") == {"max-bandwidth": 0, "downtime-limit": 300}
    assert client.ask("migrate-set-parameters", max_bandwidth=10**6, downtime_limit=50) == {}
    assert client.ask("query-migrate-parameters") == {"max-bandwidth": 10**6, "downtime-limit": 50}
    wanted = [{"capability": "postcopy-ram", "state": True}, {"capability": "xbzrle", "state": False}]
    assert client.ask("migrate-set-capabilities", capabilities=wanted) == {}
    assert client.ask("query-migrate-capabilities") == [
        {"capability": "events", "state": False},
        {"capability": "postcopy-ram", "state": True},
    ]
    assert client.human("migrate tcp:h:1") == ""
    assert target.asked == [("tcp:h:1", {"downtime_ms": 50, "bandwidth": 10**6, "mode": "hybrid"})]
    assert client.events == []  # these have to be asked for


def test_cancelled(rig: Rig) -> None:
    target = Moved(rig.guest(), "moved")
    client = rig.client(target)
    events_on(client)
    assert client.ask("migrate_cancel") == {}
    assert client.ask("migrate", uri="tcp:h:1") == {}
    assert client.ask("migrate_cancel") == {}
    client.await_event("MIGRATION")
    assert client.await_event("MIGRATION") == {"status": "cancelled"}


def test_failed(rig: Rig) -> None:
    target = Moved(rig.guest(), "stayed", "the line is cut")
    target.go.set()
    client = rig.client(target)
    assert client.human("migrate tcp:h:1") == "the line is cut\r\n"
    failed = client.ask("query-migrate")
    assert (failed["status"], failed["error-desc"]) == ("failed", "the line is cut")
    assert client.human("info migrate").startswith("Migration status: failed (the line is cut)\r\n")


def test_the_next_one_can_begin_when_the_end_is_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said of the last one then."""
    target = Moved(rig.guest(), "stayed", "the line is cut")
    target.go.set()
    client = rig.client(target)
    events_on(client)
    for number in range(2):
        assert client.ask("migrate", uri=f"tcp:h:{number}") == {}
        assert client.await_event("MIGRATION") == {"status": "setup"}
        assert client.await_event("MIGRATION") == {"status": "failed"}
    begins, go = threading.Event(), threading.Event()

    def hesitant(to: str, options: Mapping[str, Any]) -> None:
        begins.set()
        assert go.wait(PATIENCE_S)
        raise HostError("the options are no good")

    monkeypatch.setattr(target, "migrate", hesitant)
    assert client.ask("migrate", uri="tcp:h:2") == {}
    assert begins.wait(PATIENCE_S)
    assert client.ask("query-migrate") == {"status": "setup"}
    go.set()
    assert client.await_event("MIGRATION") == {"status": "setup"}
    assert client.await_event("MIGRATION") == {"status": "failed"}
    assert client.ask("query-migrate") == {"status": "failed", "error-desc": "the options are no good"}


def test_a_guest_in_no_store(rig: Rig) -> None:
    client = rig.client(rig.guest())
    events_on(client)
    assert client.ask("migrate", uri="tcp:h:1") == {}
    client.await_event("MIGRATION")
    assert client.await_event("MIGRATION") == {"status": "failed"}
    assert client.ask("query-migrate") == {
        "status": "failed",
        "error-desc": "guest 'g' is in no store; only guests of a store can be migrated by QMP",
    }
    assert client.ask("migrate_cancel") == {}


@pytest.mark.parametrize(
    ("command", "arguments", "text"),
    [
        ("migrate", {"uri": "fd:3"}, "Parameter 'uri' expects a valid migration protocol"),
        ("migrate", {"uri": "tcp:h:1", "resume": True}, "A migration that was interrupted cannot be resumed"),
        (
            "migrate-set-parameters",
            {"max_bandwidth": -1},
            "Parameter 'max-bandwidth' expects a value that is not negative",
        ),
        (
            "migrate-set-capabilities",
            {"capabilities": [{"capability": "multifd", "state": True}]},
            "Migration capability 'multifd' is not available",
        ),
        (
            "migrate-set-capabilities",
            {"capabilities": [1]},
            "Invalid parameter type for 'capabilities', expected: array of capability and state",
        ),
    ],
)
def test_impossible(rig: Rig, command: str, arguments: dict[str, Any], text: str) -> None:
    assert rig.client(rig.guest()).ask(command, **arguments) == f"GenericError: {text}"
