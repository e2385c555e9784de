"""Guests' snapshots in the store, and guests that go on from them."""

import socket
import threading
from dataclasses import replace

import host_guests as guests
import numpy as np
import pytest

from emuvisor.devices.storage.rawdisk import create_raw
from emuvisor.errors import HostError, ImageError, SnapshotError, StateError, UsageError
from emuvisor.host import GuestState, Host
from emuvisor.host.snapshots import Prefetch, remove_unused_disks, restore_guest, take_snapshot
from emuvisor.host.snapshots import prefetch as prefetch_module
from emuvisor.machine.config import DiskConfig, NicConfig
from emuvisor.machine.outcome import Ending
from emuvisor.memory import FrameState
from emuvisor.memory.compressed import CompressedStore
from emuvisor.net.config import NetworkConfig
from emuvisor.store import Store
from emuvisor.store import lazy as lazy_module
from emuvisor.store.files import HostFiles
from emuvisor.units import MIB, PAGE_SIZE

PATIENCE_S = 60
FILLED = range(40, 100)
"""Pages in which each guest here has something of its own."""
COUNTER = 0x7004


class Files(HostFiles):
    """Refuses to write when it is told to."""

    full = False

    def append(self, path, data):
        if self.full:
            raise OSError(28, "No space left on device")
        super().append(path, data)

    def replace(self, path, data):
        if self.full:
            raise OSError(28, "No space left on device")
        super().replace(path, data)


@pytest.fixture
def files():
    return Files()


@pytest.fixture
def store(tmp_path, files):
    with Store(tmp_path / "store", files=files) as store:
        store.define("g", "")
        yield store


@pytest.fixture
def host():
    with Host(8 * MIB) as host:
        yield host
    assert host.pool.used == 0


@pytest.fixture
def make(tmp_path):
    return guests.Maker(tmp_path)


