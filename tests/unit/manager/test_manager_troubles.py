"""What goes wrong around the manager, and moments between others' operations."""

import io

import pytest
from manager_rig import definition, managed

from emuvisor.errors import ConfigError, HostError, MigrationError, StateError, UsageError
from emuvisor.host import GuestState
from emuvisor.manager import exports, journal, moves
from emuvisor.manager.definitions import size_of
from emuvisor.manager.parts import named_files, replace_files


def failing(*args, **options):
    raise HostError("no")


@pytest.fixture
def warnings(manager):
    heard = []
    manager.host.warnings.append(heard.append)
    return heard


def test_an_event_that_the_store_cannot_take(manager, define, monkeypatch, warnings):
    with monkeypatch.context() as patch:
        patch.setattr(manager.store, "add_event", failing)
        manager.create(define("web"))
        manager.settle()
    assert warnings == ["an event of guest 'web' is not in the store: no"]
    assert [event.kind for event in manager.events()] == ["created"]


def test_a_listener_may_ask_for_events(manager, define):
    asked = []
    manager.listeners.append(lambda event: asked.append(len(manager.events())))
    manager.create(define("web"))
    manager.settle()
    assert asked == [1]


def test_old_events_come_from_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "KEPT", 2)
    with managed(tmp_path) as manager:
        for number in range(5):
            manager.create(definition(tmp_path, f"g{number}"))
        assert [event.number for event in manager.events()] == [1, 2, 3, 4, 5]
        assert [event.number for event in manager.events(after=3)] == [4, 5]


def test_a_guest_that_was_removed_while_one_waited(manager, define):
    manager.create(define("web"))
    waiting = manager._locked("web")
    manager.remove("web")
    with pytest.raises(UsageError, match=r"^there is no guest 'web' in store "), waiting:
        pass


def test_a_console_of_one_that_ended_just_now(manager, define):
    manager.create(define("web"))
    manager.start("web")
    entry = manager._entries["web"]
    consoles, entry.consoles = entry.consoles, None
    with pytest.raises(StateError, match=r"^guest 'web' is running; console needs it running or paused$"):
        manager.console("web")
    entry.consoles = consoles


def test_an_old_saved_state_that_stays(manager, define, monkeypatch, warnings):
    manager.create(define("web"))
    manager.start("web")
    manager.save("web")
    with monkeypatch.context() as patch:
        patch.setattr(manager.store, "delete_snapshot", failing)
        manager.stop("web")
    assert warnings == ["guest 'web': its old saved state cannot be deleted: no"]


def test_a_saved_guest_that_cannot_go_on_stays_saved(manager, define, monkeypatch):
    manager.create(define("web"))
    manager.start("web")
    manager.save("web")
    with monkeypatch.context() as patch:
        patch.setattr("emuvisor.host.guest.Guest.resume", failing)
        with pytest.raises(HostError, match=r"^no$"):
            manager.start("web")
    assert manager.state("web") is GuestState.SAVED
    assert manager.host.guests == {}
    manager.start("web")


def test_one_that_cannot_be_switched_off_in_the_end(tmp_path, monkeypatch):
    warnings = []
    with managed(tmp_path) as manager:
        manager.host.warnings.append(warnings.append)
        manager.create(definition(tmp_path, "web"))
        manager.start("web")
        monkeypatch.setattr(manager, "stop", failing)
        manager.close(save=False)
    assert warnings == ["guest 'web': no"]


def test_an_overlay_that_is_not_there_yet(manager, define, tmp_path):
    manager.create(
        define("web", board="pc", disks=[{"path": str(tmp_path / "spin.bin"), "overlay": "temporary"}])
    )
    assert manager.info("web")["disks"][0]["bytes"] is None


def test_a_file_that_is_cut_under_ones_hands():
    with pytest.raises(UsageError, match=r"^it is cut off$"):
        list(exports._chunks(io.BytesIO(b"ab"), 3))


def test_files_of_definitions():
    data = {
        "kernel": {"path": "/k", "initrd": "/i"},
        "firmware": "seabios",
        "firmware_variables": "/v",
        "option_roms": ["/r"],
    }
    assert named_files(data) == {
        "kernel": "/k",
        "initrd": "/i",
        "firmware-variables": "/v",
        "rom0": "/r",
    }
    replace_files(data, lambda what, path: f"{what}:{path}")
    assert data["kernel"] == {"path": "kernel:/k", "initrd": "initrd:/i"}
    assert data["option_roms"] == ["rom0:/r"]


def test_sizes():
    assert size_of("key", "2M", "it") == 2 << 20
    with pytest.raises(ConfigError) as error:
        size_of("key", "much", "it")
    assert str(error.value).startswith("it: key: 'much' is not a size")


def test_one_that_comes_ended(tmp_path):
    """A guest that has switched itself off by the time that it is here."""
    with managed(tmp_path) as manager:
        manager.create(definition(tmp_path, "web"))
        config = manager._definition(manager._entries["web"]).config
        manager.remove("web")
        guest = manager.host.create(config)
        guest.start()
        guest.stop()
        assert manager._welcome(guest).state == "defined"
        manager.settle()
        assert manager.host.guests == {}


class Target:
    """One that is in doubt for a while, or still misses pages."""

    address = "nowhere"

    def __init__(self, host, *_, admit=None):
        self.host = host
        self.doubts = ["why", "why", ""]
        self.left = [2, 1, 0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def in_doubt(self):
        return self.doubts.pop(0)

    @property
    def missing(self):
        return self.left.pop(0)

    def receive(self, timeout_s):
        raise MigrationError("it stayed")


def test_whoever_doubts_is_answered(manager, monkeypatch):
    monkeypatch.setattr(moves, "LOOK_S", 0)
    monkeypatch.setattr(moves, "Target", Target)
    with pytest.raises(MigrationError, match=r"^it stayed$"):
        manager.receive("tcp:127.0.0.1:0")


def test_the_last_pages_are_waited_for(manager, define, monkeypatch):
    monkeypatch.setattr(moves, "LOOK_S", 0)
    manager.create(define("web"))
    config = manager._definition(manager._entries["web"]).config
    manager.remove("web")

    class Ready(Target):
        def receive(self, timeout_s):
            guest = self.host.create(config)
            guest.start()
            return guest

    monkeypatch.setattr(moves, "Target", Ready)
    assert manager.receive("tcp:127.0.0.1:0").state == "running"
