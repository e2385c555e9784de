"""The memory manager round by round: guests without processors, a clock that stands still, no thread."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emuvisor.errors import AdmissionError, StateError, UsageError
from emuvisor.host.memory import (
    BalloonRung,
    CompressionRung,
    HostUse,
    Instruction,
    MemoryContract,
    PauseRung,
    SharingRung,
    SwapRung,
)
from emuvisor.host.memory.decisions import Decision
from emuvisor.host.memory.manager import MemoryManager
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.host.memory.rungs import Rung
from emuvisor.host.states import GuestState
from emuvisor.memory import FramePool, FrameState, GuestMemory
from emuvisor.units import KIB, MIB, PAGE_SIZE

FRAMES = 1000
MANY_ROUNDS = 100


@dataclass
class FakeBalloon:
    """Does at once, or never, what it is told."""

    memory: GuestMemory
    live: bool = True
    actual_pages: int = 0
    target_pages: int = 0

    def request_statistics(self) -> None:
        raise StateError("it has no driver that gives statistics")


@dataclass
class FakeGuest:
    """Memory with a contract."""

    name: str
    memory: GuestMemory
    contract: MemoryContract
    state: GuestState = GuestState.RUNNING
    out_of_memory: bool = False
    balloon_device: Any = None
    deterministic: bool = False
    needed_frames: int = 1
    is_leftover: bool = False

    def fill(self, first: int, pages: int, random: bool = False) -> None:
        """Write pages; different ones, compressible unless `random`."""
        for page in range(first, first + pages):
            text = f"{self.name} {page} ".encode()
            self.memory.write(page * PAGE_SIZE, text * (PAGE_SIZE // len(text)))

    def holds(self, first: int, pages: int) -> bool:
        """Whether they are still there."""
        return all(
            self.memory.read(page * PAGE_SIZE, 20) == (f"{self.name} {page} ".encode() * 20)[:20]
            for page in range(first, first + pages)
        )


@dataclass
class FakeHost:
    """Guests by name; what the manager did to them is noted."""

    pool: FramePool = field(default_factory=lambda: FramePool(FRAMES * PAGE_SIZE))
    guests: dict[str, FakeGuest] = field(default_factory=dict)
    hungry: set[str] = field(default_factory=set)
    busy: set[str] = field(default_factory=set)
    done: list[tuple[str, str]] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def all_guests(self) -> Sequence[FakeGuest]:
        return list(self.guests.values())

    def checkpoint_memories(self) -> Sequence[GuestMemory]:
        return []

    @contextmanager
    def held(self, name: str) -> Iterator[bool]:
        assert name not in self.inside
        self.inside.append(name)
        try:
            yield name not in self.busy
        finally:
            self.inside.remove(name)

    def starving(self) -> Sequence[FakeGuest]:
        return [self.guests[name] for name in sorted(self.hungry)]

    def feed(self, name: str) -> None:
        self.hungry.discard(name)
        self.guests[name].state = GuestState.RUNNING
        self.guests[name].out_of_memory = False
        self.done.append(("feed", name))

    def starve(self, name: str, reason: str) -> None:
        self.hungry.discard(name)
        self.guests[name].state = GuestState.PAUSED
        self.guests[name].out_of_memory = True
        self.done.append(("starve", reason))


class World:
    """A fake host with its manager."""

    def __init__(self, *rungs: Rung, **policy: Any) -> None:
        self.host = FakeHost()
        self.now = 0.0
        rungs = rungs or (CompressionRung(), PauseRung())
        self.manager = MemoryManager(
            self.host, MemoryPolicy(rungs=rungs, clock=lambda: self.now, compression_limit=MIB, **policy)
        )

    def guest(self, name: str, size: int = 4 * MIB, **contract: Any) -> FakeGuest:
        memory = GuestMemory(self.host.pool, [(0, size)])
        memory.stores = self.manager.stores
        guest = self.host.guests[name] = FakeGuest(name, memory, MemoryContract(size, **contract))
        self.manager.starting(guest)
        return guest

    def step(self, rounds: int = 1) -> None:
        for _ in range(rounds):
            self.now += 0.1
            self.manager.step(self.now)

    def run(self, rounds: int) -> None:
        """As the manager's thread does it."""
        for _ in range(rounds):
            self.now += 0.1
            self.manager.guarded_step()

    def close(self) -> None:
        for guest in self.host.guests.values():
            guest.memory.close()
        self.manager.close()
        assert self.host.pool.used == 0


