"""Guests move between two hosts and end as if they had not; when the line dies, they are on exactly one side."""

import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from migrating_guests import ENDLESS, SECTOR, Cutter, fingerprint, guest_config, wait_for_doubt

from emuvisor.errors import MigrationError, OutOfFrames, StateError, UsageError
from emuvisor.host import Guest, GuestState, Host
from emuvisor.machine.config import DiskConfig
from emuvisor.memory import FrameState
from emuvisor.memory.compressed import CompressedStore
from emuvisor.migration import (
    Certificates,
    Insecure,
    Options,
    Phase,
    Progress,
    Security,
    Source,
    Target,
    Token,
    greeting,
    make_token,
    source,
    target,
)
from emuvisor.migration.convergence import Decision
from emuvisor.units import MIB

MODES = ("pre-copy", "post-copy", "hybrid")
SENT, RECEIVED = 10, 14
"""How often something is sent and received in a migration of the tests' guest, at least."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "RETRY_S", 0.01)
    monkeypatch.setattr(target, "ASK_S", 0.01)
    monkeypatch.setattr(target, "_LOOK_S", 0.01)


@pytest.fixture
def here() -> Iterator[Host]:
    with Host(32 * MIB) as host:
        yield host


@pytest.fixture
def there() -> Iterator[Host]:
    with Host(32 * MIB) as host:
        yield host


@pytest.fixture
def listening(there: Host) -> Iterator[Target]:
    with Target(there) as made:
        yield made


def started(host: Host, folder: Path, count: int = ENDLESS, disk: DiskConfig | None = None) -> Guest:
    guest = host.create(guest_config(folder, count, disk))
    guest.start()
    return guest


def states(*hosts: Host) -> list[list[str]]:
    return [[str(guest.state) for guest in host.guests.values()] for host in hosts]


# ---- the result is the same ----


@pytest.mark.parametrize("mode", MODES)
def test_a_guest_ends_as_one_that_was_left_alone(
    mode: Any, here: Host, there: Host, listening: Target, tmp_path: Path
) -> None:
    count = 0x8000
    alone = started(here, tmp_path, count)
    assert alone.wait(60)
    expected = fingerprint(alone)
    alone.delete()
    guest = here.create(guest_config(tmp_path, count))
    with here.lock:
        guest.start()
        guest.pause()
    seen: list[Progress] = []
    done = Source(guest, listening.address, Options(mode=mode, compression="zstd")).run(seen.append)
    assert seen[-1] == done
    assert (done.phase, done.left, guest.state) == (Phase.MOVED, 0, GuestState.GONE)
    assert done.downtime_ns is not None
    moved = listening.receive(10)
    assert (moved.state, moved.reason, moved.name) == (
        GuestState.PAUSED,
        "it came from 127.0.0.1",
        "guest",
    )
    moved.resume()
    assert moved.wait(60)
    assert fingerprint(moved) == expected
    assert here.pool.used == 0
    moved.delete()
    assert there.pool.used == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_running_guest_runs_on(
    mode: Any, here: Host, there: Host, listening: Target, tmp_path: Path
) -> None:
    guest = started(here, tmp_path)
    before = guest.console.written
    done = Source(guest, listening.address, Options(mode=mode)).run()
    moved = listening.receive(10)
    assert states(here, there) == [[], ["running"]]
    assert moved.console.written >= before
    assert done.as_dict()["phase"] == "moved"
    printed = threading.Event()
    moved.console.listeners.append(lambda _: printed.set())
    assert printed.wait(30)


def test_rounds_can_be_stepped(here: Host, listening: Target, tmp_path: Path) -> None:
    guest = started(here, tmp_path)
    moving = Source(guest, listening.address, Options(max_rounds=2))
    assert moving.progress.phase is Phase.COPYING
    phases = []
    while not moving.is_over:
        now = moving.step()
        phases.append((str(now.phase), len(now.rounds)))
    assert phases[:2] == [("copying", 0), ("copying", 1)]
    assert phases[-1][0] == "moved"
    assert moving.step().phase is Phase.MOVED
    first = now.rounds[0]
    assert first.sent > 0
    assert first.bytes > first.sent * 4096


def test_there_and_back(here: Host, there: Host, tmp_path: Path) -> None:
    token = Token(make_token())
    guest = started(here, tmp_path)
    with Target(there, security=token) as first:
        Source(guest, first.address, security=token).run()
        moved = first.receive(10)
    with Target(here) as second:
        Source(moved, second.address, Options(mode="post-copy")).run()
        assert second.receive(10).state is GuestState.RUNNING
        assert second.missing == 0
    assert states(here, there) == [["running"], []]


def test_pages_in_stores_go_without_frames(
    here: Host, there: Host, listening: Target, tmp_path: Path
) -> None:
    guest = started(here, tmp_path)
    guest.pause()
    memory = guest.memory
    content = bytes(range(256)) * 16
    memory.write(0x10_0000, content)
    memory.stores[FrameState.COMPRESSED] = CompressedStore(MIB)
    assert memory.send_away(FrameState.COMPRESSED, [(0, 0x100)]) == 1
    used = here.pool.used
    moving = Source(guest, listening.address)
    moving.step()
    moving.step()
    assert here.pool.used == used
    moving.run()
    assert listening.receive(10).memory.read(0x10_0000, 4096) == content


# ---- the line dies ----


def step_to(moving: Source, point: str) -> None:
    """Let a migration come as far as one of its points, and no further."""
    moving.step()
    if point == "connected":
        return
    moving.step()
    if point == "a round":
        return
    while moving.progress.phase is Phase.COPYING:
        moving.step()
    assert moving.progress.phase is Phase.SWITCHING
    if point == "committed":
        moving.step()  # hears "ready"


def settle(moving: Source) -> Progress:
    for _ in range(10_000):
        if moving.is_over:
            break
        moving.step()
    return moving.progress


@pytest.mark.parametrize("mode", ["pre-copy", "post-copy"])
@pytest.mark.parametrize("receiving", [False, True])
def test_a_line_that_dies_at_any_message_leaves_the_guest_on_one_side(
    mode: Any, receiving: bool, here: Host, there: Host, tmp_path: Path
) -> None:
    outcomes = set()
    guest = started(here, tmp_path)
    for at in range(1, (RECEIVED if receiving else SENT) + 1):
        with Target(there) as listening:
            options = Options(mode=mode, max_rounds=1)  # however long a busy machine takes
            done = settle(Source(guest, listening.address, options, dial=Cutter(at, receiving=receiving)))
            outcomes.add(done.phase)
            if done.phase is Phase.STAYED:
                assert done.reason.startswith("guest 'guest' stays: ")
            else:
                guest = listening.receive(10)
                here, there = there, here
        assert states(here, there) == [["running"], []], at
    assert outcomes == {Phase.STAYED, Phase.MOVED}


def test_a_source_whose_process_is_gone_leaves_its_guest_to_the_target(
    here: Host, there: Host, listening: Target, tmp_path: Path
) -> None:
    guest = started(here, tmp_path)
    moving = Source(guest, listening.address)
    while moving.progress.phase is Phase.COPYING:
        moving.step()
    assert moving.progress.phase is Phase.SWITCHING
    assert guest.state is GuestState.MIGRATING
    with pytest.raises(StateError, match="guest 'guest' is migrating; resume needs it paused"):
        guest.resume()
    moving.abandon()
    assert listening.receive(10).state is GuestState.RUNNING
    assert listening.in_doubt == ""


def test_a_target_that_is_gone_gives_the_guest_back(here: Host, there: Host, tmp_path: Path) -> None:
    guest = started(here, tmp_path)
    listening = Target(there)
    moving = Source(guest, listening.address)
    while moving.progress.phase is Phase.COPYING:
        moving.step()
    listening.close()
    assert settle(moving).phase is Phase.STAYED
    assert moving.progress.reason.startswith("guest 'guest' stays: the target is gone (nobody listens at ")
    assert guest.state is GuestState.RUNNING
    assert there.guests == {}


@pytest.mark.parametrize("secret", ["", "a token that nobody guesses"])
def test_another_target_at_the_same_address(secret: str, here: Host, there: Host, tmp_path: Path) -> None:
    """With a token nobody has shown that the one who knows nothing is the target's host: an operator decides."""
    security = Token(secret) if secret else Insecure()
    guest = started(here, tmp_path)
    listening = Target(there, security=security)
    moving = Source(guest, listening.address, security=security)
    step_to(moving, "offered")
    listening.close()
    with Target(there, listening.address, security):
        while secret and moving.progress.phase is not Phase.IN_DOUBT:
            moving.step()  # the line is lost, perhaps after the old target has said that it is ready
        if secret:
            assert moving.progress.reason == (
                "the target answers, but knows nothing of this guest; an operator has to decide"
            )
            moving.decide(here=True)
        assert settle(moving).phase is Phase.STAYED
        why = "an operator decided so" if secret else "the target is gone (another process is there)"
        assert moving.progress.reason == f"guest 'guest' stays: {why}"
    assert states(here, there) == [["running"], []]


