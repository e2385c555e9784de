"""Resets to a checkpoint, as they are measured."""

import pytest

from benchmarks.harness import BenchmarkError, Context, Settings
from benchmarks.workloads import reset


def test_without_an_image_there_is_the_firmware_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reset, "QUICK_ROUNDS", 2)
    monkeypatch.setattr(reset, "QUICK_STOPS", 1)
    context = Context(Settings(quick=True))
    with reset.Reset().tasks(context) as tasks:
        assert [task.name for task in tasks] == ["reset, isa", "stop for a checkpoint, isa"]
        figures = [contender.measure() for contender in tasks[0].contenders]
        assert all(list(found) == ["reset, isa", "reset, isa, 99th percentile"] for found in figures)
        assert [contender.name for contender in tasks[0].contenders] == [
            "0 pages", "16 pages", "64 pages", "256 pages", "1024 pages",
        ]  # fmt: skip
        (stop,) = tasks[1].contenders
        assert list(stop.measure()) == ["stop for a checkpoint, isa"]
    assert context.notices == ["Debian is skipped: no Debian image; run `emuvisor images pull debian`"]


def test_a_reset_that_changed_other_pages_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reset.Guest, "reset_to", lambda _guest, _checkpoint: 7)
    with (
        reset.Reset().tasks(Context(Settings(quick=True))) as tasks,
        pytest.raises(BenchmarkError, match=r"^isa: 7 pages went back, of 16$"),
    ):
        tasks[0].contenders[1].measure()
