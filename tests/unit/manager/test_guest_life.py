"""A guest from creation to deletion."""

import json

import pytest
from manager_rig import definition, expect, managed, wait_for

from emuvisor.errors import ConfigError, ImageError, StateError, UsageError
from emuvisor.host import GuestState
from emuvisor.manager import Freed
from emuvisor.units import MIB

KINDS = ("running", "paused", "saved", "crashed", "defined")


def kinds(manager, guest):
    return [event.kind for event in manager.events(guest=guest)]


def test_a_life(manager, define):
    info = manager.create(define("web", "hello", autostart=True))
    assert (info.name, info.state, info.board, info.memory, info.vcpus) == ("web", "defined", "isa", MIB, 1)
    assert info.autostart
    manager.start("web")
    with manager.console("web") as console:
        expect(console, b"HI\n")
    manager.pause("web")
    assert manager.info("web")["statistics"]["state"] == "paused"
    manager.resume("web")
    manager.reset("web")
    manager.stop("web")
    assert manager.guests()[0].state == "defined"
    assert not manager.host.guests
    freed = manager.remove("web")
    assert freed.frames == 0
    assert manager.guests() == []
    assert kinds(manager, "web") == [
        *("created", "running", "paused", "running", "running", "defined", "removed"),
    ]


def test_events_have_numbers_and_reasons(manager, define):
    manager.create(define("web"))
    manager.settle()
    heard = []
    manager.listeners.append(heard.append)
    manager.start("web", paused=True)
    manager.settle()
    assert [(e.number, e.guest, e.kind, e.details) for e in heard] == [
        (2, "web", "running", {"old": "defined", "reason": "started"}),
        (3, "web", "paused", {"old": "running", "reason": "paused"}),
    ]
    assert manager.events(after=1) == heard
    assert manager.events(after=1, limit=1) == heard[:1]
    assert manager.events(after=3) == []
    assert manager.last_event == 3


def test_events_go_on_in_the_next_process(tmp_path):
    with managed(tmp_path) as manager:
        manager.create(definition(tmp_path, "a"))
    with managed(tmp_path) as manager:
        manager.create(definition(tmp_path, "b"))
        assert [(e.number, e.guest, e.kind) for e in manager.events()] == [
            (1, "a", "created"),
            (2, "b", "created"),
        ]


def test_a_listener_that_fails_disturbs_nobody(manager, define):
    warnings, heard = [], []
    manager.host.warnings.append(warnings.append)

    def fail(event):
        raise ValueError("no")

    manager.listeners.extend([fail, heard.append])
    manager.create(define("web"))
    manager.settle()
    assert len(heard) == 1
    assert warnings == ["a listener to events failed: ValueError: no"]


@pytest.mark.parametrize(
    ("verb", "wanted"),
    [
        ("stop", "running or paused or crashed or saved"),
        ("reset", "running or paused"),
        ("pause", "running or paused"),
        ("resume", "paused"),
        ("save", "running or paused"),
        ("snapshot", "running or paused"),
        ("shutdown", "running"),
    ],
)
def test_the_wrong_order(manager, define, verb, wanted):
    manager.create(define("web"))
    with pytest.raises(StateError) as error:
        getattr(manager, verb)("web")
    assert str(error.value) == f"guest 'web' is defined; {verb} needs it {wanted}"


def test_a_guest_that_is_on_stays(manager, define):
    manager.create(define("web"))
    manager.start("web")
    for verb, act in (("rm", lambda: manager.remove("web")), ("rename", lambda: manager.rename("web", "x"))):
        with pytest.raises(StateError) as error:
            act()
        assert str(error.value) == f"guest 'web' is running; {verb} needs it defined or saved or crashed"
    with pytest.raises(StateError) as error:
        manager.start("web")
    assert str(error.value) == "guest 'web' is running; start needs it defined or saved or crashed"
    assert manager.remove("web", force=True).frames > 0


