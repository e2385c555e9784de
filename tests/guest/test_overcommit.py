"""Guests that together use twice the pool's memory: all finish with what they wrote, whatever the host did to it."""

import random
import re
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from paging_guests import FULL, go_on, start_together

from emuvisor import firmware
from emuvisor.errors import EmuvisorError, OutOfFrames
from emuvisor.host import Guest, GuestState, Host
from emuvisor.host.memory import HostUse, Instruction
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.host.memory.rungs import (
    CompressionRung,
    PauseRung,
    Rung,
    SharingRung,
    SwapRung,
    default_rungs,
)
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.outcome import Ending
from emuvisor.memory import FrameState, GuestMemory
from emuvisor.units import KIB, MIB, PAGE_SIZE

PATIENCE_S = 180
POOL = 4 * MIB
TOUCHED = 2 * MIB
SLICE = 4_000
"""Short enough that guests take turns while they fill memory."""
ENTRY = b"\xea\x00\x00\x00\x08".ljust(16, b"\0")
"""jmp 0800h:0, over the parameter block."""
LADDERS: dict[str, tuple[Rung, ...]] = {  # sharing alone cannot carry guests whose pages differ
    "compression": (CompressionRung(), PauseRung()),
    "swap": (SwapRung(), PauseRung()),
    "all": default_rungs(),
}

Config = Callable[..., GuestConfig]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """config(name, passes=12, touched=2 MiB, **fields): a guest that fills memory and reads it back, `passes` times."""

    def make(name: str, passes: int = 12, touched: int = TOUCHED, **fields: Any) -> GuestConfig:
        block = struct.pack("<4Q", 0x100000, touched, PAGE_SIZE, passes)
        path = tmp_path / f"{name}.bin"
        path.write_bytes(ENTRY + block.ljust(firmware.PARAMETERS_SIZE, b"\0") + firmware.image("memtouch"))
        flat = FlatConfig(path, firmware.PARAMETERS - len(ENTRY))
        return GuestConfig(name=name, board="isa", memory=4 * MIB, flat=flat, **fields)

    return make


def finish(host: Host, guests: list[Guest]) -> None:
    """Wait until all are switched off; those that are paused for want of memory go on when others have ended."""
    with host.lock:
        done = host.changed.wait_for(
            lambda: all(g.state in (GuestState.DEFINED, GuestState.CRASHED) for g in guests), PATIENCE_S
        )
    assert done, [(guest.name, guest.state, guest.reason) for guest in guests]


def alone(config: Config) -> tuple[str, int, int]:
    """What a guest prints that has a host of its own, and the work that it does."""
    with Host(16 * MIB) as host:
        guest = host.create(config("alone"))
        guest.start()
        finish(host, [guest])
        return guest.console.text, guest.machine.vcpu.work, guest.machine.clock.now_ns()


@pytest.mark.parametrize("pcpus", [1, 2])
@pytest.mark.parametrize("ladder", LADDERS)
def test_twice_the_pool(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ladder: str, pcpus: int
) -> None:
    expected = alone(config)
    sent: Counter[FrameState] = Counter()
    send_away = GuestMemory.send_away

    def counted(memory: GuestMemory, state: FrameState, pages: Sequence[tuple[int, int]]) -> int:
        freed = send_away(memory, state, pages)
        sent[state] += freed
        return freed

    monkeypatch.setattr(GuestMemory, "send_away", counted)
    swap = tmp_path / "swap" if ladder in ("swap", "all") else None
    policy = MemoryPolicy(rungs=LADDERS[ladder], swap=swap, period_s=0.02, sampling_s=0.02)
    with Host(POOL, pcpus=pcpus, slice_work=SLICE, memory_policy=policy) as host:
        guests = [host.create(config(f"g{i}", until=FULL)) for i in range(4)]
        start_together(host, *guests)
        go_on(host, *guests)
        for guest in guests:
            machine = guest.machine
            found = (guest.console.text, machine.vcpu.work, machine.clock.now_ns())
            assert found == expected, "content and time are what they are on a host of its own"
        assert host.pool.used <= host.pool.limit
        moved = [decision for decision in host.memory.log if decision.frames]
        assert {decision.rung for decision in moved} <= {"sharing", "compression", "swap", "leftovers"}
        assert {decision.guest for decision in moved} <= {guest.name for guest in guests}
        assert all(decision.why for decision in moved)
        assert host.memory.log.gained == {
            rung: sum(d.frames for d in host.memory.log if d.rung == rung) for rung in host.memory.log.gained
        }
        gained = Counter(host.memory.log.gained)
        assert gained["compression"] == sent[FrameState.COMPRESSED]
        assert gained["swap"] == sent[FrameState.SWAPPED]
        assert gained["sharing"] == sum(guest.memory.frames_merged for guest in guests)
        if ladder in ("compression", "swap"):
            assert gained[ladder] > 0
            came_back = sum(sum(guest.memory.refaults.values()) for guest in guests)
            assert 0 < came_back <= gained[ladder]
    assert host.pool.used == 0
    assert not (tmp_path / "swap").exists(), "the swap file goes with the host"


