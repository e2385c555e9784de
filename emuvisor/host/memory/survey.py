"""Counting where guests' memory is, for the statistics."""

from importlib import import_module
from typing import TYPE_CHECKING

from emuvisor.host.memory.host_state import HostState
from emuvisor.host.memory.managed import Account, ManagedGuest, ManagedHost
from emuvisor.host.memory.statistics import GuestMemoryStatistics, HostMemoryStatistics
from emuvisor.host.memory.stores import Stores
from emuvisor.host.states import GuestState
from emuvisor.memory import FrameState
from emuvisor.memory.shared_frames import held_by
from emuvisor.units import PAGE_SIZE

if TYPE_CHECKING:
    from emuvisor.memory.sharing import Savings

__all__ = ["guest_statistics", "host_statistics"]


def guest_statistics(guest: ManagedGuest, account: Account, active: int | None) -> GuestMemoryStatistics:
    """Where the memory of `guest` is; `active` is its working set in pages."""
    pages = guest.memory.census()
    sole = guest.memory.sole_pages()
    contract = guest.contract
    balloon = guest.balloon_device
    return GuestMemoryStatistics(
        name=guest.name,
        configured=contract.size,
        reservation=contract.reservation,
        limit=contract.limit,
        shares=contract.shares,
        priority=contract.priority,
        active=None if active is None else active * PAGE_SIZE,
        resident=(pages["resident"] + pages["rom"] + sole) * PAGE_SIZE,
        shared=(pages["shared"] - sole) * PAGE_SIZE,
        zero=pages["zero"] * PAGE_SIZE,
        ballooned=pages["ballooned"] * PAGE_SIZE,
        balloon_target=0 if balloon is None else balloon.target_pages * PAGE_SIZE,
        compressed=pages["compressed"] * PAGE_SIZE,
        swapped=pages["swapped"] * PAGE_SIZE,
        in_flight=account.in_flight * PAGE_SIZE,
        decompressed=guest.memory.refaults[FrameState.COMPRESSED] * PAGE_SIZE,
        swapped_in=guest.memory.refaults[FrameState.SWAPPED] * PAGE_SIZE,
    )


def host_statistics(
    host: ManagedHost, stores: Stores, state: HostState, starving: int, scan_cost: tuple[int, float]
) -> HostMemoryStatistics:
    """Where the memory of `host`, which is in `state`, is; scanning it took `scan_cost`, pages and seconds."""
    guests = host.all_guests()
    on = [
        guest
        for guest in guests
        if guest.state in (GuestState.RUNNING, GuestState.PAUSED, GuestState.MIGRATING)
    ]
    totals: dict[str, int] = {}
    for guest in guests:
        for name, count in guest.memory.census().items():
            totals[name] = totals.get(name, 0) + count
    pages = {name: totals.get(name, 0) * PAGE_SIZE for name in ("ballooned", "compressed", "swapped")}
    compression, swap = stores.used("compressed"), stores.used("swap")
    savings = import_module("emuvisor.memory.sharing").savings
    sharing: Savings = savings(host.pool, [guest.memory for guest in guests])
    configured = sum(guest.contract.size for guest in on)
    pool = host.pool.limit * PAGE_SIZE
    return HostMemoryStatistics(
        state=state.name.lower(),
        pool=pool,
        free=host.pool.free * PAGE_SIZE,
        configured=configured,
        reserved=sum(guest.contract.reservation for guest in on),
        overcommit=configured / pool,
        savings={
            "sharing": sharing.frames_without_zero * PAGE_SIZE,
            "zero": sharing.zero_pages * PAGE_SIZE,
            "balloon": pages["ballooned"],
            "compression": pages["compressed"] - compression,
            "swap": pages["swapped"],
        },
        compression_used=compression,
        swap_used=swap,
        checkpoints=held_by(host.checkpoint_memories()) * PAGE_SIZE,
        starving=starving,
        scanned=scan_cost[0] * PAGE_SIZE,
        scan_s=scan_cost[1],
    )
