from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.figures import Goal
from benchmarks.harness import BenchmarkError, Contender, Context, Settings, Task, one, run


class FakeBenchmark:
    """Tasks made by a function; remembers whether it was taken down."""

    name = "fake"
    measures = "nothing"

    def __init__(self, make: Callable[[Context], Sequence[Task]]) -> None:
        self.make = make
        self.closed = False

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        try:
            yield self.make(context)
        finally:
            self.closed = True


class Recorder:
    """Contenders that write down when they run, and give 1, 2, 3..."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def contender(self, name: str, fail_at: int | None = None) -> Contender:
        def measure() -> float:
            self.calls.append(name)
            count = self.calls.count(name)
            if count == fail_at:
                raise BenchmarkError(f"no figure number {count}")
            return float(count)

        return Contender(name, one("time", measure))


def silent(_what: str, _done: int, _total: int) -> None:
    pass


def test_contenders_run_in_turns_and_the_warm_up_does_not_count() -> None:
    recorder = Recorder()
    task = Task("work", "s", [recorder.contender("a"), recorder.contender("b")], warm_ups=1)
    result = run(FakeBenchmark(lambda _: [task]), Settings(repeats=3), silent)
    assert "".join(recorder.calls) == "abababab"
    assert [(row.name, row.unit, row.values) for row in result.rows] == [
        ("time", "s", {"a": [2, 3, 4], "b": [2, 3, 4]})
    ]
    assert not result.failed


def test_figures_of_one_task_can_have_different_units() -> None:
    contender = Contender("a", lambda: {"speed": 5.0, "CPU": 7.0})
    task = Task("work", "MB/s", [contender], units={"CPU": "us"})
    result = run(FakeBenchmark(lambda _: [task]), Settings(repeats=1), silent)
    assert [(row.name, row.unit) for row in result.rows] == [("speed", "MB/s"), ("CPU", "us")]


def test_a_task_can_have_its_own_repeats() -> None:
    recorder = Recorder()
    task = Task("work", "s", [recorder.contender("a")], warm_ups=0, repeats=1)
    result = run(FakeBenchmark(lambda _: [task]), Settings(repeats=9), silent)
    assert result.rows[0].values == {"a": [1]}


def test_one_measurement_may_give_several_figures_each_with_its_goal() -> None:
    goal = Goal(2)
    task = Task("work", "us", [Contender("a", lambda: {"in": 1.0, "out": 3.0})], {"out": goal}, against="a")
    result = run(FakeBenchmark(lambda _: [task]), Settings(repeats=2), silent)
    assert [(row.name, row.goal, row.against, row.values) for row in result.rows] == [
        ("in", None, "a", {"a": [1.0, 1.0]}),
        ("out", goal, "a", {"a": [3.0, 3.0]}),
    ]


def test_a_contender_that_fails_is_left_out_and_the_others_go_on() -> None:
    recorder = Recorder()
    task = Task("work", "s", [recorder.contender("a", fail_at=2), recorder.contender("b")], warm_ups=0)
    benchmark = FakeBenchmark(lambda _: [task])
    result = run(benchmark, Settings(repeats=3), silent)
    assert "".join(recorder.calls) == "ababb"
    assert result.rows[0].values == {"a": [1], "b": [1, 2, 3]}
    assert result.notices == ["work: a failed: no figure number 2"]
    assert result.failed
    assert benchmark.closed


def test_a_benchmark_that_cannot_be_set_up_says_why() -> None:
    def fail(_context: Context) -> Sequence[Task]:
        raise BenchmarkError("the guest does not boot")

    benchmark = FakeBenchmark(fail)
    result = run(benchmark, Settings(), silent)
    assert result.notices == ["fake failed: the guest does not boot"]
    assert result.rows == []
    assert result.failed
    assert benchmark.closed


def test_what_is_skipped_is_no_failure() -> None:
    def skip(context: Context) -> Sequence[Task]:
        context.notice("no QEMU")
        context.notice("no QEMU")
        context.note("a quiet machine")
        return []

    result = run(FakeBenchmark(skip), Settings(), silent)
    assert (result.notices, result.notes, result.failed) == (["no QEMU"], ["a quiet machine"], False)


def test_progress_counts_every_measurement() -> None:
    recorder = Recorder()
    steps: list[tuple[str, int, int]] = []
    task = Task("work", "s", [recorder.contender("a"), recorder.contender("b")], warm_ups=1)
    run(FakeBenchmark(lambda _: [task]), Settings(repeats=1), lambda *step: steps.append(step))
    assert steps == [
        ("setting up", 0, 1),
        ("work: a, warm-up", 0, 4),
        ("work: b, warm-up", 1, 4),
        ("work: a, 1 of 1", 2, 4),
        ("work: b, 1 of 1", 3, 4),
        ("done", 4, 4),
    ]