def test_a_host_with_room_does_nothing() -> None:
    world = World(SharingRung(), CompressionRung(), PauseRung())
    world.guest("g").fill(0, 100)
    world.host.guests["g"].contract = MemoryContract(MIB)
    world.step(10)
    assert len(world.manager.log) == 0
    assert not world.manager.busy
    assert world.manager._thread is None
    assert world.host.guests["g"].memory.slots[0].accessed is None, "nobody samples"
    world.close()


def test_what_changes_together_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    woken: list[int] = []
    monkeypatch.setattr(world.manager, "wake", lambda: woken.append(len(world.host.guests)))
    with world.manager.gathered(), world.manager.gathered():
        for name in ("a", "b", "c"):
            world.guest(name)
            world.manager.changed()
    assert woken == [3]
    with world.manager.gathered():
        pass
    assert woken == [3]
    world.manager.changed()
    assert woken == [3, 3]
    world.close()


def test_short_frames_are_compressed_and_explained() -> None:
    world = World()
    guest = world.guest("g")
    guest.fill(0, 990)
    assert world.host.pool.free < world.manager.wake_below
    world.step(5)
    assert world.host.pool.free >= 60
    assert world.manager.statistics().state == "high"
    decisions = list(world.manager.log)
    assert {(d.rung, d.guest) for d in decisions} == {("compression", "g")}
    assert sum(d.frames for d in decisions) == world.host.pool.free - 10
    assert world.manager.log.gained == {"compression": sum(d.frames for d in decisions)}
    first = decisions[0]
    assert first.why == (
        f"gives {first.frames} frames: it pays 1.01 shares per page, 1000 / (990 active + 4 x 0 idle)"
    )
    assert first.as_dict()["numbers"]["active"] == 990
    assert str(first).startswith(f"compression: g: +{first.frames} frames: gives")
    numbers = world.manager.guest_statistics(guest)
    assert numbers.compressed == sum(d.frames for d in decisions) * PAGE_SIZE
    assert numbers.compressed + numbers.resident == 990 * PAGE_SIZE
    assert numbers.as_dict()["in_flight"] == 0
    host = world.manager.statistics().as_dict()
    assert host["savings"]["compression"] == numbers.compressed - host["compression_used"] > 0
    assert guest.holds(0, 900)
    world.close()


def test_a_starving_guest_goes_on_when_there_is_room() -> None:
    world = World()
    world.guest("a").fill(0, 990)
    world.guest("b").fill(0, 10)
    world.host.hungry.add("b")
    world.step()
    assert world.host.done == [("feed", "b")]
    world.close()


def test_a_guest_for_which_nothing_can_be_gained_is_paused_and_resumed() -> None:
    world = World(PauseRung())
    world.guest("a").fill(0, 990)
    world.guest("b").fill(0, 10)
    world.host.hungry.add("b")
    world.step()
    reason = (
        "no memory: 0 of the host's 1000 frames are available, 0 more can be gained, and 1 are needed at once"
    )
    assert world.host.done == [("starve", reason)]
    assert [(d.rung, d.frames, d.why) for d in world.manager.log] == [("pause", 0, reason)]
    assert world.manager.busy, "it has to be resumed"
    world.step()
    assert len(world.host.done) == 1
    world.host.guests["a"].memory.reset()
    world.step(2)
    assert world.host.done[1:] == [("feed", "b")]
    world.close()


def test_leftovers_go_first() -> None:
    world = World()
    off = world.guest("off")
    off.fill(0, 500)
    off.state, off.is_leftover = GuestState.DEFINED, True
    world.guest("on").fill(0, 490)
    world.step()
    assert ("leftovers", "off", 500) in [(d.rung, d.guest, d.frames) for d in world.manager.log]
    assert off.memory.census()["resident"] == 0
    world.close()


def test_a_guest_that_cannot_be_had_is_left_alone() -> None:
    world = World(SharingRung(), CompressionRung(), PauseRung())
    world.guest("g").fill(0, 990)
    off = world.guest("off")
    off.is_leftover = True
    world.host.busy |= {"g", "off"}
    world.step(3)
    assert len(world.manager.log) == 0
    assert world.host.pool.free == 10
    world.close()


def test_swap_takes_what_compression_cannot(tmp_path: Path) -> None:
    world = World(SwapRung(), PauseRung(), swap=tmp_path / "swap")
    guest = world.guest("g")
    guest.fill(0, 995)
    world.step(10)
    numbers = world.manager.guest_statistics(guest)
    assert numbers.swapped >= 30 * PAGE_SIZE
    assert world.manager.statistics().swap_used == numbers.swapped
    assert guest.holds(0, 900)
    world.close()
    assert not (tmp_path / "swap").exists()


