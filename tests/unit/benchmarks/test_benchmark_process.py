import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from benchmarks.harness import BenchmarkError, Context, Settings
from benchmarks.process import ConsoleProcess, cpu_seconds
from benchmarks.shell import Shell, at_once, booted

FAKE_GUEST = r"""
import sys
def say(text): sys.stdout.write(text); sys.stdout.flush()
say("booting\nEMUVISOR-BOOT-OK\n/root # ")
functions = {}
for line in sys.stdin:
    line = line.rstrip("\n")
    say(line + "\r\n")  # a terminal's echo
    name, _, body = line.partition("() { ")
    if body:
        functions[name] = body
    elif line.startswith("echo defined-"):
        say("defined-42\r\n")
    elif line == "die":
        sys.exit(3)
    elif line in functions:
        say("result of " + functions[line].partition(";")[0] + "\r\nEMUVISOR-END-42\r\n")
    say("/root # ")
"""


class FakeGuest:
    name = "fake"

    def __init__(self, program: str = FAKE_GUEST) -> None:
        self.program = program

    def argv(self) -> list[str]:
        return [sys.executable, "-S", "-c", self.program]


@pytest.fixture
def shell() -> Iterator[Shell]:
    with Shell(FakeGuest()) as shell:
        yield shell


def test_a_command_is_timed_and_its_result_checked(shell: Shell) -> None:
    shell.define("work", "compute 5")
    assert shell.time("work", "result of compute 5", 60) > 0
    with pytest.raises(BenchmarkError) as error:
        shell.time("work", "another result", 60)
    assert str(error.value) == (
        "fake: work printed 'work\\r\\nresult of compute 5\\r\\nEMUVISOR-END-42', without 'another result'"
    )


def test_a_command_costs_cpu_time_of_all_its_processes(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.define("work", "compute 5")
    used = {shell.pid: iter((1.0, 3.0)), 7: iter((10.0, 10.5))}
    monkeypatch.setattr("benchmarks.shell.cpu_seconds", lambda pid: next(used[pid]))
    cost = shell.cost("work", "result of compute 5", (7,))
    assert cost.cpu_s == 2.5
    assert cost.seconds > 0


def test_the_cpu_clock_of_a_process() -> None:
    before = time.process_time()
    found = cpu_seconds(os.getpid())
    assert before <= found <= time.process_time()
    with ConsoleProcess("ended", [sys.executable, "-S", "-c", "input()"]) as process:
        pid = process.pid
    with pytest.raises(BenchmarkError) as error:
        cpu_seconds(pid)
    assert str(error.value) == f"process {pid} has no CPU clock: Invalid argument"


def test_a_command_that_goes_on_is_started(shell: Shell) -> None:
    shell.start("echo defined-$((6*7))", "defined-42", 60)


def test_what_was_made_at_once_is_in_order() -> None:
    assert at_once([lambda: 1, lambda: None, lambda: 3]) == [1, 3]


def test_a_guest_that_ends_says_with_what(shell: Shell) -> None:
    with pytest.raises(BenchmarkError) as error:
        shell.time("die", "", 60)
    assert str(error.value) == (
        "fake ended with code 3 before 'EMUVISOR-END-42'; its last output: 'die\\r\\n'"
    )


def test_output_in_pieces_is_found_and_used_up() -> None:
    program = "import sys, time\nfor c in 'one two three': sys.stdout.write(c); sys.stdout.flush()\ninput()"
    with ConsoleProcess("pieces", [sys.executable, "-S", "-c", program]) as process:
        assert process.expect("two", 60)[0] == "one two"
        assert process.expect("three", 60)[0] == " three"


def test_what_does_not_come_is_missed_in_time() -> None:
    with ConsoleProcess(
        "silent", [sys.executable, "-S", "-c", "print('hello', flush=True); input()"]
    ) as process:
        process.expect("hel", 60)
        with pytest.raises(BenchmarkError) as error:
            process.expect("world", 0)
    assert str(error.value).startswith("no 'world' from silent within 0 s; its last output: ")


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(BenchmarkError) as error:
        ConsoleProcess("qemu", ["/nowhere/qemu"])
    assert str(error.value) == "qemu: /nowhere/qemu does not start: No such file or directory"


def test_a_booted_guest_knows_its_functions_until_the_end() -> None:
    with ExitStack() as stack:
        shell = booted(stack, Context(Settings()), FakeGuest(), {"one": "compute 1", "two": "compute 2"})
        assert shell is not None
        shell.time("one", "result of compute 1", 60)
        shell.time("two", "result of compute 2", 60)
    with pytest.raises(ProcessLookupError):
        os.kill(shell.pid, 0)


def test_a_guest_that_does_not_boot_is_skipped_with_a_notice() -> None:
    context = Context(Settings())
    with ExitStack() as stack:
        assert booted(stack, context, FakeGuest("print('no disk')"), {}) is None
    assert context.notices == [
        "fake is skipped: fake ended with code 0 before 'EMUVISOR-BOOT-OK'; its last output: 'no disk\\n'"
    ]
