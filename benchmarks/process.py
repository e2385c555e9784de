"""A program that is talked to over pipes as over a serial line: send, and wait for a text."""

import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from benchmarks.harness import BenchmarkError

__all__ = ["ConsoleProcess", "cpu_seconds", "environment"]

CHECKOUT = Path(__file__).resolve().parents[1]
CHUNK = 1 << 16
CLOCK_PID_SHIFT, CPUCLOCK_SCHED = 3, 2
"""How Linux numbers a process's CPU clock in nanoseconds, as clock_getcpuclockid(3) does (linux/posix-timers.h);
/proc/PID/stat counts in hundredths of a second."""
SHOWN = 400
"""Characters of the last output that an error shows."""


def environment(**extra: str) -> dict[str, str]:
    """This process's, changed so that Python programs find the packages of this checkout."""
    path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    # As the command `emuvisor` does for itself: numpy's threads would only take time to start.
    return {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", **extra}


def cpu_seconds(pid: int) -> float:
    """What process `pid` has used of the CPUs so far, all its threads and its calls of the kernel together.

    Raises BenchmarkError when there is no such process.
    """
    try:
        return time.clock_gettime((~pid << CLOCK_PID_SHIFT) | CPUCLOCK_SCHED)
    except OSError as error:
        raise BenchmarkError(f"process {pid} has no CPU clock: {error.strerror}") from None


class ConsoleProcess:
    """Starts `argv` at once; `started` is the moment before (time.perf_counter)."""

    def __init__(self, name: str, argv: Sequence[str]) -> None:
        self.name = name
        self.argv = list(argv)
        self._output = bytearray()
        self.started = time.perf_counter()
        try:
            self._process = subprocess.Popen(
                self.argv,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise BenchmarkError(f"{name}: {self.argv[0]} does not start: {error.strerror}") from None
        assert self._process.stdout is not None
        self._stdout = self._process.stdout.fileno()
        os.set_blocking(self._stdout, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """The process's number, for profilers."""
        return self._process.pid

    def send(self, text: str) -> None:
        """Type `text`. Raises BenchmarkError when nobody reads any more."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()
        except OSError as error:
            raise BenchmarkError(f"{self.name} is gone: {error.strerror}; {self._last_output()}") from None

    def expect(self, text: str, timeout_s: float) -> tuple[str, float]:
        """Wait for `text`; returns the output up to its end and when it came (time.perf_counter).

        Raises BenchmarkError when `timeout_s` passes or the program ends first.
        """
        pattern = text.encode()
        end = time.perf_counter() + timeout_s
        searched = 0
        while True:
            found = self._output.find(pattern, max(0, searched - len(pattern)))
            now = time.perf_counter()
            if found >= 0:
                before = bytes(self._output[: found + len(pattern)]).decode(errors="replace")
                del self._output[: found + len(pattern)]
                return before, now
            searched = len(self._output)
            if now >= end:
                raise BenchmarkError(
                    f"no {text!r} from {self.name} within {timeout_s:g} s; {self._last_output()}"
                )
            if self._selector.select(end - now):
                data = os.read(self._stdout, CHUNK)
                if not data:
                    code = self._process.wait()
                    raise BenchmarkError(
                        f"{self.name} ended with code {code} before {text!r}; {self._last_output()}"
                    )
                self._output += data

    def _last_output(self) -> str:
        return f"its last output: {bytes(self._output[-SHOWN:]).decode(errors='replace')!r}"

    def close(self) -> None:
        """End the program, whatever it does."""
        self._selector.close()
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                continue  # what was still to be written has no reader
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
