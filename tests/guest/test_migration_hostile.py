"""Peers that speak the protocol but not the truth: nothing of theirs stays, and the next one is served."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from migrating_guests import guest_config, wait_for_doubt

from emuvisor.errors import ImageError, MigrationError
from emuvisor.host import GuestState, Host
from emuvisor.machine.config import DiskConfig
from emuvisor.machine.config_mapping import to_mapping
from emuvisor.machine.machine_state import save_machine
from emuvisor.memory import FrameState
from emuvisor.memory.saved_layout import Layout
from emuvisor.migration import Insecure, Source, Target
from emuvisor.migration.calling import call
from emuvisor.migration.channel import LineLost
from emuvisor.migration.disk_blocks import DiskPlan, Sectors
from emuvisor.migration.endpoints import listen
from emuvisor.migration.frames import FrameKind, Message
from emuvisor.migration.greeting import Hello
from emuvisor.migration.offer import bitmap_of
from emuvisor.migration.pages import pages_needed_first, pages_that_hold
from emuvisor.migration.questions import Questions
from emuvisor.migration.target_disks import TargetDisks
from emuvisor.units import MIB

ONE_PAGE = b"\0\1\0\0\x10\0\0" + b"\1\0\0\0" + b"\0" + bytes(range(256)) * 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def there() -> Iterator[Host]:
    with Host(16 * MIB) as host:
        yield host


class Peer:
    """Connects to a target, and is let in."""

    def __init__(self, target: Target, purpose: str = "migrate", identity: str = "1") -> None:
        self.channel = call(
            target.address, Insecure(), Hello(purpose, identity), None, role="source", timeout_s=10
        )

    def offer(self, folder: Path, **changes: Any) -> Message:
        message = {
            "type": "offer",
            "config": to_mapping(guest_config(folder)),
            "pages": 5184,
            "mode": "pre-copy",
            "disks": [],
            "key": bytes(16),
            "ask": None,
        }
        self.channel.send(message | changes)
        return self.channel.receive_message("accepted", "refused")

    def end(self) -> Message:
        """What the target says at the end, and that it closes the line."""
        said: Message = {}
        try:
            while True:
                said = self.channel.receive_message("discarded", "round-done", "ready")
        except LineLost:
            return said
        finally:
            self.channel.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"ask": "192.0.2.1:80"},
            "migration: the other side cannot be asked where it says",
        ),
        (
            {"pages": 1 << 30},
            "migration: the other side offers a guest of 1073741824 pages; 1 to 50176 are possible",
        ),
        ({"pages": 0}, "migration: the other side offers a guest of 0 pages; 1 to 50176 are possible"),
        (
            {"disks": [["copy", 512]]},
            "migration: the guest's disks are not those of its configuration",
        ),
    ],
)
def test_offers(there: Host, folder: Path, changes: dict[str, Any], reason: str) -> None:
    with Target(there) as target:
        peer = Peer(target)
        assert peer.offer(folder, **changes) == {"type": "refused", "reason": reason}
        peer.end()
        assert there.guests == {}


@pytest.mark.parametrize(
    ("kind", "payload", "reason"),
    [
        (FrameKind.PAGES, b"?", "migration: the other side sent pages that cannot be read"),
        (FrameKind.DISK, b"?", "migration: the other side sent sectors that cannot be read"),
        (
            FrameKind.DISK,
            Sectors(0, 0, 512, b"").encode(),
            "migration: the other side sent sectors of no disk of the guest",
        ),
        (FrameKind.MESSAGE, b"{}", "migration: the other side sent a message without a type"),
        (
            FrameKind.MESSAGE,
            b'{"type": "party"}',
            "migration: the other side said 'party', which is not for now",
        ),
        (
            FrameKind.MESSAGE,
            b'{"type": "machine"}',
            "migration: the other side does not say in which state the guest is",
        ),
        (
            FrameKind.MESSAGE,
            b'{"type": "machine", "state": {}, "running": true}',
            "migration: the other side does not say which pages are missing",
        ),
    ],
)
def test_frames(there: Host, folder: Path, kind: FrameKind, payload: bytes, reason: str) -> None:
    with Target(there) as target:
        peer = Peer(target)
        assert peer.offer(folder)["type"] == "accepted"
        peer.channel.send_data(FrameKind.PAGES, ONE_PAGE)
        peer.channel.send_data(kind, payload)
        assert peer.end() == {"type": "discarded", "reason": reason}
        with pytest.raises(MigrationError) as caught:
            target.receive(10)
        assert str(caught.value) == f"guest 'guest' does not come: {reason}"
        assert (there.guests, there.pool.used) == ({}, 0)
        again = Peer(target)
        assert again.offer(folder)["type"] == "accepted"
        again.channel.close()


@pytest.mark.parametrize("ready", [False, True])
def test_who_takes_leave_before_it_is_time(there: Host, folder: Path, ready: bool) -> None:
    """Nothing of its guest stays behind."""
    with Target(there) as target:
        peer = Peer(target)
        assert peer.offer(folder)["type"] == "accepted"
        peer.channel.send_data(FrameKind.PAGES, ONE_PAGE)
        if ready:
            shown(peer, folder, bytes(5184 // 8))
            assert peer.channel.receive_message()["type"] == "ready"
        peer.channel.send({"type": "bye"})
        said = peer.end()
        if ready:  # as good as no line: somebody has to say what becomes of the guest
            assert target.in_doubt.endswith("the other side said 'bye', which is not for now")
            target.decide(run=False)
        else:
            assert said["reason"] == "migration: the other side said 'bye', which is not for now"
        assert (there.guests, there.pool.used) == ({}, 0)


def test_a_source_that_leaves_with_pages_of_the_guest(there: Host, folder: Path) -> None:
    with Target(there) as target:
        peer = Peer(target)
        assert peer.offer(folder, mode="post-copy")["type"] == "accepted"
        flags = np.zeros(5184, np.bool_)
        flags[512] = True
        shown(peer, folder, bitmap_of(flags))
        assert peer.channel.receive_message()["type"] == "ready"
        peer.channel.send({"type": "commit"})
        assert peer.channel.receive_message()["type"] == "running"
        peer.channel.send({"type": "bye"})
        peer.end()
        guest = target.receive(10)
        assert (guest.state, guest.reason) == (
            GuestState.CRASHED,
            "migration: the source left before it had sent all pages: 1 of them, and so the guest, are lost",
        )
        guest.delete()
        assert there.pool.used == 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["device", "version", "processors", "clock"]), st.integers() | st.text(max_size=3)
    ),
    st.dictionaries(
        st.sampled_from(["slots", "ends", "kinds", "shadows", "plugged"]),
        st.lists(st.integers(), max_size=3) | st.binary(max_size=8),
    ),
)
def test_states_and_layouts(there: Host, folder: Path, state: dict[str, Any], layout: dict[str, Any]) -> None:
    with Target(there) as target:
        peer = Peer(target)
        peer.offer(folder)
        peer.channel.send(
            {"type": "machine", "state": state, "layout": layout, "running": True, "later": bytes(5184 // 8)}
        )
        assert peer.end()["type"] == "discarded"
        assert (there.guests, there.pool.used) == ({}, 0)


def shown(peer: Peer, folder: Path, later: bytes | None = None) -> None:
    """Send the whole of a guest that has just been switched on; the pages of `later`, or all that hold something and
    must be there when it begins, are to come behind."""
    with Host(16 * MIB) as host:
        guest = host.create(guest_config(folder))
        with host.lock:
            guest.start()
            guest.pause()
        pages = pages_needed_first(guest.memory)
        flags = np.zeros(guest.memory.page_count, np.bool_)
        flags[np.intersect1d(pages, pages_that_hold(guest.memory))] = True
        peer.channel.send(
            {
                "type": "machine",
                "state": save_machine(guest.machine),
                "layout": Layout.of(guest.memory).as_plain(),
                "running": True,
                "later": bitmap_of(flags) if later is None else later,
            }
        )


def attached(host: Host) -> int:
    store = host.memory.stores.get(FrameState.REMOTE)
    return 0 if store is None else store.statistics["attached"]


@pytest.mark.parametrize("later", [None, b"\xff" * (5184 // 8)])
def test_pages_that_come_too_late_or_never_can(there: Host, folder: Path, later: bytes | None) -> None:
    """The thread that would receive them must not wait for them."""
    with Target(there) as target:
        peer = Peer(target)
        peer.offer(folder)
        shown(peer, folder, later)
        assert peer.end()["type"] == "discarded"
        with pytest.raises(MigrationError) as caught:
            target.receive(10)
        assert str(caught.value).endswith(
            "migration: the other side sends later what the guest needs to begin"
            if later is None
            else "page 0xa0 of the snapshot is where the guest has no memory"
        )
        assert (there.guests, there.pool.used, attached(there)) == ({}, 0, 0)


def test_a_discarded_guest_gives_its_numbers_back(there: Host, folder: Path) -> None:
    with Target(there) as target:
        peer = Peer(target)
        peer.offer(folder)
        shown(peer, folder, b"\0\0\1" + bytes(5184 // 8 - 3))
        assert peer.channel.receive_message("ready") == {"type": "ready"}
        assert attached(there) == 1
        peer.channel.send({"type": "abort"})
        assert peer.end() == {"type": "discarded", "reason": "the source has cancelled"}
        assert (there.guests, there.pool.used, attached(there)) == ({}, 0, 0)


def test_what_comes_too_late_changes_nothing(there: Host, folder: Path) -> None:
    with Target(there) as target:
        peer = Peer(target)
        peer.offer(folder)
        shown(peer, folder, bytes(5184 // 8))
        assert peer.channel.receive_message("ready") == {"type": "ready"}
        peer.channel.send_data(FrameKind.PAGES, ONE_PAGE)
        peer.channel.send_data(FrameKind.DISK, Sectors(0, 0, 512, b"").encode())
        peer.channel.send({"type": "commit"})
        assert peer.channel.receive_message("running") == {"type": "running"}
        peer.channel.send({"type": "party"})
        peer.channel.close()
        assert target.receive(10).state is GuestState.RUNNING
        there.guests["guest"].delete()


def test_a_guest_that_somebody_makes_meanwhile_stays(there: Host, folder: Path) -> None:
    with Target(there) as target:
        peer = Peer(target)
        peer.offer(folder)
        own = there.create(guest_config(folder))
        shown(peer, folder, bytes(5184 // 8))
        reason = "there is a guest 'guest' already"
        assert peer.end() == {"type": "discarded", "reason": reason}
        assert list(there.guests.values()) == [own]
        own.delete()


def test_a_host_without_memory(there: Host, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    with Target(there) as target:
        peer = Peer(target)
        peer.offer(folder)
        monkeypatch.setattr("emuvisor.migration.stage.Stage.put", fail)
        peer.channel.send_data(FrameKind.PAGES, ONE_PAGE)
        assert peer.end() == {"type": "discarded", "reason": "the host has no memory for it"}
        assert (there.guests, there.pool.used) == ({}, 0)


def test_old_migrations_are_forgotten(there: Host, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emuvisor.migration.target.REMEMBERED", 1)
    with Target(there) as target:
        for identity in "ab":
            peer = Peer(target, identity=identity)
            peer.offer(folder)
            peer.channel.send({"type": "abort"})
            assert peer.end() == {"type": "discarded", "reason": "the source has cancelled"}
        with pytest.raises(MigrationError, match=r"^migration: there is no such migration here$"):
            Peer(target, "connect", identity="a")


@pytest.mark.parametrize(
    ("identity", "answer"), [("1", "committed"), ("1", "aborted"), ("another", "undecided")]
)
def test_a_source_that_is_asked(
    identity: str, answer: str, there: Host, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who answers without knowing the migration is not the source: that is gone."""
    monkeypatch.setattr("emuvisor.migration.target.ASK_S", 0.0)
    monkeypatch.setattr("emuvisor.migration.target._LOOK_S", 0.01)
    questions = Questions(listen("127.0.0.1:0"), Insecure(), bytes(16), identity, lambda: answer)
    with Target(there) as target:
        peer = Peer(target)
        peer.offer(folder, ask=questions.address)
        shown(peer, folder, bytes(5184 // 8))
        assert peer.channel.receive_message("ready") == {"type": "ready"}
        peer.channel.close()
        if answer == "aborted":
            with pytest.raises(MigrationError, match=r"^guest 'guest' does not come: "):
                target.receive(10)
        else:
            moved = target.receive(10)
            assert list(there.guests.values()) == [moved]
            moved.delete()
        assert there.guests == {}
    questions.close()


@pytest.mark.parametrize("answer", ["undecided", "perhaps"])
def test_a_source_that_does_not_say_is_asked_again(
    answer: str, there: Host, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emuvisor.migration.target.ASK_S", 0.0)
    monkeypatch.setattr("emuvisor.migration.target._LOOK_S", 0.01)
    answers = iter([answer, answer])
    questions = Questions(
        listen("127.0.0.1:0"), Insecure(), bytes(16), "1", lambda: next(answers, "committed")
    )
    with Target(there) as target:
        peer = Peer(target)
        peer.offer(folder, ask=questions.address)
        shown(peer, folder, bytes(5184 // 8))
        assert peer.channel.receive_message("ready") == {"type": "ready"}
        peer.channel.close()
        target.receive(10).delete()
    assert next(answers, None) is None
    questions.close()


def test_nobody_else_comes_in_between(there: Host, folder: Path, tmp_path: Path) -> None:
    with Host(16 * MIB) as here, Target(there) as target:
        guest = here.create(guest_config(tmp_path))
        guest.start()
        moving = Source(guest, target.address)
        while guest.state is not GuestState.MIGRATING:
            moving.step()
        moving.lose_line()
        wait_for_doubt(target)
        with pytest.raises(MigrationError) as caught:
            Peer(target)
        assert str(caught.value) == "migration: another guest is on its way to this target"
        with pytest.raises(MigrationError) as caught:
            Peer(target, "ask")
        assert str(caught.value) == "migration: there is no such migration here"
        moving.run()
        assert target.receive(10).delete() > 0


def test_nobody_comes(there: Host) -> None:
    with Target(there) as target, pytest.raises(MigrationError, match="migration: no guest has come"):
        target.receive(0.01)


# ---- disks ----


def test_files_that_cannot_be_made_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "a.img", tmp_path / "none" / "b.img"
    config = guest_config(tmp_path, disk=DiskConfig(first))
    both = guest_config(tmp_path)
    object.__setattr__(both, "disks", (DiskConfig(first), DiskConfig(second)))
    with pytest.raises(MigrationError) as caught:
        TargetDisks(both, [DiskPlan("copy", 1024)] * 2)
    assert str(caught.value) == f"migration: {second}: No such file or directory"
    assert not first.exists()
    disks = TargetDisks(config, [DiskPlan("copy", 1024)])
    disks.receive(Sectors(0, 512, 512, b"\1" * 512))
    with pytest.raises(MigrationError, match="sectors of no disk"):
        disks.receive(Sectors(0, 1024, 512, b""))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", fail)
    with pytest.raises(MigrationError, match="migration: a disk cannot be written: No space left on device"):
        disks.receive(Sectors(0, 0, 512, b""))
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(MigrationError, match="migration: a disk cannot be stored: No space left on device"):
        disks.close_files()
    assert first.read_bytes() == bytes(512) + b"\1" * 512
    disks.discard()
    assert not first.exists()


def test_a_disk_that_the_host_has_no_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.img"

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("os.ftruncate", fail)
    config = guest_config(tmp_path, disk=DiskConfig(path))
    with pytest.raises(MigrationError) as caught:
        TargetDisks(config, [DiskPlan("copy", 1024)])
    assert str(caught.value) == f"migration: {path}: No space left on device"
    assert not path.exists()


def test_an_overlay_where_none_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that was made before it is removed again."""
    first, second, folder = tmp_path / "a.img", tmp_path / "b.img", tmp_path / "none"
    monkeypatch.setattr("emuvisor.migration.target_disks.temporary_folder", lambda _: folder)
    config = guest_config(tmp_path)
    object.__setattr__(config, "disks", (DiskConfig(first), DiskConfig(second, overlay="temporary")))
    with pytest.raises(ImageError) as caught:
        TargetDisks(config, [DiskPlan("copy", 1024), DiskPlan("overlay", 1024)])
    assert str(caught.value) == (f"{folder}: cannot make a temporary overlay: No such file or directory")
    assert not first.exists()


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (512, "migration: disk {path} has another size here"),
        (1024, "migration: disk {path} cannot be written: No space left on device"),
    ],
)
def test_what_came_of_an_overlay_has_no_place(tmp_path: Path, size: int, reason: str) -> None:
    path = tmp_path / "a.img"

    class Image:
        name = str(path)
        sectors = 2

        def write(self, lba: int, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    config = guest_config(tmp_path, disk=DiskConfig(path, overlay="temporary"))
    disks = TargetDisks(config, [DiskPlan("overlay", size)])
    disks.receive(Sectors(0, 0, 512, b"\1" * 512))
    machine: Any = SimpleNamespace(drives=[SimpleNamespace(image=Image())])
    with pytest.raises(MigrationError) as caught:
        disks.fill(machine)
    assert str(caught.value) == reason.format(path=path)
    disks.discard()
