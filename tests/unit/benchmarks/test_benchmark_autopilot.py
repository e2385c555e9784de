"""The benchmark of the autopilot: its figures, and what becomes of a broken promise."""

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.harness import BenchmarkError, Context, Settings
from benchmarks.shifting import OBJECTIVES, Outcome
from benchmarks.workloads import autopilot
from benchmarks.workloads.autopilot import Autopilot

STATIC = Outcome(throughput=2.0, fairness=0.5, speed=10.0, changes=0, broken=())


def flights(**fields: Any) -> Any:
    """fly(): twice as good with the autopilot, and `fields`."""

    def fly(seed: int, objective: str | None, *_: object, **__: object) -> Outcome:
        part = 1 + seed / 100
        better = 1 if objective is None else 2 * part
        found = replace(STATIC, throughput=2 * better, fairness=0.4 * better, speed=10 * better)
        return found if objective is None else replace(found, **fields)

    return fly


def test_gains_over_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autopilot, "fly", flights())
    context = Context(Settings(quick=True))
    with Autopilot().tasks(context) as tasks:
        assert [task.name for task in tasks] == list(OBJECTIVES)
        figures = tasks[0].contenders[0].measure()
    assert list(figures) == [f"throughput, {name}" for name in ("mean", "from", "to", "worst seed")]
    assert figures["throughput, worst seed"] == pytest.approx(100)
    assert 100 < figures["throughput, from"] < figures["throughput, mean"] < figures["throughput, to"] < 115
    assert context.notes[0].startswith("Geometric means of the gains over 8 seeds")


def test_a_broken_promise_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autopilot, "fly", flights(broken=("db got nothing",)))
    with Autopilot().tasks(Context(Settings(quick=True))) as tasks, pytest.raises(BenchmarkError) as error:
        tasks[0].contenders[0].measure()
    assert str(error.value) == "a promise was broken: db got nothing"