def test_sharing_is_slow_and_steady() -> None:
    world = World(SharingRung(pages_per_s=2000), PauseRung())
    one, other = world.guest("one"), world.guest("other")
    for guest in (one, other):
        for page in range(490):
            guest.memory.write(page * PAGE_SIZE, f"same {page} ".encode() * 300)
    world.step(MANY_ROUNDS)
    gained = world.manager.log.gained["sharing"]
    assert gained > 200
    assert world.host.pool.free == FRAMES - 980 + gained
    assert world.manager.statistics().savings["sharing"] == gained * PAGE_SIZE
    del world.host.guests["other"]
    other.memory.close()
    world.step()
    world.close()


def test_a_balloon_is_asked_and_wishes_of_people_stay() -> None:
    world = World(BalloonRung(), PauseRung())
    guest = world.guest("g")
    guest.balloon_device = FakeBalloon(guest.memory)
    guest.fill(0, 980)
    world.manager.set_wish(guest, 7)
    assert guest.balloon_device.target_pages == 7
    world.step()
    asked = guest.balloon_device.target_pages
    assert asked > 7
    assert world.manager.busy
    assert world.manager.guest_statistics(guest).balloon_target == asked * PAGE_SIZE
    wish, request = world.manager.log
    assert str(wish) == "balloon: g: +0 frames: its balloon is to hold 7 pages: somebody asked for 7"
    assert (request.rung, request.guest, request.frames) == ("balloon", "g", 0)
    assert request.why.startswith(f"its balloon is to hold {asked} pages: gives 47 frames: it pays 1.02")
    assert (request.numbers["asked"], request.numbers["target"]) == (47, asked)
    guest.memory.reset()
    world.step(20)
    assert guest.balloon_device.target_pages == 7, "what the manager took is given back"
    world.close()


def test_what_a_balloon_really_moves_is_logged() -> None:
    world = World(BalloonRung(), PauseRung())
    guest = world.guest("g")
    guest.balloon_device = FakeBalloon(guest.memory)
    guest.fill(0, 980)
    world.step()
    guest.memory.inflate(np.arange(970, 1000))  # less than it was asked for, and 20 that it never touched
    world.step()
    taken = next(d for d in world.manager.log if d.frames)
    target = guest.balloon_device.target_pages
    assert (taken.rung, taken.guest, taken.frames) == ("balloon", "g", 30)
    assert taken.why.startswith(
        f"its balloon took 30 pages, which freed 10 frames, and holds 30 of {target}: gives 47 frames: it pays 1.02"
    )
    assert (taken.numbers["ballooned"], taken.numbers["freed"], taken.numbers["active"]) == (30, 10, 980)
    guest.memory.deflate(np.arange(970, 980))
    guest.memory.discard(0, 5 * PAGE_SIZE)
    world.step()
    moved = [d for d in world.manager.log if d.frames][1:]
    assert [(d.rung, d.frames) for d in moved] == [("balloon", -10), ("reporting", 5)]
    target = guest.balloon_device.target_pages
    assert moved[0].why.startswith(f"its balloon gave 10 pages back and holds 20 of {target}: ")
    assert moved[1].why == "said that it does not use 5 frames"
    del world.host.guests["g"]
    guest.memory.close()
    world.step()
    last = list(world.manager.log)[-1]
    assert (last.frames, last.why) == (-20, "is gone, and its balloon of 20 pages with it")
    assert world.manager.log.gained == {"balloon": 0, "reporting": 5}
    world.close()


def test_the_log_agrees_with_what_is_in_balloons_at_any_time() -> None:
    world = World(BalloonRung(), CompressionRung(), PauseRung())
    choose = random.Random(1)
    for name in "ab":
        guest = world.guest(name)
        guest.balloon_device = FakeBalloon(guest.memory)
    for _ in range(MANY_ROUNDS):
        guest = world.host.guests[choose.choice("ab")]
        pages = np.arange(choose.randrange(900), 1000)[: choose.randrange(100)]
        match choose.randrange(4):
            case 0:
                guest.memory.inflate(pages)
            case 1:
                guest.memory.deflate(pages)
            case 2:
                guest.memory.reset()
            case 3:
                guest.fill(choose.randrange(900), min(60, world.host.pool.free))
        world.step()
        inside = sum(guest.memory.census()["ballooned"] for guest in world.host.guests.values())
        assert world.manager.log.gained.get("balloon", 0) == inside
    signs = {decision.frames > 0 for decision in world.manager.log if decision.rung == "balloon"}
    assert signs == {True, False}
    world.close()


