"""The client against a real server: what goes in at one end comes out at the other, errors too."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emuvisor.daemon import console_routes, stream
from emuvisor.daemon.client import Client
from emuvisor.daemon.service import Service
from emuvisor.daemon.sockets import serve_on
from emuvisor.errors import ConfigError, HostError, StateError, UsageError
from emuvisor.manager import DiskMoveRecord, EventRecord, Freed, SnapshotRecord, StoreFreed, StoreProblem

Definition = Callable[..., dict[str, Any]]


@pytest.fixture
def address(service: Service, tmp_path: Path) -> Iterator[str]:
    with serve_on(service, tmp_path / "daemon.sock") as where:
        yield where[0]
        service.end_streams()


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


def test_a_life(client: Client, service: Service, definition: Definition) -> None:
    assert client.create(definition("web")) == service.manager.guests()[0]
    client.start("web", paused=True)
    client.resume("web")
    client.pause("web")
    client.set("web", {"cpu_weight": 300})
    client.reset("web")
    assert client.info("web")["definition"]["cpu_weight"] == 300
    assert client.host()["running"] == 0
    client.stop("web")
    client.rename("web", "www")
    assert client.definition("www") == service.manager.definition("www")
    assert client.guests() == service.manager.guests()
    assert isinstance(client.remove("www"), Freed)
    assert client.guests() == []


def test_the_store(client: Client, service: Service, definition: Definition) -> None:
    client.create(definition("web"))
    client.start("web", paused=True)
    for name in ("one", "two"):
        client.snapshot("web", name)
    store = service.manager.store
    left = store.folder / "packs" / "x.pack.new"
    left.write_text("half")
    found = StoreProblem(str(left), "it was left behind by a crash", False)
    assert client.check_store() == [found]
    assert client.check_store(repair=True) == [replace(found, repaired=True)]
    assert client.check_store() == []
    assert client.collect_garbage() == StoreFreed(0, 0, 0)
    store.delete_snapshot("web", "one")
    store.delete_snapshot("web", "two")
    freed = client.collect_garbage(everything=True)
    assert (freed.packs_deleted, freed.packs_rewritten) == (1, 0)
    assert freed.bytes_freed > 0
    with store.new_snapshot("web", "three"), pytest.raises(StateError) as error:
        client.check_store()
    assert str(error.value) == f"check of store {store.folder} is impossible while a snapshot is written"


def test_relative_paths_start_where_the_client_is(
    client: Client, definition: Definition, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = definition("web")
    path = Path(made["flat"]["path"])
    made["flat"]["path"] = path.name
    client.create({**made, "name": "a"}, folder=path.parent)
    monkeypatch.chdir(path.parent)
    client.create({**made, "name": "b"})
    for name in "ab":
        assert client.info(name)["definition"]["flat"]["path"] == str(path)


def test_snapshots(client: Client, service: Service, definition: Definition) -> None:
    client.create(definition("web"))
    client.start("web")
    heard: list[tuple[int, int]] = []
    first = client.snapshot("web", "one", comment="before", progress=lambda *told: heard.append(told))
    assert isinstance(first, SnapshotRecord)
    assert (first.guest, first.name, first.parent, first.comment) == ("web", "one", None, "before")
    assert heard[-1][0] == heard[-1][1]
    second = client.snapshot("web")
    assert client.snapshots("web") == service.manager.snapshots("web") == [first, second]
    client.restore("web", "one", running=False)
    assert client.info("web")["state"] == "paused"
    assert client.delete_snapshot("web", second.name).bytes > 0
    with pytest.raises(StateError):
        client.snapshot("web", "one")


def test_saving(client: Client, definition: Definition) -> None:
    client.create(definition("web"))
    client.start("web")
    client.save("web")
    assert client.info("web")["state"] == "saved"
    client.start("web")
    assert client.info("web")["state"] == "running"
    assert client.shutdown("web", 0.0) is False


def test_clones(client: Client, definition: Definition) -> None:
    client.create(definition("web"))
    client.start("web")
    made = client.clone("web", ["a", "b"], running=False)
    assert [(guest.name, guest.state) for guest in made] == [("a", "paused"), ("b", "paused")]


def test_export_and_import(client: Client, definition: Definition, tmp_path: Path) -> None:
    client.create(definition("web"))
    heard: list[tuple[int, int]] = []
    file = tmp_path / "web.tar"
    size = client.export("web", file, progress=lambda *told: heard.append(told))
    assert size == file.stat().st_size
    assert heard[-1][0] == heard[-1][1]
    made = client.import_(file, "again", progress=lambda *told: heard.append(told))
    assert (made.name, made.state) == ("again", "defined")


def test_a_guest_goes_from_daemon_to_daemon(
    client: Client, make_service: Callable[..., Service], definition: Definition, tmp_path: Path
) -> None:
    client.create(definition("web"))
    client.start("web")
    assert client.migration("web") is None
    with pytest.raises(StateError, match=r"^guest 'web' is not being migrated$"):
        client.cancel_migration("web")
    there = make_service("there")
    where: queue.Queue[str] = queue.Queue()
    with serve_on(there, tmp_path / "there.sock") as addresses, ThreadPoolExecutor(1) as threads:
        other = Client(addresses[0])
        came = threads.submit(other.receive, f"unix:{tmp_path}/line", ready=where.put, timeout_s=60)
        heard: list[str] = []
        status = client.migrate("web", where.get(timeout=60), progress=lambda now: heard.append(now.guest))
        assert (status.guest, status.phase) == ("web", "moved")
        assert set(heard) == {"web"}
        assert came.result(60).name == "web"
        assert (other.info("web")["state"], client.info("web")["state"]) == ("running", "defined")
        there.end_streams()


def test_a_disk_moves(client: Client, definition: Definition, tmp_path: Path) -> None:
    image, new = tmp_path / "disk.img", tmp_path / "new.img"
    image.write_bytes(b"x" * 4096)
    client.create(definition("web", disks=[{"path": str(image)}]))
    client.start("web")
    heard: list[tuple[int, int]] = []
    moved = client.move_disk(
        "web", "disk.img", new, bytes_per_s=1 << 30, progress=lambda *told: heard.append(told)
    )
    assert moved == DiskMoveRecord("web", 0, str(new), "raw", 4096, moved.passes, moved.stop_ms)
    assert new.read_bytes() == image.read_bytes()
    assert heard[-1] == (4096, 4096)
    assert client.info("web")["definition"]["disks"] == [{"path": str(new), "format": "raw"}]
    with pytest.raises(UsageError, match=r"^guest 'web' has no hard disk 3$"):
        client.move_disk("web", 3, new)


def test_errors_are_of_the_same_class(client: Client, definition: Definition) -> None:
    client.create(definition("web"))
    with pytest.raises(StateError) as state:
        client.pause("web")
    assert str(state.value) == "guest 'web' is defined; pause needs it running or paused"
    with pytest.raises(ConfigError) as config:
        client.create({})
    assert str(config.value).startswith("the definition: nothing to boot from")
    with pytest.raises(UsageError) as unknown:
        client.migrate("web", "here", mode="sideways")
    assert str(unknown.value) == "body.mode: Input should be 'pre-copy', 'post-copy' or 'hybrid'"
    with pytest.raises(UsageError) as plain:
        client.create({"name": {1, 2}})
    assert str(plain.value) == "this is not plain data: {1, 2} is a set"


def test_nobody_listens(tmp_path: Path) -> None:
    path = tmp_path / "none.sock"
    client = Client(path)
    for ask in (client.guests, lambda: client.console("web"), lambda: next(client.follow())):
        with pytest.raises(HostError) as error:
            ask()
        assert str(error.value) == f"no daemon listens at {path}"


@pytest.mark.parametrize(
    "address", ["http://host:1", "https://", "https://host:x", "https://host/path", "ftp://h"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UsageError) as error:
        Client(address)
    assert str(error.value) == f"{address!r} is not a daemon's address; write https://HOST:PORT or unix:PATH"


def read(console: Any, size: int) -> bytes:
    """The next `size` bytes that are printed."""
    data = b""
    while len(data) < size and not console.at_end:
        data += console.read(30)
    return bytes(data)


def test_two_on_a_console(client: Client, definition: Definition) -> None:
    client.create(definition("web"))
    client.start("web")
    with client.console("web") as one:
        one.write(b"hello")
        assert read(one, 5) == b"hello"
        with client.console("web") as two:
            assert read(two, 5) == b"hello"  # what was printed before
            two.write(b" you")
            assert read(one, 4) == read(two, 4) == b" you"
        one._connection.send(b"x" * 70_000)  # more than a message may have
        assert read(one, 1) == b""
        assert one.at_end
    assert client.info("web")["state"] == "running"


def test_a_console_ends_with_the_guest(client: Client, definition: Definition) -> None:
    client.create(definition("web"))
    client.start("web")
    with client.console("web") as console:
        assert console.read(0) == b""
        console.write(b"!")
        assert read(console, 2) == b"!"
        assert console.at_end
        console.write(b"nobody hears that")
    assert client.logs("web") == b"!"
    assert client.logs("web", 0) == b""
    assert client.log_after("web", 0).position == 1


def test_a_console_whose_guest_takes_nothing(
    client: Client, definition: Definition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_routes, "PATIENCE_S", 0.2)
    client.create(definition("web"))
    client.start("web", paused=True)
    with client.console("web") as console:
        console.write(b"x" * (64 << 10))
        console.write(b"y")
        assert read(console, 1) == b""
        close = console._connection.protocol.close_rcvd
        assert close is not None
        assert close.code == 1013
        assert close.reason == "the guest has not taken 64 KiB that were typed; at most 64 KiB wait for it"


def test_consoles_that_there_are_not(client: Client, definition: Definition) -> None:
    client.create(definition("web"))
    with pytest.raises(StateError):
        client.console("web")
    client.start("web")
    with pytest.raises(UsageError) as error:
        client.console("web", "none")
    assert str(error.value) == "guest 'web': there is no console port 'none'; there are: none"


def test_events_and_their_stream(client: Client, definition: Definition) -> None:
    client.create(definition("web"))
    known = client.events()
    assert [(event.number, event.kind) for event in known] == [(1, "created")]
    follow = client.follow(after=0)
    assert next(follow) == known[0]
    client.start("web")
    assert next(follow).kind == "running"
    client.stop("web")
    assert next(follow) == client.events(after=2)[0]
    later = client.follow(after=1, guest="web")
    assert [next(later).number, next(later).number] == [2, 3]
    assert client.events(guest="other") == []


def test_a_stream_goes_on_after_the_daemon_was_away(
    service: Service, tmp_path: Path, definition: Definition
) -> None:
    path = tmp_path / "daemon.sock"
    client = Client(path)
    with serve_on(service, path):
        service.manager.create(definition("a"))
        follow = client.follow(after=0)
        assert next(follow).guest == "a"
        service.end_streams()
    service.closing = False
    service.manager.create(definition("b"))
    with serve_on(service, path):
        service.manager.create(definition("c"))
        assert [next(follow).guest, next(follow).guest] == ["b", "c"]
        service.end_streams()
    with pytest.raises(HostError) as error:
        next(follow)
    assert str(error.value) == f"no daemon listens at {path}"


def test_a_stream_from_now_on(client: Client, definition: Definition) -> None:
    client.create(definition("old"))
    heard: list[EventRecord] = []
    follow = client.follow()
    listening = threading.Event()

    def listen() -> None:
        listening.set()
        heard.append(next(follow))

    thread = threading.Thread(target=listen)
    thread.start()
    number = 0
    while not heard:  # whether it listens yet cannot be seen from here
        client.create(definition(f"new{number}"))
        number += 1
        thread.join(0.01)
    thread.join()
    assert heard[0].guest.startswith("new")


def test_a_quiet_stream_says_that_it_is_there(
    client: Client, definition: Definition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "ALIVE_S", 0.01)
    client.create(definition("web"))
    assert len(client.events()) == 1  # it is noted
    with client._transport.open("GET", "/v1/events/stream", {"guest": "none"}) as response:
        lines = [response.readline() for _ in range(4)]
    assert lines == [b"id: 1\n", b"\n", b": nothing new\n", b"\n"]


def test_the_stream_has_operations(client: Client, service: Service) -> None:
    go = threading.Event()
    with client._transport.open("GET", "/v1/events/stream") as response:
        assert response.readline() == b"id: 0\n"
        assert response.readline() == b"\n"
        started = service.operations.start("snapshot", "web", lambda _: go.wait(30))
        assert response.readline() == b"event: operation\n"
        assert started.id in response.readline().decode()
        go.set()
        text = response.readline() + response.readline() + response.readline()
        assert b'"state": "done"' in text


def test_what_is_not_a_daemon(client: Client, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in ([1], [{"name": "half"}], {"no": "list"}):
        monkeypatch.setattr(client, "_call", lambda *_, answer=answer, **__: answer)
        with pytest.raises(HostError, match=r"^the daemon's answer is not to be understood: "):
            client.guests()


@pytest.mark.parametrize(("given", "first"), [("1", b"id: 1\n"), ("x", b"id: 2\n"), ("9" * 20, None)])
def test_where_a_browser_goes_on(
    client: Client, definition: Definition, given: str, first: bytes | None
) -> None:
    for name in "ab":
        client.create(definition(name))
    assert len(client.events()) == 2  # they are noted
    with client._transport.open("GET", "/v1/events/stream", headers={"Last-Event-ID": given}) as response:
        assert response.readline() == (first or f"id: {(1 << 63) - 1}\n".encode())
