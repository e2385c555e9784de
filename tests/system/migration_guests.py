"""Hosts in processes of their own, between which a Debian guest is moved."""

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

TICK = re.compile(r"tick (\d+) (\d+)\r?\n")
WORKER = Path(__file__).with_name("migration_host.py")


class HostProcess:
    """A host of `memory` MiB in a process; see `migration_host.Controller` for what it can be told."""

    def __init__(self, memory: int = 512) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def tell(self, do: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the host's process has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def do(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.tell(do, **arguments)
        return self.answer()

    def kill(self) -> None:
        """As by SIGKILL; more than once is allowed."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def check_console(text: str) -> int:
    """The ticks on the guest's console, of which none may be lost, doubled or wrong; returns the last one."""
    assert "WRONG" not in text, text[-2000:]
    ticks = [(int(number), int(total)) for number, total in TICK.findall(text)]
    assert ticks, text[-2000:]
    for (before, earlier), (number, total) in pairwise(ticks):
        assert number == before + 1, (before, number)
        assert total == (earlier * 31 + number) % 1000003, number
    return ticks[-1][0]
