from hypothesis import given, settings
from hypothesis import strategies as st
from policy_guests import guest, host

from emuvisor.host.memory.activity import Activity
from emuvisor.host.memory.history import History, observe


def test_fast_up_slow_down() -> None:
    activity = Activity.first(100)
    activity = activity.after(1000)
    assert activity.pages == 1000
    falls = []
    for _ in range(6):
        activity = activity.after(100)
        falls.append(activity.pages)
    assert falls == [269, 227, 195, 171, 153, 140]


@settings(deadline=None)
@given(st.lists(st.integers(0, 1 << 24), min_size=1, max_size=50))
def test_never_less_than_the_last_count_nor_more_than_the_largest(counts: list[int]) -> None:
    activity = Activity.first(counts[0])
    for count in counts[1:]:
        activity = activity.after(count)
    assert counts[-1] <= activity.pages <= max(counts)


def test_looks_without_a_count_change_nothing() -> None:
    history = History()
    seen = []
    for accessed in (None, 500, None, 100):
        history, use = observe(history, host(guest("a", 1000, accessed=accessed), free=9000))
        seen.append(use.guests[0].active)
    assert seen == [None, 500, 500, 475]


def test_a_guest_that_went_is_forgotten() -> None:
    history, _ = observe(History(), host(guest("a", 1000, accessed=7), free=9000))
    history, _ = observe(history, host(free=10_000))
    assert history == History()
