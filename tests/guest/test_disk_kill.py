"""What a guest flushed survives kill -9 of the host, hundreds of times."""

import os
import random
import select
import signal
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from struct import iter_unpack, pack

import pytest
from durability import FORMATS, Format, Medium, Step, content, perform, random_steps

KILLS = 150
"""Of each format; 600 altogether."""
MOST_REPORTS = 6
MOST_DELAY_S = 0.002


def run_until_killed(form: Format, folder: Path, steps: Iterator[Step], pipe: int) -> None:
    """The child: do steps, and report the number of each flush that is done."""
    try:
        disk = form.open(folder)
        for step in steps:
            perform(disk, step)
            if step.kind == "flush":
                os.write(pipe, pack("<Q", step.number))
    finally:
        os._exit(1)


def kill_at_some_moment(pipe: int, child: int, rng: random.Random) -> bytes:
    """Let the child run until it has reported some flushes and a little longer; what it has reported."""
    reports = b""
    for _ in range(rng.randrange(MOST_REPORTS)):
        reports += os.read(pipe, 8)
    select.select([], [], [], rng.random() * MOST_DELAY_S)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the child ended by itself"
    while more := os.read(pipe, 4096):
        reports += more
    return reports


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork: the child starts no thread
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_what_was_flushed_survives(form: Format, tmp_path: Path) -> None:
    form.create(tmp_path)
    disk = form.open(tmp_path)
    data = content(disk)
    disk.close()
    number, flushes = 1, 0
    for kill in range(KILLS):
        rng = random.Random(kill)
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            run_until_killed(form, tmp_path, random_steps(kill, number), theirs)
        os.close(theirs)
        reports = kill_at_some_moment(ours, child, rng)
        os.close(ours)

        medium = Medium(data)
        steps = random_steps(kill, number)
        for (reported,) in iter_unpack("<Q", reports):
            flushes += 1
            while number <= reported:
                medium.apply(next(steps))
                number += 1
        for step in takewhile(lambda step: step.kind != "flush", steps):
            medium.apply(step)
            number += 1
        disk = form.open(tmp_path)
        data = content(disk)
        disk.close()
        medium.check(data)
        form.verify(tmp_path)
    assert flushes > KILLS
