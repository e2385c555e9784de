"""The options that say how pCPUs are divided: by which policy, and who records it."""

import argparse
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emuvisor.host import Host

__all__ = [
    "DEFAULT_SCHEDULER",
    "add_scheduler_options",
    "parse_affinity",
    "parse_time",
    "recorded_schedule",
]

DEFAULT_SCHEDULER = "proportional"
MAX_AFFINITY = 1024
"""The highest number of a pCPU that is looked at; what a host has is checked later."""
TIME_UNITS_US = {"us": 1, "ms": 1_000}


def parse_affinity(text: str) -> tuple[int, ...]:
    """Numbers of pCPUs, such as 0,2-3."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)) or len(part) > 9:
            raise ArgumentTypeError(f"{text!r} is not a list of pCPUs, such as 0,2-3")
        low, high = int(first), int(last or first)
        if low > high or high > MAX_AFFINITY:
            raise ArgumentTypeError(f"{text!r}: there are no pCPUs {part}")
        found.extend(range(low, high + 1))
    return tuple(dict.fromkeys(found))


def parse_time(text: str) -> int:
    """A time such as 500us or 2ms, in microseconds."""
    number, unit = text[:-2], text[-2:]
    if unit not in TIME_UNITS_US or not number.isdecimal() or len(number) > 9:
        raise ArgumentTypeError(f"{text!r} is not a time, such as 500us or 2ms")
    return int(number) * TIME_UNITS_US[unit]


def add_scheduler_options(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """Add the policy, and a recording of the schedule."""
    parser.add_argument(
        "--scheduler",
        default=DEFAULT_SCHEDULER,
        metavar="NAME",
        help="how pCPUs are divided: proportional (default), round-robin, credit, deadline, or an installed "
        "policy of your own",
    )
    parser.add_argument(
        "--schedule-record",
        type=Path,
        metavar="FILE",
        help="write who ran where when, and why it ended, to FILE in the end: the last 100,000 stretches; "
        "'emuvisor schedule FILE' shows it",
    )


@contextmanager
def recorded_schedule(host: "Host", path: Path | None) -> Iterator[None]:
    """Inside, the schedule of `host` is recorded, if `path` says where to; the file is written at the end.

    Raises UsageError for a file that cannot be written, before anything runs if that can be known then.
    """
    if path is None:
        yield
        return
    from emuvisor.host.scheduler.recording import Recorder, write_recording

    write_recording(path, ())
    recorder = Recorder(host.processors.scheduler)
    listeners = host.processors.listeners
    with host.lock:
        listeners.append(recorder.record)
    try:
        yield
    finally:
        with host.lock:
            listeners.remove(recorder.record)
            recorder.finish()
        write_recording(path, recorder.stretches)
        if recorder.count > len(recorder.stretches):
            print(
                f"emuvisor: {path}: has the last {len(recorder.stretches):,} of {recorder.count:,} stretches",
                file=sys.stderr,
            )
