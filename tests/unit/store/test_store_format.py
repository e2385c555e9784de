"""Opening a store: whose folder it is, of which version, and who may write."""

import os
from pathlib import Path

import pytest
from store_samples import names_in

from emuvisor.errors import HostError, SnapshotError, StateError, UsageError
from emuvisor.store import Store, default_folder
from emuvisor.store import format as store_format
from emuvisor.store.events import Event, EventLog
from emuvisor.store.files import HostFiles
from emuvisor.store.names import check_name


def message(caught):
    return str(caught.value)


def test_the_default_folder_follows_the_xdg_specification(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_folder() == Path("/data/emuvisor")


@pytest.mark.parametrize("name", ["a", "web-1", "A.b_c", "x" * 64])
def test_names(name):
    assert check_name("guest", name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", ".a", "-a", "a\n", "a\0", "ä", "x" * 65]
)
def test_names_that_are_refused(tmp_path, name):
    with pytest.raises(UsageError) as caught:
        check_name("guest", name)
    assert message(caught) == (
        f"{name!r} cannot be the name of a guest; a name has 1 to 64 letters (a to z), digits, '.', '_' and '-', "
        "and begins with a letter or a digit"
    )
    with Store(tmp_path / "store") as store:
        store.define("web", "")
        for call in (
            lambda: store.define(name, ""),
            lambda: store.definition(name),
            lambda: store.rename_guest("web", name),
            lambda: store.rename_guest(name, "db"),
            lambda: store.delete_guest(name),
            lambda: store.new_snapshot(name, "s"),
            lambda: store.new_snapshot("web", name),
            lambda: store.open_snapshot(name, "s"),
            lambda: store.open_snapshot("web", name),
            lambda: store.delete_snapshot("web", name),
            lambda: store.disk_path(name),
            lambda: store.delete_disk(name),
        ):
            with pytest.raises(UsageError, match="cannot be the name of"):
                call()
        assert names_in(tmp_path) == ["store"]


def test_a_store_is_made_for_its_owner_alone(tmp_path):
    folder = tmp_path / "a" / "store"
    Store(folder).close()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "format").read_text() == "emuvisor store 1\n"
    assert (folder / "format").stat().st_mode & 0o777 == 0o600


def test_another_folder_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError) as caught:
        Store(tmp_path)
    assert message(caught) == f"{tmp_path} is no store: letter.txt is in it; name an empty or a new folder"
    assert names_in(tmp_path) == ["letter.txt"]


def test_reading_only(tmp_path):
    with pytest.raises(UsageError) as caught:
        Store(tmp_path, read_only=True)
    assert message(caught) == f"{tmp_path} is no store"
    with Store(tmp_path) as writer:
        writer.define("web", "a = 1\n")
        with Store(tmp_path, read_only=True) as reader:
            assert reader.guests() == ["web"]
            assert reader.definition("web") == "a = 1\n"
            with pytest.raises(StateError) as caught:
                reader.define("db", "")
            assert message(caught) == f"store {tmp_path} is open for reading only"
            for call in (
                reader.gc,
                reader.check,
                lambda: reader.new_snapshot("web", "a"),
                lambda: reader.delete_snapshot("web", "a"),
                lambda: reader.delete_guest("web"),
                lambda: reader.delete_disk("x"),
                lambda: reader.add_event(Event(1.0, "web", "started")),
            ):
                with pytest.raises(StateError, match="is open for reading only"):
                    call()


