"""What the policy remembers from one look to the next, as plain values that go in and come out."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from emuvisor.host.memory.activity import Activity
from emuvisor.host.memory.host_state import HostState, next_state
from emuvisor.host.memory.trust import BalloonRecord
from emuvisor.host.memory.use import GuestUse, HostUse

__all__ = ["GuestHistory", "History", "observe"]

_FIRST_SCAN_YIELD = 0.1
_SCAN_ROUNDS = 2
"""What a page that is looked at for sharing is expected to gain before anything is known, and how many times the pool's
frames have to be looked at until most of that is forgotten."""
_YIELD_GAIN = 1 / 2
_YIELD_RECOVERY = 1 / 64
"""What a store that gained nothing regains of its reputation in each period: it is tried again after some time."""


@dataclass(frozen=True, slots=True)
class GuestHistory:
    """What is remembered of a guest."""

    activity: Activity | None = None
    balloon: BalloonRecord = field(default_factory=BalloonRecord)
    yields: Mapping[str, float] = field(default_factory=dict)
    """By store: frames gained for each page sent; 1 when it is not in it."""

    def after(self, guest: GuestUse) -> "GuestHistory":
        """With one more look at `guest`."""
        activity = self.activity
        if guest.accessed is not None:
            activity = activity.after(guest.accessed) if activity else Activity.first(guest.accessed)
        return GuestHistory(activity, self.balloon.after(guest), _yields(self.yields, guest.sent))


def _yields(before: Mapping[str, float], sent: Mapping[str, tuple[int, int]]) -> Mapping[str, float]:
    """What stores gain for each page, after one more look at what was sent to them and what that gained."""
    if not before and not sent:
        return before
    yields = {store: min(1.0, known + _YIELD_RECOVERY) for store, known in before.items()}
    for store, (asked, gained) in sent.items():
        if asked:
            known = before.get(store, 1.0)
            yields[store] = known + _YIELD_GAIN * (min(1.0, gained / asked) - known)
    return yields


@dataclass(frozen=True, slots=True)
class History:
    """What is remembered of the host and of the guests that were there at the last look."""

    state: HostState = HostState.HIGH
    guests: Mapping[str, GuestHistory] = field(default_factory=dict)
    scan_yield: float = _FIRST_SCAN_YIELD
    """Frames gained lately for each page that was looked at for sharing."""
    common_yields: Mapping[str, float] = field(default_factory=dict)
    """As `GuestHistory.yields`, for frames that several guests share."""


def observe(before: History, use: HostUse) -> tuple[History, HostUse]:
    """What is to be remembered after a look at `use`; and `use` with what follows from all looks so far: the host's
    state, working sets, which balloons can be relied on, what the stores gain."""
    state = next_state(before.state, use.available, use.frames) if use.tight else HostState.HIGH
    if use.tight and use.lacks > max(0, use.available):  # whatever part of the pool that is
        state = HostState.LOW
    scan_yield = before.scan_yield
    scanned, gained = use.scanned
    if scanned:
        scan_yield += min(1.0, scanned / (_SCAN_ROUNDS * use.frames)) * (gained / scanned - scan_yield)
    unknown = GuestHistory()
    histories = {guest.name: before.guests.get(guest.name, unknown).after(guest) for guest in use.guests}
    guests = tuple(_with_history(guest, histories[guest.name]) for guest in use.guests)
    common = _yields(before.common_yields, use.common_sent)
    return History(state, histories, scan_yield, common), replace(
        use, guests=guests, state=state, scan_yield=scan_yield, common_yields=common
    )


def _with_history(guest: GuestUse, history: GuestHistory) -> GuestUse:
    return replace(
        guest,
        active=None if history.activity is None else history.activity.pages,
        balloon_verdict=history.balloon.verdict,
        yields=history.yields,
    )