def test_another_guest_of_the_same_name() -> None:
    world = World()
    world.manager._watchers += 1  # sampled
    first = world.guest("g")
    first.memory.inflate(np.arange(5))
    world.step()
    first.memory.close()
    second = world.guest("g")
    world.step(11)
    assert second.memory.slots[0].accessed is not None, "its sampling began anew"
    assert [(d.frames, d.why) for d in world.manager.log] == [
        (5, "its balloon took 5 pages, which freed 0 frames, and holds 5 of 0"),
        (-5, "is gone, and its balloon of 5 pages with it"),
    ]
    world.close()


def test_pages_that_only_one_guest_has_left_are_its_own() -> None:
    world = World()
    guest = world.guest("g", size=8 * MIB)
    guest.fill(0, 990)
    twin = guest.memory.clone()
    world.step()
    numbers = world.manager.guest_statistics(guest)
    assert (numbers.resident, numbers.shared) == (0, 990 * PAGE_SIZE)
    assert len(world.manager.log) == 0, "a shared page costs nobody, and gains nothing"
    twin.close()
    numbers = world.manager.guest_statistics(guest)
    assert (numbers.resident, numbers.shared) == (990 * PAGE_SIZE, 0)
    world.step(2)
    assert world.host.pool.free >= 60, "they can be compressed again"
    assert guest.holds(0, 990)
    assert world.manager.guest_statistics(guest).decompressed > 0
    world.close()


def sharers(world: World) -> list[FakeGuest]:
    """Two guests that share all of the host's frames but ten, both with nothing of their own."""
    first = world.guest("a", size=8 * MIB)
    first.fill(0, 990)
    second = world.guest("b", size=8 * MIB)
    second.memory = first.memory.clone()
    second.memory.stores = world.manager.stores
    return [first, second]


def test_frames_that_guests_share_are_taken_when_nothing_else_is_left() -> None:
    world = World()
    guests = sharers(world)
    world.step()
    assert len(world.manager.log) == 0, "nobody waits"
    for page in range(1000, 1010):
        guests[0].memory.write(page * PAGE_SIZE, b"own")
    world.host.hungry.add("b")
    world.step()
    assert world.host.done == [("feed", "b")]
    (decision,) = world.manager.log
    assert (decision.guest, decision.rung, decision.frames) == ("", "compression", 22)
    assert decision.why == (
        "22 frames: 1 frames are waited for, 0 available, and guests have no more to give than these, which they share"
    )
    assert world.host.pool.free == 22
    assert [guest.memory.census()["compressed"] for guest in guests] == [22, 22]
    for guest in guests:
        assert all(guest.memory.read(page * PAGE_SIZE, 5) == b"a %d " % page for page in range(10, 20))
    assert world.host.inside == []
    world.close()


def test_a_guest_that_cannot_be_had_keeps_what_it_shares() -> None:
    world = World()
    guests = sharers(world)
    for page in range(1000, 1010):
        guests[0].memory.write(page * PAGE_SIZE, b"own")
    world.host.hungry.add("b")
    world.host.busy.add("a")
    world.step(20)
    assert guests[0].memory.census()["compressed"] == 0
    assert [done[0] for done in world.host.done] == ["starve"], "nothing came of it"
    world.host.busy.clear()
    world.step(20)
    assert world.host.done[1:] == [("feed", "b")]
    world.close()


class FailingRung(PauseRung):
    """Somebody's rung, with a mistake."""

    error: Exception | None = None

    def ask(self, use: HostUse, debts: Mapping[str, int]) -> Sequence[Instruction]:
        if self.error is not None:
            raise self.error
        return super().ask(use, debts)


@pytest.mark.parametrize("error", [ValueError("oh"), MemoryError("oh")])
def test_a_step_that_fails_ends_no_guest_and_not_the_manager(error: Exception) -> None:
    rung = FailingRung()
    world = World(rung)
    world.guest("g").fill(0, 990)
    world.host.hungry.add("g")
    rung.error = error
    world.run(3)
    failure = f"the memory manager failed: {type(error).__name__}: oh"
    assert world.host.warnings == [failure], "said once"
    assert [(d.guest, d.rung, d.why) for d in world.manager.log] == [("", "manager", failure)]
    assert world.host.done == [("starve", f"no memory: {failure}")]
    rung.error = None
    world.run(1)
    assert world.host.done[1:] == [("feed", "g")], "it goes on when the manager does"
    rung.error = error
    world.run(1)
    assert world.host.warnings == [failure, failure], "it is said again when it happens again"
    world.close()


