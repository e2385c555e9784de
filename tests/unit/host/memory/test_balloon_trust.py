"""Balloons that follow, and those that do not."""

from collections.abc import Callable

from policy_guests import guest, host

from emuvisor.host.memory import GuestUse, History, observe
from emuvisor.host.memory.trust import BAN, PATIENCE, BalloonRecord


def look(history: History, **fields: object) -> tuple[History, GuestUse]:
    history, use = observe(history, host(guest("a", 5000, **{"balloon": True, **fields}), free=300))
    return history, use.guests[0]


def periods_until_verdict(held: Callable[[int], int], history: History | None = None) -> tuple[int, str]:
    """How long a balloon that holds `held(period)` of 1000 pages is relied on, at most 500 periods."""
    history = history or History()
    for period in range(500):
        history, seen = look(history, balloon_target=1000, ballooned=held(period))
        if seen.balloon_verdict:
            return period, seen.balloon_verdict
    return 500, ""


def test_one_that_follows_slowly_is_trusted() -> None:
    assert periods_until_verdict(lambda period: min(1000, 10 * period)) == (500, "")


def test_one_that_is_nearly_there_is_trusted() -> None:
    assert periods_until_verdict(lambda period: 936) == (500, "")
    assert periods_until_verdict(lambda period: 935)[1] != ""


def test_one_that_does_nothing() -> None:
    assert periods_until_verdict(lambda period: 0) == (
        PATIENCE,
        "its balloon does not follow: it was asked for 1000 pages, and holds 0",
    )


def test_a_page_now_and_then_is_no_progress() -> None:
    assert periods_until_verdict(lambda period: period)[0] == PATIENCE


def test_one_that_takes_its_pages_back() -> None:
    assert periods_until_verdict(lambda period: 1000 if period < 50 else 100) == (
        50 + PATIENCE,
        "its balloon does not follow: it was asked for 1000 pages, and holds 100",
    )


def test_one_that_lies() -> None:
    history = History()
    for _ in range(PATIENCE + 1):
        history, seen = look(history, balloon_target=1000, ballooned=3, balloon_actual=1000)
    assert seen.balloon_verdict == "its balloon lies: it claims 1000 pages, and holds 3"


def test_it_is_tried_again_and_then_banned_for_longer() -> None:
    history, verdicts = History(), []
    for _ in range(2 * PATIENCE + 3 * BAN + 10):
        history, seen = look(history, balloon_target=1000, ballooned=0)
        verdicts.append(bool(seen.balloon_verdict))
    second = verdicts.index(False, PATIENCE)
    assert second == PATIENCE + BAN
    third_ban = verdicts.index(True, second)
    assert verdicts.index(False, third_ban) - third_ban == 2 * BAN


def test_the_ban_does_not_grow_for_ever() -> None:
    liar = guest("a", 5000, balloon=True, balloon_target=1000)
    record = BalloonRecord(offences=20)
    for _ in range(PATIENCE + 1):
        record = record.after(liar)
    assert record.banned == 64 * BAN


def test_a_guest_that_cannot_run_is_not_blamed() -> None:
    history = History()
    for _ in range(3 * PATIENCE):
        history, seen = look(history, balloon_target=1000, ballooned=0, runs=False)
    assert seen.balloon_verdict == ""


def test_a_guest_that_waits_for_frames_again_and_again_but_runs_between_is_blamed() -> None:
    history = History()
    for _ in range(PATIENCE + 1):
        history, seen = look(history, balloon_target=1000, ballooned=0, runs=False, ran=True)
    assert seen.balloon_verdict != ""


def test_a_target_that_came_and_went_is_not_held_against_it() -> None:
    history = History()
    for period in range(3 * PATIENCE):
        target = 1000 if period % 10 else 0
        history, seen = look(history, balloon_target=target, ballooned=0)
    assert seen.balloon_verdict == ""


def test_only_the_least_target_of_a_trial_counts() -> None:
    history = History()
    for period in range(PATIENCE + 1):
        target = 5000 if period else 100
        history, seen = look(history, balloon_target=target, ballooned=25 if period else 0)
    assert seen.balloon_verdict == ""


def test_no_driver_no_verdict() -> None:
    history = History()
    for _ in range(3 * PATIENCE):
        history, seen = look(history, balloon=False, balloon_target=1000)
    assert seen.balloon_verdict == ""
