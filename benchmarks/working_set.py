"""The guest programs/workingset.c, several of them on one host, and how fast they get through their memory."""

import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.guest_programs import COMPILER, SOURCES
from benchmarks.harness import BenchmarkError
from emuvisor.errors import StateError
from emuvisor.host import Guest, GuestState, Host
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.machine import Machine
from emuvisor.units import PAGE_SIZE

__all__ = ["OWN_PAGES", "Crowd", "Member", "Meter", "compile_guest", "guest_config"]

NAME = "workingset"
FLAGS = (
    *("-O2", "-ffreestanding", "-nostdlib", "-static", "-no-pie", "-fno-pie", "-fno-stack-protector"),
    *("-mgeneral-regs-only", "-fno-tree-loop-distribute-patterns", "-fcf-protection=none"),
    *("-Wl,--build-id=none", "-Wl,--oformat=binary"),
)
ADDRESS = 0x100000
PARAMETERS = slice(16, 32)
"""In the image: the number of pages, and the guest's."""
DATA_ADDRESS = 0x140000
OWN_PAGES = 64
"""At most so many the guest has besides: code, stack, page tables, what boards and loaders put into low memory."""
METER_PORT = 0xED0
STALL_S = 2.0
"""Guests that have not done anything for so long do not fit."""
LOOK_S = 0.02


def compile_guest(folder: Path) -> bytes:
    """The program, for ADDRESS. Raises BenchmarkError when it cannot be compiled."""
    image = folder / NAME
    script = f"-Wl,-T,{SOURCES / 'flat.ld'}"
    command = [COMPILER, *FLAGS, script, "-o", str(image), str(SOURCES / f"{NAME}.c")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BenchmarkError(f"{NAME}.c cannot be compiled: {result.stderr.strip()}")
    return image.read_bytes()


class Meter:
    """What a guest says of itself: pages visited, visits that found something else than was put there, and that all its
    pages are filled."""

    name = "meter"
    VISITS, WRONG, FILLED = 0, 4, 8
    LENGTH = 12

    def __init__(self) -> None:
        self.visits = 0
        self.wrong = 0
        self.filled = False

    @classmethod
    def of(cls, machine: Machine) -> Self:
        """A meter for the guest of `machine`, which does not run yet."""
        meter = cls()
        machine.board.ports.attach(METER_PORT, cls.LENGTH, meter, width=4)
        return meter

    def read(self, offset: int, size: int) -> int:
        """Nothing is to be read."""
        return 0

    def write(self, offset: int, value: int, size: int) -> None:
        """Add to what `offset` counts."""
        if offset == self.VISITS:
            self.visits += value
        elif offset == self.WRONG:
            self.wrong += value
        else:
            self.filled = True

    def reset(self) -> None:
        """Nothing is forgotten."""


def guest_config(
    image: bytes, folder: Path, pages: int, number: int = 0, *, reserved: bool = False
) -> GuestConfig:
    """Guest number such, that works on `pages` pages of its memory; its image goes into `folder`."""
    memory = DATA_ADDRESS + pages * PAGE_SIZE
    own = bytearray(image)
    own[PARAMETERS] = pages.to_bytes(8, "little") + number.to_bytes(8, "little")
    path = folder / f"guest{number}.bin"
    path.write_bytes(own)
    return GuestConfig(
        name=f"guest{number}",
        board="microvm",
        memory=memory,
        flat=FlatConfig(path, ADDRESS, "long64"),
        balloon=True,
        memory_reservation=memory if reserved else 0,
    )


@dataclass(frozen=True, slots=True)
class Member:
    """A guest of a crowd."""

    guest: Guest
    meter: Meter


class Crowd:
    """A host of `memory` bytes with guests that run `image`; use it as a context manager."""

    def __init__(
        self, image: bytes, folder: Path, memory: int, policy: MemoryPolicy, *, pcpus: int = 1
    ) -> None:
        self.host = Host(memory, pcpus=pcpus, memory_policy=policy)
        self._image = image
        self._folder = folder
        self.members: list[Member] = []
        """In the order in which they were added."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.host.close()

    def add(self, pages: int, *, reserved: bool = False) -> None:
        """One more guest that works on `pages` pages of its memory, all of it `reserved` or nothing; it does not run
        yet."""
        number = len(self.members)
        guest = self.host.create(guest_config(self._image, self._folder, pages, number, reserved=reserved))
        self.members.append(Member(guest, Meter.of(guest.machine)))

    def fill(self) -> bool:
        """Start all guests and wait until they have filled their memory; False when they do not get so far."""
        for member in self.members:
            member.guest.start()
        best = -1
        since = time.monotonic()
        while not all(member.meter.filled for member in self.members):
            done = sum(member.guest.memory.frames_taken for member in self.members)
            if done > best:
                best, since = done, time.monotonic()
            if time.monotonic() - since > STALL_S:
                return False
            time.sleep(LOOK_S)
        return True

    def visits(self, seconds: float) -> list[float] | None:
        """Visits a second that each guest makes in the next `seconds`; None when one of them cannot go on.

        Raises BenchmarkError when a page was not what the guest had put there.
        """
        before = [member.meter.visits for member in self.members]
        start = time.perf_counter()
        time.sleep(seconds)
        after = [member.meter.visits for member in self.members]
        passed = time.perf_counter() - start
        for member in self.members:
            if member.meter.wrong:
                raise BenchmarkError(
                    f"{member.guest.name} read {member.meter.wrong} pages that were not what it wrote"
                )
            if member.guest.state is GuestState.CRASHED:
                raise BenchmarkError(f"{member.guest.name}: {member.guest.reason}")
        if any(member.guest.state is GuestState.PAUSED for member in self.members):
            return None
        return [(b - a) / passed for a, b in zip(before, after, strict=True)]

    def pause(self) -> None:
        """Stop all guests where they are."""
        for member in self.members:
            with suppress(StateError):  # for want of memory it is paused already
                member.guest.pause()