def test_without_the_pause_rung_too_guests_go_on_after_a_failure() -> None:
    class Fails(CompressionRung):
        fails = True

        def ask(self, use: HostUse, debts: Mapping[str, int]) -> Sequence[Instruction]:
            if self.fails:
                raise KeyError("g")
            return ()

    rung = Fails()
    world = World(rung)
    world.guest("g").fill(0, 10)
    world.host.hungry.add("g")
    world.run(1)
    assert world.host.done == [("starve", "no memory: the memory manager failed: KeyError: 'g'")]
    rung.fails = False
    world.run(2)
    assert world.host.done[1:] == [("feed", "g")]
    world.close()


def test_a_listener_that_fails_is_dropped() -> None:
    world = World()
    heard: list[Decision] = []

    def fails(decision: Decision) -> None:
        raise OSError("disk full")

    world.manager.log.listeners += [fails, heard.append]
    world.guest("g").fill(0, 990)
    world.step(3)
    assert world.host.warnings == ["a listener of the memory log is dropped: OSError: disk full"]
    assert len(heard) == len(world.manager.log) > 0
    assert world.manager.log.listeners == [heard.append]
    world.close()


def test_balloons_on_the_virtual_clock_are_left_alone_unless_told_otherwise() -> None:
    for told in (False, True):
        world = World(BalloonRung(), PauseRung(), balloon_virtual_clock=told)
        guest = world.guest("g")
        guest.deterministic = True
        guest.balloon_device = FakeBalloon(guest.memory)
        guest.fill(0, 980)
        world.step()
        assert bool(guest.balloon_device.target_pages) is told
        world.close()


def test_limits_and_reservations_bound_what_guests_take() -> None:
    world = World()
    limited = world.guest("limited", limit=2 * MIB)
    assert limited.memory.take_limit == 0, "nothing before the first plan"
    world.step()
    assert limited.memory.take_limit == 512
    limited.contract = MemoryContract(4 * MIB)
    world.step()
    assert limited.memory.take_limit is None
    world.close()


def test_sampling_while_somebody_watches() -> None:
    world = World()
    guest = world.guest("g")
    guest.fill(0, 10)
    world.manager._watchers += 1  # as `watch`, without its thread
    world.step()
    guest.memory.read(0, 1)
    guest.memory.read(PAGE_SIZE, 1)
    world.step(11)
    active = world.manager.guest_statistics(guest).active
    assert active is not None
    assert active <= 10 * PAGE_SIZE
    world.manager.unwatch()
    world.step(40)
    assert guest.memory.slots[0].accessed is not None, "for some seconds it may be needed again"
    world.step(20)
    assert guest.memory.slots[0].accessed is None
    world.close()


def test_admission() -> None:
    world = World(overcommit=2.0)
    world.guest("g", reservation=3 * MIB)
    with pytest.raises(AdmissionError, match="cannot be promised"):
        world.manager.admit("h", MemoryContract(4 * MIB, reservation=3 * MIB))
    with pytest.raises(AdmissionError, match="may be overcommitted 2 times"):
        world.manager.admit("h", MemoryContract(6 * MIB))
    world.manager.admit("g", MemoryContract(4 * MIB, reservation=3 * MIB))
    world.close()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("overcommit", 0, "an overcommit ratio of 0 is impossible; it is more than 0"),
        ("tax", 1, "an idle-memory tax of 1 is impossible; it is 0 to below 1"),
        ("period_s", 0, "period_s = 0 is impossible; it is 0.001 to 60"),
        ("swap_limit", 1, "a swap file of 1 bytes is impossible; it has 4 KiB at least"),
        (
            "compression_limit",
            KIB,
            "1024 bytes for compressed pages are impossible; it is 0, or 64 KiB at least",
        ),
    ],
)
def test_impossible_policies(field: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        MemoryPolicy(**{field: value})
    assert str(error.value) == message


def test_stores_that_are_off() -> None:
    host = FakeHost()
    manager = MemoryManager(host, MemoryPolicy(compression_limit=0))
    assert manager._stores.room() == {}
    assert manager._stores.state("compressed") is None
    assert manager._stores.state("swap") is None
    assert FrameState.COMPRESSED not in manager.stores
    manager.stop()
    manager.close()
