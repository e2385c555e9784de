"""Peers that speak the protocol but not the truth: nothing of theirs stays, and the next one is served."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from migrating_guests import guest_config

from emuvisor.errors import MigrationError
from emuvisor.host import GuestState, Host
from emuvisor.machine.config import DiskConfig
from emuvisor.machine.config_mapping import to_mapping
from emuvisor.migration import Source, Target
from emuvisor.migration.channel import Channel, LineLost
from emuvisor.migration.disk_blocks import DiskPlan, Sectors
from emuvisor.migration.endpoints import connect
from emuvisor.migration.frames import FrameKind, Message
from emuvisor.migration.greeting import Hello, be_greeted
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

    def __init__(self, target: Target, purpose: str = "migrate") -> None:
        self.channel = Channel(connect(target.address), 10)
        try:
            be_greeted(self.channel, "source", Hello(purpose, "1"), None)
        except MigrationError:
            self.channel.close()
            raise

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
        ({"pages": 1 << 30}, "migration: the guest has 1073741824 pages; 1 to 16777216 are possible"),
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


def test_nobody_else_comes_in_between(there: Host, folder: Path, tmp_path: Path) -> None:
    with Host(16 * MIB) as here, Target(there) as target:
        guest = here.create(guest_config(tmp_path))
        guest.start()
        moving = Source(guest, target.address)
        while guest.state is not GuestState.MIGRATING:
            moving.step()
        moving.lose_line()
        while not target.in_doubt.startswith("the line"):
            pass
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
