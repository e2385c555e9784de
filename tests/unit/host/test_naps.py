"""Idle guests and their timers, against a plain dictionary."""

from hypothesis import given
from hypothesis import strategies as st

from emuvisor.host.naps import NEVER, SLACK, Naps

PCPUS = 3

names = st.sampled_from("abcde")
times = st.integers(0, 20)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), names, st.integers(0, PCPUS - 1), st.none() | times),
        st.tuples(st.just("cancel"), names),
        st.tuples(st.just("take"), times),
    ),
    max_size=60,
)


@given(steps)
def test_against_a_dictionary(steps):
    naps, model = Naps(PCPUS), {}
    for number, step in enumerate(steps):
        match step:
            case ("add", name, home, wake_ns):
                naps.add(name, home, wake_ns)
                model[name] = (home, NEVER if wake_ns is None else wake_ns, number)
            case ("cancel", name):
                naps.cancel(name)
                model.pop(name, None)
            case ("take", now):
                due = sorted((wake, n, name) for name, (_, wake, n) in model.items() if wake <= now)
                assert naps.take_due(now) == [name for _, _, name in due]
                for _, _, name in due:
                    del model[name]
        assert {name for name in "abcde" if name in naps} == set(model)
        assert naps.due_ns() == min((wake for _, wake, _ in model.values()), default=NEVER)
        for pcpu in range(PCPUS):
            own = [wake for home, wake, _ in model.values() if home == pcpu]
            assert naps.due_ns(pcpu) == min(own, default=NEVER)


def test_a_guest_that_is_always_woken_early_takes_no_memory():
    naps = Naps(1)
    for turn in range(10_000):
        naps.add("g", 0, 10**18 + turn)
        naps.cancel("g")
        naps.add("other", 0, 10**18)
        assert len(naps._heaps[0]) <= SLACK + 3  # its own two, and what is not worth cleaning up
    assert naps.take_due(2 * 10**18) == ["other"]
