"""What the memory manager sees of a host and its guests, and how it looks at them."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from emuvisor.host.memory.contract import MemoryContract
from emuvisor.host.memory.use import GuestUse
from emuvisor.host.states import GuestState
from emuvisor.memory import FramePool, FrameState, GuestMemory
from emuvisor.memory.stage2 import STATE_SHIFT
from emuvisor.units import PAGE_SIZE

if TYPE_CHECKING:
    from emuvisor.devices.virtio.balloon import Balloon

__all__ = ["Account", "ManagedGuest", "ManagedHost", "guest_use"]

LEFTOVER_PRIORITY = -100
"""What a guest that is switched off left in memory is given before anything else."""


class ManagedGuest(Protocol):
    """A guest of the host."""

    name: str
    state: GuestState
    out_of_memory: bool
    """Paused for want of memory."""

    @property
    def contract(self) -> MemoryContract:
        """Its claim; the size changes as the guest is resized."""
        ...

    @property
    def memory(self) -> GuestMemory:
        """Its frames."""
        ...

    @property
    def balloon_device(self) -> "Balloon | None":
        """Its balloon, if it has one."""
        ...

    @property
    def is_leftover(self) -> bool:
        """It has switched itself off: what is in its memory is there to be looked at only."""
        ...

    @property
    def deterministic(self) -> bool:
        """It is on the virtual clock."""
        ...

    @property
    def needed_frames(self) -> int:
        """Frames that it cannot go on without while it starves."""
        ...


class ManagedHost(Protocol):
    """A host. Its methods may be called from the memory manager's thread, without a lock."""

    pool: FramePool

    def all_guests(self) -> Sequence[ManagedGuest]:
        """Those that are not gone and whose memory is not being loaded."""
        ...

    def checkpoint_memories(self) -> Sequence[GuestMemory]:
        """What checkpoints of guests keep."""
        ...

    def held(self, name: str) -> AbstractContextManager[bool]:
        """Have the guest's memory for oneself; False when that is not to be had now."""
        ...

    def starving(self) -> Sequence[ManagedGuest]:
        """Guests that wait for a frame."""
        ...

    def feed(self, name: str) -> None:
        """A guest that starves, or was paused for that, tries again."""
        ...

    def starve(self, name: str, reason: str) -> None:
        """A guest that starves is paused."""
        ...

    def warn(self, text: str) -> None:
        """Tell people what they should see to."""
        ...


@dataclass(slots=True)
class Account:
    """What the manager keeps of the guest with `memory` from one step to the next."""

    memory: GuestMemory
    sampling: bool = False
    accessed: int | None = None
    """The newest sample, until a plan has seen it."""
    target: int = 0
    """Pages that the balloon is to hold for the manager."""
    wish: int = 0
    """Pages that it is to hold because somebody asked for it."""
    sent: dict[str, tuple[int, int]] = field(default_factory=dict)
    taken: int = 0
    """Frames that it had taken when it was last looked at."""
    in_flight: int = 0
    """Pages that are being sent away, or shared, at this moment."""
    fed: bool = False
    """It starved since the last plan, and went on."""
    ballooned: int = 0
    frames_ballooned: int = 0
    frames_discarded: int = 0
    """What the memory's counts of these were at the last look."""
    balloon_why: str = ""
    balloon_numbers: Mapping[str, float] = field(default_factory=dict)
    """Why the balloon's target is what it is."""


def guest_use(
    guest: ManagedGuest, account: Account, *, starves: bool, balloon_virtual_clock: bool
) -> GuestUse:
    """`guest` as the policy is told of it."""
    memory = guest.memory
    account.taken = memory.frames_taken  # before the pages are counted: what is taken meanwhile counts twice
    census = memory.census()
    region_pages = region_frames = 0
    for slot in memory.slots:
        if slot.movable:
            region_pages += len(slot.entries)
            region_frames += int(np.count_nonzero(slot.entries >> STATE_SHIFT == FrameState.RESIDENT))
    shadow_pages = sum(len(shadow.hidden.entries) for shadow in memory.shadows)
    sole = memory.sole_pages()
    resident = census["resident"] + census["rom"] + sole
    balloon = guest.balloon_device
    live = balloon is not None and balloon.live and (balloon_virtual_clock or not guest.deterministic)
    on = starves or guest.state in (GuestState.RUNNING, GuestState.PAUSED, GuestState.MIGRATING)
    contract = guest.contract
    extra = census["rom"] + region_pages + shadow_pages
    if not on:
        contract = MemoryContract(
            size=max(PAGE_SIZE, (resident - extra) * PAGE_SIZE), priority=LEFTOVER_PRIORITY
        )
    return GuestUse(
        name=guest.name,
        contract=contract,
        resident=resident,
        pinned=min(resident, census["rom"] + region_frames + 2 * shadow_pages),
        extra=extra if on else min(extra, resident),
        shared=census["shared"] - sole,
        zero=census["zero"],
        absent=census["absent"],
        ballooned=census["ballooned"],
        compressed=census["compressed"],
        swapped=census["swapped"],
        accessed=account.accessed,
        balloon=live,
        balloon_target=account.target,
        balloon_actual=balloon.actual_pages if balloon is not None else 0,
        runs=guest.state is GuestState.RUNNING and not starves,
        ran=account.fed,
        starved=starves,
        needed=guest.needed_frames,
        paused=guest.state is GuestState.PAUSED and guest.out_of_memory,
        bounded=memory.take_limit is not None,
        sent=dict(account.sent),
    )