def test_in_doubt_an_operator_decides(here: Host, there: Host, listening: Target, tmp_path: Path) -> None:
    guest = started(here, tmp_path)
    line = Cutter(0)
    moving = Source(guest, listening.address, dial=line)
    while moving.progress.phase is Phase.COPYING:
        moving.step()
    moving.lose_line()
    line.refuses = True
    while moving.progress.phase is not Phase.IN_DOUBT:
        moving.step()
    assert moving.progress.reason == "the target cannot be reached: unreachable"
    wait_for_doubt(listening)
    listening.decide(True)
    moved = listening.receive(10)
    moving.decide(here=False)
    assert settle(moving).phase is Phase.MOVED
    assert states(here, there) == [[], ["running"]]
    assert moved.state is GuestState.RUNNING


@pytest.mark.parametrize("secret", ["", "a token that nobody guesses"])
def test_cancelled_while_the_line_is_gone(secret: str, here: Host, there: Host, tmp_path: Path) -> None:
    """The target asks, hears that it is not to have the guest, and says so when the line is back."""
    security = Token(secret) if secret else Insecure()
    guest = started(here, tmp_path)
    line = Cutter(0)
    with Target(there, security=security) as listening:
        moving = Source(guest, listening.address, security=security, dial=line)
        while moving.progress.phase is Phase.COPYING:
            moving.step()
        moving.lose_line()
        line.refuses = True
        moving.step()
        moving.cancel()
        moving.step()
        with pytest.raises(MigrationError, match=r"^guest 'guest' does not come: "):
            listening.receive(10)
        line.refuses = False
        assert settle(moving).phase is Phase.STAYED
        assert states(here, there) == [["running"], []]


