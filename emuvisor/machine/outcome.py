"""How a guest's run ended."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Ending", "Outcome"]


class Ending(StrEnum):
    """Why a guest does not run any more."""

    POWER_OFF = "power-off"
    """It switched itself off."""
    DEBUG_EXIT = "debug-exit"
    """It wrote to the debug-exit port; `code` is the exit status."""
    UNTIL = "until"
    """The text that the run was waiting for has been printed."""
    HALTED = "halted"
    """It executed HLT with interrupts disabled: nothing can wake it."""
    SHUTDOWN = "triple-fault"
    """A fault while delivering a double fault."""
    PANIC = "guest-panic"
    """Its kernel said by pvpanic that it has crashed."""
    ENGINE = "engine-error"
    """The engine could not go on with it."""
    PAGE_LOST = "page-lost"
    """A page of its memory that the host had put elsewhere could not be brought back."""
    STOPPED = "stopped"
    """The host stopped it."""


CRASHES = frozenset({Ending.SHUTDOWN, Ending.ENGINE, Ending.PANIC, Ending.PAGE_LOST})


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a run: why, and with which code or message."""

    ending: Ending
    code: int = 0
    message: str = ""

    @property
    def crashed(self) -> bool:
        """Whether the guest ended against its will."""
        return self.ending in CRASHES

    def __str__(self) -> str:
        text = str(self.ending)
        if self.ending is Ending.DEBUG_EXIT:
            text += f" {self.code}"
        return f"{text}: {self.message}" if self.message else text
