"""Who gives: proportional shares with the idle-memory tax (Waldspurger, OSDI 2002, sections 5.1 and 5.2).

A guest with S shares and P pages, of which a part f is active, pays

    price = S / (P (f + k (1 - f)))   shares per page,   k = 1 / (1 - tax)

for its memory: an idle page costs k times as much as one in use. With the default tax of 75 % k is 4. Whoever pays the
least gives the next page ("min-funding revocation"). A guest that gives loses idle pages first, so that the price that
it pays for the others rises until somebody else's is the lowest.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from emuvisor.host.memory.use import GuestUse

__all__ = ["DEFAULT_TAX", "explain", "idle_cost", "price", "who_gives"]

DEFAULT_TAX = 0.75
_STEPS = 200
"""More halvings than a double has room for."""

_Floats = NDArray[np.float64]


def idle_cost(tax: float) -> float:
    """k: how many active pages an idle page costs as much as."""
    return 1 / (1 - tax)


def _active(guest: GuestUse) -> int:
    """Active pages among those that it holds; all of them when nobody knows."""
    return guest.resident if guest.active is None else min(guest.active, guest.resident)


def price(guest: GuestUse, tax: float = DEFAULT_TAX) -> float:
    """Shares per page that `guest` pays for what it holds; infinite when it holds nothing."""
    active = _active(guest)
    pages = active + idle_cost(tax) * (guest.resident - active)
    return guest.contract.shares / pages if pages else float("inf")


def explain(guest: GuestUse, tax: float) -> tuple[str, dict[str, float]]:
    """The formula with the numbers of `guest`, as text and as numbers."""
    active, paid, cost = _active(guest), price(guest, tax), idle_cost(tax)
    idle, shares = guest.resident - active, guest.contract.shares
    text = f"it pays {paid:.3g} shares per page, {shares} / ({active} active + {cost:.3g} x {idle} idle)"
    limit = guest.contract.limit_frames
    if limit is not None and guest.resident > limit:
        text += f"; it holds {guest.resident - limit} more than its limit of {limit} allows"
    numbers = {"price": paid, "shares": shares, "active": active, "idle": idle, "idle_cost": cost}
    return text, numbers


def who_gives(
    guests: Sequence[GuestUse], wanted: int, most: Mapping[str, int], tax: float = DEFAULT_TAX
) -> dict[str, int]:
    """How many of `wanted` frames each of `guests` gives: at most what its contract allows and `most` says, by name.

    First, and whatever is wanted, what guests are over their limits. Then lower priorities before higher ones, and
    among equals who pays the lowest price. Guests that give nothing are left out. Together they give `wanted`, or all
    they can.
    """
    ordered = sorted(guests, key=lambda guest: guest.name)  # frames that cannot be divided go by name
    gifts = {}
    for guest in ordered:
        gifts[guest.name] = min(guest.over_limit, guest.giveable, most.get(guest.name, 0))
    wanted -= sum(gifts.values())
    for priority in sorted({guest.contract.priority for guest in ordered}):
        if wanted <= 0:
            break
        peers = [guest for guest in ordered if guest.contract.priority == priority]
        given = _peers_give(peers, wanted, gifts, most, idle_cost(tax))
        for guest, count in zip(peers, given, strict=True):
            gifts[guest.name] += count
        wanted -= sum(given)
    return {name: count for name, count in gifts.items() if count}


def _peers_give(
    peers: Sequence[GuestUse], wanted: int, gifts: Mapping[str, int], most: Mapping[str, int], cost: float
) -> list[int]:
    """What each of `peers`, guests of one priority, gives beyond its gift so far."""
    rows = []
    for guest in peers:
        gift = gifts[guest.name]
        held = guest.resident - gift
        can = min(guest.giveable, most.get(guest.name, 0)) - gift
        rows.append((guest.contract.shares, held, min(_active(guest), held), held - can))
    table: _Floats = np.array(rows, np.float64)
    shares, held, active, floor = table.T

    def give(worth: float) -> _Floats:
        """Frames that each gives until a share pays for no more than `worth` active pages."""
        paid = shares * worth
        keep = np.floor(np.where(paid <= active, paid, active + (paid - active) / cost))
        gift: _Floats = held - np.clip(keep, floor, held)
        return gift

    everything = held - floor
    if everything.sum() <= wanted:
        return [int(count) for count in everything.tolist()]
    # Halve until `low`, at which enough is given, and `high`, at which not, are neighbours.
    low, high = 0.0, float(((active + cost * (held - active)) / shares).max()) + 1
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if give(middle).sum() >= wanted:
            low = middle
        else:
            high = middle
    sure = give(high)
    more = give(low) - sure
    before = np.cumsum(more) - more
    last = np.clip(wanted - sure.sum() - before, 0, more)
    return [int(count) for count in (sure + last).tolist()]
