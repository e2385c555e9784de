"""Why `Pcpu.run` came back."""

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["Access", "Exit", "ExitReason"]


class ExitReason(IntEnum):
    """By number as in the C core (pcpu.h)."""

    BUDGET = 0
    """The budget is spent, or a timer is due: the caller decides what is next."""
    HALT = 1
    """HLT, and no interrupt is deliverable."""
    PORT = 2
    """The handler of a port access called `leave`."""
    MMIO = 3
    """The handler of a memory-mapped access called `leave`."""
    SHUTDOWN = 4
    """Triple fault."""
    DEBUG = 5
    """A breakpoint or watchpoint of the host."""
    STOP = 6
    """Someone called `stop`."""
    MEMORY = 7
    """The host has no frame for the page that the guest wants; running again tries again."""
    ERROR = 8
    """The engine failed; the guest cannot go on."""
    PAUSE = 9
    """A loop around PAUSE has lasted for the vCPU's `pause_window`: it waits, perhaps for a sibling."""


@dataclass(frozen=True, slots=True)
class Access:
    """A port or memory-mapped access: `size` bytes at port or guest physical `address`."""

    address: int
    size: int
    write: bool
    value: int
    mmio: bool


@dataclass(frozen=True, slots=True)
class Exit:
    """A VM exit, with what belongs to its reason."""

    reason: ExitReason
    access: Access | None = None
    """PORT and MMIO."""
    address: int | None = None
    """DEBUG: the linear address of the breakpoint, or the watched guest physical address."""
    message: str = ""
    """ERROR: what the engine said."""
