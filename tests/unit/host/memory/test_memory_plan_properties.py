"""What holds for every plan, on any host."""

from hypothesis import given, settings
from hypothesis import strategies as st
from policy_guests import guest, host

from emuvisor.host.memory import (
    Allow,
    Balloon,
    GuestUse,
    History,
    HostState,
    HostUse,
    Pause,
    SendAway,
    default_rungs,
    observe,
    plan,
)


@st.composite
def guests(draw: st.DrawFn, number: int) -> GuestUse:
    size = draw(st.integers(64, 4000))
    reservation = draw(st.just(0) | st.integers(0, size))
    limit = draw(st.none() | st.integers(max(1, reservation), size + 100))
    resident = draw(st.integers(0, size))
    away = draw(st.integers(0, size - resident))
    ballooned = draw(st.integers(0, size - resident - away))
    starved = draw(st.booleans())
    paused = not starved and draw(st.booleans())
    return guest(
        f"g{number}",
        resident,
        size=size,
        reservation=reservation,
        limit=limit,
        shares=draw(st.integers(1, 5000)),
        priority=draw(st.integers(-1, 1)),
        pinned=draw(st.integers(0, resident)),
        swapped=away,
        ballooned=ballooned,
        balloon=draw(st.booleans()),
        balloon_target=draw(st.integers(0, size)),
        accessed=draw(st.none() | st.integers(0, size)),
        starved=starved,
        paused=paused,
        runs=not (starved or paused),
        sent=draw(st.just({}) | st.just({"compressed": (100, 20)})),
    )


@st.composite
def hosts(draw: st.DrawFn) -> HostUse:
    count = draw(st.integers(0, 5))
    members = [draw(guests(number)) for number in range(count)]
    frames = max(1, sum(g.resident for g in members)) + draw(st.integers(0, 3000))
    free = frames - sum(g.resident for g in members)
    room = draw(
        st.dictionaries(st.sampled_from(["compressed", "swap"]), st.integers(0, 3000) | st.just(1 << 24))
    )
    common = draw(st.just(0) | st.integers(0, free))
    use = host(*members, frames=frames, free=free - common, room=room, common=common)
    return observe(History(draw(st.sampled_from(HostState))), use)[1]


@settings(deadline=None, max_examples=100)
@given(hosts())
def test_promises(use: HostUse) -> None:
    instructions = plan(use, default_rungs())
    assert plan(use, default_rungs()) == instructions
    named = {g.name: g for g in use.guests}
    lost = dict.fromkeys(named, 0)
    for instruction in instructions:
        g = named.get(instruction.guest)
        assert instruction.why
        if g is None:
            continue
        match instruction:
            case SendAway():
                assert 0 < instruction.frames <= instruction.pages
                lost[g.name] += instruction.pages
            case Balloon():
                assert (
                    0
                    <= instruction.target
                    <= max(g.contract.frames - g.contract.reserved_frames, g.balloon_target)
                )
                lost[g.name] += max(0, instruction.frames)
            case Pause():
                assert g.starved
                assert g.promised < g.needed
    for g in use.guests:
        assert g.resident - lost[g.name] >= min(g.resident, max(g.contract.reserved_frames, g.pinned))
    sent = sum(i.frames for i in instructions if isinstance(i, SendAway) and not i.guest)
    assert sent <= use.common
    if sent:
        assert use.available < use.waited_for, "they are taken for who waits alone"
    for store, room in use.room.items():
        assert sum(i.pages for i in instructions if isinstance(i, SendAway) and i.store == store) <= room


@settings(deadline=None, max_examples=100)
@given(hosts())
def test_bounds(use: HostUse) -> None:
    """Whatever guests do until the next plan, limits hold and what was promised is there."""
    allowed = {i.guest: i.may_take for i in plan(use, default_rungs()) if isinstance(i, Allow)}
    growth = {}
    for g in use.guests:
        bound = allowed.get(g.name)
        growth[g.name] = g.growth if bound is None else min(g.growth, bound)
        if g.contract.limit_frames is not None and bound is not None:
            assert g.resident + bound <= max(g.resident, g.contract.limit_frames)
        if bound is not None and g.contract.limit_frames is None:
            assert bound >= g.promised
    if use.tight and use.promised and use.available >= 0:
        # What is taken beyond reservations comes out of what nobody was promised.
        assert sum(max(0, growth[g.name] - g.promised) for g in use.guests) <= use.available


@settings(deadline=None, max_examples=100)
@given(hosts())
def test_enough_is_asked_for(use: HostUse) -> None:
    """With a swap file that holds everything, what is missing is covered with idle frames, as far as there are any; the
    way out of LOW with any that contracts leave."""
    roomy = HostUse(use.frames, use.free, use.guests, {"swap": 1 << 24}, state=use.state, common=use.common)
    instructions = plan(roomy, default_rungs())
    named = {g.name: g for g in use.guests}
    gained = sum(max(0, i.frames) for i in instructions)
    can = sum(g.giveable for g in use.guests)
    idle = sum(g.idle for g in use.guests)
    if use.state >= HostState.HARD:
        assert gained >= min(roomy.short(HostState.HIGH), idle)
        if use.state is HostState.LOW:
            assert gained >= min(roomy.short(HostState.HARD), can)
        everything = roomy.available + can + roomy.common
        starving = [i for i in instructions if isinstance(i, Pause)]
        assert everything < roomy.lacks or not [i for i in starving if not named[i.guest].over_limit]
    else:
        assert gained >= sum(min(g.over_limit, g.giveable) for g in use.guests)
