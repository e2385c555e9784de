"""What a guest was promised, and whether a host can promise it: admission control."""

from collections.abc import Mapping
from dataclasses import dataclass

from emuvisor.errors import AdmissionError, UsageError
from emuvisor.units import PAGE_SIZE, format_size

__all__ = ["DEFAULT_SHARES", "MAX_SHARES", "MemoryContract", "admit"]

DEFAULT_SHARES = 1000
MAX_SHARES = 1_000_000
MAX_PRIORITY = 100


@dataclass(frozen=True, slots=True)
class MemoryContract:
    """A guest's claim to memory. `size`, `reservation` and `limit` are bytes; a limit of None is the size.

    Raises UsageError for numbers that contradict each other.
    """

    size: int
    """What the guest sees as its RAM."""
    reservation: int = 0
    """Always backed: whatever others do, the guest can have this much of the host's memory."""
    limit: int | None = None
    """The guest never holds more of the host's memory than this, however much is free."""
    shares: int = DEFAULT_SHARES
    """Its weight against others when memory is short."""
    priority: int = 0
    """Guests of a lower priority give all they can before one of a higher priority gives anything."""

    def __post_init__(self) -> None:
        if self.size < PAGE_SIZE:
            raise UsageError(f"a guest of {self.size} bytes is impossible; it has at least one page of 4 KiB")
        if not 0 <= self.reservation <= self.size:
            raise UsageError(
                f"a reservation of {_size(self.reservation)} is impossible; the guest has {_size(self.size)}"
            )
        if self.limit is not None and self.limit < max(self.reservation, PAGE_SIZE):
            raise UsageError(
                f"a limit of {_size(self.limit)} is impossible; it is at least the reservation of "
                f"{_size(self.reservation)} and one page of 4 KiB"
            )
        if not 1 <= self.shares <= MAX_SHARES:
            raise UsageError(f"{self.shares} shares are impossible; a guest has 1 to {MAX_SHARES}")
        if not -MAX_PRIORITY <= self.priority <= MAX_PRIORITY:
            raise UsageError(
                f"a priority of {self.priority} is impossible; it is {-MAX_PRIORITY} to {MAX_PRIORITY}"
            )

    @property
    def frames(self) -> int:
        """The size in frames."""
        return self.size // PAGE_SIZE

    @property
    def reserved_frames(self) -> int:
        """The reservation in whole frames."""
        return -(-self.reservation // PAGE_SIZE)

    @property
    def limit_frames(self) -> int | None:
        """The limit in whole frames; None when there is none."""
        return None if self.limit is None else max(self.limit // PAGE_SIZE, self.reserved_frames)


def _size(size: int) -> str:
    """A size in messages; people may write a negative one."""
    return format_size(size) if size >= 0 else f"{size} bytes"


def admit(
    name: str,
    contract: MemoryContract,
    others: Mapping[str, MemoryContract],
    pool_frames: int,
    overcommit: float | None = None,
) -> None:
    """Check that a host of `pool_frames` can promise `contract` to guest `name` beside `others`.

    All reservations together fit the pool; all sizes together are at most `overcommit` times the pool (None: any
    amount). A change of a running guest's contract is checked the same way. Raises AdmissionError with the arithmetic.
    """
    pool = pool_frames * PAGE_SIZE
    beside = [other for guest, other in others.items() if guest != name]
    reserved = sum(other.reserved_frames for other in beside)
    if contract.reserved_frames > pool_frames - reserved:
        raise AdmissionError(
            f"guest {name!r}: a reservation of {format_size(contract.reservation)} cannot be promised: "
            f"{format_size(reserved * PAGE_SIZE)} of the host's {format_size(pool)} are reserved by "
            f"{_guests(len(beside))}, {format_size((pool_frames - reserved) * PAGE_SIZE)} are left"
        )
    if overcommit is None:
        return
    sizes = sum(other.size for other in beside)
    allowed = int(pool * overcommit)
    if sizes + contract.size > allowed:
        raise AdmissionError(
            f"guest {name!r}: a size of {format_size(contract.size)} is too much: {_guests(len(beside))} have "
            f"{format_size(sizes)}, and the host's {format_size(pool)} may be overcommitted {overcommit:g} times, "
            f"to {format_size(allowed)}; {format_size(max(0, allowed - sizes))} are left"
        )


def _guests(count: int) -> str:
    return "1 guest" if count == 1 else f"{count} guests"
