"""Disks of the manager's guests that move to other files: guest, definition and files agree, whatever happens."""

import threading
import tomllib

import pytest
from manager_rig import definition, managed, wait_for

from emuvisor.errors import HostError, ImageError, StateError, UsageError
from emuvisor.host import GuestState
from emuvisor.manager import DiskMoveRecord
from emuvisor.units import MIB

SIZE = 2 * MIB
CONTENT = bytes(range(256)) * (SIZE // 256)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def guest(manager, tmp_path, image):
    """A guest `web`, which is off."""
    manager.create(definition(tmp_path, "web", disks=[{"path": str(image)}]))


def disks_of(manager, name="web"):
    return tomllib.loads(manager.definition(name))["disks"]


def used_disk(manager):
    """What the guest that is on has on its first disk."""
    disk = manager.guest("web").machine.drives[0].image
    return disk.name, disk.read(0, disk.sectors)


def test_of_a_guest_that_runs(manager, guest, image, tmp_path):
    manager.start("web")
    new, heard = tmp_path / "new.img", []
    record = manager.move_disk("web", "disk.img", new, progress=lambda *told: heard.append(told))
    assert record == DiskMoveRecord("web", 0, str(new), "raw", SIZE, record.passes, record.stop_ms)
    assert record.passes >= 1
    assert record.stop_ms > 0
    assert heard == [(MIB, SIZE), (SIZE, SIZE)]
    assert used_disk(manager) == (str(new), CONTENT)
    assert disks_of(manager) == [{"path": str(new), "format": "raw"}]
    assert image.read_bytes() == CONTENT
    assert (manager.state("web"), manager.info("web")["busy"]) == (GuestState.RUNNING, "")
    manager.settle()
    event = manager.events()[-1]
    assert (event.kind, event.details) == ("disk-moved", {"disk": 0, "path": str(new)})
    manager.stop("web")
    image.unlink()
    manager.start("web")
    assert used_disk(manager) == (str(new), CONTENT)


@pytest.mark.parametrize("program", ["spin", "crash"])
def test_of_a_guest_that_is_off_or_has_crashed(manager, tmp_path, image, program):
    manager.create(definition(tmp_path, "web", program, disks=[{"path": str(image)}]))
    if program == "crash":
        manager.start("web")
        wait_for(manager, "web", "crashed")
    state = manager.state("web")
    manager.move_disk("web", 0, tmp_path / "new.qcow2")
    assert manager.state("web") is state
    assert disks_of(manager) == [{"path": str(tmp_path / "new.qcow2"), "format": "qcow2"}]
    if program == "spin":
        assert manager.host.guests == {}
    manager.start("web", paused=True)
    assert used_disk(manager) == (str(tmp_path / "new.qcow2"), CONTENT)


def test_an_overlay_of_the_stores_is_deleted(manager, tmp_path, image):
    made = definition(tmp_path, "web", disks=[{"path": str(image), "overlay": "temporary"}])
    manager.create(made)
    manager.start("web")
    manager.guest("web").between_runs(
        lambda: manager.guest("web").machine.drives[0].image.write(1, b"x" * 512)
    )
    assert manager.store.disks() == ["web.disk0.overlay"]
    manager.move_disk("web", 0, tmp_path / "top", format="overlay")
    assert manager.store.disks() == []
    changed = CONTENT[:512] + b"x" * 512 + CONTENT[1024:]
    assert used_disk(manager) == (str(tmp_path / "top"), changed)
    manager.stop("web")
    manager.move_disk("web", 0, tmp_path / "whole.img")
    manager.start("web")
    assert used_disk(manager) == (str(tmp_path / "whole.img"), changed)
    assert (tmp_path / "top").exists()


def test_what_cannot_be(manager, guest, image, tmp_path):
    for disk, path, error, text in (
        (1, "new.img", UsageError, "guest 'web' has no hard disk 1"),
        (0, "disk.img", ImageError, f"{image}: cannot make the disk image: File exists"),
    ):
        with pytest.raises(error) as told:
            manager.move_disk("web", disk, tmp_path / path)
        assert str(told.value) == text
    assert manager.host.guests == {}
    manager.start("web")
    manager.save("web")
    with pytest.raises(StateError) as told:
        manager.move_disk("web", 0, tmp_path / "new.img")
    assert str(told.value) == (
        "guest 'web' is saved; move-disk needs it running or paused or defined or crashed"
    )
    assert disks_of(manager) == [{"path": str(image)}]


def test_a_definition_that_cannot_be_written_leaves_all_as_it_was(
    manager, guest, image, tmp_path, monkeypatch
):
    manager.start("web")
    before = manager.definition("web")
    kept, define = [], manager.store.define

    def fails(name, text, *, replace):
        define(name, text, replace=replace)
        kept.append(text)
        if len(kept) == 1:
            raise HostError("the index: No space left on device")

    monkeypatch.setattr(manager.store, "define", fails)
    with pytest.raises(HostError, match=r"^the index: No space left on device$"):
        manager.move_disk("web", 0, tmp_path / "new.img")
    assert len(kept) == 2
    assert not (tmp_path / "new.img").exists()
    assert used_disk(manager) == (str(image), CONTENT)
    assert manager.definition("web") == before


def test_the_new_file_is_whole_when_the_definition_names_it(manager, guest, image, tmp_path, monkeypatch):
    manager.start("web")
    seen, define = [], manager.store.define

    def look(name, text, *, replace):
        seen.append(
            ((tmp_path / "new.img").read_bytes() == image.read_bytes() == CONTENT, used_disk(manager)[0])
        )
        define(name, text, replace=replace)

    monkeypatch.setattr(manager.store, "define", look)
    manager.move_disk("web", 0, tmp_path / "new.img")
    assert seen == [(True, str(image))]


def test_a_guest_that_is_stopped_meanwhile(manager, guest, image, tmp_path):
    manager.start("web")
    with pytest.raises(StateError) as error:
        manager.move_disk("web", 0, tmp_path / "new.img", progress=lambda *_: manager.stop("web"))
    assert "guest 'web'" in str(error.value)
    assert not (tmp_path / "new.img").exists()
    assert disks_of(manager) == [{"path": str(image)}]
    assert (manager.state("web"), manager.info("web")["busy"]) == (GuestState.DEFINED, "")


def test_one_thing_at_a_time(manager, guest, tmp_path):
    manager.start("web")
    texts = []

    def others(_done, _total):
        for again in (
            lambda: manager.move_disk("web", 0, tmp_path / "b.img"),
            lambda: manager.snapshot("web"),
            lambda: manager.migrate("web", "tcp:127.0.0.1:1"),
        ):
            with pytest.raises(StateError) as error:
                again()
            texts.append(str(error.value))

    manager.move_disk("web", 0, tmp_path / "a.img", progress=others)
    assert sorted(set(texts)) == [
        f"guest 'web': {verb} has to wait until a disk of it is moved"
        for verb in ("a disk's move", "migrate", "snapshot")
    ]


def test_cancelled(manager, guest, image, tmp_path):
    manager.start("web")
    with pytest.raises(StateError, match=f"the move to {tmp_path}/new.img was cancelled$"):
        manager.move_disk(
            "web", 0, tmp_path / "new.img", progress=lambda _done, _total: manager.cancel_migration("web")
        )
    assert used_disk(manager) == (str(image), CONTENT)
    with pytest.raises(StateError, match=r"^guest 'web' is not being migrated$"):
        manager.cancel_migration("web")


def test_a_manager_that_ends_cancels_it_and_saves_the_guest(tmp_path, image):
    with managed(tmp_path) as manager:
        manager.create(definition(tmp_path, "web", disks=[{"path": str(image)}]))
        manager.start("web")
        began, errors = threading.Event(), []

        def move():
            try:
                manager.move_disk(
                    "web",
                    0,
                    tmp_path / "new.img",
                    bytes_per_s=1,
                    progress=lambda *_: began.set(),
                )
            except StateError as error:
                errors.append(str(error))

        mover = threading.Thread(target=move)
        mover.start()
        assert began.wait(30)
        manager.close()
        mover.join(30)
    assert errors == [f"guest 'web': disk {image}: the move to {tmp_path}/new.img was cancelled"]
    with managed(tmp_path) as manager:
        assert manager.state("web") is GuestState.SAVED
        assert disks_of(manager) == [{"path": str(image)}]
