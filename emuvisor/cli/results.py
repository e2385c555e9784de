"""How a run ended, as an exit code and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from emuvisor.host.memory.statistics import GuestMemoryStatistics, HostMemoryStatistics
from emuvisor.host.statistics import GuestStatistics
from emuvisor.machine.outcome import Ending

__all__ = [
    "EXIT_CRASH",
    "EXIT_TIMEOUT",
    "Cut",
    "HostMemory",
    "Result",
    "document",
    "exit_code",
]

EXIT_TIMEOUT = 3
EXIT_CRASH = 4
_EXIT_MASK = 0xFF


class Cut(StrEnum):
    """Why the command line ended a guest that did not end by itself."""

    TIMEOUT = "timeout"
    NO_MEMORY = "no-memory"
    LEFT = "left"


_CRASHES = frozenset(
    {Ending.SHUTDOWN, Ending.ENGINE, Ending.HALTED, Ending.PANIC, Ending.PAGE_LOST, Cut.NO_MEMORY}
)


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Where the host's memory was when the last guest ended, and frames gained until then, by rung."""

    statistics: HostMemoryStatistics
    gained: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.statistics.as_dict(), "gained": self.gained}


@dataclass(frozen=True, slots=True)
class Result:
    """One guest's run. `seconds` are of wall time; `console` is the last part of what it printed."""

    name: str
    ending: Ending | Cut
    code: int
    message: str
    seconds: float
    statistics: GuestStatistics
    memory: GuestMemoryStatistics
    console: str

    @property
    def exit_code(self) -> int:
        """This guest's part of the command's exit code."""
        if self.ending in _CRASHES:
            return EXIT_CRASH
        if self.ending is Cut.TIMEOUT:
            return EXIT_TIMEOUT
        return self.code & _EXIT_MASK

    @property
    def complaint(self) -> str:
        """Why it did not end well, for people; empty when it did, or when the guest chose its code itself."""
        if self.exit_code == 0 or self.ending is Ending.DEBUG_EXIT:
            return ""
        return f"{self.ending}: {self.message}" if self.message else str(self.ending)


def exit_code(results: Sequence[Result]) -> int:
    """The command's exit code: a crash counts most, then a timeout, then the first debug-exit."""
    if any(result.ending in _CRASHES for result in results):
        return EXIT_CRASH
    if any(result.ending is Cut.TIMEOUT for result in results):
        return EXIT_TIMEOUT
    return next((result.exit_code for result in results if result.exit_code), 0)


def document(results: Sequence[Result], host: HostMemory) -> str:
    """The JSON document of a run."""
    guests = [
        {
            "name": result.name,
            "outcome": {"ending": result.ending, "code": result.code, "message": result.message},
            "seconds": round(result.seconds, 6),
            "statistics": result.statistics.as_dict(),
            "memory": result.memory.as_dict(),
            "console": result.console,
        }
        for result in results
    ]
    whole = {"exit_code": exit_code(results), "guests": guests, "host": {"memory": host.as_dict()}}
    return json.dumps(whole, indent=2)
