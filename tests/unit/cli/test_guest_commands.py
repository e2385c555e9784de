"""The verbs of a guest's life on the command line, on a store of their own, without a daemon."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from emuvisor.cli import connect as connect_module
from emuvisor.cli import guest_console, guest_moves, lifecycle
from emuvisor.cli.entry import main
from emuvisor.cli.guest_list import ago
from emuvisor.host import Host
from emuvisor.manager import EventRecord, Manager, MigrationStatus
from emuvisor.store import Store


@pytest.fixture
def run(tmp_path, capsys):
    """run("ls"): exit code, output, errors."""

    def call(*args):
        code = main([args[0], "--store", str(tmp_path / "store"), *args[1:]])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def stdin(monkeypatch):
    """Standard input that holds some text."""
    files = []

    def put(text):
        read, write = os.pipe()
        os.write(write, text.encode())
        os.close(write)
        files.append(os.fdopen(read))
        monkeypatch.setattr(sys, "stdin", files[-1])

    yield put
    for file in files:
        file.close()


@pytest.fixture
def guest(run, program):
    """A guest `web` that sends back what is typed, and goes at an exclamation mark."""
    assert run(*create("web", program("echo"))) == (0, "web: defined\n", "")


def create(name, path, *more):
    return ("create", name, "--board", "isa", "--memory", "1M", "--flat", f"{path}@0x8000", *more)


def test_help_names_the_verbs(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for verb in (
        "create",
        "start",
        "shutdown",
        "ls",
        "set",
        "snapshots",
        "clone",
        "export",
        "receive",
        "logs",
    ):
        assert re.search(rf"\n    {verb}\s", text)


def test_an_empty_store(run):
    assert run("ls") == (0, "There are no guests; 'emuvisor create' makes one.\n", "")
    assert run("events") == (0, "", "")


def test_a_life(run, guest, stdin, program):
    code, out, _ = run("ls")
    assert code == 0
    assert out.splitlines()[1].split() == ["web", "defined", "0", "s", "isa", "1", "MiB", "1", "0"]
    stdin("hello!")
    code, out, err = run("start", "web")
    assert (code, out, err) == (0, "hello!", "emuvisor: web: power-off\n")
    assert run("logs", "web", "--tail", "3") == (0, "lo!", "")
    assert run("logs", "web", "-f", "--tail", "2") == (0, "o!", "")
    assert run("logs", "web", "-f") == (0, "hello!", "")
    assert run("rename", "web", "shop") == (0, "", "")
    assert run("set", "shop", "cpu_weight=300", "autostart=true", "until=login:") == (0, "", "")
    code, out, _ = run("info", "shop")
    assert "autostart  yes\n" in out
    assert 'cpu_weight = 300\nclock = "host"\nuntil = "login:"\n' in out
    assert run("set", "shop", "until=")[0] == 0
    info = json.loads(run("info", "shop", "--json")[1])
    assert (info["state"], info["definition"]["cpu_weight"], "until" in info["definition"]) == (
        "defined",
        300,
        False,
    )
    assert [guest["name"] for guest in json.loads(run("ls", "--json")[1])] == ["shop"]
    code, out, _ = run("rm", "shop")
    assert out.startswith("shop: deleted; 0 B of memory and ")
    kinds = [json.loads(line)["kind"] for line in run("events", "--json")[1].splitlines()]
    assert kinds == ["created", "running", "defined", "renamed", "changed", "changed", "removed"]
    lines = run("events", "shop")[1].splitlines()
    assert lines[0].endswith("shop  renamed (from web)")
    assert len(run("events", "--after", "6")[1].splitlines()) == 1
    assert run("events", "--tail", "3")[1] == "".join(run("events")[1].splitlines(True)[-3:])
    assert run("events", "none", "--tail", "3") == (0, "", "")


def test_saved_between_commands(run, guest, stdin):
    assert run("start", "web", "--paused") == (0, "web: saved\n", "")
    assert run("snapshot", "web", "one", "--comment", "the first")[1].startswith("web/one: 4 KiB of memory, ")
    assert json.loads(run("snapshot", "web", "--json")[1])["name"] == "snapshot-1"
    code, out, _ = run("snapshots", "web")
    assert [line.split()[:2] for line in out.splitlines()] == [["web"], ["└──", "one"], ["└──", "snapshot-1"]]
    assert out.splitlines()[1].endswith("  the first")
    assert [s["parent"] for s in json.loads(run("snapshots", "web", "--json")[1])] == [None, "one"]
    assert run("clone", "web", "a", "b") == (0, "a: saved\nb: saved\n", "")
    assert run("snapshots", "a") == (0, "a has no snapshots.\n", "")
    assert run("restore", "web", "one") == (0, "web: saved, as in one\n", "")
    assert run("snapshot", "web", "one", "--delete")[1].startswith("web/one: deleted; ")
    stdin("bye!")
    assert run("start", "web")[:2] == (0, "bye!")
    assert run("stop", "a") == (0, "a: off\n", "")
    code, _, err = run("pause", "b")
    assert (code, err) == (2, "emuvisor: error: guest 'b' is saved; pause needs it running or paused\n")


def test_exported_and_imported(run, guest, stdin, tmp_path):
    file = str(tmp_path / "web.tar")
    out = run("export", "web", file)[1]
    assert out.startswith(f"{file}: web, ")
    assert out.endswith("; its memory is not in it, an imported guest boots\n")
    assert run("import", file, "--as", "shop") == (0, "shop: defined\n", "")
    stdin("x!")
    assert run("start", "shop")[:2] == (0, "x!")


def test_one_that_crashes(run, program):
    run(*create("web", program("triple-fault")))
    code, _, err = run("start", "web")
    assert (code, err) == (4, "emuvisor: web: triple-fault: at RIP 0x5\n")


def test_from_a_file(run, program, tmp_path):
    path = tmp_path / "guest.toml"
    path.write_text(
        f'board = "isa"\nmemory = "1M"\n\n[flat]\npath = "{program("echo").name}"\naddress = 0x8000\n'
    )
    assert run("create", "web", "--config", str(path), "--autostart") == (0, "web: defined\n", "")
    assert json.loads(run("info", "web", "--json")[1])["autostart"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("create", "x", "--name", "y", "--disk", "d"),
            "--name: the name of a new guest stands without an option",
        ),
        (
            ("create", "x", "--config", "a", "--config", "b"),
            "one guest is created at a time; there are 2 --config",
        ),
        (("start", "a", "b"), "without a daemon one guest is started at a time, and --attach is for one"),
        (("snapshot", "web", "--delete"), "--delete needs the name of the snapshot"),
        (("migrate", "web"), "migrate: say either where the guest is to go, or --disk DISK=PATH"),
        (("migrate", "web", "tcp:x:1", "--format", "raw"), "migrate: --format goes with --disk"),
        (("migrate", "web", "tcp:x:1", "--cancel"), "migrate: --cancel needs the name of the guest only"),
        (("migrate", "web", "--cancel", "--mode", "hybrid"), "migrate: --mode does not go with --cancel"),
        (("migrate", "web", "--cancel"), "guest 'web' is not being migrated"),
        (("create", "x", "--kernel", "/no/k"), "/no/k: cannot be read: No such file or directory"),
        (
            ("create", "x", "--disk", "/no/cd.iso,cdrom"),
            "/no/cd.iso: cannot open the CD image: No such file or directory",
        ),
        (
            ("migrate", "web", "--disk", "0=x", "--token-file", "t"),
            "migrate: --token-file does not go with --disk",
        ),
        (
            ("migrate", "web", "tcp:x:1"),
            "guest 'web' does not run; without a daemon, a saved one can be migrated",
        ),
    ],
)
def test_what_cannot_be(run, guest, args, message):
    assert run(*args) == (2, "", f"emuvisor: error: {message}\n")


@pytest.mark.parametrize("text", ["cpu_weight", "=5"])
def test_changes_have_a_key_and_a_value(run, guest, text, capsys):
    with pytest.raises(SystemExit):
        run("set", "web", text)
    assert f"{text!r} is not KEY=VALUE" in capsys.readouterr().err


def test_another_process_has_the_store(run, guest, tmp_path, monkeypatch):
    monkeypatch.setattr(connect_module, "PATIENCE_S", 0.1)
    with Store(tmp_path / "store"):
        code, _, err = run("ls")
    assert (code, err) == (
        2,
        f"emuvisor: error: store {tmp_path / 'store'} is in use by process {os.getpid()}; several commands at once can "
        "use the guests of 'emuvisor serve'\n",
    )


def test_two_commands_at_once(run, guest, tmp_path):
    """One waits for the other."""
    store = Store(tmp_path / "store")
    asked = threading.Event()

    def leave():
        asked.wait(30)
        store.close()

    thread = threading.Thread(target=leave)
    thread.start()
    asked.set()
    assert run("ls")[0] == 0
    thread.join()


def test_two_processes_at_once(tmp_path, program):
    """Both get through, one after the other, and what both did is there."""
    patient = "from emuvisor.cli import connect, main; connect.PATIENCE_S = 60; raise SystemExit(main())"
    args = [sys.executable, "-c", patient]
    store = ("--store", str(tmp_path / "store"))
    path = program("echo")
    both = [subprocess.Popen([*args, *create(name, path), *store]) for name in ("a", "b")]
    assert [process.wait(60) for process in both] == [0, 0]
    with Manager(Host(1 << 20), Store(tmp_path / "store")) as manager:
        assert [guest.name for guest in manager.guests()] == ["a", "b"]


def test_a_guest_that_is_terminated_is_saved(tmp_path, program):
    args = [sys.executable, "-m", "emuvisor"]
    store = ("--store", str(tmp_path / "store"))
    subprocess.run([*args, *create("web", program("echo")), *store], check=True, stdout=subprocess.DEVNULL)
    process = subprocess.Popen([*args, "start", "web", *store], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(b"x")
    process.stdin.flush()
    assert process.stdout.read(1) == b"x"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    with Manager(Host(1 << 21), Store(tmp_path / "store")) as manager:
        assert [(guest.state, guest.reason) for guest in manager.guests()] == [("saved", "saved")]


def test_verbs_reach_a_daemon(monkeypatch, capsys, tmp_path):
    """What runs elsewhere, by a client that notes what it is asked."""
    calls = []

    class Guests:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def __getattr__(self, verb):
            def call(*args, **options):
                calls.append((verb, args, options))
                return {"shutdown": verb == "shutdown" and len(calls) % 2 == 0}.get(verb)

            return call

    monkeypatch.setattr("emuvisor.daemon.client.Client", lambda path: Guests())
    for line in (
        "start a b --paused",
        "start a",
        "reset a",
        "pause a",
        "resume a",
        "save a",
        "shutdown a --timeout 5",
        "shutdown a",
        "restore a one --paused",
        "clone a b --same-identity",
        "migrate a --cancel",
    ):
        verb, *rest = line.split()
        assert main([verb, "--socket", str(tmp_path / "socket"), *rest]) == 0
    assert calls == [
        ("start", ("a",), {"paused": True}),
        ("start", ("b",), {"paused": True}),
        ("start", ("a",), {"paused": False}),
        ("reset", ("a",), {}),
        ("pause", ("a",), {}),
        ("resume", ("a",), {}),
        ("save", ("a",), {}),
        ("shutdown", ("a", 5.0), {}),
        ("shutdown", ("a", 60.0), {}),
        ("restore", ("a", "one"), {"running": False}),
        ("clone", ("a", ["b"]), {"snapshot": None, "same_identity": True, "running": True}),
        ("cancel_migration", ("a",), {}),
    ]
    assert capsys.readouterr().out == (
        "a: paused\nb: paused\na: running\na: reset\na: paused\na: running\na: saved\na: off\n"
        "a: switched off after 60 s\na: paused, as in one\nb: running\na: stays\n"
    )


def test_a_daemon_that_was_killed_is_none(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert main(["ls"]) == 0
    assert "There are no guests" in capsys.readouterr().out
    assert (tmp_path / "data/emuvisor/format").exists()


def test_to_another_host(run, guest, tmp_path, monkeypatch, capsys):
    """Two stores; the guest that was typed to here goes on there."""
    socket = tmp_path / "socket"
    original = Manager.receive

    def receive(self, listen, *, ready, **options):
        return original(self, listen, ready=lambda address: (ready(address), seen.set()), **options)

    seen = threading.Event()
    monkeypatch.setattr(Manager, "receive", receive)
    monkeypatch.setattr(guest_moves, "enter_console", lambda guests, name: guests.stop(name) or 0)
    codes = []
    other = ["--store", str(tmp_path / "other"), "--timeout", "30"]
    there = threading.Thread(target=lambda: codes.append(main(["receive", f"unix:{socket}", *other])))
    run("start", "web", "--paused")
    there.start()
    assert seen.wait(30)
    code, out, _ = run("migrate", "web", f"unix:{socket}", "--downtime", "1")
    there.join()
    assert (code, codes) == (0, [0])
    assert out.startswith(f"web: at unix:{socket}; ")
    assert run("ls")[1].splitlines()[1].split()[1] == "defined"


@pytest.mark.parametrize("saved", [False, True])
def test_only_a_disk_moves(run, program, tmp_path, saved):
    image, new = tmp_path / "disk.img", tmp_path / "new.qcow2"
    image.write_bytes(b"x" * 4096)
    run(*create("web", program("echo"), "--disk", str(image)))
    if saved:
        assert run("start", "web", "--paused") == (0, "web: saved\n", "")
    code, out, err = run("migrate", "web", "--disk", f"disk.img={new}", "--bandwidth", "1G")
    assert (code, err) == (0, "")
    passes = r"[12] passes, stood for \d+ ms"
    assert re.fullmatch(rf"web: disk 0 is {re.escape(str(new))}; 4 KiB in {passes}\n", out)
    info = json.loads(run("info", "web", "--json")[1])
    assert (info["state"], info["disks"][0]["path"]) == ("saved" if saved else "defined", str(new))
    image.unlink()
    assert run("start", "web", "--paused") == (0, "web: saved\n", "")


@pytest.mark.parametrize("text", ["0", "=x", "0="])
def test_disks_that_move_have_a_path(run, guest, text, capsys):
    with pytest.raises(SystemExit):
        run("migrate", "web", "--disk", text)
    assert f"{text!r} is not DISK=PATH" in capsys.readouterr().err


def test_times_in_the_past():
    assert [ago(s) for s in (-1, 5, 65, 7300, 200_000)] == ["0 s", "5 s", "1 min", "2 h", "2 d"]


def test_following_events_ends_with_whoever_reads(run, guest, monkeypatch):
    class Enough(Exception):
        pass

    def sleep(seconds):
        raise Enough

    monkeypatch.setattr(guest_console.time, "sleep", sleep)
    with pytest.raises(Enough):
        run("events", "-f")


def test_the_last_events_and_those_that_follow(monkeypatch):
    shown = []
    journal = iter([[5, 6, 7], [], [8], [], None])

    class Guests:
        def events(self, after, name):
            numbers = next(journal)
            if numbers is None:
                raise KeyboardInterrupt
            return [EventRecord(n, 0.0, "web", "paused", {}) for n in numbers]

    monkeypatch.setattr(guest_console.time, "sleep", lambda _: None)
    with suppress(KeyboardInterrupt):
        for event in guest_console._events(Guests(), None, 0, 2, True):
            shown.append(event.number)
    assert shown == [6, 7, 8]


def test_numbers_of_events_are_not_negative(run, capsys):
    with pytest.raises(SystemExit):
        run("events", "--after", "-3")
    assert (
        "argument --after: '-3' is not a number from 0 on; '--tail 3' are the last three"
        in capsys.readouterr().err
    )


def test_leaving_a_console(run, guest, monkeypatch, capsys):
    from emuvisor.cli.attach import End

    monkeypatch.setattr("emuvisor.cli.attach.attach", lambda console, *_: console.close() or End.LEFT)
    assert run("start", "web")[2] == "\nemuvisor: web: is being saved\n"
    assert json.loads(run("ls", "--json")[1])[0]["state"] == "saved"
    assert lifecycle.EXIT_CRASHED == 4


def test_progress_of_a_migration_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with guest_moves._progress() as show:
        show(MigrationStatus("web", "there", "copying", total=10, sent=5))


def test_a_number_of_thousands_of_digits_is_a_text():
    assert lifecycle.parse_change(f"seed={'9' * 5000}") == ("seed", "9" * 5000)
