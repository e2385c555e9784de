"""Guests that together use twice the pool's memory: all finish with what they wrote, whatever the host did to it."""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from emuvisor import firmware
from emuvisor.errors import OutOfFrames
from emuvisor.host import Guest, GuestState, Host
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.host.memory.rungs import CompressionRung, PauseRung, Rung, SwapRung, default_rungs
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.outcome import Ending
from emuvisor.memory import FrameState
from emuvisor.units import KIB, MIB, PAGE_SIZE

PATIENCE_S = 60
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

    def make(name: str, passes: int = 12, touched: int = TOUCHED, **fields: object) -> GuestConfig:
        block = struct.pack("<4Q", 0x100000, touched, PAGE_SIZE, passes)
        path = tmp_path / f"{name}.bin"
        path.write_bytes(ENTRY + block.ljust(firmware.PARAMETERS_SIZE, b"\0") + firmware.image("memtouch"))
        flat = FlatConfig(path, firmware.PARAMETERS - len(ENTRY))
        return GuestConfig(name=name, board="isa", memory=4 * MIB, flat=flat, **fields)  # type: ignore[arg-type]

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
def test_twice_the_pool(config: Config, tmp_path: Path, ladder: str, pcpus: int) -> None:
    expected = alone(config)
    swap = tmp_path / "swap" if ladder in ("swap", "all") else None
    policy = MemoryPolicy(rungs=LADDERS[ladder], swap=swap, period_s=0.02, sampling_s=0.02)
    with Host(POOL, pcpus=pcpus, slice_work=SLICE, memory_policy=policy) as host:
        guests = [host.create(config(f"g{i}")) for i in range(4)]
        with host.lock:  # none runs before all do
            for guest in guests:
                guest.start()
        finish(host, guests)
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
        if ladder in ("compression", "swap"):
            assert host.memory.log.gained[ladder] > 0
    assert host.pool.used == 0
    assert not (tmp_path / "swap").exists(), "the swap file goes with the host"


def test_a_limit_is_never_passed(config: Config) -> None:
    with Host(16 * MIB) as host:
        guest = host.create(config("g", memory_limit=MIB))
        most = 0
        guest.start()
        while guest.state is GuestState.RUNNING:
            most = max(most, guest.memory.census()["resident"])
        assert guest.state is GuestState.DEFINED, guest.reason
        assert "memtouch: PASS" in guest.console.text
        assert 200 < most <= 256
        assert host.pool.free > host.pool.limit // 2, "nobody else wanted it"


def test_a_reservation_is_kept(config: Config) -> None:
    policy = MemoryPolicy(rungs=LADDERS["compression"], period_s=0.02)
    with Host(POOL, pcpus=2, slice_work=SLICE, memory_policy=policy) as host:
        greedy = [host.create(config(f"greedy{i}", passes=40)) for i in range(3)]
        promised = host.create(config("promised", passes=20, memory_reservation=5 * MIB // 2))
        with host.lock:
            for guest in [*greedy, promised]:
                guest.start()
        finish(host, [*greedy, promised])
        assert all("memtouch: PASS" in guest.console.text for guest in [*greedy, promised])
        gave = {decision.guest for decision in host.memory.log if decision.rung == "compression"}
        assert gave
        assert "promised" not in gave


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
        victim, other = (host.create(config(name, passes=30)) for name in ("victim", "other"))
        for guest in (victim, other):
            guest.start()
        while not victim.memory.census()["swapped"]:
            if victim.state is not GuestState.RUNNING:
                break
            victim.set_memory(limit=MIB)
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
