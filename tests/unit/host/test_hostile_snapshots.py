"""Snapshots that somebody made up, or that are of something else: one clear error, and nothing is left of it."""

import copy
from contextlib import suppress
from dataclasses import replace

import host_guests as guests
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emuvisor.devices.storage.rawdisk import create_raw
from emuvisor.errors import EmuvisorError, SnapshotError
from emuvisor.host import Host
from emuvisor.host.snapshots import restore_guest, take_snapshot
from emuvisor.machine.config import DiskConfig
from emuvisor.store import Store
from emuvisor.store.manifest import SUFFIX, parse
from emuvisor.units import MIB, PAGE_SIZE

PAGE = b"\x5a" * PAGE_SIZE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store with a snapshot of a guest that has a disk."""
    folder = tmp_path_factory.mktemp("hostile")
    create_raw(folder / "disk.img", MIB)
    with Host(8 * MIB) as host, Store(folder / "store") as store:
        disks = (DiskConfig(folder / "disk.img", overlay="temporary"),)
        config = guests.Maker(folder).config("g", guests.COUNT, disks=disks)
        guest = host.create(config)
        guest.start()
        guest.pause()
        guest.machine.drives[0].image.write(7, b"d" * 512)
        store.define("g", "")
        with guest.checkpoint() as checkpoint:
            take_snapshot(checkpoint, store, "g", "good")
    return folder / "store"


@pytest.fixture
def store(folder):
    with Store(folder) as store:
        yield store
        for info in store.snapshots("g"):
            if info.name != "good":
                store.delete_snapshot("g", info.name)


@pytest.fixture
def host():
    with Host(8 * MIB) as host:
        yield host


def states(store):
    with store.open_snapshot("g", "good") as opened:
        return opened.states()


def crafted(store, made, frames=None, disks=None):
    """A snapshot `bad` with the states `made`, and a page at each of `frames`."""
    with store.open_snapshot("g", "good") as opened, store.new_snapshot("g", "bad") as draft:
        if frames is None:
            draft.inherit(opened)
        else:
            draft.put(np.array(frames), [PAGE] * len(frames))
        draft.commit(made, opened.metadata.disks if disks is None else disks)


def refused(host, store):
    """The message; afterwards nobody holds anything."""
    with pytest.raises(EmuvisorError) as caught:
        restore_guest(host, store, "g", "bad", running=False)
    assert (host.pool.used, host.guests) == (0, {})
    store.delete_snapshot("g", "bad")  # it is closed
    good = restore_guest(host, store, "g", "good", running=False)
    good.delete()
    return str(caught.value)


def changed(state, path, value):
    made = copy.deepcopy(state)
    at = made
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return made


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["device"], "host", "the saved state is of device 'host', not 'guest'"),
        (["version"], 99, "guest: saved state has version 99; this emuvisor reads 1 to 1"),
        (["machine", "version"], 99, "machine: saved state has version 99; this emuvisor reads 1 to 2"),
        (["config"], None, "guest: saved field 'config' is None; expected a saved state"),
        (
            ["config", "memory"],
            2 * MIB,
            "the saved layout of memory is not this guest's: a block of 256 pages at 0x0",
        ),
        (
            ["config", "vcpus"],
            99,
            "its configuration: vcpus: 99 is outside 1 to 8",
        ),
        (
            ["config", "speed"],
            1,
            "its configuration: unknown key 'speed' in the top-level table; did you mean 'seed'?",
        ),
        (["disks"], {}, "it does not say which disks the guest has"),
        (["disks"], [], "it has 0 disks for a guest with 1"),
        (["disks", 0, "format"], "qcow2", "it does not say what is on disk 0"),
        (["disks", 0, "version"], 2, "disk: saved state has version 2; this emuvisor reads 1 to 1"),
        (["memory"], None, "the saved layout of memory is not this guest's: it cannot be read (TypeError)"),
        (["machine", "board"], 3, "machine: saved field 'board' is 3; expected a saved state"),
    ],
)
def test_what_does_not_fit(host, store, path, value, message):
    crafted(store, changed(states(store), path, value))
    assert refused(host, store) == f"snapshot g/bad: {message}"


def test_no_guest_at_all(host, store):
    crafted(store, "nothing")
    assert refused(host, store) == "snapshot g/bad: it holds no guest"


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([3, 0xFFFFFFFF], "page 0xffffffff of the snapshot is outside the guest's 0x100 pages"),
        ([0xC0], "page 0xc0 of the snapshot is where the guest has no memory"),
    ],
)
def test_pages_that_are_nowhere(host, store, frames, message):
    state = states(store)
    layout = state["memory"]
    ends = np.array([0xC0, 0xC1, 0x100], "<u4").tobytes()
    crafted(store, changed(state, ["memory"], {**layout, "ends": ends, "kinds": b"\0\4\0"}), frames)
    assert refused(host, store) == f"snapshot g/bad: {message}"


def test_a_disk_that_would_leave_the_folder(host, store):
    files, folder = store.disks(), store.folder / "guests/g/snapshots"
    good, bad = (folder / (name + SUFFIX) for name in ("good", "bad"))
    manifest = parse(good, good.read_bytes())
    metadata = replace(manifest.metadata, name="bad", disks={"0": ("../../../etc/passwd",)})
    bad.write_bytes(replace(manifest, metadata=metadata).encode())
    with pytest.raises(SnapshotError) as caught:
        restore_guest(host, store, "g", "bad")
    assert str(caught.value).startswith(
        "snapshot g/bad: disk 0: '../../../etc/passwd' cannot be the name of a disk; "
    )
    bad.unlink()
    assert (host.guests, store.disks()) == ({}, files)


def test_a_disk_of_no_files(host, store):
    crafted(store, states(store), disks={"0": []})
    assert refused(host, store) == "snapshot g/bad: it does not say what is on disk 0"


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_files_that_are_damaged(host, folder, data):
    with Store(folder) as store:
        path = folder / "guests/g/snapshots" / ("good" + SUFFIX)
        whole = path.read_bytes()
        kind = data.draw(st.sampled_from(["cut", "flipped", "swapped"]))
        at = data.draw(st.integers(0, len(whole) - 1))
        if kind == "cut":
            path.write_bytes(whole[:at])
        elif kind == "flipped":
            path.write_bytes(
                whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :]
            )
        else:
            crafted(store, {"other": 1})
            path.write_bytes((folder / "guests/g/snapshots" / ("bad" + SUFFIX)).read_bytes())
        try:
            with pytest.raises(SnapshotError):
                restore_guest(host, store, "g", "good", running=False)
        finally:
            path.write_bytes(whole)
            for info in store.snapshots("g"):
                if info.name == "bad":
                    store.delete_snapshot("g", "bad")
        assert (host.pool.used, host.guests) == (0, {})
        restore_guest(host, store, "g", "good", running=False).delete()


plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.binary(max_size=9)
    | st.text(max_size=3)
    | st.just([])
    | st.just({})
)


def places(state, path=()):
    """All paths in `state`."""
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    for key, value in items:
        yield [*path, key]
        yield from places(value, (*path, key))


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_states_that_somebody_changed(host, folder, data):
    with Store(folder) as store:
        made = states(store)
        outside = [
            path
            for path in places(made)
            if path[0] != "config" or path[-1] not in ("path", "overlay", "devices")
        ]
        crafted(store, changed(made, data.draw(st.sampled_from(outside)), data.draw(plain)))
        with suppress(EmuvisorError):
            restore_guest(host, store, "g", "bad", running=False).delete()
        assert (host.pool.used, host.guests) == (0, {})
        store.delete_snapshot("g", "bad")