def page(number):
    return number.to_bytes(2, "little") * (PAGE_SIZE // 2)


@pytest.fixture
def guest(host, make):
    """A paused one in the middle of counting."""
    return counting(host, make)


def counting(host, make, **fields):
    guest = make(host, "g", guests.say("!", guests.COUNT), **fields)
    guest.start()
    assert guest.expect("!", PATIENCE_S)
    guest.pause()
    for number in FILLED:
        guest.memory.write(number * PAGE_SIZE, page(number))
    return guest


def take(guest, store, name="a", **options):
    with guest.checkpoint() as checkpoint:
        return take_snapshot(checkpoint, store, "g", name, **options)


def content(guest):
    return guest.memory.read(0, MIB // 2)


def count_of(guest):
    return int.from_bytes(guest.memory.read(COUNTER, 4), "little")


# ---- there and back ----


def test_a_guest_goes_on_in_another_host(host, guest, store):
    seen = []
    info = take(guest, store, comment="half way", progress=lambda *done: seen.append(done))
    assert seen[-1] == (info.pages, info.pages)
    assert (info.guest, info.name, info.metadata.comment, guest.state) == ("g", "a", "half way", "paused")
    before = content(guest)
    with Host(2 * MIB, pcpus=2) as other:
        again = restore_guest(other, store, "g", "a", running=False)
        assert (again.name, again.state, again.reason) == (
            "g",
            GuestState.PAUSED,
            "restored from snapshot g/a",
        )
        assert again.config == guest.config
        assert again.memory.census()["saved"] == info.pages
        assert other.pool.used == 0
        assert content(again) == before
        again.resume()
        counts = threading.Event()
        while count_of(again) == count_of(guest):
            counts.wait(0.001)
        again.pause()
        assert count_of(again) > count_of(guest)
        assert again.console.text == "!"


def test_the_guest_runs_on_while_it_is_written(host, guest, store):
    guest.resume()
    with guest.checkpoint() as checkpoint:
        moment = count_of(checkpoint)
        info = take_snapshot(checkpoint, store, "g", "a")
    assert guest.state is GuestState.RUNNING
    assert info.metadata.created == checkpoint.taken
    guest.pause()
    assert count_of(restore_guest(host, store, "g", "a", name="h", running=False)) == moment


def test_what_is_the_same_is_stored_once(host, guest, store):
    first = take(guest, store)
    guest.memory.write(FILLED[0] * PAGE_SIZE, b"new")
    second = take(guest, store, "b", parent="a")
    assert store.parent_of(second) == first
    assert (first.pages, second.pages) == (second.pages, first.pages)
    assert store.info().pages == first.pages + 1


def test_pages_that_have_no_frame_are_read_where_they_are(host, guest, store):
    before = content(guest)
    guest.memory.stores[FrameState.COMPRESSED] = CompressedStore(MIB)
    with host.lock:
        gone = guest.memory.send_away(
            FrameState.COMPRESSED, guest.memory.evictable(30, FrameState.COMPRESSED)
        )
    assert gone == 30
    used = host.pool.used
    take(guest, store)
    assert (host.pool.used, guest.memory.census()["compressed"]) == (used, 30)
    assert content(restore_guest(host, store, "g", "a", name="h", running=False)) == before


def test_without_memory_to_read_a_page(guest, store):
    class Short(CompressedStore):
        def load(self, _slot, _into):
            raise MemoryError

    guest.memory.stores[FrameState.COMPRESSED] = Short(MIB)
    guest.memory.send_away(FrameState.COMPRESSED, guest.memory.evictable(1, FrameState.COMPRESSED))
    with pytest.raises(HostError) as caught:
        take(guest, store)
    assert str(caught.value) == "the host has no memory to read a guest's page from its store"
    assert not store.snapshots()


def test_pages_that_nobody_touched_are_only_named(host, guest, store, tmp_path):
    before = content(guest)
    first = take(guest, store)
    restored = restore_guest(host, store, "g", "a", name="h", running=False)
    lazy = host.memory.saved_pages()
    second = take(restored, store, "b", parent="a")
    assert (second.pages, lazy.statistics["loaded"]) == (first.pages, 0)
    assert second.metadata.bytes == first.metadata.bytes
    with Store(tmp_path / "other") as other:
        other.define("g", "")
        take(restored, other)
        assert lazy.statistics["loaded"] == first.pages
        restored.delete()
        store.delete_snapshot("g", "a")
        store.gc(0)
        for number, kept in enumerate((store, other)):
            name = "ba"[number]
            again = restore_guest(host, kept, "g", name, name="i", running=False)
            assert content(again) == before
            again.delete()


def test_several_from_the_same(host, guest, store):
    take(guest, store)
    copies = [restore_guest(host, store, "g", "a", name=f"copy{n}", running=False) for n in range(3)]
    copies[0].memory.write(FILLED[0] * PAGE_SIZE, b"mine")
    assert [copy.memory.read(FILLED[0] * PAGE_SIZE, 4) for copy in copies] == [
        b"mine",
        *[page(FILLED[0])[:4]] * 2,
    ]
    with copies[1].checkpoint() as checkpoint:
        clone = host.clone(checkpoint, "clone", running=False)
    copies[1].delete()
    assert clone.memory.read(FILLED[1] * PAGE_SIZE, 2) == page(FILLED[1])[:2]
    with pytest.raises(UsageError) as caught:
        restore_guest(host, store, "g", "a")
    assert str(caught.value) == "there is a guest 'g' already"


def test_an_empty_guest(host, make, store, tmp_path):
    (tmp_path / "zeros.bin").write_bytes(bytes(16))
    config = make.config("g", guests.SPIN)
    guest = host.create(replace(config, flat=replace(config.flat, path=tmp_path / "zeros.bin")))
    guest.start()
    guest.pause()
    guest.memory.reset()
    assert take(guest, store).pages == 0
    restore_guest(host, store, "g", "a", name="h", running=False)
    store.delete_snapshot("g", "a")  # nobody waits for a page of it


# ---- what fails leaves nothing ----


def test_what_there_is_not(guest, store):
    take(guest, store)
    for name, options, message in (
        ("b", {"parent": "c"}, "guest 'g' has no snapshot 'c'"),
        ("a", {}, "guest 'g' has a snapshot 'a' already"),
    ):
        with pytest.raises(UsageError) as caught:
            take(guest, store, name, **options)
        assert str(caught.value) == message
    with guest.checkpoint() as checkpoint:
        pass
    with pytest.raises(SnapshotError) as caught:
        take_snapshot(checkpoint, store, "g", "b")
    assert str(caught.value) == "the checkpoint of guest 'g' is closed"


def test_a_checkpoint_that_is_closed_meanwhile(guest, store):
    with guest.checkpoint() as checkpoint, pytest.raises(SnapshotError) as caught:
        take_snapshot(checkpoint, store, "g", "a", progress=lambda _done, _total: checkpoint.close())
    assert str(caught.value) == "the checkpoint of guest 'g' is closed"
    assert store.snapshots() == []


def test_a_full_disk(guest, store, files):
    guest.resume()
    files.full = True
    with pytest.raises(HostError, match="No space left on device"):
        take(guest, store)
    files.full = False
    assert (guest.state, store.snapshots()) == (GuestState.RUNNING, [])
    guest.pause()
    take(guest, store)


def test_somebody_who_does_not_want_it_any_more(guest, store):
    def stop(_done, _total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take(guest, store, progress=stop)
    assert store.snapshots() == []
    store.gc()


def test_a_host_without_room_for_what_must_have_frames(store, make):
    with Host(8 * MIB) as host:
        config = replace(make.config("g", guests.SPIN), board="pc")
        guest = host.create(config)
        guest.start()
        guest.pause()
        guest.memory.regions[0].write(0, b"x" * MIB)
        take(guest, store)
    with Host(MIB // 2) as small:
        with pytest.raises(HostError, match=r"^no frame for page \d+ of a device's memory: "):
            restore_guest(small, store, "g", "a")
        assert (small.pool.used, small.guests) == (0, {})
    store.delete_snapshot("g", "a")


# ---- its surroundings ----


def test_another_clock(host, guest, store):
    take(guest, store)
    then = guest.machine.clock.now_ns()
    other = restore_guest(host, store, "g", "a", name="h", running=False, clock="host")
    assert other.config.clock == "host"
    assert 0 <= other.machine.clock.now_ns() - then < PATIENCE_S * 10**9  # it goes on from the saved time


def test_the_file_of_uefi_variables_is_the_source_s(host, guest, store, tmp_path):
    variables = tmp_path / "variables"
    guest.machine.config = replace(guest.machine.config, firmware_variables=variables)
    take(guest, store)
    assert restore_guest(host, store, "g", "a", name="h", running=False).config.firmware_variables is None
    guest.delete()
    assert restore_guest(host, store, "g", "a", running=False).config.firmware_variables == variables


def test_networks_by_name(store, make):
    nic = NicConfig("lab", forwards=())
    with Host(8 * MIB) as host:
        host.add_network(NetworkConfig("lab", uplink="none"))
        config = replace(make.config("g", guests.SPIN), board="microvm", nics=(nic,), clock="host")
        guest = host.create(config)
        guest.start()
        take(guest, store)
        twin = restore_guest(host, store, "g", "a", name="h")
        assert twin.config.known_as == "h"
        same = restore_guest(host, store, "g", "a", name="i", network="user", same_identity=True)
        assert (same.config.known_as, same.config.nics[0].network) == ("g", "user")
        assert [g.config.nics[0].address(g.config.known_as, 0) for g in (guest, twin, same)] == [
            nic.address("g", 0),
            nic.address("h", 0),
            nic.address("g", 0),
        ]
    with Host(8 * MIB) as host:
        with pytest.raises(UsageError) as caught:
            restore_guest(host, store, "g", "a")
        assert str(caught.value) == "guest 'g': there is no network 'lab'; there are: user"
        assert host.guests == {}


def test_ports_that_are_taken_are_left_out(store, make):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = f"tcp:{server.getsockname()[1]}:80"
        nic = NicConfig("user", forwards=("tcp:0:22", "udp:0:53"))
        config = replace(make.config("g", guests.SPIN), board="microvm", nics=(nic,), clock="host")
        with Host(8 * MIB) as host:
            guest = host.create(config)
            guest.start()
            guest.pause()
            guest.machine.config = replace(config, nics=(replace(nic, forwards=(*nic.forwards, taken)),))
            take(guest, store)
        with Host(8 * MIB) as host:
            heard = []
            host.warnings.append(heard.append)
            again = restore_guest(host, store, "g", "a")
            assert again.config.nics[0].forwards == nic.forwards
            assert heard == [f"guest 'g': forward {taken} is left out: the host's port is taken"]


# ---- disks ----


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    create_raw(path, MIB)
    return path


def drive(guest, number=0):
    return guest.machine.drives[number].image


def test_disks_are_in_it(host, make, store, disk, tmp_path):
    floppy = tmp_path / "floppy.img"
    create_raw(floppy, 1440 * 1024)
    disks = (DiskConfig(disk, overlay="temporary"), DiskConfig(floppy, kind="floppy"))
    guest = counting(host, make, disks=disks)
    drive(guest).write(3, b"a" * 512)
    drive(guest, 1).write(5, b"f" * 512)
    take(guest, store)
    drive(guest).write(3, b"b" * 512)
    assert len(store.disks()) == 2

    forgets = restore_guest(host, store, "g", "a", name="h", running=False)
    assert forgets.config.disks[0].overlay == "temporary"
    assert (drive(forgets).read(3, 1), drive(forgets, 1).read(5, 1)) == (b"a" * 512, b"f" * 512)
    assert (drive(forgets).read_only, drive(forgets, 1).read_only) == (False, True)

    kept = tmp_path / "kept.overlay"
    keeps = restore_guest(host, store, "g", "a", name="i", running=False, overlay=lambda number: kept)
    drive(keeps).write(4, b"c" * 512)
    third = take(keeps, store, "b", parent="a")
    assert [len(layers) for layers in third.metadata.disks.values()] == [
        2
    ]  # the floppy cannot be written any more
    keeps.delete()
    last = restore_guest(host, store, "g", "b", name="i", running=False)
    assert drive(last).read(3, 2) == b"a" * 512 + b"c" * 512
    assert last.config.disks[1].path == forgets.config.disks[1].path


def test_disks_that_nobody_needs(host, make, store, disk):
    guest = counting(host, make, disks=(DiskConfig(disk, overlay="temporary"),))
    drive(guest).write(3, b"a" * 512)
    take(guest, store)
    restored = restore_guest(host, store, "g", "a", name="h", running=False)
    drive(restored).write(4, b"b" * 512)
    take(restored, store, "b")
    (store.disk_path("x").parent / ".snapshot-cut.img").write_bytes(b"half")
    store.disk_path("mine").write_bytes(b"of somebody")
    for snapshot in ("a", "b"):
        assert remove_unused_disks(store) == (4096 if snapshot == "a" else 0)  # what a crash left
        content(restored)
        restored.memory.reset()
        store.delete_snapshot("g", snapshot)
    assert remove_unused_disks(store) > 0  # the upper layer of b
    assert len(store.disks()) == 2  # the guest stands on that of a
    restored.delete()
    with store.new_snapshot("g", "c"):
        assert remove_unused_disks(store) == 0
    assert remove_unused_disks(store) > 0
    assert store.disks() == ["mine"]


def test_disks_that_definitions_name(store):
    layers = [store.disk_path(f"snapshot-{n}") for n in range(2)]
    for path in layers:
        path.write_bytes(b"x")
    store.define("g", f'[[disks]]\npath = "{layers[0]}"\nreadonly = true\n', replace=True)
    assert remove_unused_disks(store) > 0
    assert store.disks() == ["snapshot-0"]
    store.define("h", "")
    (store.folder / "guests/h/guest.toml").write_bytes(b"[[")  # it may name any of them
    store.define("g", "", replace=True)
    assert remove_unused_disks(store) == 0
    store.delete_guest("h")
    assert remove_unused_disks(store) > 0


def test_a_disk_that_cannot_be_written(host, make, store, disk, monkeypatch):
    disks = (DiskConfig(disk, overlay="temporary"), DiskConfig(disk, overlay="temporary"))
    guest = counting(host, make, disks=disks)

    def full(_path):
        raise ImageError("the host is full")

    with guest.checkpoint() as checkpoint:
        monkeypatch.setattr(checkpoint.disks[1], "save", full)
        with pytest.raises(ImageError, match="the host is full"):
            take_snapshot(checkpoint, store, "g", "a")
    assert (store.disks(), store.snapshots()) == ([], [])


def test_a_disk_whose_base_is_gone_or_another_one(host, make, store, disk):
    guest = counting(host, make, disks=(DiskConfig(disk, overlay="temporary"),))
    drive(guest).write(3, b"a" * 512)
    take(guest, store)
    layer = store.disk_path(store.disks()[0])
    disk.rename(disk.with_suffix(".away"))
    with pytest.raises(ImageError, match=r"disk\.img: cannot open the disk image: No such file or directory"):
        restore_guest(host, store, "g", "a", name="h")
    create_raw(disk, 2 * MIB)
    with pytest.raises(ImageError, match="base"):
        restore_guest(host, store, "g", "a", name="h")
    layer.unlink()
    with pytest.raises(SnapshotError) as caught:
        restore_guest(host, store, "g", "a", name="h")
    assert str(caught.value) == f"snapshot g/a: disk 0: {layer} is gone"
    assert list(host.guests) == ["g"]


def test_a_disk_that_is_not_in_it(host, make, store, disk):
    guest = counting(host, make, disks=(DiskConfig(disk, overlay="temporary"),))
    with guest.checkpoint() as checkpoint:
        checkpoint.disks[0].close()
        checkpoint.disks[0] = None
        take_snapshot(checkpoint, store, "g", "a")
    assert restore_guest(host, store, "g", "a", name="h", running=False).config.disks == guest.config.disks


# ---- bringing the rest ----


def test_a_guest_that_has_all_its_pages_lets_go_of_the_snapshot(host, guest, store, monkeypatch):
    monkeypatch.setattr(prefetch_module, "BATCH", 10)
    before = content(guest)
    info = take(guest, store)
    restored = restore_guest(host, store, "g", "a", name="h", running=False)
    with pytest.raises(StateError) as caught:
        store.delete_snapshot("g", "a")
    assert str(caught.value) == (
        "snapshot 'a' is in use: a guest that was restored from it still takes pages from it"
    )
    ended = []
    prefetch = Prefetch(restored, ended.append)
    assert prefetch.left == info.pages
    prefetch.start()
    assert prefetch.wait(PATIENCE_S)
    assert (ended, prefetch.reason, prefetch.left, prefetch.brought) == ([prefetch], "", 0, info.pages)
    store.delete_snapshot("g", "a")
    assert content(restored) == before


def test_bringing_ends_where_frames_are_scarce(host, guest, store, monkeypatch):
    take(guest, store)
    restored = restore_guest(host, store, "g", "a", name="h", running=False)
    monkeypatch.setattr(prefetch_module, "SPARE", 1.0)
    prefetch = Prefetch(restored).start()
    assert prefetch.wait(PATIENCE_S)
    assert (prefetch.reason, prefetch.brought) == ("the host's frames are scarce", 0)
    monkeypatch.setattr(prefetch_module, "SPARE", 0.0)
    restored.memory.take_limit = restored.memory.frames_taken + 5
    prefetch = Prefetch(restored).start()
    assert prefetch.wait(PATIENCE_S)
    assert (prefetch.reason, restored.memory.frames_taken) == ("the guest may take no more frames", 5)


def test_bringing_ends_with_the_guest_or_when_it_is_told(host, guest, store):
    take(guest, store)
    restored = restore_guest(host, store, "g", "a", name="h", running=False)
    stopped = Prefetch(restored)
    stopped._stopping.set()
    stopped.start()
    stopped.stop()
    assert stopped.reason == "it was stopped"
    restored.delete()
    gone = Prefetch(restored).start()
    assert gone.wait(PATIENCE_S)
    assert gone.reason == "the guest is gone"


def test_bringing_waits_while_somebody_else_has_the_memory(host, guest, store):
    take(guest, store)
    restored = restore_guest(host, store, "g", "a", name="h", running=False)
    prefetch = Prefetch(restored)
    waits = []

    class Stopping:
        def wait(self, _seconds):
            restored.loading = len(waits) < 2
            waits.append(restored.loading)

    prefetch._stopping = Stopping()
    prefetch.start()
    assert prefetch.wait(PATIENCE_S)
    assert (waits[:3], prefetch.left) == ([True, True, False], 0)


def test_more_pages_than_a_host_can_wait_for(host, guest, store, monkeypatch):
    info = take(guest, store)
    monkeypatch.setattr(lazy_module, "MAX_PAGES", info.pages - 1)
    with pytest.raises(SnapshotError) as caught:
        restore_guest(host, store, "g", "a", name="h")
    assert str(caught.value) == (
        f"snapshot g/a: snapshot 'a' has {info.pages} pages; restored guests can wait for {info.pages - 1}"
    )
    store.delete_snapshot("g", "a")


def test_a_host_without_threads(host, guest, store, monkeypatch):
    prefetch = Prefetch(guest)

    def refuse():
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(prefetch._thread, "start", refuse)
    with pytest.raises(HostError) as caught:
        prefetch.start()
    assert str(caught.value) == "the host gives no thread for prefetch"


def test_pages_that_are_lost(host, guest, store):
    take(guest, store)
    restored = restore_guest(host, store, "g", "a", name="h", running=False)
    for pack in (store.folder / "packs").iterdir():
        data = np.frombuffer(pack.read_bytes(), np.uint8).copy()
        data[32:2000] ^= 0xFF
        pack.write_bytes(data.tobytes())
    prefetch = Prefetch(restored).start()
    assert prefetch.wait(PATIENCE_S)
    assert "is lost: page" in prefetch.reason
    restored.resume()
    assert restored.wait(PATIENCE_S)
    assert (restored.state, restored.outcome.ending) == (GuestState.CRASHED, Ending.PAGE_LOST)