def test_unknown_guests(manager):
    message = f"there is no guest 'nobody' in store {manager.store.folder}"
    for act in (manager.start, manager.info, manager.definition, manager.logs, manager.remove, manager.guest):
        with pytest.raises(UsageError) as error:
            act("nobody")
        assert str(error.value) == message


def test_what_is_off_has_no_console(manager, define):
    manager.create(define("web"))
    with pytest.raises(StateError) as error:
        manager.console("web")
    assert str(error.value) == "guest 'web' is defined; this needs it running or paused"


def test_names_are_taken_once(manager, define):
    manager.create(define("web"))
    with pytest.raises(StateError, match=r"^there is a guest 'web' already$"):
        manager.create(define("web"))
    manager.create(define("other"))
    with pytest.raises(StateError, match=r"^there is a guest 'other' already$"):
        manager.rename("web", "other")
    with pytest.raises(UsageError, match="cannot be the name of a guest"):
        manager.rename("web", "../x")
    with pytest.raises(UsageError, match="cannot be the name of a guest"):
        manager.create(define(".hidden"))


def test_too_many_guests(tmp_path):
    with managed(tmp_path, max_guests=1) as manager:
        manager.create(definition(tmp_path, "a"))
        with pytest.raises(UsageError) as error:
            manager.create(definition(tmp_path, "b"))
        assert str(error.value) == "there are 1 guests; 1 more are too many, 1 is the limit"


def test_one_that_ends_gives_its_memory_back(manager, define):
    manager.create(define("web", "off"))
    free = manager.host.pool.free
    manager.start("web")
    wait_for(manager, "web", "defined")
    assert manager.guests()[0].reason == "power-off"
    assert not manager.host.guests
    assert manager.host.pool.free == free
    manager.start("web")
    wait_for(manager, "web", "defined")


def test_one_that_crashed_can_be_looked_at(manager, define):
    manager.create(define("web", "crash"))
    manager.start("web")
    wait_for(manager, "web", "crashed")
    assert manager.guest("web").state is GuestState.CRASHED
    assert manager.guests()[0].reason == "triple-fault: at RIP 0x5"
    manager.start("web")
    wait_for(manager, "web", "crashed")
    manager.stop("web")
    assert (manager.guests()[0].state, manager.guests()[0].reason) == ("defined", "stopped")
    assert not manager.host.guests


def test_what_cannot_start_stays_what_it_was(manager, define, tmp_path):
    manager.create(define("web", "spin"))
    (tmp_path / "spin.bin").unlink()
    with pytest.raises(ImageError):
        manager.start("web")
    assert manager.guests()[0].state == "defined"
    assert not manager.host.guests
    assert json.loads((manager.store.guest_folder("web") / "state.json").read_text())["state"] == "defined"


def test_shutdown(manager, define):
    manager.create(define("deaf", "spin"))
    manager.start("deaf")
    assert not manager.shutdown("deaf", 0.05)
    assert manager.state("deaf") == "defined"


def test_shutdown_of_one_that_goes_by_itself(manager, define, monkeypatch):
    manager.create(define("web", "echo"))
    manager.start("web")
    guest = manager.guest("web")
    monkeypatch.setattr(guest, "press_power_button", lambda: guest.type("!"))
    assert manager.shutdown("web", 30)
    assert manager.guests()[0].reason == "power-off"


def test_rename_keeps_all(manager, define):
    manager.create(define("web", "hello"))
    manager.start("web")
    with manager.console("web") as console:
        expect(console, b"HI")
    manager.snapshot("web", "one")
    manager.stop("web")
    manager.rename("web", "shop")
    assert [guest.name for guest in manager.guests()] == ["shop"]
    assert manager.definition("shop").startswith('name = "shop"\n')
    assert [snapshot.name for snapshot in manager.snapshots("shop")] == ["one"]
    assert manager.logs("shop").startswith(b"HI")
    manager.restore("shop", "one", running=False)
    assert manager.guest("shop").name == "shop"