def test_one_process_writes(tmp_path):
    with Store(tmp_path) as store:
        with pytest.raises(StateError) as caught:
            Store(tmp_path)
        assert message(caught) == f"store {tmp_path} is in use by process {os.getpid()}"
        assert store.guests() == []
    Store(tmp_path).close()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("emuvisor store 2\n", "{0} is a store of version 2; this emuvisor reads 1 to 1"),
        ("emuvisor store 0\n", "{0} is a store of version 0, which this emuvisor cannot upgrade"),
        ("", "{0}/format is damaged: '' instead of 'emuvisor store 1'"),
        ("emuvisor store x\n", "{0}/format is damaged: 'emuvisor store x\\n' instead of 'emuvisor store 1'"),
    ],
)
def test_stores_of_other_versions(tmp_path, text, wrong):
    Store(tmp_path).close()
    (tmp_path / "format").write_text(text)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(SnapshotError) as caught:
        Store(tmp_path)
    assert message(caught) == wrong.format(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_older_store_is_not_upgraded_by_a_reader(tmp_path):
    Store(tmp_path).close()
    (tmp_path / "format").write_text("emuvisor store 0\n")
    with pytest.raises(SnapshotError) as caught:
        Store(tmp_path, read_only=True)
    assert message(caught) == f"{tmp_path} is a store of version 0; open it for writing once"


def test_an_upgrade(tmp_path):
    Store(tmp_path).close()
    store_format.write_version(tmp_path, HostFiles(), 0)

    def upgrade(folder, files):
        files.append(folder / "upgraded", b"yes")

    store_format.upgrade(tmp_path, HostFiles(), 0, {0: upgrade})
    assert store_format.read_version(tmp_path) == 1
    assert (tmp_path / "upgraded").read_text() == "yes"


def test_a_folder_that_cannot_be_had(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError) as caught:
        Store(tmp_path / "file" / "store")
    assert message(caught) == f"store {tmp_path}/file/store: File exists: {tmp_path}/file"


def test_an_index_that_cannot_be_opened(tmp_path):
    Store(tmp_path).close()
    (tmp_path / "index.sqlite").unlink()
    with pytest.raises(HostError) as caught:
        Store(tmp_path, read_only=True).guests()
    assert message(caught) == f"store {tmp_path}: its index: unable to open database file"
    (tmp_path / "index.sqlite").mkdir()
    with pytest.raises(HostError, match="its index: unable to open database file"):
        Store(tmp_path)


def test_an_index_that_cannot_be_read_is_made_again(tmp_path):
    with Store(tmp_path) as store:
        store.define("web", "")
    (tmp_path / "index.sqlite").write_bytes(b"no database" * 1000)
    with Store(tmp_path) as store:
        assert store.guests() == ["web"]
    (tmp_path / "index.sqlite").unlink()
    with Store(tmp_path) as store:
        assert store.guests() == ["web"]


def test_what_a_crash_left_behind_is_deleted(tmp_path):
    with Store(tmp_path) as store:
        store.define("web", "")
        store._dirty = False  # it ends as if it crashed
    for name in ("packs/1.pack.new", "guests/web/guest.toml.new", "guests/web/snapshots/a.snapshot.new"):
        (tmp_path / name).write_text("half")
    (tmp_path / "guests" / "half" / "snapshots").mkdir(parents=True)
    (tmp_path / "trash" / "1" / "snapshots").mkdir(parents=True)
    (tmp_path / "trash" / "1" / "snapshots" / "link").symlink_to(tmp_path / "guests")
    with Store(tmp_path) as store:
        assert store.check() == []
        assert store.guests() == ["web"]
    assert names_in(tmp_path / "guests") == ["web"]


def test_events(tmp_path):
    log = EventLog(tmp_path / "events.jsonl", HostFiles(), max_bytes=300)
    first = Event(1.5, "web", "started", {"cause": "ä"})
    log.append(first)
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"time": 2.0, "gue')
    assert list(log) == [first]
    second = Event(3.0, "web", "stopped")
    again = EventLog(tmp_path / "events.jsonl", HostFiles(), max_bytes=300)
    again.append(second)
    assert list(again) == [first, second]
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(
            b'{"time": "x", "guest": "web", "event": "y", "details": {}}\n[]\n' + b"[" * 100_000 + b"\n"
        )
    assert list(again) == [first, second]
    again.append(second)
    assert list(again) == [first, second, second]
    assert (tmp_path / "events.old.jsonl").stat().st_size > 300
    assert (tmp_path / "events.jsonl").stat().st_size < 100
