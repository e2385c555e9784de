"""Operations in the background."""

import logging
import threading

import pytest

from emuvisor.daemon.faults import NotFound, TooManyRequests
from emuvisor.daemon.operations import Operation, Operations, Report
from emuvisor.errors import StateError


def ended(operations: Operations, started: Operation) -> Operation:
    """It, when it is the last one that runs."""
    assert operations.close(30)
    return operations.get(started.id)


def test_one_with_progress_and_a_result() -> None:
    operations = Operations(1, 1)
    told, go = threading.Event(), threading.Event()

    def work(report: Report) -> str:
        report.progress(3, 7)
        report.note("here")
        told.set()
        assert go.wait(30)
        return "made"

    started = operations.start("snapshot", "web", work)
    assert told.wait(30)
    running = operations.get(started.id)
    assert (running.kind, running.guest, running.state, running.done, running.total, running.note) == (
        "snapshot", "web", "running", 3, 7, "here",
    )  # fmt: skip
    go.set()
    done = ended(operations, started)
    assert (done.state, done.result, done.error, done.done) == ("done", "made", "", 3)
    assert done.ended is not None
    assert done.ended >= done.started


def test_one_that_fails() -> None:
    def work(_: Report) -> None:
        raise StateError("guest 'web' is off")

    operations = Operations(1, 1)
    failed = ended(operations, operations.start("save", "web", work))
    assert (failed.state, failed.error, failed.error_kind, failed.result) == (
        "failed", "guest 'web' is off", "StateError", None,
    )  # fmt: skip


def test_a_bug_is_in_the_log_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    def work(_: Report) -> None:
        raise ZeroDivisionError("a secret")

    operations = Operations(1, 1)
    with caplog.at_level(logging.ERROR):
        failed = ended(operations, operations.start("save", "web", work))
    assert (failed.error, failed.error_kind) == (
        "something went wrong; the daemon's log says what",
        "HostError",
    )
    assert "save of guest web failed" in caplog.text
    assert "a secret" in caplog.text


def test_limits_and_what_is_forgotten() -> None:
    operations = Operations(running=2, kept=1)
    go = threading.Event()
    first, second = (operations.start("save", name, lambda _: go.wait(30)) for name in "ab")
    with pytest.raises(TooManyRequests, match=r"^2 operations run already; try again$"):
        operations.start("save", "c", lambda _: None)
    go.set()
    while any(operation.state == "running" for operation in operations.all()):
        pass
    third = operations.start("save", "c", lambda _: None)
    assert operations.close(30)
    known = [operation.id for operation in operations.all()]
    assert third.id in known
    assert len(known) == 2
    gone = ({first.id, second.id} - set(known)).pop()
    with pytest.raises(NotFound) as error:
        operations.get(gone)
    assert str(error.value) == f"there is no operation {gone!r}; it may be long ago"
    with pytest.raises(TooManyRequests, match=r"^the daemon ends$"):
        operations.start("save", "d", lambda _: None)


def test_closing_does_not_wait_for_ever() -> None:
    operations = Operations(1, 1)
    go = threading.Event()
    operations.start("save", "web", lambda _: go.wait(30))
    assert not operations.close(0)
    go.set()
    assert operations.close(30)


def test_one_that_only_waits_is_left_alone() -> None:
    operations = Operations(1, 1)
    go = threading.Event()
    operations.start("shutdown", "web", lambda _: go.wait(30), waits=True)
    assert operations.close(0)
    go.set()


def test_a_host_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    operations = Operations(1, 1)
    with pytest.raises(TooManyRequests, match=r"^the host gives no thread for it$"):
        operations.start("save", "web", lambda _: None)
    assert operations.all() == []
