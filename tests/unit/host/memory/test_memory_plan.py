"""Statistics in, lists of instructions out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from policy_guests import guest, host

from emuvisor.errors import UsageError
from emuvisor.host.memory import (
    Allow,
    Balloon,
    BalloonRung,
    CompressionRung,
    GuestUse,
    History,
    HostState,
    HostUse,
    Instruction,
    Pause,
    PauseRung,
    Resume,
    Rung,
    ScanSharing,
    SendAway,
    SharingRung,
    SwapRung,
    default_rungs,
    observe,
    plan,
)

HIGH, SOFT, HARD, LOW = HostState
ROOM = {"compressed": 4000, "swap": 4000}


def short(instruction: Instruction) -> tuple[Any, ...]:
    """What is to be done, without why."""
    kind = type(instruction).__name__
    match instruction:
        case ScanSharing():
            return kind, instruction.pages
        case Balloon():
            return kind, instruction.guest, instruction.target, instruction.frames
        case SendAway():
            return kind, instruction.guest, instruction.store, instruction.pages, instruction.frames
        case Allow():
            return kind, instruction.guest, instruction.may_take
    return kind, instruction.guest


def shorts(use: HostUse, rungs: Sequence[Rung] | None = None) -> list[tuple[Any, ...]]:
    return [short(instruction) for instruction in plan(use, default_rungs() if rungs is None else rungs)]


def test_a_host_on_which_nothing_can_run_out_does_nothing() -> None:
    guests = [guest("a", 4000, size=5000), guest("b", 4000, size=5000)]
    assert plan(host(*guests, free=2000, room=ROOM), default_rungs()) == []
    # Not even when all is taken, as long as nobody can want more.
    assert plan(host(guest("a", 5000, size=5000), free=0, frames=5000, room=ROOM), default_rungs()) == []
    assert plan(host(free=10_000), default_rungs()) == []


def test_plenty_of_memory_but_overcommitted_is_scanned_slowly() -> None:
    use = host(guest("a", 2000), guest("b", 2000), free=6000, room=ROOM)
    assert plan(use, default_rungs()) == [
        ScanSharing(
            rung="sharing",
            guest="",
            pages=100,
            why="scans 100 pages: the guests could take more than is free",
            numbers={"short": 0},
        )
    ]
    assert plan(use, [SharingRung(idle_pages_per_s=0)]) == []


def test_below_the_high_threshold_it_is_scanned_fast_and_nothing_taken() -> None:
    use = host(guest("a", 4750, balloon=True), guest("b", 4750), free=500, room=ROOM)
    assert shorts(use) == [("ScanSharing", 2000)]


def test_soft_asks_balloons() -> None:
    use = host(guest("a", 5000, balloon=True, active=5000), guest("b", 4650), free=350, room={}, state=SOFT)
    assert plan(use, default_rungs())[1:] == [
        Balloon(
            rung="balloon",
            guest="a",
            target=3325,  # 3000 pages that it does not use, and 325 of those that it does
            frames=325,
            why="gives 325 frames: it pays 0.2 shares per page, 1000 / (5000 active + 4 x 0 idle)",
            numbers={"price": 0.2, "shares": 1000, "active": 5000, "idle": 0, "idle_cost": 4.0},
        )
    ]


def test_a_guest_without_a_balloon_is_compressed_from_soft_on() -> None:
    use = host(guest("a", 5000), guest("b", 4650, balloon=True), free=350, room=ROOM, state=SOFT)
    assert shorts(use)[1:] == [("SendAway", "a", "compressed", 325, 325)]


def test_a_full_store_hands_on() -> None:
    room = {"compressed": 40, "swap": 10_000}
    use = host(guest("a", 5000), guest("b", 4900), free=100, room=room, state=HARD)
    assert shorts(use)[1:] == [
        ("SendAway", "a", "compressed", 40, 40),
        ("SendAway", "a", "swap", 298, 298),
        ("SendAway", "b", "swap", 237, 237),
    ]


def test_what_one_guest_cannot_give_others_do() -> None:
    """In SOFT nothing can be taken from a guest without balloon when there is no compression."""
    use = host(
        guest("a", 8000, size=9000), guest("b", 1650, balloon=True, size=2000), free=350, room={}, state=SOFT
    )
    assert shorts(use)[1:] == [("Balloon", "b", 675, 325)]


def test_debts_move_on_when_a_store_is_full_before_all_have_paid() -> None:
    use = host(
        guest("a", 4800),
        guest("b", 4800),
        guest("c", 50, balloon=True, size=10_000),
        guest("d", 250, balloon=True, size=300, active=250),
        free=100,
        room={"compressed": 100},
        state=HARD,
    )
    instructions = plan(use, [BalloonRung(), CompressionRung()])
    assert [short(i) for i in instructions] == [
        ("Balloon", "d", 195, 145),
        ("SendAway", "a", "compressed", 100, 100),
    ]


def test_hard_takes_at_once_what_is_urgent_and_asks_for_the_rest() -> None:
    use = host(guest("a", 9850, size=16_000, balloon=True), free=150, room=ROOM, state=HARD)
    # 525 are missing: 300 to come back to SOFT, which cannot wait for the guest.
    assert shorts(use)[1:] == [("Balloon", "a", 6375, 225), ("SendAway", "a", "compressed", 300, 300)]


def test_a_balloon_that_failed_is_passed_over() -> None:
    verdict = "its balloon lies: it claims 900 pages, and holds 3"
    use = host(
        guest("a", 9650, size=16_000, balloon=True, balloon_verdict=verdict),
        free=350,
        room=ROOM,
        state=SOFT,
    )
    (instruction,) = plan(use, default_rungs())[1:]
    assert short(instruction) == ("SendAway", "a", "compressed", 325, 325)
    assert instruction.why == (
        "gives 325 frames: it pays 0.104 shares per page, 1000 / (9650 active + 4 x 0 idle); " + verdict
    )


def test_a_store_that_gains_little_is_sent_more_and_one_that_gains_nothing_is_left_out() -> None:
    half = guest("a", 9800, size=16_000, yields={"compressed": 0.5})
    use = host(half, free=200, room=ROOM, state=HARD)
    assert shorts(use)[1:] == [("SendAway", "a", "compressed", 950, 475)]
    none = replace(half, yields={"compressed": 0.05})
    assert shorts(host(none, free=200, room=ROOM, state=HARD))[1:] == [("SendAway", "a", "swap", 475, 475)]


def test_a_reservation_that_nobody_touched_yet_is_not_available() -> None:
    reserved = guest("a", 100, size=3000, reservation=3000)
    use = host(reserved, guest("b", 6500), free=3400, room={}, state=HIGH)
    assert use.available == 500
    assert shorts(use) == [("ScanSharing", 2000), ("Allow", "a", 2900 + 250), ("Allow", "b", 250)]


def test_who_starves_is_allowed_more() -> None:
    reserved = guest("a", 100, size=3000, reservation=3000)
    use = host(reserved, guest("b", 6500, starved=True), free=2901, room={}, state=LOW)
    assert shorts(use)[1:] == [("Allow", "a", 2900), ("Allow", "b", 1)]


def test_a_bound_ends_when_its_reason_is_gone() -> None:
    use = host(guest("a", 100, bounded=True, size=200), guest("b", 100), free=9800)
    assert plan(use, ()) == [
        Allow(rung="bounds", guest="a", may_take=None, why="may take what it wants: nobody was promised it")
    ]


def test_a_limit_is_kept_at_any_time() -> None:
    use = host(guest("a", 1200, size=3000, limit=1000), free=8800, room=ROOM)
    assert plan(use, default_rungs()) == [
        SendAway(
            rung="compression",
            guest="a",
            store="compressed",
            pages=200,
            frames=200,
            why="gives 200 frames: it pays 0.833 shares per page, 1000 / (1200 active + 4 x 0 idle); "
            "it holds 200 more than its limit of 1000 allows",
            numbers={"price": 1000 / 1200, "shares": 1000, "active": 1200, "idle": 0, "idle_cost": 4.0},
        ),
        Allow(
            rung="bounds",
            guest="a",
            may_take=0,
            why="may take 0 frames: it holds 1200, and its limit is 1000",
        ),
    ]


def test_a_balloon_tells_a_guest_of_its_limit_before_it_runs_into_it() -> None:
    use = host(guest("a", 200, size=3000, limit=2000, balloon=True), free=9800, room=ROOM)
    balloon, allow = plan(use, default_rungs())
    assert short(balloon) == ("Balloon", "a", 1000, 0)
    assert balloon.why == "may use 2000 of its 3000 frames: its limit"
    assert short(allow) == ("Allow", "a", 1800)
    told = host(guest("a", 200, size=3000, limit=2000, balloon=True, balloon_target=1000), free=9800)
    assert shorts(told) == [("Allow", "a", 1800)]
    pressed = host(
        guest("a", 200, size=3000, limit=2000, balloon=True), guest("b", 9500), free=300, state=SOFT
    )
    assert ("Balloon", "a", 1000, 0) in shorts(pressed)


def test_at_its_limit_with_no_way_out_a_guest_is_paused() -> None:
    full = guest("a", 512, size=3000, limit=512, starved=True, runs=False)
    pause, _ = plan(host(full, free=9000), default_rungs())
    assert pause == Pause(
        rung="pause",
        guest="a",
        why="no memory: it holds its limit of 2 MiB, and none of that can be sent away",
        numbers={"resident": 512, "limit": 512},
    )
    assert shorts(host(full, free=9000, room=ROOM)) == [
        ("SendAway", "a", "compressed", 64, 64),
        ("Allow", "a", 0),
    ]
    paused = replace(full, starved=False, paused=True)
    assert shorts(host(paused, free=9000)) == [("Allow", "a", 0)]
    raised = guest("a", 512, size=3000, limit=600, paused=True, runs=False)
    assert shorts(host(raised, free=9000)) == [("Resume", "a"), ("Allow", "a", 88)]


def test_the_last_resort_pauses_the_weakest_of_those_who_starve() -> None:
    hungry = {"starved": True, "runs": False}
    guests = (guest("a", 3000), guest("b", 3000, **hungry), guest("c", 4000, **hungry))
    pause = plan(host(*guests, free=0, state=LOW), default_rungs())[-1]
    assert pause == Pause(
        rung="pause",
        guest="c",
        why="no memory: 0 of the host's 10000 frames are available, 0 more can be gained, and 2 are needed at once",
        numbers={"available": 0, "expected": 0, "needed": 2},
    )


def test_nobody_is_paused_while_frames_are_to_be_had() -> None:
    hungry = guest("a", 5000, starved=True, runs=False)
    use = host(hungry, guest("b", 5000), free=0, state=LOW, room=ROOM)
    assert [s for s in shorts(use) if s[0] == "Pause"] == []
    assert plan(host(hungry, guest("b", 4990), free=10, state=LOW), [PauseRung()]) == []


def test_a_guest_within_its_reservation_is_never_paused() -> None:
    hungry = guest("a", 5000, reservation=6000, starved=True, runs=False)
    use = host(hungry, guest("b", 4000), free=1000, state=LOW)
    assert shorts(use, [PauseRung()]) == [("Allow", "a", 1000), ("Allow", "b", 0)]


def test_paused_guests_go_on_one_at_a_time_the_strongest_first() -> None:
    paused = {"paused": True, "runs": False}
    guests = (guest("a", 4000, **paused), guest("b", 3000, **paused), guest("c", 2000))
    assert plan(host(*guests, free=1000, state=HIGH), [PauseRung()]) == [
        Resume(
            rung="pause",
            guest="b",
            why="goes on: 775 frames are spare",
            numbers={"spare": 775},
        )
    ]
    assert plan(host(*guests, free=150, state=LOW), [PauseRung()]) == []
    assert plan(host(*guests, free=225, state=HARD), [PauseRung()]) == []


def test_balloons_deflate_in_proportion() -> None:
    guests = (
        guest("a", 2000, balloon=True, ballooned=1000, balloon_target=1000),
        guest("b", 2000, balloon=True, ballooned=3000, balloon_target=3000),
    )
    instructions = plan(host(*guests, free=1475), [BalloonRung()])
    assert [short(i) for i in instructions] == [("Balloon", "a", 900, -100), ("Balloon", "b", 2700, -300)]
    assert instructions[0].why == "gets 100 frames back: 800 are spare, balloons are to hold 4000"
    assert plan(host(*guests, free=675), [BalloonRung()]) == []


def test_balloons_deflate_wholly_when_nothing_can_run_out() -> None:
    held = guest("a", 2000, size=3000, balloon=True, ballooned=1000, balloon_target=1000)
    assert shorts(host(held, free=8000)) == [("Balloon", "a", 0, -1000)]


def test_a_target_does_not_shrink_while_memory_is_short() -> None:
    use = host(
        guest("a", 9650, size=20_000, absent=0, balloon=True, ballooned=10, balloon_target=2000),
        free=350,
        state=SOFT,
    )
    assert shorts(use)[1:] == [("Balloon", "a", 2000, 325)]


def test_switching_a_rung_off() -> None:
    use = host(guest("a", 9900, size=16_000), free=100, room=ROOM, state=HARD)
    assert shorts(use, [SwapRung()]) == [("SendAway", "a", "swap", 575, 575)]
    assert plan(use, ()) == []


class Robber(Rung):
    """A rung that asks for all there is."""

    name = "robber"
    state = SOFT
    prompt = True

    def reach(self, use: HostUse, guest: GuestUse) -> int:
        return 1 << 40

    def ask(self, use: HostUse, debts: Mapping[str, int]) -> list[Instruction]:
        stolen = [
            SendAway(rung=self.name, guest=g.name, store="swap", pages=1 << 40, frames=1 << 40, why="mine")
            for g in use.guests
        ]
        blown = [
            Balloon(rung=self.name, guest=g.name, target=1 << 40, frames=1 << 40, why="mine")
            for g in use.guests
        ]
        ghost = Pause(rung=self.name, guest="ghost", why="boo")
        return [*stolen, *blown, ghost]


def test_a_rung_of_ones_own_cannot_break_a_reservation() -> None:
    use = host(
        guest("a", 5000, reservation=4990), guest("b", 4900, reservation=5000), free=100, state=LOW, room=ROOM
    )
    assert shorts(use, [Robber()])[:4] == [
        ("SendAway", "a", "swap", 10, 10),
        ("Balloon", "a", 3010, 0),
        ("Balloon", "b", 3000, 0),
        ("Pause", "ghost"),
    ]


@pytest.mark.parametrize("state", HostState)
def test_the_interface_has_defaults(state: HostState) -> None:
    class Watcher(Rung):
        name = "watcher"

        def ask(self, use: HostUse, debts: Mapping[str, int]) -> list[Instruction]:
            return []

    watcher = Watcher()
    watcher.state = state
    assert plan(host(guest("a", 9900), free=100, state=HARD), [watcher]) == []


def test_what_is_in_use_is_taken_in_low_only_and_as_little_as_possible() -> None:
    busy = guest("busy", 9900, size=12_000, active=9800)
    for state, free, gained in ((SOFT, 390, 100), (HARD, 190, 100), (LOW, 90, 256)):
        use = host(busy, free=free, state=state, room={"compressed": 99_999})
        assert sum(i.frames for i in plan(use, (CompressionRung(),))) == gained
    assert guest("unknown", 9900).idle == 9836, "nobody looked: all but what it needs to run"


def test_a_guest_that_needs_more_than_is_left_is_helped_or_paused_whatever_the_state() -> None:
    # 300 of 10,000 available are SOFT; an image whose ROMs take 400 does not fit all the same.
    big = guest("big", 0, starved=True, runs=False, needed=400)
    other = guest("other", 9700, size=9800)
    history, use = observe(History(), host(big, other, free=300))
    assert use.state is HostState.LOW
    assert history.state is HostState.LOW
    (pause,) = plan(use, default_rungs()[1:])
    assert pause == Pause(
        rung="pause",
        guest="big",
        why=(
            "no memory: 300 of the host's 10000 frames are available, 0 more can be gained, and 400 are needed "
            "at once"
        ),
        numbers={"available": 300, "expected": 0, "needed": 400},
    )
    _, use = observe(History(), host(big, other, free=300, room={"swap": 99_999}))
    assert not [i for i in plan(use, default_rungs()) if isinstance(i, Pause)], "swapping helps"


def test_a_guest_that_needs_more_than_its_limit_leaves_makes_room_itself() -> None:
    near = guest("near", 95, limit=100, starved=True, runs=False, needed=10)
    assert near.over_limit == 59, "so that the next faults go by, too"
    assert guest("near", 95, limit=100, starved=True, needed=5).over_limit == 0
    assert guest("near", 100, limit=100).over_limit == 0
    assert guest("wide", 95, limit=100, starved=True, needed=100).over_limit == 95


def test_bounds_give_who_waits_what_it_cannot_go_on_without() -> None:
    promised = guest("promised", 0, size=9000, reservation=9000)
    first = guest("first", 300, shares=2000, starved=True, runs=False, needed=80)
    second = guest("second", 300, starved=True, runs=False, needed=80)
    use = host(promised, first, second, free=9100, state=HostState.LOW)
    allowed = {i.guest: i.may_take for i in plan(use, ()) if isinstance(i, Allow)}
    assert allowed["first"] == 80 + 5 + 3, "and its part of what is left"
    assert allowed["second"] == 5 + 3, "there is not enough for both"
    assert allowed["promised"] == 9004


def test_when_all_are_paused_the_strongest_goes_on_with_what_there_is() -> None:
    weak, strong = (
        guest(name, 4990, paused=True, runs=False, shares=shares) for name, shares in (("w", 1), ("s", 2))
    )
    use = host(weak, strong, free=20, state=HostState.LOW)
    assert plan(use, (PauseRung(),)) == [
        Resume(
            rung="pause",
            guest="s",
            why="goes on with the 20 frames that are left: all others are paused, too",
            numbers={"spare": 20},
        )
    ]
    assert plan(host(weak, strong, free=0, state=HostState.LOW), (PauseRung(),)) == []
    (resume,) = plan(host(weak, strong, free=225, state=HostState.HARD), (PauseRung(),))
    assert resume.why.startswith("goes on with the 225 frames"), "none of them spare"
    running = guest("r", 10)
    assert plan(host(weak, strong, running, free=20, state=HostState.LOW), (PauseRung(),)) == []


def test_where_scanning_gains_nothing_it_is_done_slowly() -> None:
    rung = SharingRung(pages_per_s=64_000, idle_pages_per_s=1000)
    history = History()
    pages = []
    for scanned in ((0, 0), (20_000, 400), (20_000, 0), (20_000, 0), (20_000, 0), (20_000, 19_000)):
        history, use = observe(history, host(guest("g", 9000), guest("h", 700), free=300, scanned=scanned))
        (scan,) = rung.ask(use, {})
        assert isinstance(scan, ScanSharing)
        pages.append(scan.pages)
    assert pages == [6400, 6400, 200, 200, 200, 6400]


def test_an_impossible_tax() -> None:
    for tax in (-0.1, 1, 2):
        with pytest.raises(UsageError) as error:
            host(free=1, tax=tax)
        assert str(error.value) == f"an idle-memory tax of {tax} is impossible; it is 0 to below 1"


# ---- frames that guests share ----


def waiting(**fields: Any) -> tuple[GuestUse, GuestUse]:
    """Two guests with nothing to give, of which one waits for a frame."""
    return guest("a", 64, shared=5000), guest("b", 64, shared=5000, starved=True, runs=False, **fields)


def test_what_guests_share_is_taken_last() -> None:
    use = host(*waiting(), free=0, state=LOW, common=5000, room={"compressed": 100, "swap": 4000})
    sharing, first, second = plan(use, default_rungs())
    assert short(sharing) == ("ScanSharing", 2000)
    assert first == SendAway(
        rung="compression",
        guest="",
        store="compressed",
        pages=100,
        frames=100,
        why=(
            "100 frames: 1 frames are waited for, 0 available, and guests have no more to give than these, which they "
            "share"
        ),
        numbers={"waited_for": 1, "available": 0, "shared": 5000},
    )
    assert short(second) == ("SendAway", "", "swap", 125, 125), "to the way out of LOW"
    rich = guest("c", 65)
    use = host(*waiting(), rich, free=0, state=LOW, common=5000, room=ROOM)
    assert shorts(use)[1:] == [("SendAway", "c", "compressed", 1, 1)], "it has what is waited for"
    use = host(*waiting(needed=2), rich, free=0, state=LOW, common=5000, room=ROOM)
    assert shorts(use)[1:] == [
        ("SendAway", "c", "compressed", 1, 1),
        ("SendAway", "", "compressed", 224, 224),
    ]
    use = host(*waiting(), free=5, state=LOW, common=5000, room=ROOM)
    assert shorts(use)[1:] == [], "there is one"


def test_no_more_is_taken_of_what_guests_share_than_there_is() -> None:
    use = host(*waiting(needed=30), free=0, state=LOW, common=20, room={"compressed": 15, "swap": 4000})
    assert shorts(use)[1:] == [
        ("SendAway", "", "compressed", 15, 15),
        ("SendAway", "", "swap", 5, 5),
        ("Pause", "b"),
    ]
    pause = plan(use, default_rungs())[-1]
    assert pause.why == (
        "no memory: 0 of the host's 10000 frames are available, 20 more can be gained, and 30 are needed at once"
    )
    assert shorts(host(*waiting(), free=0, state=LOW, common=20))[1:] == [("Pause", "b")], "no store"


def test_a_store_that_takes_nothing_of_what_guests_share_is_left_out() -> None:
    history, use = History(), host(*waiting(), free=0, common=5000, room=ROOM)
    for _ in range(4):
        history, seen = observe(history, replace(use, common_sent={"compressed": (225, 0)}))
    assert history.common_yields == seen.common_yields == {"compressed": pytest.approx(0.0625, abs=0.05)}
    assert shorts(seen)[1:] == [("SendAway", "", "swap", 225, 225)]
    half = replace(use, state=LOW, common_yields={"compressed": 0.5})
    assert shorts(half)[1:] == [("SendAway", "", "compressed", 450, 225)]
    for _ in range(16):
        history, seen = observe(history, use)
    assert shorts(seen)[1][:3] == ("SendAway", "", "compressed"), "it is tried again"


def test_a_promise_comes_before_what_guests_share() -> None:
    promised = guest("p", 10, shared=80, reservation=100, starved=True, runs=False)
    use = host(promised, guest("b", 64, shared=80), free=90, state=LOW, common=80, room=ROOM)
    assert (use.lacks, use.waited_for) == (0, 0), "its next frame is free"
    assert [s for s in shorts(use) if s[0] == "SendAway"] == []


def test_for_who_is_paused_frames_in_use_and_shared_ones_are_taken() -> None:
    stopped = guest("s", 0, paused=True, runs=False)
    busy = guest("busy", 300, active=300)
    use = host(stopped, busy, free=210, state=HARD, room=ROOM, common=500)
    assert use.waited_for == 225 + 1, "beyond what leads out of LOW, so that it can go on"
    assert shorts(use)[1:] == [("SendAway", "busy", "compressed", 16, 16)]
    use = replace(use, guests=(stopped, guest("busy", 64, active=64)))
    assert shorts(use)[1:] == [("SendAway", "", "compressed", 16, 16)]
    assert shorts(replace(use, free=226, state=HARD))[1:] == [("Resume", "s")]


def test_who_is_paused_needs_no_frames_to_run_with() -> None:
    stopped = guest("s", 64, paused=True, runs=False, reservation=10)
    assert stopped.giveable == 54
    assert replace(stopped, pinned=30).giveable == 34
    use = host(stopped, guest("b", 64, starved=True, runs=False), free=0, state=LOW, room=ROOM)
    assert shorts(use)[1:] == [("SendAway", "s", "compressed", 54, 54)]
