"""Limits of disks and network cards: token buckets for bytes and for operations, by direction.

`Rate` is one limit; `DiskLimits` and `NicLimits` are all those of a device; a `Throttle` holds their buckets and says
when a request may go on. Time is an argument, the guest's own: nobody sleeps, and a guest on the virtual clock repeats
exactly. Docs: docs/disks.md, with the words of libvirt and Firecracker for the same things.
"""

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, cast

from emuvisor.bus.bucket import TokenBucket
from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Number
from emuvisor.errors import SnapshotError, UsageError
from emuvisor.units import NS_PER_S, parse_size

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["IN", "OUT", "READ", "WRITE", "DiskLimits", "Limits", "NicLimits", "Rate", "Share", "Throttle"]

READ, WRITE = 0, 1
"""Directions of a disk."""
IN, OUT = 0, 1
"""Directions of a network card, as the guest sees them."""

MAX_TOKENS = 1 << 50
BURST_PARTS = 10
"""Without a burst of its own a bucket holds what comes in a tenth of a second."""

_RATE_FORM = "RATE[:BURST[:ONCE]], such as 10M:64M"
_LEVEL = Number(maximum=2 * MAX_TOKENS * NS_PER_S, minimum=-MAX_TOKENS * NS_PER_S)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `per_second` in the long run, and `burst` at once after a pause; None is what comes in a tenth of a
    second. `once` may be used up on top of that a single time. Raises UsageError."""

    per_second: int
    burst: int | None = None
    once: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("a rate", self.per_second, 1),
            ("a burst", 1 if self.burst is None else self.burst, 1),
            ("a single burst", self.once, 0),
        ):
            if not least <= value <= MAX_TOKENS:
                raise UsageError(f"{name} of {value}; {least} to {MAX_TOKENS} is allowed")

    @classmethod
    def parse(cls, text: str) -> Self:
        """A rate as people write it: "10M", "10M:64M", "100:500:10000". Raises UsageError."""
        parts = text.split(":")
        if len(parts) > 3:
            raise UsageError(f"{text!r} is not {_RATE_FORM}")
        try:
            return cls(*map(parse_size, parts))
        except UsageError as error:
            raise UsageError(f"{text!r} is not {_RATE_FORM}: {error}") from None

    @classmethod
    def of(cls, value: "Rate | int | str | None") -> "Rate | None":
        """A rate from any form of it. Raises UsageError."""
        if value is None or isinstance(value, Rate):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        if type(value) is not int:  # a truth value is no number
            raise UsageError(f'{value!r} is not a rate, such as 1000 or "10M:64M"')
        return cls(value)

    @property
    def capacity(self) -> int:
        """What a full bucket holds."""
        return max(1, self.per_second // BURST_PARTS) if self.burst is None else self.burst


class Limits:
    """All limits of a device: a frozen dataclass of rates and None, named after direction and unit."""

    __slots__ = ()
    DIRECTIONS: ClassVar[tuple[str, ...]]

    def changed(self, changes: Mapping[str, Rate | int | str | None]) -> Self:
        """The same with some of them replaced; None lifts one. Raises UsageError for a name that there is not."""
        known = [f.name for f in _fields(self)]
        for name in changes:
            if name not in known:
                raise UsageError(f"there is no limit {name!r}; there are: {', '.join(known)}")
        rates: dict[str, Any] = {name: getattr(self, name) for name in known}
        return type(self)(**rates | {name: Rate.of(value) for name, value in changes.items()})


def _fields(limits: Limits) -> "tuple[Field[Any], ...]":
    return fields(cast("DataclassInstance", limits))


@dataclass(frozen=True, slots=True)
class DiskLimits(Limits):
    """What a disk may do in a second. "total" counts both directions together."""

    DIRECTIONS: ClassVar[tuple[str, ...]] = ("read", "write")

    total_bytes: Rate | None = None
    read_bytes: Rate | None = None
    write_bytes: Rate | None = None
    total_iops: Rate | None = None
    read_iops: Rate | None = None
    write_iops: Rate | None = None


@dataclass(frozen=True, slots=True)
class NicLimits(Limits):
    """What may come into the guest and go out of it in a second."""

    DIRECTIONS: ClassVar[tuple[str, ...]] = ("in", "out")

    in_bytes: Rate | None = None
    out_bytes: Rate | None = None
    in_packets: Rate | None = None
    out_packets: Rate | None = None


class Share(Protocol):
    """A device's share of what it has in common with other guests' devices."""

    def delay_ns(self, size: int, /) -> int:
        """0 when a request of `size` bytes may go on, which is then paid; or else in how many nanoseconds of the host
        to ask again."""
        ...


class Throttle:
    """The buckets of `limits`. A bucket begins full, and with its `once`.

    A request of more than a full bucket may go when the bucket is full, and the next ones pay its debt. Requests of
    one direction go in order; when `ordered`, those of both do: else small ones of one direction could for ever take
    what a large one of the other waits for.
    """

    def __init__(self, limits: Limits, now_ns: int = 0) -> None:
        self.on_change: list[Callable[[], None]] = []
        """Who holds requests back, and should ask again."""
        self._share: Share | None = None
        self._buckets: dict[str, TokenBucket] = {}
        self._set(limits, now_ns)

    def _set(self, limits: Limits, now_ns: int) -> None:
        self.limits = limits
        old, self._buckets = self._buckets, {}
        # For each direction, its buckets and whether they count bytes.
        self._gates: tuple[list[tuple[TokenBucket, bool]], ...] = tuple([] for _ in limits.DIRECTIONS)
        for f in _fields(limits):
            rate: Rate | None = getattr(limits, f.name)
            if rate is None:
                continue
            direction, _, unit = f.name.rpartition("_")
            burst = rate.capacity * NS_PER_S
            bucket = old.get(f.name)
            if bucket is None:
                bucket = TokenBucket(rate.per_second, burst, now_ns, burst + rate.once * NS_PER_S)
            else:
                bucket.change(rate.per_second, burst, now_ns)
            self._buckets[f.name] = bucket
            for gates, name in zip(self._gates, limits.DIRECTIONS, strict=True):
                if direction in (name, "total"):
                    gates.append((bucket, unit == "bytes"))
        self._note()

    def _note(self) -> None:
        self.active = bool(self._buckets) or self._share is not None
        """Whether there is anything to ask for."""
        self.ordered = self._share is not None or any(name.startswith("total") for name in self._buckets)
        """Whether the requests of both directions wait in one line."""

    def change(self, limits: Limits, now_ns: int) -> None:
        """Other limits from now on. The tokens that are there stay, up to the new bursts."""
        self._set(limits, now_ns)
        self._tell()

    @property
    def share(self) -> Share | None:
        """The share of a backend that requests need, too. Settable."""
        return self._share

    @share.setter
    def share(self, share: Share | None) -> None:
        self._share = share
        self._note()
        self._tell()

    def _tell(self) -> None:
        for hear in self.on_change:
            hear()

    # ---- requests ----

    def when(self, direction: int, size: int, now_ns: int) -> int:
        """When the buckets will have what a request of `size` bytes needs; `now_ns` if they have it."""
        until = now_ns
        for bucket, counts_bytes in self._gates[direction]:
            until = max(until, bucket.when((size if counts_bytes else 1) * NS_PER_S, now_ns))
        return until

    def take(self, direction: int, size: int, now_ns: int) -> None:
        """A request of `size` bytes goes on: take its tokens."""
        for bucket, counts_bytes in self._gates[direction]:
            bucket.take((size if counts_bytes else 1) * NS_PER_S, now_ns)

    def admit(self, direction: int, size: int, now_ns: int) -> int:
        """`now_ns` when a request of `size` bytes may go on, which is then paid; or else when to ask again."""
        until = self.when(direction, size, now_ns)
        if until > now_ns:
            return until
        if self._share is not None:
            delay = self._share.delay_ns(size)
            if delay:
                return now_ns + delay
        self.take(direction, size, now_ns)
        return now_ns

    # ---- saved state ----

    def save(self, now_ns: int) -> SavedState:
        """What is in the buckets, by limit, in billionths of a token."""
        return {name: int(bucket.level(now_ns)) for name, bucket in self._buckets.items()}

    def load(self, state: SavedState, device: str, now_ns: int) -> None:
        """Take over what `save` gave, as far as there are the same limits: which requests have to wait repeats with
        the guest. A limit that was set since keeps what is in its bucket. Raises SnapshotError."""
        for name, bucket in self._buckets.items():
            level = state.get(name, bucket.level(now_ns))
            if not _LEVEL.accepts(level):
                raise SnapshotError(f"{device}: saved limit {name!r} is {level!r}; expected {_LEVEL}")
            rate: Rate = getattr(self.limits, name)
            most = (rate.capacity + rate.once) * NS_PER_S
            bucket.put_back(min(level, most), now_ns)
