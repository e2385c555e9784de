"""A crash at any moment leaves the store valid, with the last completed operation in it."""

from contextlib import suppress

import pytest
from crashing_files import Crash, CrashingFiles
from store_samples import everything, noise, page, snapshot

from emuvisor.errors import HostError
from emuvisor.store import Store
from emuvisor.store.events import Event


def info(store, guest, name):
    return next(info for info in store.snapshots(guest) if info.name == name)


OPERATIONS = (
    lambda store: store.define("web", "memory = '64M'\n"),
    lambda store: snapshot(store, "web", "a", {0: page(1), 5: noise(2), 6: bytes(4096)}, {"rip": 1}),
    lambda store: store.define("web", "memory = '128M'\n", replace=True),
    lambda store: snapshot(store, "web", "b", {5: page(3), 9: page(1)}, parent=info(store, "web", "a")),
    lambda store: store.define("db", "memory = '64M'\n"),
    lambda store: snapshot(store, "db", "x", {1: noise(2), 2: noise(4)}, {"rip": 2}),
    lambda store: store.add_event(Event(5.0, "web", "started", {"cause": "test"})),
    lambda store: store.delete_snapshot("web", "a"),
    lambda store: store.gc(least_dead=0.0),
    lambda store: store.rename_guest("db", "data"),
    lambda store: snapshot(store, "data", "y", {1: page(7)}, parent=info(store, "data", "x")),
    lambda store: store.delete_guest("web"),
    lambda store: store.gc(least_dead=0.0),
    lambda store: store.delete_snapshot("data", "x"),
    lambda store: store.gc(),
)


def seen(store):
    return everything(store), store.events()


def operate(folder, files):
    """Do what `OPERATIONS` say until it crashes; returns how many were completed."""
    done = 0
    with suppress(Crash):
        Store(folder, files=files).close()  # a new store is not clean at first; now it is
        with Store(folder, files=files) as store:
            for operation in OPERATIONS:
                operation(store)
                done += 1
    return done


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """How many steps there are, and what is in the store after each operation."""
    folder = tmp_path_factory.mktemp("expected")
    files = CrashingFiles(backup=folder)
    Store(folder / "store", files=files).close()
    store = Store(folder / "store", files=files)
    states = [seen(store)]
    for operation in OPERATIONS:
        operation(store)
        states.append(seen(store))
    store.close()
    return files.count, states


@pytest.mark.parametrize("variant", ["kept", "lost", "torn"])
def test_a_crash_at_every_step(tmp_path, expected, variant):
    steps, states = expected
    assert steps > 100
    for stop in range(steps):
        folder, backup = tmp_path / f"store{stop}", tmp_path / f"backup{stop}"
        backup.mkdir()
        files = CrashingFiles(stop, variant, backup)
        done = operate(folder, files)
        files.crash()
        with Store(folder, files=CrashingFiles(backup=backup)) as store:
            found = seen(store)
            assert found in states[done : done + 2], f"step {stop} in operation {done}"
            assert store.check() == [], f"step {stop} in operation {done}"


@pytest.mark.parametrize("variant", ["kept", "lost", "torn"])
def test_a_crash_during_recovery(tmp_path, expected, variant):
    steps, states = expected
    for stop in range(5, steps, 29):
        folder, backup = tmp_path / f"store{stop}", tmp_path / f"backup{stop}"
        backup.mkdir()
        files = CrashingFiles(stop, variant, backup)
        done = operate(folder, files)
        files.crash()
        again = 0
        while True:
            files = CrashingFiles(again, variant, backup)
            try:
                with Store(folder, files=files) as store:
                    assert seen(store) in states[done : done + 2]
                break
            except Crash:
                files.crash()
                again += 1
        with Store(folder, files=CrashingFiles(backup=backup)) as store:
            assert store.check() == []


def test_a_store_goes_on_when_the_host_refused_something(tmp_path, expected):
    steps, states = expected
    refusals, errors = 0, set()
    for number in range(0, steps, 3):
        folder = tmp_path / f"store{number}"
        files = CrashingFiles(backup=tmp_path)
        with suppress(HostError):
            Store(folder, files=files).close()
        files.refuse = number
        with Store(folder, files=files) as store:
            for operation, before, after in zip(OPERATIONS, states, states[1:], strict=False):
                try:
                    operation(store)
                except HostError as error:
                    refusals += 1
                    errors.add(str(error).split(": ")[1])
                    if seen(store) == before:
                        operation(store)
                assert seen(store) == after
            store.check(repair=True)
            assert store.check() == []
    assert refusals > 20
    assert errors == {"No space left on device"}
