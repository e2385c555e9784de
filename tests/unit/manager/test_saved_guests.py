"""Saved guests: they go on where they were, once, whatever happens to processes."""

import json
import os

import pytest
from manager_rig import definition, expect, managed, wait_for

from emuvisor.errors import HostError, SnapshotError, StateError
from emuvisor.host import GuestState
from emuvisor.manager.core import CUT_OFF
from emuvisor.manager.lives import Life, read_life, write_life
from emuvisor.store import Store

COUNTER = 0x7000


def counted(manager, name):
    """How far the guest `hello` has counted, while it stands."""
    return int.from_bytes(manager.guest(name).memory.read(COUNTER, 4), "little")


def say_hello(manager, name):
    with manager.console(name) as console:
        expect(console, b"HI\n")


def start_counting(manager, folder, name="web"):
    manager.create(definition(folder, name, "hello"))
    manager.start(name)
    say_hello(manager, name)


def on_the_disk(store_folder, name="web"):
    return json.loads((store_folder / "guests" / name / "state.json").read_text())


def saved_names(manager, name="web"):
    return [info.name for info in manager.store.snapshots(name)]


def test_it_goes_on_in_another_process(tmp_path):
    with managed(tmp_path) as manager:
        start_counting(manager, tmp_path)
        manager.pause("web")
        at = counted(manager, "web")
        manager.save("web")
        assert manager.host.guests == {}
        assert manager.guests()[0].snapshots == 0
        assert manager.snapshots("web") == []
    with managed(tmp_path) as manager:
        assert manager.state("web") is GuestState.SAVED
        manager.start("web", paused=True)
        assert counted(manager, "web") == at
        assert manager.events()[-1].kind == "paused"
        manager.resume("web")
        assert b"HI" not in manager.console("web").read(0)[3:]  # it did not boot again
        manager.guest("web").pause()
        assert counted(manager, "web") >= at


def test_the_state_is_consumed(manager, tmp_path):
    start_counting(manager, tmp_path)
    manager.save("web")
    manager.start("web")
    prefetch = manager._entries["web"].prefetch
    assert prefetch.wait(30)
    assert saved_names(manager) == []
    manager.save("web")
    manager.start("web")
    manager.save("web")  # perhaps while pages of the last state are still needed
    assert manager.state("web") is GuestState.SAVED
    assert len(saved_names(manager)) == 1


def test_a_saved_state_is_thrown_away(manager, tmp_path):
    start_counting(manager, tmp_path)
    manager.save("web")
    manager.stop("web")
    assert manager.state("web") is GuestState.DEFINED
    assert saved_names(manager) == []
    manager.start("web")
    say_hello(manager, "web")


def cut(folder, copy):
    """What a killed process leaves of the store, which a manager has open in `folder`."""
    os.system(f"cp -a '{folder}/store' '{copy}'")


def test_the_process_is_killed_after_it_went_on(tmp_path):
    """No second life comes from a saved state: that would be one of a guest whose disks have gone on."""
    with managed(tmp_path) as manager:
        start_counting(manager, tmp_path)
        manager.save("web")
        manager.start("web", paused=True)
        manager._entries["web"].prefetch.stop()
        again = tmp_path / "again"
        again.mkdir()
        cut(tmp_path, again / "store")
    with managed(again) as manager:
        info = manager.guests()[0]
        assert (info.state, info.reason) == ("crashed", CUT_OFF)
        assert saved_names(manager) == []
        kinds = [(event.kind, dict(event.details)) for event in manager.events()][-1]
        assert kinds == ("crashed", {"old": "running", "reason": CUT_OFF})
        manager.start("web")
        say_hello(manager, "web")


def test_the_process_is_killed_when_the_state_is_whole(tmp_path):
    with managed(tmp_path) as manager:
        start_counting(manager, tmp_path)
        manager.pause("web")
        at = counted(manager, "web")
        manager._write_saved_state(manager._entries["web"], manager.guest("web"))
        again = tmp_path / "again"
        again.mkdir()
        cut(tmp_path, again / "store")
    with managed(again) as manager:
        assert manager.state("web") is GuestState.SAVED
        manager.start("web", paused=True)
        assert counted(manager, "web") == at


def test_a_saved_state_that_is_gone(tmp_path):
    with managed(tmp_path) as manager:
        start_counting(manager, tmp_path)
        manager.save("web")
    with Store(tmp_path / "store") as store:
        store.delete_snapshot("web", "saved-state")
    with managed(tmp_path) as manager:
        assert (manager.guests()[0].state, manager.guests()[0].reason) == (
            "defined",
            "its saved state is gone",
        )


