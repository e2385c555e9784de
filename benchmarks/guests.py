"""emuvisor's guests: as a process of their own, and inside this process for what needs a finer clock."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import BenchmarkError, Context, Settings
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.machine.choices import BoardName, ClockMode
from emuvisor.machine.config import GuestConfig, KernelConfig
from emuvisor.machine.loaders.linux import Decompressor
from emuvisor.machine.machine import Machine, Readiness
from emuvisor.memory import FramePool
from emuvisor.units import MIB

__all__ = [
    "NAME",
    "EmuvisorProcess",
    "debian_config",
    "has_image",
    "machine",
    "program",
    "program_for",
    "run_until",
]

NAME = "emuvisor"
STEP_WORK = 2_000_000
"""Bytes of guest code between two looks at what a guest inside this process has printed."""


def has_image(context: Context, what: str) -> bool:
    """Whether the Debian image can be booted; a notice that `what` is skipped when it cannot."""
    if context.settings.image is None:
        context.notice(f"{what} is skipped: no Debian image; run `emuvisor images pull debian`")
        return False
    return True


def program(name: str, *arguments: str) -> list[str]:
    """The command line of a program in benchmarks/programs."""
    return [sys.executable, "-m", f"benchmarks.programs.{name}", *arguments]


def program_for(configuration: Mapping[str, Any]) -> list[str]:
    """The command line that runs the guest of `configuration`, its console on standard input and output."""
    return program("console", json.dumps(configuration))


@dataclass(frozen=True, slots=True)
class EmuvisorProcess:
    """A Python process that runs the image in emuvisor, its console on standard input and output.

    `disk` is a raw image on the first IDE channel; `devices` are further keys of the configuration.
    """

    settings: Settings
    board: BoardName = "pc"
    clock: ClockMode = "host"
    decompressor: Decompressor = "host"
    disk: Path | None = None
    devices: Mapping[str, Any] = field(default_factory=dict)
    name: str = field(default=NAME)

    def configuration(self) -> dict[str, Any]:
        """The guest's, as in a TOML file."""
        image = self.settings.image
        assert image is not None
        return {
            "board": self.board,
            "memory": self.settings.memory_mib * MIB,
            "clock": self.clock,
            "kernel": {
                "path": str(image.kernel),
                "initrd": str(image.initrd),
                "append": f"{image.append} {self.settings.append}".strip(),
                "decompressor": self.decompressor,
            },
            "disks": [{"path": str(self.disk)}] if self.disk else [],
            **self.devices,
        }

    def argv(self) -> list[str]:
        """The whole command line."""
        return program_for(self.configuration())


def debian_config(settings: Settings, name: str = "guest", clock: ClockMode = "virtual") -> GuestConfig:
    """The Debian image as a guest."""
    image = settings.image
    assert image is not None
    assert image.kernel is not None
    return GuestConfig(
        name=name,
        board="pc",
        memory=settings.memory_mib * MIB,
        clock=clock,
        kernel=KernelConfig(image.kernel, image.initrd, f"{image.append} {settings.append}".strip()),
    )


@contextmanager
def machine(config: GuestConfig, pool: FramePool) -> Iterator[Machine]:
    """A booted machine inside this process, without a host around it."""
    built = Machine(config, pool)
    try:
        built.boot()
        yield built
    finally:
        built.close()


def run_until(guest: Machine, pcpu: Pcpu, text: str, send: str = "", timeout_s: float = 60) -> None:
    """Type `send` and run the guest until it prints `text`. Raises BenchmarkError when it does not."""
    seen: list[bool] = []
    watch = guest.console.watch(text, lambda: seen.append(True))
    guest.console.feed(send.encode())
    end = time.perf_counter() + timeout_s
    while not seen:
        ended = guest.run_slice(pcpu, STEP_WORK).readiness is Readiness.ENDED
        if ended or time.perf_counter() > end:
            guest.console.unwatch(watch)
            why = f"it ended: {guest.outcome}" if ended else f"not within {timeout_s:g} s"
            raise BenchmarkError(
                f"no {text!r} from {guest.config.name}: {why}; it printed {guest.console.text[-400:]!r}"
            )