def test_a_name_that_a_crash_left_behind_in_the_text(tmp_path):
    with managed(tmp_path) as manager:
        manager.create(definition(tmp_path, "web"))
        manager.store.rename_guest("web", "shop")
    with managed(tmp_path) as manager:
        assert [guest.name for guest in manager.guests()] == ["shop"]
        assert manager.info("shop")["definition"]["name"] == "shop"


def test_a_damaged_definition_does_not_hide_the_others(tmp_path):
    with managed(tmp_path) as manager:
        manager.create(definition(tmp_path, "a"))
        manager.create(definition(tmp_path, "b"))
        (manager.store.guest_folder("a") / "guest.toml").write_text("memory = 1\n")
    with managed(tmp_path) as manager:
        broken, good = manager.guests()
        assert (broken.name, broken.board, good.board) == ("a", "?", "isa")
        assert broken.reason.startswith("the definition of guest 'a': ")
        with pytest.raises(ConfigError):
            manager.start("a")
        (manager.store.guest_folder("a") / "guest.toml").write_text("= nothing\n")
        with pytest.raises(ConfigError, match=r"^the definition of guest 'a' is no TOML: "):
            manager.info("a")
        assert manager.remove("a") == Freed(0, 0)


def test_autostart(tmp_path):
    with managed(tmp_path) as manager:
        warnings = []
        manager.host.warnings.append(warnings.append)
        for name, auto in (("a", True), ("b", False), ("c", True)):
            manager.create(definition(tmp_path, name, autostart=auto))
        manager.store.define("d", 'name = "d"\nautostart = true\n', replace=True)
        path = tmp_path / "gone.bin"
        path.touch()
        manager.create(
            definition(tmp_path, "e", autostart=True) | {"flat": {"path": str(path), "address": 0x8000}}
        )
        path.unlink()
        assert manager.start_marked() == ["a", "c"]
        assert len(warnings) == 1
        assert warnings[0].startswith("guest 'e' is not started: ")


def test_the_definition_of_autostart(manager, define):
    with pytest.raises(ConfigError) as error:
        manager.create(define("web", autostart=1))
    assert str(error.value) == "the definition: autostart: 1 is not true or false"


def test_screens_and_keys_need_a_board_that_has_them(manager, define):
    manager.create(define("web", board="pc"))
    manager.start("web")
    assert manager.screenshot("web").startswith(b"\x89PNG")
    manager.send_keys("web", ["ret"])
    with pytest.raises(UsageError) as error:
        manager.send_keys("web", ["ret"] * 1001)
    assert str(error.value) == "1001 keys at once are too many; the limit is 1000"


def test_console_ports(manager, define):
    manager.create(define("web", board="microvm", console_ports=["agent"]))
    manager.start("web")
    with pytest.raises(UsageError) as error:
        manager.console("web", "port")
    assert str(error.value) == "guest 'web': there is no console port 'port'; there are: agent"
    with manager.console("web", "agent") as console:
        assert console.read(0) == b""


def test_one_without_a_serial_port(manager, define):
    manager.create(define("web", serial_ports=0))
    manager.start("web")
    with pytest.raises(UsageError, match=r"^guest 'web' has no serial port$"):
        manager.console("web")


def test_networks_that_only_definitions_name(manager, define, tmp_path):
    path = define("x")["flat"]
    manager.create(
        {
            "name": "web",
            "board": "microvm",
            "memory": MIB,
            "clock": "host",
            "flat": path,
            "nics": [{"network": "lan"}],
        }
    )
    mac = manager.info("web")["definition"]["nics"][0]["mac"]
    assert mac.startswith("52:54:00:")
    manager.start("web")
    assert list(manager.host.networks) == ["lan"]
    assert manager.info("web")["forwards"] == []
    manager.stop("web")
    manager.rename("web", "shop")
    assert manager.info("shop")["definition"]["nics"][0]["mac"] == mac
