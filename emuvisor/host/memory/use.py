"""What the memory policy is told: each guest's and the host's frames at one moment. All counts are frames of 4 KiB."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from emuvisor.errors import UsageError
from emuvisor.host.memory.contract import MemoryContract
from emuvisor.host.memory.host_state import HostState, recovery_level

__all__ = ["COMMON", "LIMIT_HEADROOM", "MIN_FRAMES", "GuestUse", "HostUse", "check_tax"]

COMMON = ""
"""In place of a guest's name, where frames are meant that several guests share: they are nobody's."""

MIN_FRAMES = 64
"""Nobody is pressed below this, reservation or not: an instruction that copies a string between two pages needs a dozen
frames at once, page tables included."""
LIMIT_HEADROOM = 64
"""How far a guest that wants more than its limit is brought below it: so many faults go by before the next time."""


@dataclass(frozen=True, slots=True)
class GuestUse:
    """One guest's memory. `resident` is what counts for its contract: host frames that nobody else has. A page that is
    shared costs nobody."""

    name: str
    contract: MemoryContract
    resident: int
    """Frames of its own: RAM, ROM and memory of devices."""
    pinned: int = 0
    """Of these, frames that cannot be taken."""
    extra: int = 0
    """Pages that it has beyond its size: ROM, memory of devices."""
    shared: int = 0
    zero: int = 0
    absent: int = 0
    """Pages of RAM that it never touched or gave back."""
    ballooned: int = 0
    """Pages in the balloon, counted by the host: a page that the guest touches again is no longer in it."""
    compressed: int = 0
    swapped: int = 0
    accessed: int | None = None
    """Pages touched since the last look; None when nobody watched."""
    balloon: bool = False
    """The guest has a driver for its balloon."""
    balloon_target: int = 0
    balloon_actual: int = 0
    """What the driver says is in the balloon."""
    runs: bool = True
    """It is neither paused nor waiting for a frame, so that it can answer."""
    ran: bool = False
    """It starved since the last plan, and went on."""
    starved: bool = False
    """It waits for a frame."""
    needed: int = 1
    """Frames that it cannot go on without while it starves or is paused."""
    paused: bool = False
    """The policy paused it."""
    bounded: bool = False
    """There is a bound to what it may take until the next look."""
    sent: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By store: the pages that were to be sent away since the last look, and the frames that this gained."""
    # ---- found out over time, by `observe` ----
    active: int | None = None
    """Its working set, estimated; None when unknown."""
    balloon_verdict: str = ""
    """Why its balloon is not to be relied on; empty when it is."""
    yields: Mapping[str, float] = field(default_factory=dict)
    """By store: frames gained for each page sent, 0 to 1; 1 when not yet known."""

    @property
    def floor(self) -> int:
        """Frames that no instruction takes: the reservation, what it needs to run at all, what cannot be taken."""
        least = 0 if self.paused else MIN_FRAMES
        return max(self.contract.reserved_frames, least, self.pinned)

    @property
    def giveable(self) -> int:
        """Frames that can be taken from it by its contract."""
        return max(0, self.resident - self.floor)

    @property
    def idle(self) -> int:
        """Frames that can be taken from it and that it does not use; all that can be taken, when nobody knows."""
        return min(self.giveable, max(0, self.resident - (self.active or 0)))

    @property
    def over_limit(self) -> int:
        """Frames that it has to give whatever the host's state: it is above its limit, or near it and wants more."""
        limit = self.contract.limit_frames
        wanted = self.needed if self.starved else 0
        if limit is None or self.resident + wanted <= limit:
            return 0
        return max(0, self.resident - limit + (max(LIMIT_HEADROOM, wanted) if wanted else 0))

    @property
    def lacks(self) -> int:
        """Frames that it waits for, and that were not promised to it: the others have to give them."""
        return max(0, self.needed - self.promised) if self.starved and not self.over_limit else 0

    @property
    def promised(self) -> int:
        """Frames that are reserved for it and that it has not taken."""
        return max(0, self.contract.reserved_frames - self.resident)

    @property
    def growth(self) -> int:
        """Frames that it can still come to take."""
        most = self.contract.frames + self.extra
        limit = self.contract.limit_frames
        return max(0, (most if limit is None else min(most, limit)) - self.resident)


def check_tax(tax: float) -> None:
    """Raises UsageError for an idle-memory tax that is none."""
    if not 0 <= tax < 1:
        raise UsageError(f"an idle-memory tax of {tax} is impossible; it is 0 to below 1")


@dataclass(frozen=True, slots=True)
class HostUse:
    """The host's memory, and all guests that are switched on. Raises UsageError for an impossible tax."""

    frames: int
    """The pool's limit."""
    free: int
    guests: tuple[GuestUse, ...]
    room: Mapping[str, int] = field(default_factory=dict)
    """By store ("compressed", "swap"): pages that it can still take. A store that is off is not in it."""
    troubles: tuple[str, ...] = ()
    """Why stores take nothing, for people."""
    period_s: float = 0.1
    """Time between two plans."""
    tax: float = 0.75
    """The idle-memory tax, 0 to below 1."""
    scanned: tuple[int, int] = (0, 0)
    """Pages that were looked at for sharing since the last plan, and the frames that this gained."""
    common: int = 0
    """Frames that several pages show and that a store could keep. Counted while a guest waits for a frame."""
    common_sent: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By store: as `GuestUse.sent`, for these."""
    common_yields: Mapping[str, float] = field(default_factory=dict)
    """As `GuestUse.yields`, for these. By `observe`."""
    scan_yield: float = 1.0
    """Frames gained lately for each page that was looked at for sharing. By `observe`."""
    state: HostState = HostState.HIGH
    """By `observe`."""
    gains: Mapping[str, int] = field(default_factory=dict)
    """While a plan is made: frames that its instructions so far will gain, by guest."""

    def __post_init__(self) -> None:
        check_tax(self.tax)

    @property
    def promised(self) -> int:
        """Free frames that are kept for guests that have not touched all of their reservation."""
        return sum(guest.promised for guest in self.guests)

    @property
    def lacks(self) -> int:
        """Frames that guests wait for, without those promised to them."""
        return sum(guest.lacks for guest in self.guests)

    @property
    def waited_for(self) -> int:
        """Available frames that it takes for guests to go on: those that starve all at once; of those that are paused
        one, and that only beyond what leads out of LOW."""
        paused = [
            max(0, guest.needed - guest.promised) for guest in self.guests if guest.paused and guest.growth
        ]
        return self.lacks + (recovery_level(HostState.HARD, self.frames) + min(paused) if paused else 0)

    @property
    def available(self) -> int:
        """Free frames that nobody was promised; negative when promises are short."""
        return self.free - self.promised

    @property
    def expected(self) -> int:
        """Frames that the plan so far will gain."""
        return sum(self.gains.values())

    @property
    def tight(self) -> bool:
        """Whether frames can run out at all: guests could still take more than is free."""
        return sum(guest.growth for guest in self.guests) > self.free

    def short(self, state: HostState) -> int:
        """Frames that are missing, beyond those expected, until the host is back in `state`; 0 when none are."""
        if not self.tight:
            return 0
        return max(0, recovery_level(state, self.frames) - self.available - self.expected)

    def spare(self, state: HostState) -> int:
        """Frames that could be given away and leave the host in `state`; 0 when none could."""
        if not self.tight:
            return max(0, self.free)
        return max(0, self.available - recovery_level(state, self.frames))
