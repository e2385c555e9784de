"""What people choose about a host's memory."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from emuvisor.errors import UsageError
from emuvisor.host.memory.entitlement import DEFAULT_TAX
from emuvisor.host.memory.rungs import Rung, default_rungs
from emuvisor.host.memory.use import check_tax
from emuvisor.units import KIB, PAGE_SIZE, format_size

__all__ = ["MIN_COMPRESSION", "MemoryPolicy"]

MIN_COMPRESSION = 64 * KIB
"""With less the index takes more than is gained."""
MIN_PERIOD_S, MAX_PERIOD_S = 0.001, 60.0


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    """How a host deals with guests that want more memory than there is. Raises UsageError for impossible values.

    The defaults share, ask balloons and compress when frames become short; they swap when `swap` names a file. Guests
    on the virtual clock repeat exactly: what is shared, compressed or swapped changes nothing for them, a balloon does,
    and is left alone unless `balloon_virtual_clock` says otherwise.
    """

    rungs: tuple[Rung, ...] = field(default_factory=default_rungs)
    """The ladder, in order."""
    overcommit: float | None = None
    """How many times the pool all guests' sizes may be together; None: any number of times."""
    swap: Path | None = None
    """The swap file: made with the host, removed with it."""
    swap_limit: int | None = None
    """Bytes of the swap file; None is four times the pool."""
    compression_limit: int | None = None
    """Bytes of host memory, beside the pool, for compressed pages; None is a fifth of the pool, 0 none."""
    compression: Literal["lz4", "zstd"] = "lz4"
    tenants: Mapping[str, str] = field(default_factory=dict)
    """Guests by name, and whose they are: those of different tenants share zeros only. The others' tenant is ""."""
    balloon_virtual_clock: bool = False
    period_s: float = 0.1
    """Seconds between two plans while frames are short."""
    sampling_s: float = 1.0
    """Seconds between two samples of the pages that guests use."""
    tax: float = DEFAULT_TAX
    """The idle-memory tax, 0 to below 1."""
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if self.overcommit is not None and not self.overcommit > 0:
            raise UsageError(f"an overcommit ratio of {self.overcommit} is impossible; it is more than 0")
        check_tax(self.tax)
        for name in ("period_s", "sampling_s"):
            if not MIN_PERIOD_S <= getattr(self, name) <= MAX_PERIOD_S:
                raise UsageError(
                    f"{name} = {getattr(self, name)} is impossible; it is {MIN_PERIOD_S} to {MAX_PERIOD_S:g}"
                )
        if self.swap_limit is not None and self.swap_limit < PAGE_SIZE:
            raise UsageError(f"a swap file of {self.swap_limit} bytes is impossible; it has 4 KiB at least")
        limit = self.compression_limit
        if limit is not None and limit != 0 and limit < MIN_COMPRESSION:
            raise UsageError(
                f"{limit} bytes for compressed pages are impossible; "
                f"it is 0, or {format_size(MIN_COMPRESSION)} at least"
            )
