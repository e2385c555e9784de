"""Freezing disks, as it is measured."""

import pytest

from benchmarks.harness import Context, Settings
from benchmarks.workloads import layers


def test_every_contender_says_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "QUICK_ROUNDS", 2)
    monkeypatch.setattr(layers, "DEPTHS", (1, 3))
    context = Context(Settings(quick=True))
    with layers.Layers().tasks(context) as tasks:
        found = {
            (task.name, contender.name): list(contender.measure())
            for task in tasks
            for contender in task.contenders
        }
    assert found == {
        ("freeze, 20 GiB", "emuvisor"): ["freeze and open for a clone"],
        ("write", "not frozen"): ["write of 4 KiB"],
        ("write", "frozen, first to a cluster"): ["write of 4 KiB"],
        ("write", "frozen, later"): ["write of 4 KiB"],
        ("write", "clone, first to a cluster"): ["write of 4 KiB"],
        ("read below layers", "1 layers"): ["read of 4 KiB"],
        ("read below layers", "3 layers"): ["read of 4 KiB"],
    }
    assert context.notes == [
        "Median of 2 calls each; the image's data is in the page cache, nothing is synced."
    ]
