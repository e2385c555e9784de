"""Snapshots of managed guests, and guests that go on from them, with disks in the store."""

import pytest
from manager_rig import definition, expect, managed

from emuvisor.errors import HostError, StateError, UsageError
from emuvisor.host import GuestState
from emuvisor.host.snapshots import prefetch
from emuvisor.units import MIB

SECTOR = 512


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "user.img"
    path.write_bytes(bytes(MIB))
    return path


def with_disk(folder, name, disk, **keys):
    return definition(folder, name, board="pc", memory=2 * MIB, disks=[{"path": str(disk), **keys}])


def image(manager, name):
    return manager.guest(name).machine.drives[0].image


def put(manager, name, text):
    image(manager, name).write(0, text.ljust(SECTOR, b"\0"))


def got(manager, name):
    return image(manager, name).read(0, 1).rstrip(b"\0")


def test_a_tree(manager, define):
    manager.create(define("web"))
    manager.start("web")
    heard = []
    first = manager.snapshot(
        "web", comment="the first", progress=lambda done, total: heard.append((done, total))
    )
    assert (first.name, first.parent, first.comment, first.guest) == ("snapshot-1", None, "the first", "web")
    assert heard[-1][0] == heard[-1][1]
    manager.snapshot("web", "two")
    manager.restore("web", "snapshot-1")
    manager.snapshot("web", "three")
    manager.stop("web")
    manager.start("web")
    manager.snapshot("web", "four")
    assert {s.name: s.parent for s in manager.snapshots("web")} == {
        "snapshot-1": None,
        "two": "snapshot-1",
        "three": "snapshot-1",
        "four": "three",
    }
    assert manager.guests()[0].snapshots == 4
    manager.delete_snapshot("web", "four")
    manager.snapshot("web", "five")
    assert {s.name: s.parent for s in manager.snapshots("web")}["five"] == "three"
    assert manager.delete_snapshot("web", "snapshot-1").bytes > 0
    assert {s.name: s.parent for s in manager.snapshots("web")}["three"] is None


def test_names_of_snapshots(manager, define):
    manager.create(define("web"))
    manager.start("web")
    manager.snapshot("web", "one")
    for name, kind, message in (
        ("one", StateError, "guest 'web' has a snapshot 'one' already"),
        (
            "saved-state",
            UsageError,
            "'saved-state' cannot be the name of a snapshot: saved guests go on from it",
        ),
    ):
        with pytest.raises(kind) as error:
            manager.snapshot("web", name)
        assert str(error.value) == message
    with pytest.raises(UsageError, match="cannot be the name of a snapshot"):
        manager.snapshot("web", "../../x")
    manager.save("web")
    for act in (manager.delete_snapshot, manager.restore):
        for name in ("nothing", "saved-state"):
            with pytest.raises(UsageError) as error:
                act("web", name)
            assert str(error.value) == f"guest 'web' has no snapshot {name!r}"


def test_what_goes_on_is_not_disturbed(manager, define, tmp_path):
    manager.create(define("web"))
    manager.start("web")
    refused = []

    def progress(done, total):
        for act in (
            lambda: manager.snapshot("web"),
            lambda: manager.save("web"),
            lambda: manager.remove("web", force=True),
            lambda: manager.export("web", tmp_path / "x"),
        ):
            with pytest.raises(StateError) as error:
                act()
            refused.append(str(error.value))

    manager.snapshot("web", progress=progress)
    assert refused[:4] == [
        f"guest 'web': {verb} has to wait until a snapshot of it is written"
        for verb in ("snapshot", "save", "rm", "export")
    ]


def test_disks_go_back_with_the_memory(tmp_path, disk):
    with managed(tmp_path, 64 * MIB) as manager:
        manager.create(with_disk(tmp_path, "web", disk))
        manager.start("web")
        put(manager, "web", b"before")
        manager.snapshot("web", "one")
        put(manager, "web", b"after")
        manager.restore("web", "one")
        assert got(manager, "web") == b"before"
        put(manager, "web", b"again")
        manager.stop("web")
    assert disk.read_bytes()[:5] == b"after"  # a file of the user's stays as it was left
    with managed(tmp_path, 64 * MIB) as manager:
        assert manager.info("web")["disks"][0]["overlay"].endswith("/disks/web.disk0.1.overlay")
        manager.start("web", paused=True)
        assert got(manager, "web") == b"again"
        manager.restore("web", "one")
        assert got(manager, "web") == b"before"
        assert [name for name in manager.store.disks() if name.startswith("web")] == ["web.disk0.2.overlay"]
        freed = manager.remove("web", force=True)
        assert freed.bytes > 0
        assert manager.store.disks() == []
    assert disk.exists()


def test_a_saved_guest_keeps_its_disks(tmp_path, disk):
    with managed(tmp_path, 64 * MIB) as manager:
        manager.create(with_disk(tmp_path, "web", disk))
        manager.start("web")
        put(manager, "web", b"kept")
        manager.save("web")
        assert manager.store.disks() == []
    assert disk.read_bytes()[:4] == b"kept"
    with managed(tmp_path, 64 * MIB) as manager:
        manager.start("web", paused=True)
        assert got(manager, "web") == b"kept"


