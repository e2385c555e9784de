"""What each kind of VM exit costs, by the firmware guest `vmexit`: a loop for each kind."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.figures import Goal
from benchmarks.guests import NAME, machine
from benchmarks.harness import BenchmarkError, Contender, Context, Task
from emuvisor import firmware
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.outcome import Ending
from emuvisor.memory import FramePool
from emuvisor.units import MIB

__all__ = ["Exits"]

GUEST = "vmexit"
KINDS = {
    1: "port out",
    2: "port in",
    3: "cpuid",
    4: "rdtsc",
    5: "MMIO read",
    6: "hlt and PIT interrupt",
    7: "page fault",
    8: "software interrupt from ring 3",
    9: "syscall from ring 3",
    10: "hlt and APIC timer interrupt",
}
"""By the number that the guest shows at the POST port; firmware/vmexit/README.md has a turn of each."""
GOALS = {kind: Goal(1.5) for kind in ("port out", "port in", "MMIO read")}

TURNS = 200_000
QUICK_TURNS = 20_000
TIMEOUT_S = 300
MEMORY = 16 * MIB

POST_PORT = 0x80
REGISTER_PORT = 0xED
REGISTER_GPA = 0xFED80000


class Register:
    """The smallest device: it holds what was written."""

    name = "register"

    def __init__(self) -> None:
        self.value = 0

    def read(self, offset: int, size: int) -> int:
        return self.value

    def write(self, offset: int, value: int, size: int) -> None:
        self.value = value

    def reset(self) -> None:
        self.value = 0


class Stopwatch(Register):
    """A POST port: a code starts the time of that kind, 0 ends it. `seconds` are by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[int, float] = {}
        self._start = 0.0

    def write(self, offset: int, value: int, size: int) -> None:
        now = time.perf_counter()
        if value:
            self.value, self._start = value, now
        elif self.value:
            self.seconds[self.value] = now - self._start


class Exits:
    """In this process, without a host around the machine: the exit, the device, and the way back."""

    name = "exits"
    measures = "microseconds of one exit of each kind: out of the guest, handled, and back in"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """One task, which gives a figure for each kind."""
        turns = QUICK_TURNS if context.settings.quick else TURNS
        context.note(
            f"{turns} turns a kind. Ports and MMIO reach a Python device that returns a number; cpuid "
            'answers are kept in the C core, hlt goes through the machine and its timer (clock="virtual", '
            "which skips the waiting), with the end of interrupt at the 8259 or, for the APIC's tick, its "
            "initial count and EOI by MMIO; rdtsc, page fault, interrupt and syscall stay in the C core "
            "and include the guest's handler and its way back."
        )
        with tempfile.TemporaryDirectory() as folder:
            image = Path(folder, f"{GUEST}.bin")
            image.write_bytes(firmware.image(GUEST))
            pool = FramePool(2 * MEMORY)
            yield [
                Task(
                    name="cost of an exit",
                    unit="us",
                    contenders=[Contender(NAME, partial(_measure, image, pool, Pcpu(pool), turns))],
                    goals=GOALS,
                )
            ]


def _measure(image: Path, pool: FramePool, pcpu: Pcpu, turns: int) -> dict[str, float]:
    flat = FlatConfig(image, firmware.FLAT_ADDRESS)
    config = GuestConfig(name=GUEST, board="pc", memory=MEMORY, flat=flat)
    with machine(config, pool) as guest:
        stopwatch = Stopwatch()
        ports = guest.board.ports
        post = ports.find(POST_PORT)
        assert post is not None
        ports.detach(post.device)
        ports.attach(POST_PORT, 1, stopwatch)
        ports.attach(REGISTER_PORT, 1, Register())
        guest.board.mmio.attach(REGISTER_GPA, 4, Register())
        guest.memory.write(firmware.PARAMETERS, turns.to_bytes(8, "little"))
        outcome = guest.run(pcpu, seconds=TIMEOUT_S)
        if outcome is None or outcome.ending is not Ending.POWER_OFF or set(stopwatch.seconds) != set(KINDS):
            raise BenchmarkError(f"{GUEST} ended with {outcome}; it printed {guest.console.text!r}")
        return {KINDS[kind]: seconds / turns * 1e6 for kind, seconds in sorted(stopwatch.seconds.items())}