def test_a_saved_state_that_went_under_ones_hands(manager, tmp_path):
    start_counting(manager, tmp_path)
    manager.save("web")
    manager.store.delete_snapshot("web", "saved-state")
    with pytest.raises(SnapshotError, match=r"^guest 'web': its saved state is gone; 'stop' forgets it$"):
        manager.start("web")
    manager.stop("web")
    assert manager.state("web") is GuestState.DEFINED


def test_a_damaged_saved_state(tmp_path):
    with managed(tmp_path) as manager:
        start_counting(manager, tmp_path)
        manager.save("web")
        path = tmp_path / "store/guests/web/snapshots/saved-state.snapshot"
        data = bytearray(path.read_bytes())
        data[60] ^= 1
        path.write_bytes(data)
        with pytest.raises(SnapshotError):
            manager.start("web")
        assert manager.state("web") is GuestState.SAVED
        assert manager.host.guests == {}


def test_one_that_cannot_be_saved_goes_on(manager, tmp_path, monkeypatch):
    start_counting(manager, tmp_path)

    def fail(*args, **options):
        raise HostError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("emuvisor.manager.switching.take_snapshot", fail)
        with pytest.raises(HostError, match=r"^the disk is full$"):
            manager.save("web")
    assert manager.state("web") is GuestState.RUNNING
    assert saved_names(manager) == []


def test_the_end_of_the_host_and_the_next_one(tmp_path):
    with managed(tmp_path) as manager:
        for name in ("a", "b", "c", "d"):
            manager.create(definition(tmp_path, name))
        manager.start("a")
        manager.start("b", paused=True)
        manager.start("c")
        manager.save("c")
        manager.close()
        manager.close()
    with managed(tmp_path) as manager:
        assert [guest.state for guest in manager.guests()] == ["saved", "saved", "saved", "defined"]
        assert manager.resume_saved() == ["a", "b"]
        assert manager.state("c") is GuestState.SAVED


def test_the_end_of_the_host_without_saving(tmp_path):
    with managed(tmp_path) as manager:
        manager.create(definition(tmp_path, "a"))
        manager.start("a")
        manager.close(save=False)
    assert on_the_disk(tmp_path / "store", "a")["state"] == "defined"


def test_the_end_of_the_host_where_saving_fails(tmp_path, monkeypatch):
    warnings = []
    with managed(tmp_path) as manager:
        manager.host.warnings.append(warnings.append)
        manager.create(definition(tmp_path, "a"))
        manager.start("a")

        def fail(*args, **options):
            raise HostError("the disk is full")

        monkeypatch.setattr("emuvisor.manager.switching.take_snapshot", fail)
        manager.close()
    assert warnings == ["guest 'a' cannot be saved, and is switched off: the disk is full"]
    assert on_the_disk(tmp_path / "store", "a")["state"] == "defined"


def test_a_saved_state_that_clones_need(manager, tmp_path):
    """Both names are in use then, at worst."""
    start_counting(manager, tmp_path)
    for clone in ("x", "y"):
        manager.save("web")
        manager.clone("web", [clone], running=False)
        manager.start("web", paused=True)
        manager._entries["web"].prefetch.stop()
    with pytest.raises(StateError) as error:
        manager.save("web")
    assert str(error.value) == "guest 'web': clones of it still need pages of its last saved states"
    assert manager.state("web") is GuestState.PAUSED


def test_only_autostart_is_set_of_a_saved_guest(manager, tmp_path):
    start_counting(manager, tmp_path)
    manager.save("web")
    with pytest.raises(StateError) as error:
        manager.set("web", {"cpu_weight": 5})
    assert str(error.value) == "guest 'web' is saved; set needs it running or paused or defined or crashed"
    manager.set("web", {"autostart": True})
    assert manager.guests()[0].autostart


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "{",
        '{"state": "x", "reason": "", "since": 1, "consumed": "", "parent": ""}',
        '{"state": "running", "reason": 1, "since": 1, "consumed": "", "parent": ""}',
        '{"state": "running", "reason": "", "since": NaN, "consumed": "", "parent": ""}',
        "[" * 5000,
    ],
)
def test_a_damaged_file_of_the_state(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    assert read_life(tmp_path) == Life(since=0.0)


def test_the_file_of_the_state(tmp_path):
    life = Life(GuestState.SAVED, "because", 3.5, "id", "one")
    with Store(tmp_path) as store:
        store.define("web", "")
        write_life(store, "web", life)
        assert read_life(store.guest_folder("web")) == life


def test_a_guest_that_ends_while_it_is_saved(manager, define):
    manager.create(define("web", "off"))
    manager.start("web", paused=True)
    manager.resume("web")
    wait_for(manager, "web", "defined")
    with pytest.raises(StateError):
        manager.save("web")