def test_a_temporary_overlay_is_the_stores(tmp_path, disk):
    with managed(tmp_path, 64 * MIB) as manager:
        manager.create(with_disk(tmp_path, "web", disk, overlay="temporary"))
        manager.start("web")
        put(manager, "web", b"mine")
        manager.save("web")
        manager.start("web")
        assert got(manager, "web") == b"mine"
        manager.stop("web")
        manager.start("web")
        assert got(manager, "web") == b"mine"
        assert manager.store.disks() == ["web.disk0.overlay"]
        manager.remove("web", force=True)
        assert manager.store.disks() == []
    assert disk.read_bytes() == bytes(MIB)


def test_clones(manager, define):
    manager.create(define("web", "echo", autostart=True))
    manager.start("web")
    infos = manager.clone("web", ["a", "b"])
    assert [(info.name, info.state, info.autostart) for info in infos] == [
        ("a", "running", True),
        ("b", "running", True),
    ]
    for name in ("a", "b"):
        with manager.console(name) as console:
            console.write(name.encode())
            expect(console, name.encode())
        assert manager.logs(name) == name.encode()
    assert manager.events(guest="a")[0].details == {"source": "web", "snapshot": ""}
    paused = manager.clone("a", ["c"], running=False)[0]
    assert (paused.state, paused.reason) == ("paused", "cloned from guest 'a'")
    manager.stop("c")
    manager.start("c")


def test_clones_with_disks_of_their_own(tmp_path, disk, monkeypatch):
    with managed(tmp_path, 64 * MIB) as manager:
        manager.create(with_disk(tmp_path, "web", disk))
        manager.start("web")
        put(manager, "web", b"base")
        manager.clone("web", ["a", "b"])
        for name in ("web", "a", "b"):
            assert got(manager, name) == b"base"
            put(manager, name, name.encode())
        assert [got(manager, name) for name in ("web", "a", "b")] == [b"web", b"a", b"b"]
        assert [s.comment for s in manager.snapshots("web")] == ["for clones: a, b"]
        manager.stop("web")
        with pytest.raises(StateError, match="is in use"):  # memory of the clones
            manager.remove("web")
        monkeypatch.setattr(prefetch, "SPARE", 1.0)
        with pytest.raises(StateError, match="is in use"):  # there is no room for it
            manager.remove("web", force=True)
        assert manager.state("web") is GuestState.DEFINED
        monkeypatch.undo()
        manager.remove("web", force=True)
        assert [info.name for info in manager.guests()] == ["a", "b"]
        assert [got(manager, name) for name in ("a", "b")] == [b"a", b"b"]
        manager.close()
    with managed(tmp_path, 64 * MIB) as manager:
        assert manager.resume_saved() == ["a", "b"]
        assert [got(manager, name) for name in ("a", "b")] == [b"a", b"b"]
        manager.remove("a", force=True)
        assert manager.store.disks()
        manager.remove("b", force=True)
        assert manager.store.disks() == []


def test_clones_of_a_saved_guest_and_of_a_snapshot(manager, define):
    manager.create(define("web"))
    manager.start("web")
    manager.snapshot("web", "one")
    manager.save("web")
    manager.clone("web", ["a"])
    manager.clone("web", ["b"], snapshot="one", same_identity=True)
    assert {name: manager.state(name) for name in "ab"} == {"a": GuestState.RUNNING, "b": GuestState.RUNNING}
    assert manager.info("b")["definition"]["identity"] == "web"
    assert manager.state("web") is GuestState.SAVED


def test_what_cannot_be_cloned(manager, define):
    manager.create(define("web"))
    with pytest.raises(StateError) as error:
        manager.clone("web", ["a"])
    assert str(error.value) == "guest 'web' is defined; clone needs it running or paused or saved"
    manager.start("web")
    with pytest.raises(StateError, match="there is a guest 'web' already"):
        manager.clone("web", ["a", "web"])
    with pytest.raises(UsageError, match="cannot be the name of a guest"):
        manager.clone("web", ["a", "/x"])
    with pytest.raises(UsageError) as error:
        manager.clone("web", ["a", "a"])
    assert str(error.value) == "2 clones: at most 10000, each with a name of its own"
    assert [guest.name for guest in manager.guests()] == ["web"]


@pytest.mark.parametrize("failing", ["emuvisor.host.Host.clone", "emuvisor.store.Store.define"])
def test_all_clones_or_none(manager, define, monkeypatch, failing):
    manager.create(define("web"))
    manager.start("web")
    module, _, name = failing.rpartition(".")
    owner = manager.host if module.endswith("Host") else manager.store
    original, calls = getattr(owner, name), []

    def second_fails(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise HostError("no more")
        return original(*args, **options)

    monkeypatch.setattr(owner, name, second_fails)
    with pytest.raises(HostError, match="no more"):
        manager.clone("web", ["a", "b", "c"])
    assert [guest.name for guest in manager.guests()] == ["web"]
    assert list(manager.host.guests) == ["web"]
    assert manager.store.guests() == ["web"]


def test_a_restore_that_fails_leaves_it_off(manager, define, monkeypatch):
    manager.create(define("web"))
    manager.start("web")
    manager.snapshot("web", "one")

    def fail(*args, **options):
        raise HostError("no")

    with monkeypatch.context() as patch:
        patch.setattr(manager.store, "define", fail)
        with pytest.raises(HostError, match="no"):
            manager.restore("web", "one")
    assert manager.state("web") is GuestState.DEFINED
    assert manager.host.guests == {}
    manager.restore("web", "one")
    assert manager.state("web") is GuestState.RUNNING
