"""The last rates, for sparklines."""

from metrics_samples import guest, host

from emuvisor.tui.history import LOOKS, History

NS = 10_000_000
"""A percent of a second."""


def test_rates_are_kept_by_guest() -> None:
    history = History()
    history.add(host(guest("a", cpu_ns=90 * NS)))
    assert (list(history.host), list(history.used["a"])) == ([], [])
    history.add(host(guest("a", cpu_ns=100 * NS, waited_ns=5 * NS), seconds=1))
    now = history.add(host(guest("a", cpu_ns=130 * NS, waited_ns=5 * NS), guest("b"), seconds=2))
    assert now is history.now
    assert list(history.host) == [5, 15]  # of two pCPUs
    assert {name: list(values) for name, values in history.used.items()} == {"a": [10, 30], "b": [0]}
    assert list(history.ready["a"]) == [5, 0]


def test_what_is_gone_or_old_is_forgotten() -> None:
    history = History()
    for second in range(LOOKS + 10):
        history.add(host(guest("a"), seconds=second))
    assert len(history.host) == len(history.used["a"]) == LOOKS
    history.add(host(seconds=LOOKS + 10))
    assert (history.used, history.ready) == ({}, {})
