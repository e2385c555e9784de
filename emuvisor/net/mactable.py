"""Which station is behind which port of a switch."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from emuvisor.units import NS_PER_S

__all__ = ["AGE_NS", "LEARNED_PER_PORT", "MacTable"]

AGE_NS = 300 * NS_PER_S
"""How long a learned station is remembered after its last frame (IEEE 802.1Q, table 8-8)."""
LEARNED_PER_PORT = 256
"""Stations learned behind one port. A guest that invents addresses loses its own oldest, nobody else's."""

PortT = TypeVar("PortT")


class MacTable(Generic[PortT]):
    """Static entries, at least one for each port, and learned ones. Thread-safe.

    A static entry is never learned over. `now_ns` is a clock that does not go backwards.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._static: dict[bytes, PortT] = {}
        self._learned: dict[bytes, tuple[PortT, int]] = {}
        self._behind: dict[PortT, OrderedDict[bytes, None]] = {}
        """The ports that are there, with their learned stations: the one that has been silent for longest first."""

    def __len__(self) -> int:
        return len(self._static) + len(self._learned)

    def add(self, mac: bytes, port: PortT) -> None:
        """`mac` is always behind `port`."""
        with self._lock:
            self._unlearn(mac)
            self._static[mac] = port
            self._behind.setdefault(port, OrderedDict())

    def remove(self, port: PortT) -> None:
        """Forget everything about `port`."""
        with self._lock:
            self._static = {mac: owner for mac, owner in self._static.items() if owner is not port}
            for mac in self._behind.pop(port, ()):
                del self._learned[mac]

    def learn(self, mac: bytes, port: PortT) -> None:
        """A frame from `mac` came in through `port`. Group addresses and others' own are not learned."""
        if mac[0] & 1 or mac in self._static:
            return
        with self._lock:
            behind = self._behind.get(port)
            if mac in self._static or behind is None:
                return
            known = self._learned.get(mac)
            if known is not None and known[0] is not port:
                self._unlearn(mac)  # the station has moved
            behind[mac] = None
            behind.move_to_end(mac)
            self._learned[mac] = (port, self._now_ns() + AGE_NS)
            if len(behind) > LEARNED_PER_PORT:
                self._unlearn(next(iter(behind)))

    def lookup(self, mac: bytes) -> PortT | None:
        """The port that `mac` is behind; None if that is not known."""
        port = self._static.get(mac)
        if port is not None:
            return port
        known = self._learned.get(mac)
        if known is None:
            return None
        port, until_ns = known
        if self._now_ns() < until_ns:
            return port
        with self._lock:
            if self._learned.get(mac) == known:
                self._unlearn(mac)
        return None

    def _unlearn(self, mac: bytes) -> None:
        known = self._learned.pop(mac, None)
        if known is not None:
            del self._behind[known[0]][mac]
