"""Guests of a few instructions, on a host: what is measured of them is the host's work for them.

`HALT` halts for good, with interrupts enabled and no timer set:

    1: sti;  hlt;  jmp 1b

`OUT` writes to the POST port, which is a device in Python, without end:

    1: out 0x80, al;  jmp 1b

The bytes are what GNU as makes of it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import BenchmarkError
from benchmarks.loop import CODE_ADDRESS, code
from emuvisor.firmware import FLAT_ADDRESS
from emuvisor.host import Guest, GuestState, Host
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.loaders.flat import FlatMode
from emuvisor.units import MIB

__all__ = ["COMPUTE", "HALT", "MEMORY", "OUT", "bare_host", "config", "running", "window"]

MEMORY = 4 * MIB
"""Of each guest; most of it is never touched."""
HALT = bytes.fromhex("fb f4 ebfc")
OUT = bytes.fromhex("e680 ebfc")
LOOK_S = 0.005
_TURNS = code(0).removesuffix(b"\xf4")
COMPUTE = _TURNS + b"\xe9" + (-len(_TURNS) - 5).to_bytes(4, "little", signed=True)
"""The compute loop without end: JMP in place of HLT."""


def config(folder: Path, name: str, program: bytes, **more: Any) -> GuestConfig:
    """A guest with `program`, COMPUTE in long mode and others in real mode; `more` is GuestConfig's."""
    path = folder / f"{name}.bin"
    path.write_bytes(program)
    mode: FlatMode = "long64" if program is COMPUTE else "real16"
    flat = FlatConfig(path, CODE_ADDRESS if program is COMPUTE else FLAT_ADDRESS, mode)
    return GuestConfig(name=name, board="isa", memory=MEMORY, flat=flat, **more)


@contextmanager
def bare_host(guests: int, pcpus: int, scheduler: str = "proportional") -> Iterator[Host]:
    """A host with room for all memory of so many bare guests, so that nobody looks for more."""
    with Host((guests + 1) * MEMORY, pcpus=pcpus, scheduler=scheduler) as host:
        yield host


def running(guests: Sequence[Guest]) -> None:
    """Raises BenchmarkError with the first of `guests` that does not run any more."""
    for guest in guests:
        if guest.state is not GuestState.RUNNING:
            raise BenchmarkError(f"{guest.name} is {guest.state}: {guest.reason}")


def window(seconds: float, guests: Sequence[Guest], done: Callable[[], float]) -> tuple[float, float]:
    """What `guests` do, by `done`, in `seconds`, or in more on a machine that is so busy that one of them had no turn;
    and in how many seconds. Raises BenchmarkError as `running`."""
    turns = [guest.slices for guest in guests]
    before, start = done(), time.perf_counter()
    time.sleep(seconds)
    while (found := done() - before) <= 0 or any(
        guest.slices == had for guest, had in zip(guests, turns, strict=True)
    ):
        running(guests)
        time.sleep(LOOK_S)
    seconds = time.perf_counter() - start
    running(guests)
    return found, seconds
