"""Events, and the faults that come up while one is delivered (Intel SDM volume 3, chapter 6)."""

from dataclasses import dataclass
from enum import Enum, IntEnum

__all__ = ["Event", "Fault", "Kind", "Severity", "Vector", "after_second_fault", "severity"]


class Vector(IntEnum):
    """Exceptions by vector (table 6-1)."""

    DE = 0
    DB = 1
    NMI = 2
    BP = 3
    OF = 4
    BR = 5
    UD = 6
    NM = 7
    DF = 8
    TS = 10
    NP = 11
    SS = 12
    GP = 13
    PF = 14
    MF = 16
    AC = 17
    MC = 18
    XM = 19


FAULTS = frozenset(
    {Vector.DE, Vector.BR, Vector.UD, Vector.NM, Vector.TS, Vector.NP, Vector.SS, Vector.GP, Vector.PF}
    | {Vector.MF, Vector.AC, Vector.XM}
)
"""Exceptions that always restart the instruction; #DB may be either."""

ERROR_EXT = 1
"""Error code: the event came from outside the program (6.13)."""
ERROR_IDT = 2
"""Error code: the index is that of a gate in the IDT."""


class Kind(IntEnum):
    """Where an event comes from; the numbers are those of `enum event_kind` in the C core."""

    INTERRUPT = 0
    """External, maskable or not."""
    EXCEPTION = 1
    """Found by the processor."""
    SOFTWARE = 2
    """INT n, INT3, INTO: subject to the gate's DPL."""
    ICEBP = 3
    """INT1."""


@dataclass(frozen=True)
class Event:
    """An interrupt or exception to deliver.

    `error_code` is None where the vector has none. For `Kind.SOFTWARE` RIP is already behind the instruction,
    and `instruction` is where it began.
    """

    vector: int
    kind: Kind = Kind.EXCEPTION
    error_code: int | None = None
    instruction: int = 0

    @property
    def is_fault(self) -> bool:
        """Whether it is a fault-class exception, after which the instruction starts again."""
        return self.kind is Kind.EXCEPTION and self.vector in FAULTS

    @property
    def ext(self) -> int:
        """The EXT bit for error codes of exceptions that come up while this is delivered."""
        return 0 if self.kind is Kind.SOFTWARE else ERROR_EXT


class Fault(Exception):
    """An exception that delivery itself ran into. `address` goes to CR2 when it is a page fault."""

    def __init__(self, vector: Vector, error_code: int, address: int | None = None) -> None:
        super().__init__(f"#{vector.name}({error_code:#x})")
        self.event = Event(vector, Kind.EXCEPTION, error_code)
        self.address = address


class Severity(Enum):
    """The classes of table 6-4."""

    BENIGN = "benign"
    CONTRIBUTORY = "contributory"
    PAGE_FAULT = "page fault"
    DOUBLE_FAULT = "double fault"


def severity(event: Event) -> Severity:
    """The class of an event. Interrupts are benign whatever their vector."""
    if event.kind is not Kind.EXCEPTION:
        return Severity.BENIGN
    if event.vector == Vector.PF:
        return Severity.PAGE_FAULT
    if event.vector == Vector.DF:
        return Severity.DOUBLE_FAULT
    if event.vector in (Vector.DE, Vector.TS, Vector.NP, Vector.SS, Vector.GP):
        return Severity.CONTRIBUTORY
    return Severity.BENIGN


def after_second_fault(first: Event, second: Event) -> Event | None:
    """What is delivered when `second` came up while `first` was (table 6-5). None: shutdown."""
    pair = (severity(first), severity(second))
    if pair[0] is Severity.DOUBLE_FAULT:
        return None
    double = {
        (Severity.CONTRIBUTORY, Severity.CONTRIBUTORY),
        (Severity.PAGE_FAULT, Severity.CONTRIBUTORY),
        (Severity.PAGE_FAULT, Severity.PAGE_FAULT),
    }
    return Event(Vector.DF, Kind.EXCEPTION, 0) if pair in double else second
