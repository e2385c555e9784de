"""QMP's commands, with guests of a few bytes."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qmp_rig import PANIC, POWER_OFF, SPIN, TRIPLE_FAULT, Client, Rig

from emuvisor.devices.display.png import encode_png
from emuvisor.devices.limits import Rate
from emuvisor.devices.storage.meter import DiskMeter
from emuvisor.host import Guest, GuestState
from emuvisor.machine.config import DiskConfig
from emuvisor.qmp.catalog import COMMANDS
from emuvisor.units import MIB

FULL = "disk {}: the host's file system is full (No space left on device); make room, then resume the guest"


def with_disks(rig: Rig, **settings: Any) -> Guest:
    image = rig.folder / "disk.img"
    image.write_bytes(bytes(MIB))
    (rig.folder / "floppy.img").write_bytes(bytes(1440 << 10))
    disks = (
        DiskConfig(image, total_iops=Rate(100)),
        DiskConfig(rig.folder / "floppy.img", kind="floppy", readonly=True),
    )
    return rig.guest(board="pc", memory=16 * MIB, disks=disks, **settings)


# ---- power ----


def test_stop_and_go(rig: Rig) -> None:
    guest = rig.guest()
    client = rig.client(guest)
    for _ in range(2):
        assert client.ask("stop") == {}
    assert guest.state is GuestState.PAUSED
    assert client.ask("query-status") == {"status": "paused", "running": False}
    for _ in range(2):
        assert client.ask("cont") == {}
    assert client.ask("query-status") == {"status": "running", "running": True}
    assert client.events == [("STOP", None), ("RESUME", None)]


def test_a_guest_that_is_off_is_switched_on(rig: Rig) -> None:
    guest = rig.guest(start=False)
    client = rig.client(guest)
    assert client.ask("query-status") == {"status": "shutdown", "running": False}
    assert client.ask("cont") == {}
    guest.stop()
    assert client.ask("system_reset") == {}
    assert guest.state is GuestState.RUNNING


@pytest.mark.parametrize("running", [True, False])
def test_reset(rig: Rig, running: bool) -> None:
    guest = rig.guest()
    client = rig.client(guest)
    if not running:
        guest.pause()
    assert client.ask("system_reset") == {}
    assert guest.machine.resets == 1
    assert client.await_event("RESET") == {"guest": False, "reason": "host-qmp-system-reset"}
    assert (guest.state is GuestState.RUNNING) == running


@pytest.mark.parametrize(("code", "status"), [(PANIC, "guest-panicked"), (TRIPLE_FAULT, "internal-error")])
def test_a_guest_that_crashed(rig: Rig, code: bytes, status: str) -> None:
    guest = rig.guest(code, board="pc", memory=16 * MIB)
    assert guest.wait(20)
    client = rig.client(guest)
    assert client.ask("query-status") == {"status": status, "running": False}
    assert client.ask("cont") == "GenericError: Resetting the Virtual Machine is required"
    assert client.ask("system_reset") == {}
    client.await_event("RESUME")


@pytest.mark.parametrize("board", ["pc", "isa"])
def test_a_power_button_right_after_a_reset(rig: Rig, board: str) -> None:
    """Nobody in the guest listens yet, and on isa never; as with QEMU, scripts that wait for the event get it."""
    client = rig.client(rig.guest(board=board, memory=16 * MIB))
    assert client.ask("system_reset") == {}
    assert client.ask("system_powerdown") == {}
    assert [event for event, _ in client.events] == ["RESET", "POWERDOWN"]


def test_a_power_button(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = rig.guest()
    pressed = []
    monkeypatch.setattr(guest.machine.board, "press_power_button", lambda: pressed.append(1))
    client = rig.client(guest)
    assert client.ask("system_powerdown") == {}
    assert client.events == [("POWERDOWN", None)]
    assert pressed == [1]


def test_quit_answers_first(rig: Rig) -> None:
    guest = rig.guest()
    client = rig.client(guest)
    assert client.ask("quit") == {}
    assert client.events == []
    assert client.await_event("SHUTDOWN") == {"guest": False, "reason": "host-qmp-quit"}
    client.await_event("STOP")
    assert guest.state is GuestState.DEFINED
    assert client.ask("quit") == {}  # it is off already
    assert client.ask("query-status") == {"status": "shutdown", "running": False}


def test_a_quit_that_fails_ends_the_connection(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = rig.guest()
    client = rig.client(guest)
    monkeypatch.setattr(guest, "stop", guest.resume)
    assert client.ask("quit") == {}
    assert client.read() is None


# ---- who and what ----


def test_who_it_is(rig: Rig) -> None:
    client = rig.client(rig.guest(board="pc", memory=16 * MIB, vcpus=2))
    assert client.ask("query-version") == client.greeting["QMP"]["version"]
    assert client.ask("query-name") == {"name": "g"}
    assert client.ask("query-uuid") == {"UUID": "00000000-0000-0000-0000-000000000000"}
    assert client.ask("query-kvm") == {"enabled": False, "present": False}
    assert client.ask("query-target") == {"arch": "x86_64"}
    assert client.ask("query-current-machine") == {"wakeup-suspend-support": False}
    assert client.ask("query-memory-size-summary") == {"base-memory": 16 * MIB, "plugged-memory": 0}
    assert len(client.ask("query-vm-generation-id")["guid"]) == 36
    machines = {machine["name"]: machine for machine in client.ask("query-machines")}
    assert {name: machine["cpu-max"] for name, machine in machines.items()} == {
        "pc": 8,
        "microvm": 8,
        "isa": 1,
    }
    assert [name for name, machine in machines.items() if machine["is-default"]] == ["pc"]
    first, second = client.ask("query-cpus-fast")
    assert first == {
        "cpu-index": 0,
        "qom-path": "/machine/unattached/device[0]",
        "thread-id": os.getpid(),
        "props": {"socket-id": 0, "core-id": 0, "thread-id": 0},
        "target": "x86_64",
    }
    assert second["props"]["core-id"] == 1


def test_a_board_without_a_generation_id(rig: Rig) -> None:
    client = rig.client(rig.guest())
    assert client.ask("query-vm-generation-id") == "DeviceNotFound: VM Generation ID device not found"


def test_which_commands_there_are(rig: Rig) -> None:
    client = rig.client(rig.guest())
    names = [command["name"] for command in client.ask("query-commands")]
    assert names == sorted([*COMMANDS, "qmp_capabilities"])


# ---- disks ----


def test_drives(rig: Rig) -> None:
    client = rig.client(with_disks(rig))
    disk, floppy = client.ask("query-block")
    path = str(rig.folder / "disk.img")
    inserted = disk.pop("inserted")
    assert disk == {
        "device": "ide0-hd0",
        "qdev": "/machine/peripheral-anon/ide0-hd0",
        "type": "unknown",
        "removable": False,
        "locked": False,
        "io-status": "ok",
    }
    image = inserted.pop("image")
    assert image.pop("actual-size") >= 0
    assert image == {"filename": path, "format": "raw", "virtual-size": MIB}
    assert (inserted["file"], inserted["drv"], inserted["ro"], inserted["iops"]) == (path, "raw", False, 100)
    assert (floppy["device"], floppy["removable"], floppy["tray_open"]) == ("floppy0", True, False)
    assert floppy["inserted"]["ro"]


def test_names_of_drives(rig: Rig) -> None:
    images = []
    for number in range(3):
        images.append(rig.folder / f"{number}.img")
        images[-1].write_bytes(bytes(MIB))
    (rig.folder / "cd.iso").write_bytes(bytes(40 << 10))
    disks = (
        DiskConfig(images[0], bus="virtio"),
        DiskConfig(images[1], bus="ide"),
        DiskConfig(images[2], bus="virtio"),
        DiskConfig(rig.folder / "cd.iso", kind="cdrom"),
    )
    client = rig.client(rig.guest(board="pc", memory=16 * MIB, disks=disks))
    names = [block["device"] for block in client.ask("query-block")]
    assert names == ["virtio0", "ide0-hd0", "virtio1", "ide0-cd1"]
    nodes = [block["node-name"] for block in client.ask("query-blockstats", query_nodes=True)]
    assert nodes == names


def test_what_drives_did(rig: Rig) -> None:
    guest = with_disks(rig)
    meter: DiskMeter = guest.machine.drives[0].meter
    meter.statistics.reads, meter.statistics.read_bytes = 2, 1024
    meter.statistics.writes, meter.statistics.written_bytes, meter.statistics.flushes = 1, 512, 3
    for time_ns in (4, 5):
        meter.read.record(time_ns)
    disk, _ = rig.client(guest).ask("query-blockstats")
    assert (disk["device"], disk["qdev"]) == ("ide0-hd0", "/machine/peripheral-anon/ide0-hd0")
    stats = disk["stats"]
    assert (stats["rd_operations"], stats["rd_bytes"], stats["rd_total_time_ns"]) == (2, 1024, 9)
    assert (stats["wr_operations"], stats["wr_bytes"], stats["flush_operations"]) == (1, 512, 3)


def test_a_full_host(rig: Rig) -> None:
    guest = with_disks(rig)
    client = rig.client(guest)
    image = guest.machine.drives[0].image
    assert image is not None
    reason = FULL.format(image.name)
    guest.machine.call_soon(lambda: guest.machine.suspend(reason))
    assert client.await_event("BLOCK_IO_ERROR") == {
        "device": "ide0-hd0",
        "qom-path": "/machine/peripheral-anon/ide0-hd0",
        "operation": "write",
        "action": "stop",
        "nospace": True,
        "reason": reason,
    }
    client.await_event("STOP")
    assert client.ask("query-status") == {"status": "io-error", "running": False}
    disk, _ = client.ask("query-block")
    assert disk["io-status"] == "nospace"
    client.ask("cont")
    disk, _ = client.ask("query-block")
    assert disk["io-status"] == "ok"


# ---- balloon, screen, memory ----


def test_balloon(rig: Rig) -> None:
    guest = rig.guest(board="microvm", memory=8 * MIB, balloon=True)
    client = rig.client(guest)
    assert client.ask("query-balloon") == {"actual": 8 * MIB}
    assert client.ask("balloon", value=5 * MIB) == {}
    assert guest.balloon.target_pages == 3 * MIB // 4096
    assert client.ask("balloon", value=1 << 70) == {}
    assert guest.balloon.target_pages == 0
    assert client.ask("balloon", value=0) == "GenericError: Parameter 'target' expects a size"


def test_no_balloon(rig: Rig) -> None:
    client = rig.client(rig.guest())
    text = "DeviceNotActive: No balloon device has been activated"
    assert client.ask("query-balloon") == client.ask("balloon", value=MIB) == text


def test_the_screen_as_ppm_and_png(rig: Rig) -> None:
    guest = rig.guest(board="pc", memory=16 * MIB)
    client = rig.client(guest)
    ppm, png = rig.folder / "a.ppm", rig.folder / "a.png"
    assert client.ask("screendump", filename=str(ppm)) == {}
    assert client.ask("screendump", filename=str(png), format="png", head=0) == {}
    screen = guest.screen()
    header, pixels = ppm.read_bytes()[:15], ppm.read_bytes()[15:]
    assert header == f"P6\n{screen.width} {screen.height}\n255\n".encode()
    picture = np.frombuffer(pixels, np.uint8).reshape(screen.height, screen.width, 3)
    assert png.read_bytes() == encode_png(picture)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"filename": "a", "format": "gif"}, "GenericError: Parameter 'format' does not accept value 'gif'"),
        ({"filename": "a", "device": "vga"}, "DeviceNotFound: Device 'vga' not found"),
        ({"filename": "a", "head": 1}, "GenericError: There is one display, number 0, not 1"),
        ({"filename": "/none/a"}, "GenericError: Could not open '/none/a': No such file or directory"),
        ({"filename": "a\0"}, "GenericError: Could not open 'a\\x00': it cannot be the name of a file"),
        ({"filename": "\ud800"}, "GenericError: Could not open '\\ud800': it cannot be the name of a file"),
    ],
)
def test_no_picture(rig: Rig, arguments: dict[str, Any], text: str) -> None:
    client = rig.client(rig.guest(board="pc", memory=16 * MIB))
    assert client.ask("screendump", **arguments) == text


def test_physical_memory_to_a_file(rig: Rig) -> None:
    guest = rig.guest(memory=4 * MIB)
    client = rig.client(guest)
    data = bytes(range(256)) * 8192
    guest.memory.write(MIB, data)
    path = rig.folder / "memory"
    assert client.ask("pmemsave", val=MIB, size=len(data), filename=str(path)) == {}
    assert path.read_bytes() == data
    ask = {"size": 16, "filename": str(path)}
    assert (
        client.ask("pmemsave", val=-1, **ask) == "GenericError: There are no 16 bytes of memory at address -1"
    )
    assert client.ask("pmemsave", val=1 << 40, **ask).startswith("GenericError: Cannot access memory: ")


# ---- keys and pointers ----


class Recorder:
    """In the place of a guest's keyboard and mouse."""

    def __init__(self, guest: Guest, patch: pytest.MonkeyPatch) -> None:
        self.did: list[Any] = []
        for name in ("press", "point"):
            patch.setattr(guest, name, lambda *args, name=name: self.did.append((name, *args)))