def test_pages_are_looked_at_while_guests_could_take_more_than_is_free(config: Config) -> None:
    policy = MemoryPolicy(rungs=(SharingRung(), PauseRung()), period_s=0.02)
    found = threading.Event()
    with Host(POOL + POOL // 2, memory_policy=policy) as host:
        host.memory.log.listeners.append(lambda _decision: found.set())
        guests = [host.create(config(name, passes=1, until="PASS")) for name in ("a", "b")]
        for guest in guests:
            guest.start()
        assert found.wait(PATIENCE_S), "they are paused, and half of the pool is free"
        assert {decision.rung for decision in host.memory.log} == {"sharing"}


def test_a_limit_is_never_passed(config: Config) -> None:
    with Host(16 * MIB) as host:
        guest = host.create(config("g", memory_limit=MIB))
        most = 0
        guest.start()
        running = True
        while running:
            running = (
                guest.state is GuestState.RUNNING
            )  # once more when it has ended: it may be the first look
            most = max(most, guest.memory.census()["resident"])
        assert guest.state is GuestState.DEFINED, guest.reason
        assert "memtouch: PASS" in guest.console.text
        assert 200 < most <= 256
        assert host.pool.free > host.pool.limit // 2, "nobody else wanted it"


def test_a_reservation_is_kept(config: Config) -> None:
    policy = MemoryPolicy(rungs=LADDERS["compression"], period_s=0.02)
    short = threading.Event()
    with Host(POOL, pcpus=2, slice_work=SLICE, memory_policy=policy) as host:
        host.memory.log.listeners.append(lambda d: short.set() if d.rung == "compression" else None)
        for number in range(3):
            host.create(config(f"greedy{number}", passes=1_000_000)).start()
        assert short.wait(PATIENCE_S)
        promised = host.create(config("promised", passes=20, memory_reservation=5 * MIB // 2))
        promised.start()
        finish(host, [promised])
        assert "memtouch: PASS" in promised.console.text
        assert "promised" not in {decision.guest for decision in host.memory.log}


def test_a_contract_that_changes_while_the_guest_runs(config: Config) -> None:
    with Host(16 * MIB) as host:
        guest = host.create(config("g", passes=1_000_000))
        guest.start()
        while guest.memory.census()["resident"] < 500:
            pass
        guest.set_memory(limit=MIB, shares=2000, priority=3)
        while guest.memory.census()["resident"] > 256:
            pass
        guest.set_memory(limit=4 * MIB)
        while guest.memory.census()["resident"] < 500:
            pass
        numbers = guest.memory_statistics()
        assert (numbers.limit, numbers.shares, numbers.priority, numbers.reservation) == (4 * MIB, 2000, 3, 0)


def test_an_image_larger_than_the_pool_is_loaded_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    code = b"\xba\x04\x06\xb8\x00\x20\xef\xf4"  # mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt
    path.write_bytes(code + b"".join(bytes([page % 251 + 1]) * PAGE_SIZE for page in range(130)))
    with Host(400 * KIB, memory_policy=MemoryPolicy(compression_limit=256 * KIB)) as host:
        guest = host.create(GuestConfig(name="g", board="isa", memory=2 * MIB, flat=FlatConfig(path, 0x8000)))
        guest.start()
        finish(host, [guest])
        assert guest.outcome is not None
        assert guest.outcome.ending is Ending.POWER_OFF
        assert host.memory.log.gained["compression"] >= 30


def test_an_image_for_which_there_is_no_room(config: Config) -> None:
    with Host(4 * KIB) as host:
        guest = host.create(config("g"))
        message = (
            "guest 'g': no memory: 0 of the host's 1 frames are available, 0 more can be gained, and 1 are "
            "needed at once"
        )
        with pytest.raises(OutOfFrames, match=f"^{re.escape(message)}$"):
            guest.start()
        assert (guest.state, host.pool.used) == (GuestState.DEFINED, 0)


def test_a_page_that_is_lost_ends_one_guest(config: Config, tmp_path: Path) -> None:
    swap = tmp_path / "swap"
    policy = MemoryPolicy(rungs=LADDERS["swap"], swap=swap, period_s=0.02)
    with Host(POOL, slice_work=SLICE, memory_policy=policy) as host:
        victim, other = host.create(config("victim", passes=1_000_000)), host.create(config("other"))
        for guest in (victim, other):
            guest.start()
        victim.set_memory(limit=MIB)
        with host.lock:
            assert host.changed.wait_for(
                lambda: victim.memory.census()["swapped"] or victim.state is not GuestState.RUNNING,
                PATIENCE_S,
            )
        victim.pause()
        store = host.memory.stores[FrameState.SWAPPED]
        slots = [
            int(entry) & 0xFFFFFF
            for slot in victim.memory.slots
            for entry in slot.entries
            if int(entry) >> 24 == FrameState.SWAPPED
        ]
        assert slots
        with swap.open("r+b") as file:
            for slot in slots:
                file.seek(slot * PAGE_SIZE)
                file.write(b"damage")
        victim.resume()
        finish(host, [victim, other])
        assert victim.outcome is not None
        assert victim.outcome.ending is Ending.PAGE_LOST
        assert victim.state is GuestState.CRASHED
        assert re.match(r"^page-lost: guest physical address 0x[0-9a-f]+ is lost: .*swap", victim.reason)
        assert "memtouch: PASS" in other.console.text
        assert store.pages == 0 or victim.memory.census()["swapped"]


@pytest.mark.parametrize("rungs", [(PauseRung(),), (SharingRung(), PauseRung())], ids=["nothing", "sharing"])
def test_who_cannot_go_on_is_paused_and_goes_on_when_another_is_deleted(
    config: Config, rungs: tuple[Rung, ...]
) -> None:
    policy = MemoryPolicy(rungs=rungs, period_s=0.02)
    ended = (GuestState.DEFINED, GuestState.GONE)
    with Host(POOL, pcpus=2, slice_work=SLICE, memory_policy=policy) as host:
        guests = [host.create(config(f"g{i}", passes=3)) for i in range(4)]
        with host.lock:
            for guest in guests:
                guest.start()
        deleted = 0

        def paused() -> list[Guest]:
            return [guest for guest in guests if guest.state is GuestState.PAUSED]

        def live() -> list[Guest]:
            return [guest for guest in guests if guest.state not in ended]

        while live():
            with host.lock:
                assert host.changed.wait_for(lambda: paused() == live(), PATIENCE_S), [
                    g.state for g in guests
                ]
                stuck = paused()
                if not stuck:
                    break
                assert re.match(
                    r"^no memory: \d+ of the host's 1024 frames are available, \d+ more can be gained, and \d+ are "
                    r"needed at once$",
                    stuck[0].reason,
                )
                stuck[0].delete()
                deleted += 1
                assert host.changed.wait_for(lambda: not live() or paused() != live(), PATIENCE_S)
        assert deleted < 4
        for guest in guests:
            assert guest.state is GuestState.GONE or "memtouch: PASS" in guest.console.text


@pytest.mark.parametrize("seed", range(3))
def test_whatever_people_do_meanwhile_nobody_waits_for_ever(
    config: Config, tmp_path: Path, seed: int
) -> None:
    choose = random.Random(seed)
    policy = MemoryPolicy(swap=tmp_path / "swap", period_s=0.005, sampling_s=0.01)
    with Host(POOL, pcpus=2, slice_work=SLICE, memory_policy=policy) as host:
        guests = [host.create(config(f"g{i}", passes=3)) for i in range(4)]
        for guest in guests:
            guest.start()
        for _ in range(150):
            guest = choose.choice(guests)
            acts: list[Callable[[], object]] = [guest.pause, guest.resume, guest.reset, guest.start]
            acts.append(partial(guest.set_memory, limit=choose.choice([MIB, 4 * MIB])))
            if choose.random() < 0.1:
                acts.append(guest.stop)
            with suppress(EmuvisorError):  # not in this state
                choose.choice(acts)()
        guests.pop().delete()
        for guest in guests:
            with suppress(EmuvisorError):
                guest.resume()
        finish(host, guests)
        assert not [guest.reason for guest in guests if guest.state is GuestState.CRASHED]
    assert host.pool.used == 0


class FailingRung(CompressionRung):
    """Somebody's rung, with a mistake."""

    fails = True

    def ask(self, use: HostUse, debts: Mapping[str, int]) -> Sequence[Instruction]:
        if self.fails:
            raise ZeroDivisionError("division by zero")
        return super().ask(use, debts)


def test_a_rung_that_fails_stops_nobody_for_good(config: Config) -> None:
    rung = FailingRung()
    warnings: list[str] = []
    failure = "the memory manager failed: ZeroDivisionError: division by zero"
    with Host(MIB, memory_policy=MemoryPolicy(rungs=(rung, PauseRung()), period_s=0.01)) as host:
        host.warnings.append(warnings.append)
        guest = host.create(config("g", passes=1))
        guest.start()
        assert guest.wait(PATIENCE_S)
        assert (guest.state, guest.reason) == (GuestState.PAUSED, f"no memory: {failure}")
        assert warnings == [failure]
        assert failure in [decision.why for decision in host.memory.log]
        rung.fails = False
        with host.lock:
            assert host.changed.wait_for(lambda: not guest.out_of_memory, PATIENCE_S)
