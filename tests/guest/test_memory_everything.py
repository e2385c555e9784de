"""Guests whose code and data are shared, compressed and swapped under them, on two pCPUs: they notice nothing."""

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from memory_worker import ADDRESS, MEMORY, worker

from emuvisor.host import Guest, GuestState, Host
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.host.memory.rungs import default_rungs
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.units import KIB, MIB

PATIENCE_S = 180
PASSES = 6


@dataclass(frozen=True)
class Result:
    """What a guest has printed and done."""

    output: str
    work: int
    time_ns: int


def config(folder: Path, name: str, seed: int, passes: int) -> GuestConfig:
    path = folder / f"{name}.bin"
    path.write_bytes(worker(seed, passes))
    return GuestConfig(
        name=name, board="isa", memory=MEMORY, flat=FlatConfig(path, ADDRESS, mode="protected32")
    )


def finish(host: Host, guests: list[Guest]) -> list[Result]:
    """Wait until all have switched themselves off."""
    with host.lock:
        done = host.changed.wait_for(
            lambda: all(g.state in (GuestState.DEFINED, GuestState.CRASHED) for g in guests), PATIENCE_S
        )
    assert done, [(guest.name, guest.state, guest.reason) for guest in guests]
    assert all(guest.state is GuestState.DEFINED for guest in guests), [g.reason for g in guests]
    return [Result(g.console.text, g.machine.vcpu.work, g.machine.clock.now_ns()) for g in guests]


def alone(folder: Path, seed: int, passes: int) -> Result:
    with Host(16 * MIB) as host:
        guest = host.create(config(folder, f"alone{seed:x}", seed, passes))
        guest.start()
        return finish(host, [guest])[0]


def together(folder: Path, seeds: list[int], passes: int, pool: int, slice_work: int) -> dict[str, int]:
    """Run guests, two of each seed, in `pool` bytes; returns how many frames each rung has gained."""
    expected = [alone(folder, seed, passes) for seed in seeds] * 2
    policy = MemoryPolicy(
        rungs=default_rungs(),
        swap=folder / "swap",
        compression_limit=256 * KIB,
        period_s=0.005,
        sampling_s=0.01,
        tenants={"g0": "another"},
    )
    with Host(pool, pcpus=2, slice_work=slice_work, memory_policy=policy) as host:
        guests = [host.create(config(folder, f"g{i}", seed, passes)) for i, seed in enumerate(seeds * 2)]
        with host.lock:  # none runs before all do
            for guest in guests:
                guest.start()
        assert finish(host, guests) == expected
        gained = dict(host.memory.log.gained)
        for guest in guests:
            guest.delete()
        assert host.pool.used == 0
        assert not host.pool.references.any()
        assert all(store.pages == 0 for store in host.memory.stores.values())
    return gained


@pytest.mark.parametrize("slice_work", [3_000, 50_000])
def test_guests_are_as_they_are_alone(tmp_path: Path, slice_work: int) -> None:
    random.seed(slice_work)
    seeds = [random.getrandbits(31) | 1 for _ in range(2)]
    gained = together(tmp_path, seeds, PASSES, 2 * MIB, slice_work)
    assert gained.get("compression", 0) + gained.get("swap", 0) > 0, gained


def test_frames_that_guests_share_do_not_keep_them_paused(tmp_path: Path) -> None:
    """Most of the pool is shared, and what each guest has of its own is less than it needs to run."""
    together(tmp_path, [1316869687, 801681273], 8, 3 * MIB // 2, 3_000)


def test_more_guests_than_the_pool_lets_run_at_once(tmp_path: Path) -> None:
    gained = together(tmp_path, [5, 7, 9], 3, MIB, 20_000)
    assert "pause" in gained