def chord(client: Client, *keys: Any, **more: Any) -> Any:
    return client.ask("send-key", keys=[{"type": "qcode", "data": key} for key in keys], **more)


def test_keys(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = rig.guest()
    recorder = Recorder(guest, monkeypatch)
    client = rig.client(guest)
    assert chord(client, "ctrl", "alt", "delete", hold_time=10) == {}
    keys = ("ControlLeft", "AltLeft", "Delete")
    pressed, released = [("press", key, True) for key in keys], [("press", key, False) for key in keys]
    assert recorder.did == pressed + released[::-1]
    recorder.did.clear()
    numbers = [{"type": "number", "data": number} for number in (0x1E, 0xC8)]
    assert client.ask("send-key", keys=numbers) == {}
    assert recorder.did[:2] == [("press", "KeyA", True), ("press", "ArrowUp", True)]
    assert chord(client, "nokey") == "GenericError: Parameter 'data' does not accept value 'nokey'"
    assert client.ask("send-key", keys=["a"]) == "GenericError: Parameter 'type' or 'data' is missing"
    assert chord(client, *["a"] * 65) == "GenericError: Too many keys: 65; 64 are allowed"


def test_a_virtio_keyboard(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = rig.guest(board="microvm", memory=8 * MIB, input=("keyboard",))
    pressed: list[Any] = []
    monkeypatch.setattr(guest.input("keyboard"), "key", lambda *args: pressed.append(args))
    assert chord(rig.client(guest), "a") == {}
    assert pressed == [("KeyA", True), ("KeyA", False)]


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "data": data}


def button(name: str, down: bool = True) -> dict[str, Any]:
    return event("btn", button=name, down=down)


def test_the_mouse(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = rig.guest(board="pc", memory=16 * MIB)
    recorder = Recorder(guest, monkeypatch)
    client = rig.client(guest)

    def send(*events: dict[str, Any]) -> list[Any]:
        recorder.did.clear()
        assert client.ask("input-send-event", events=list(events)) == {}
        return recorder.did

    moves = event("rel", axis="x", value=5), event("rel", axis="y", value=-2)
    assert send(*moves) == [("point", 5, -2, 0)]
    assert send(button("left"), moves[0]) == [("point", 5, 0, 1)]
    assert send(button("right"), button("left", False)) == [("point", 0, 0, 5), ("point", 0, 0, 4)]
    assert send(button("right", False), button("wheel-up"), button("wheel-up", False)) == [
        ("point", 0, 0, 0),
        ("point", 0, 0, 8),
    ]
    assert send(button("wheel-down")) == [("point", 0, 0, 0), ("point", 0, 0, 16)]
    key = event("key", down=True, key={"type": "qcode", "data": "a"})
    assert send(key) == [("press", "KeyA", True)]


class Pointer:
    """In the place of a virtio mouse or tablet."""

    def __init__(self, device: Any, patch: pytest.MonkeyPatch) -> None:
        self.did: list[Any] = []
        for name in ("move", "position", "button", "wheel"):
            patch.setattr(device, name, lambda *args, name=name: self.did.append((name, *args)))


def test_a_virtio_mouse(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = rig.guest(board="microvm", memory=8 * MIB, input=("mouse",))
    pointer = Pointer(guest.input("mouse"), monkeypatch)
    events = [event("rel", axis="x", value=1), button("side"), button("wheel-down")]
    assert rig.client(guest).ask("input-send-event", events=events) == {}
    assert pointer.did == [("move", 1, 0), ("button", 4, True), ("wheel", 1)]


def test_a_tablet(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = rig.guest(board="microvm", memory=8 * MIB, input=("tablet",))
    pointer = Pointer(guest.input("tablet"), monkeypatch)
    client = rig.client(guest)
    events = [event("abs", axis="x", value=7), event("abs", axis="y", value=9), button("middle")]
    assert client.ask("input-send-event", events=events) == {}
    assert client.ask("input-send-event", events=[button("wheel-up")]) == {}
    assert pointer.did == [("position", 7, 9), ("button", 2, True), ("wheel", -1)]


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([{"type": "key", "data": 1}], "Invalid parameter type for 'data', expected: object"),
        ([event("key", down=True, key=1)], "Parameter 'type' or 'data' is missing"),
        ([button("no")], "Parameter 'button' does not accept value 'no'"),
        ([event("btn", button=["left"], down=True)], "Parameter 'button' does not accept value '['left']'"),
        ([event("btn", button="left")], "Invalid parameter type for 'down', expected: boolean"),
        ([event("rel", axis="z", value=1)], "An axis is 'x' or 'y', its value an integer"),
        ([event("rel", axis="x", value=1.5)], "An axis is 'x' or 'y', its value an integer"),
        ([event("abs", axis="x", value=32768)], "An axis goes to 32767, not to 32768"),
        ([event("mtt")], "Parameter 'type' does not accept value 'mtt'"),
        ([button("left")] * 65, "Too many events: 65; 64 are allowed"),
    ],
)
def test_no_events(rig: Rig, events: list[Any], text: str) -> None:
    client = rig.client(rig.guest())
    assert client.ask("input-send-event", events=events) == f"GenericError: {text}"


def test_no_such_display(rig: Rig) -> None:
    client = rig.client(rig.guest())
    assert client.ask("input-send-event", events=[], device="x", head=1) == (
        "DeviceNotFound: Device 'x' not found"
    )


# ---- snapshots as jobs ----


def test_snapshots_are_jobs(rig: Rig) -> None:
    guest = rig.guest()
    client = rig.client(guest)
    guest.memory.write(0x7000, b"then")
    devices: dict[str, Any] = {"vmstate": "disk", "devices": ["disk"]}
    assert client.ask("snapshot-save", job_id="1", tag="s", **devices) == {}
    guest.memory.write(0x7000, b"now.")
    assert client.ask("snapshot-load", job_id="2", tag="s", **devices) == {}
    assert guest.memory.read(0x7000, 4) == b"then"
    assert client.ask("snapshot-delete", job_id="3", tag="s", devices=[]) == {}
    assert client.ask("snapshot-load", job_id="4", tag="s", **devices) == {}
    jobs = client.ask("query-jobs")
    assert [(job["id"], job["type"], job["status"]) for job in jobs] == [
        ("1", "snapshot-save", "concluded"),
        ("2", "snapshot-load", "concluded"),
        ("3", "snapshot-delete", "concluded"),
        ("4", "snapshot-load", "concluded"),
    ]
    assert [job.get("error") for job in jobs] == [None, None, None, "guest 'g' has no snapshot 's'"]
    steps = [
        data["status"] for name, data in client.events if name == "JOB_STATUS_CHANGE" and data["id"] == "1"
    ]
    assert steps == ["created", "running", "waiting", "pending", "concluded"]
    steps = [
        data["status"] for name, data in client.events if name == "JOB_STATUS_CHANGE" and data["id"] == "4"
    ]
    assert steps == ["created", "running", "aborting", "concluded"]

    assert (
        client.ask("snapshot-save", job_id="1", tag="s", **devices)
        == "GenericError: Job ID '1' already in use"
    )
    assert client.ask("job-dismiss", id="1") == {}
    assert client.ask("job-dismiss", id="1") == "DeviceNotActive: Job not found"
    for number in range(5, 66):
        client.ask("snapshot-delete", job_id=str(number), tag="none", devices=[])
    assert client.ask("snapshot-delete", job_id="one more", tag="none", devices=[]) == (
        "GenericError: 64 jobs wait to be dismissed"
    )


def test_only_so_many_checkpoints(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emuvisor.qmp.target.MAX_CHECKPOINTS", 1)
    client = rig.client(rig.guest())
    assert client.human("savevm a") == client.human("savevm a") == ""
    assert client.human("savevm b") == "Error: guest 'g' has 1 checkpoints; that is the limit\r\n"


# ---- a guest that is not there ----


def test_a_guest_that_was_deleted(rig: Rig, tmp_path: Path) -> None:
    guest = rig.guest(SPIN)
    client = rig.client(guest)
    guest.delete()
    assert client.await_event("SHUTDOWN") == {"guest": False, "reason": "host-signal"}
    gone = "GenericError: guest 'g' is being started or deleted"
    assert client.ask("pmemsave", val=0, size=1, filename=str(tmp_path / "m")) == gone
    assert client.ask("query-status") == {"status": "shutdown", "running": False}
    assert client.ask("system_reset").startswith("GenericError: guest 'g' is gone; ")


def test_a_guest_that_switches_itself_off(rig: Rig) -> None:
    guest = rig.guest(POWER_OFF, start=False)
    client = rig.client(guest)
    guest.start()
    assert client.await_event("SHUTDOWN") == {"guest": True, "reason": "guest-shutdown"}
    client.await_event("STOP")
