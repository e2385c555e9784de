"""QMP for the guests of a store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qmp_rig import ADDRESS, SPIN, Client

from emuvisor.errors import HostError, StateError
from emuvisor.host import Host
from emuvisor.manager import Manager
from emuvisor.qmp.managed import ManagedGuest
from emuvisor.qmp.server import QmpServer
from emuvisor.qmp.servers import QmpServers
from emuvisor.store import Store
from emuvisor.units import MIB


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(Host(64 * MIB), Store(tmp_path / "store"))
    try:
        yield manager
    finally:
        manager.close(save=False)


def create(manager: Manager, folder: Path, name: str) -> None:
    code = folder / "spin.bin"
    code.write_bytes(SPIN)
    definition: dict[str, Any] = {"name": name, "board": "isa", "memory": MIB}
    manager.create(definition | {"flat": {"path": str(code), "address": ADDRESS}})


def settle(manager: Manager, servers: QmpServers) -> None:
    manager.settle()
    servers.settle()


def test_a_socket_for_each_guest_that_is_on(manager: Manager, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        create(manager, tmp_path, name)
    manager.start("a")
    folder = tmp_path / "run" / "qmp"
    with QmpServers(manager, folder) as servers:
        manager.start("b", paused=True)
        settle(manager, servers)
        assert sorted(path.name for path in folder.iterdir()) == ["a.qmp", "b.qmp"]
        client = Client(str(folder / "b.qmp")).negotiate()
        assert client.ask("query-name") == {"name": "b"}
        assert client.ask("query-status") == {"status": "paused", "running": False}
        assert client.ask("cont") == {}
        assert client.ask("quit") == {}
        client.await_event("SHUTDOWN")
        assert client.await_event("STOP") is None
        assert client.read() is None
        client.close()
        settle(manager, servers)
        manager.stop("a")
        settle(manager, servers)
        assert list(folder.iterdir()) == []
        manager.remove("a")
        manager.start("c")
        settle(manager, servers)
        assert [path.name for path in folder.iterdir()] == ["c.qmp"]
    servers.close()
    assert list(folder.iterdir()) == []
    assert manager.listeners == []


def test_a_socket_that_cannot_be_made(manager: Manager, tmp_path: Path) -> None:
    create(manager, tmp_path, "a")
    warnings: list[str] = []
    manager.host.warnings.append(warnings.append)
    (tmp_path / "a.qmp").write_text("not a socket")
    with QmpServers(manager, tmp_path) as servers:
        manager.start("a")
        settle(manager, servers)
    assert set(warnings) == {f"QMP cannot listen on unix:{tmp_path / 'a.qmp'}: Address already in use"}
    with pytest.raises(HostError) as error:
        QmpServers(manager, tmp_path / "a.qmp")
    assert str(error.value) == f"{tmp_path / 'a.qmp'}: cannot be made: File exists"


def test_a_guest_of_a_store(manager: Manager, tmp_path: Path) -> None:
    create(manager, tmp_path, "a")
    target = ManagedGuest(manager, "a")
    with QmpServer(target, f"unix:{tmp_path / 'q'}") as server:
        client = Client(server.address).negotiate()
        assert (
            client.ask("query-block") == "GenericError: guest 'a' is defined; this needs it running or paused"
        )
        assert client.ask("cont") == {}
        assert client.ask("stop") == {}
        for _ in range(2):
            assert client.human("savevm s") == ""
        assert [snapshot.name for snapshot in target.snapshots()] == ["s"]
        assert client.human("delvm s") == ""
        assert client.human("delvm s") == "Error: guest 'a' has no snapshot 's'\r\n"
        assert client.human("savevm t") == client.human("loadvm t") == ""
        assert client.ask("query-status")["status"] == "paused"
        assert client.ask("system_reset") == {}
        assert client.human(f"migrate unix:{tmp_path / 'nobody'}") != ""
        assert client.ask("query-migrate")["status"] == "failed"
        with pytest.raises(StateError) as error:
            target.cancel_migration()
        assert str(error.value) == "guest 'a' is not being migrated"
        assert client.ask("query-status")["status"] == "paused"
        assert client.ask("quit") == {}
        assert client.ask("quit") == {}
        client.close()