COMMIT = 7
"""Which message of a migration with one round says "commit": plain, hello, offer, pages, round, machine come before."""


def test_the_target_asks_when_the_word_is_lost(
    here: Host, there: Host, listening: Target, tmp_path: Path
) -> None:
    guest = here.create(guest_config(tmp_path))
    with here.lock:
        guest.start()
        guest.pause()
    line = Cutter(COMMIT)
    moving = Source(guest, listening.address, Options(max_rounds=1), dial=line)
    while line.count < COMMIT:
        moving.step()
    line.refuses = True
    assert listening.receive(10).state is GuestState.PAUSED
    moving.step()
    assert moving.progress.phase is Phase.IN_DOUBT
    line.refuses = False
    assert settle(moving).phase is Phase.MOVED
    assert states(here, there) == [[], ["paused"]]


def test_a_guest_that_writes_too_fast_is_slowed_down(
    here: Host, listening: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = started(here, tmp_path)
    caps = []

    def losing(rounds: Any, throttle: int, options: Options, load_ns: int) -> Decision:
        caps.append(guest.cpu_claim.cap)
        return Decision(len(rounds) == 3, (20, 30, 30, 30)[len(rounds)])

    monkeypatch.setattr(source, "decide", losing)
    moving = Source(guest, listening.address)
    while moving.progress.phase is Phase.COPYING:
        moving.step()
    assert caps == [None, 80, 70, 70]
    assert moving.progress.throttle == 30
    moving.cancel()
    assert settle(moving).phase is Phase.STAYED
    assert guest.cpu_claim.cap is None


def test_cancelled_before_it_begins(here: Host, listening: Target, tmp_path: Path) -> None:
    guest = started(here, tmp_path)
    moving = Source(guest, listening.address)
    moving.cancel()
    assert refused(moving) == "guest 'guest' stays: cancelled"
    assert guest.state is GuestState.RUNNING
    with pytest.raises(MigrationError, match=r"^migration: no guest has come$"):
        listening.receive(0)


@pytest.mark.parametrize("until", ["connected", "a round", "offered"])
def test_cancelled_before_it_is_decided(
    until: str, here: Host, there: Host, listening: Target, tmp_path: Path
) -> None:
    guest = started(here, tmp_path)
    moving = Source(guest, listening.address)
    step_to(moving, until)
    moving.cancel()
    assert refused(moving) == "guest 'guest' stays: cancelled"
    assert guest.state is GuestState.RUNNING
    with pytest.raises(MigrationError, match=r"^guest 'guest' does not come: the source has cancelled$"):
        listening.receive(10)
    assert there.guests == {}
    assert there.pool.used == 0


def test_once_it_is_decided_it_is_too_late_to_cancel(
    here: Host, there: Host, listening: Target, tmp_path: Path
) -> None:
    moving = Source(started(here, tmp_path), listening.address)
    step_to(moving, "committed")
    moving.cancel()
    assert settle(moving).phase is Phase.MOVED
    listening.receive(10)  # the source hears that the guest runs before it does
    assert states(here, there) == [[], ["running"]]


# ---- post-copy ----


def following(guest: Guest, listening: Target, monkeypatch: pytest.MonkeyPatch) -> tuple[Source, Guest]:
    """A migration of which the guest runs at the target, without most of its pages."""
    monkeypatch.setattr("emuvisor.migration.copier.FOLLOWING_BATCH", 1)
    guest.memory.write(0x20_0000, bytes(range(1, 256)) * 512)
    moving = Source(guest, listening.address, Options(mode="post-copy"))
    while moving.progress.phase is not Phase.FOLLOWING:
        moving.step()
    return moving, listening.receive(10)


def test_a_guest_without_its_pages_waits_for_the_line(
    here: Host, there: Host, listening: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = started(here, tmp_path)
    moving, moved = following(guest, listening, monkeypatch)
    moving.lose_line()
    with there.lock:
        assert there.changed.wait_for(lambda: moved.state is GuestState.PAUSED, 30)
    assert moved.reason.startswith("migration: the line to the source was lost: ")
    assert moved.reason.endswith("; it goes on when that is back")
    assert listening.missing > 0
    while moving._line.channel is None:
        moving.step()
    wants_a_page(moving)  # the one at which it has stopped
    assert settle(moving).phase is Phase.MOVED
    with there.lock:
        assert there.changed.wait_for(lambda: moved.state is GuestState.RUNNING, 30)
    assert moving.progress.demanded_pages > 0
    listening.close()
    assert moved.memory.census()["remote"] == 0
    assert moved.memory.read(0x20_0000, 255) == bytes(range(1, 256))


@pytest.fixture
def late(
    here: Host, listening: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Source, Guest]:
    """As `following`."""
    return following(started(here, tmp_path), listening, monkeypatch)


def wants_a_page(moving: Source) -> None:
    """Wait until the guest has asked the source, which does not answer until it is stepped."""
    assert moving._line.channel is not None
    assert moving._line.channel.waits(30)


def test_a_guest_that_waits_for_a_page_does_as_it_is_told(
    late: tuple[Source, Guest], here: Host, there: Host
) -> None:
    moving, moved = late
    wants_a_page(moving)
    assert moved.statistics().state is GuestState.RUNNING
    moved.pause()
    moved.resume()
    assert moved.between_runs(lambda: "off its pCPU") == "off its pCPU"
    with pytest.raises(OutOfFrames, match=r"it is still at the other side of a migration$"):
        moved.between_runs(lambda: moved.memory.read(0x20_0000, 1))
    moved.type("x")
    moved.reset()
    moved.stop()
    assert there.pool.used == 0
    assert settle(moving).phase is Phase.MOVED
    assert states(here, there) == [[], ["defined"]]


def test_a_guest_that_waits_for_a_page_can_be_deleted(
    late: tuple[Source, Guest], here: Host, there: Host
) -> None:
    moving, moved = late
    wants_a_page(moving)
    moved.delete()
    assert there.pool.used == 0
    assert settle(moving).phase is Phase.MOVED
    assert states(here, there) == [[], []]


def test_another_guest_has_the_pcpu_while_one_waits(
    late: tuple[Source, Guest], there: Host, tmp_path: Path
) -> None:
    moving, moved = late
    wants_a_page(moving)
    assert there.pcpus == 1
    other = there.create(replace(guest_config(tmp_path, 16), name="other"))
    other.start()
    assert other.wait(30)
    assert moved.state is GuestState.RUNNING
    assert settle(moving).phase is Phase.MOVED


def test_a_target_that_is_closed_before_the_last_word(
    here: Host, there: Host, listening: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pages have come, so that the guest goes on without it."""
    moving, moved = following(started(here, tmp_path), listening, monkeypatch)
    while moving.progress.left:
        moving.step()
    assert moving._line.channel is not None
    while moving._line.channel.receive_message("demand", "complete")["type"] != "complete":
        pass
    listening.close()
    assert (moved.state, moved.memory.census()["remote"]) == (GuestState.RUNNING, 0)
    assert moved.memory.read(0x20_0000, 255) == bytes(range(1, 256))


def test_a_source_that_dies_while_pages_follow_takes_the_guest_with_it(
    here: Host, there: Host, listening: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = started(here, tmp_path)
    moving, moved = following(guest, listening, monkeypatch)
    moving.abandon()
    with there.lock:
        assert there.changed.wait_for(lambda: moved.state is GuestState.CRASHED, 30)
    assert "the source ended before it had sent all pages: " in moved.reason
    assert FrameState.REMOTE in there.memory.stores
    moved.delete()
    assert there.pool.used == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_guest_goes_on_to_a_third_host_before_all_of_it_has_come(
    mode: Any, late: tuple[Source, Guest], here: Host, there: Host
) -> None:
    moving, moved = late
    first = threading.Thread(target=settle, args=(moving,))
    with Host(32 * MIB) as third, Target(third) as next_one:
        onward = Source(moved, next_one.address, Options(mode=mode))
        onward.step()
        first.start()
        assert settle(onward).phase is Phase.MOVED
        first.join(30)
        assert moving.progress.phase is Phase.MOVED
        assert next_one.receive(10).memory.read(0x20_0000, 255) == bytes(range(1, 256))
    assert states(here, there) == [[], []]


def test_a_page_that_does_not_come_keeps_the_guest_from_going_on(
    late: tuple[Source, Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emuvisor.migration.copier.PATIENCE", 2)
    moving, moved = late
    with Host(32 * MIB) as third, Target(third) as next_one, pytest.raises(MigrationError) as caught:
        Source(moved, next_one.address).run()
    assert str(caught.value) == (
        "guest 'guest' stays: migration: a page of the guest cannot be had: "
        "it is still at the other side of a migration"
    )
    assert settle(moving).phase is Phase.MOVED


def test_a_source_that_dies_before_the_word_takes_the_pages_with_it(
    here: Host, there: Host, listening: Target, tmp_path: Path
) -> None:
    guest = started(here, tmp_path)
    guest.memory.write(0x20_0000, bytes(range(1, 256)))
    moving = Source(guest, listening.address, Options(mode="post-copy"))
    step_to(moving, "offered")
    moving.abandon()
    moved = listening.receive(10)
    with there.lock:
        assert there.changed.wait_for(lambda: moved.state is GuestState.CRASHED, 30)
    assert "the source ended before it had sent all pages: " in moved.reason


def test_a_target_that_dies_while_pages_follow_takes_the_guest_with_it(
    here: Host, there: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = started(here, tmp_path)
    listening = Target(there)
    moving, _ = following(guest, listening, monkeypatch)
    listening.close()
    with pytest.raises(
        MigrationError, match=r"^guest 'guest' is lost: the target ended before it had all pages"
    ):
        moving.run()
    assert moving.progress.phase is Phase.LOST
    assert (guest.state, guest.reason) == (GuestState.PAUSED, moving.progress.reason)


# ---- what is refused ----


class Heard(deque[str]):
    """What a target notes about connections that it refused. It notes that after the source has heard of it, so it is
    waited for."""

    def __init__(self, listening: Target) -> None:
        super().__init__()
        self._noted: SimpleQueue[str] = SimpleQueue()
        listening.refused = self

    def append(self, item: str) -> None:
        self._noted.put(item)

    def next(self) -> str:
        return self._noted.get(timeout=10)


def refused(moving: Source) -> str:
    with pytest.raises(MigrationError) as caught:
        moving.run()
    return str(caught.value)


def test_a_guest_of_that_name(here: Host, there: Host, listening: Target, tmp_path: Path) -> None:
    guest = started(here, tmp_path)
    there.create(guest_config(tmp_path))
    heard = Heard(listening)
    reason = "migration: there is a guest 'guest' at the target already"
    assert refused(Source(guest, listening.address)) == f"guest 'guest' stays: {reason}"
    assert heard.next() == reason


def test_a_guest_that_the_target_does_not_want(here: Host, there: Host, tmp_path: Path) -> None:
    def admit(config: object) -> None:
        raise UsageError("not this one")

    guest = started(here, tmp_path)
    with Target(there, admit=admit) as listening:
        assert refused(Source(guest, listening.address)) == "guest 'guest' stays: not this one"


def test_a_target_without_room(here: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emuvisor.migration.stage.PATIENCE", 2)
    guest = started(here, tmp_path)
    with here.lock:
        guest.pause()
        for page in range(0x100, 0x300):
            guest.memory.write(page << 12, page.to_bytes(4, "little"))
        guest.resume()
    with Host(MIB) as small, Target(small) as listening:
        reason = "all 256 frames of the pool (1 MiB) are taken"
        assert refused(Source(guest, listening.address)) == f"guest 'guest' stays: {reason}"
        listening.close()
        assert small.pool.used == 0
    assert guest.state is GuestState.RUNNING


def test_a_guest_that_is_off(here: Host, tmp_path: Path) -> None:
    guest = here.create(guest_config(tmp_path))
    with pytest.raises(StateError, match="guest 'guest' is defined; migrate needs it running or paused"):
        Source(guest, "127.0.0.1:1")


def test_nobody_listens(here: Host, tmp_path: Path) -> None:
    guest = started(here, tmp_path)
    with Target(here) as listening:
        address = listening.address
    assert refused(Source(guest, address)) == (
        f"guest 'guest' stays: the target is gone (nobody listens at {address})"
    )


@pytest.mark.parametrize("versions", [(2, 3), (0, 0)])
def test_another_version_is_refused_with_one_message(
    versions: tuple[int, int],
    here: Host,
    listening: Target,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guest = started(here, tmp_path)
    monkeypatch.setattr(target, "greet", partial(greeting.greet, versions=versions))
    heard = Heard(listening)
    text = refused(Source(guest, listening.address))
    span = "2 to 3" if versions == (2, 3) else "0"
    reason = f"migration: the side that connects speaks version 1 of the protocol, the other one {span}"
    assert text == f"guest 'guest' stays: {reason}"
    assert heard.next() == reason


# ---- who may ----


def test_a_token_is_good_for_one_migration(here: Host, there: Host, tmp_path: Path) -> None:
    token = Token(make_token())
    guest = started(here, tmp_path)
    with Target(there, security=token) as listening:
        Source(guest, listening.address, security=token).run()
        moved = listening.receive(10)
        moved.delete()
        again = started(here, tmp_path)
        assert refused(Source(again, listening.address, security=token)) == (
            "guest 'guest' stays: migration: the token has been used"
        )


def test_a_wrong_token(here: Host, there: Host, tmp_path: Path) -> None:
    guest = started(here, tmp_path)
    with Target(there, security=Token(make_token())) as listening:
        reason = "migration: the other side does not know the token"
        moving = Source(guest, listening.address, security=Token(make_token()))
        assert refused(moving) == f"guest 'guest' stays: {reason}"
        assert there.guests == {}


def certificates(folder: Path) -> tuple[Security, Security]:
    """Of a source and a target that know each other, and of somebody else."""

    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, cwd=folder, capture_output=True)

    made = []
    for name in ("mine", "theirs"):
        common = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")
        run("req", "-x509", *common, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")
        made.append(Certificates(folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}.pem"))
    return made[0], made[1]


def test_certificates(here: Host, there: Host, tmp_path: Path) -> None:
    mine, theirs = certificates(tmp_path)
    guest = started(here, tmp_path)
    with Target(there, security=mine) as listening:
        assert refused(Source(guest, listening.address, security=theirs)) == (
            "guest 'guest' stays: migration: the other side's certificate: self-signed certificate"
        )
        assert guest.state is GuestState.RUNNING
        Source(guest, listening.address, security=mine).run()
        assert listening.receive(10).state is GuestState.RUNNING


def test_without_tls_only_on_this_machine(here: Host, there: Host, tmp_path: Path) -> None:
    guest = started(here, tmp_path)
    path = tmp_path / "target"
    with Target(there, str(path), Insecure()) as listening:
        Source(guest, listening.address).run()
        assert listening.receive(10).state is GuestState.RUNNING


# ---- disks ----


def sector(guest: Guest, number: int) -> bytes:
    image = guest.machine.drives[0].image
    assert image is not None
    return image.read(number, 1)


def write(guest: Guest, number: int, byte: int) -> None:
    image = guest.machine.drives[0].image
    assert image is not None
    image.write(number, bytes([byte]) * SECTOR)


@pytest.mark.parametrize("mode", ["shared", "copy"])
@pytest.mark.parametrize("overlay", [None, "temporary"])
def test_disks_go_along(mode: Any, overlay: Any, here: Host, there: Host, tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"\x07" * SECTOR + bytes(MIB - SECTOR))
    guest = started(here, tmp_path, disk=DiskConfig(path, overlay=overlay, bus="virtio"))
    write(guest, 8, 1)

    def elsewhere(config: Any) -> None:
        if mode == "copy":
            path.rename(tmp_path / "old.img")

    with Target(there, admit=elsewhere) as listening:
        moving = Source(guest, listening.address, Options(disks=mode))
        moving.step()
        moving.step()
        with here.lock:
            here.between_runs(guest, lambda: write(guest, 300, 2))
        moving.run()
        moved = listening.receive(10)
        moved.pause()
    assert [sector(moved, number)[0] for number in (0, 1, 8, 300)] == [7, 0, 1, 2]
    write(moved, 9, 3)
    if mode == "shared":
        assert moved.config.disks[0].overlay == overlay
        assert (path.read_bytes()[8 * SECTOR] == 1) == (overlay is None)
    else:
        assert path.read_bytes()[8 * SECTOR] == 1


def test_a_cancelled_guest_has_its_disk_again(
    here: Host, there: Host, listening: Target, tmp_path: Path
) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(MIB))
    guest = started(here, tmp_path, disk=DiskConfig(path, bus="virtio"))
    moving = Source(guest, listening.address)
    step_to(moving, "offered")
    moving.cancel()
    assert settle(moving).phase is Phase.STAYED
    guest.pause()
    write(guest, 3, 4)
    assert path.read_bytes()[3 * SECTOR] == 4


def test_a_copy_does_not_take_the_place_of_a_file(here: Host, listening: Target, tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(MIB))
    guest = started(here, tmp_path, disk=DiskConfig(path, bus="virtio"))
    assert refused(Source(guest, listening.address, Options(disks="copy"))) == (
        f"guest 'guest' stays: migration: {path}: File exists"
    )
    assert path.exists()


def test_a_disk_that_somebody_else_has_by_then(
    here: Host, there: Host, listening: Target, tmp_path: Path
) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(MIB))
    guest = started(here, tmp_path, disk=DiskConfig(path, bus="virtio"))
    moving = Source(guest, listening.address)
    while moving.progress.phase is Phase.COPYING:
        moving.step()
    listening.close()
    thief = there.create(guest_config(tmp_path, disk=DiskConfig(path, bus="virtio")))
    text = refused(moving)
    assert text.endswith(
        f". It is paused, for its disks are not to be had: {path}: the disk image is in use by another guest or program"
    )
    assert (guest.state, guest.reason) == (GuestState.PAUSED, text)
    thief.delete()


def test_a_disk_of_a_checkpoint_is_copied_or_stays(here: Host, listening: Target, tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(MIB))
    guest = started(here, tmp_path, disk=DiskConfig(path, bus="virtio"))
    with guest.checkpoint():
        assert refused(Source(guest, listening.address)) == (
            f"guest 'guest' stays: migration: disk {path} is part of a checkpoint; close that, or copy the disk's "
            "content"
        )
    with guest.checkpoint() as checkpoint:
        clone = here.clone(checkpoint, "twin")
    assert refused(Source(clone, listening.address)) == (
        f"guest 'twin' stays: migration: disk {path} stands on a moment that only this process has; its content has to "
        "be copied"
    )


@pytest.mark.parametrize("mode", ["shared", "copy"])
def test_disks_stay_in_their_files_meanwhile(
    mode: Any, here: Host, listening: Target, tmp_path: Path
) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(MIB))
    guest = started(here, tmp_path, disk=DiskConfig(path, bus="virtio"))
    moving = Source(guest, listening.address, Options(disks=mode))
    if mode == "copy":
        path.rename(tmp_path / "old.img")
    moving.step()
    with pytest.raises(StateError) as error:
        guest.move_disk(0, tmp_path / "new.img")
    assert str(error.value) == f"guest 'guest': disk {path} is being moved already"
    moving.cancel()
    assert settle(moving).phase is Phase.STAYED
    refusals = []

    def migrate(_done: int, _total: int) -> None:
        refusals.append(refused(Source(guest, listening.address)))

    guest.move_disk(0, tmp_path / "new.img", progress=migrate)
    assert refusals == [f"guest 'guest' stays: migration: disk {path} is being moved to another file"]
    guest.move_disk(0, tmp_path / "newer.img")
