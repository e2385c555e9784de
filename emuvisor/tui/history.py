"""The last rates of a host and its guests, for sparklines."""

from collections import deque

from emuvisor.metrics import HostRates, HostSample, rates

__all__ = ["LOOKS", "History"]

LOOKS = 120
"""How many are kept."""


class History:
    """What has been sampled lately; `add` takes the next sample."""

    def __init__(self) -> None:
        self.now: HostRates | None = None
        """The latest rates."""
        self.host: deque[float] = deque(maxlen=LOOKS)
        """Percent of all pCPUs."""
        self.used: dict[str, deque[float]] = {}
        """By guest: percent of a pCPU."""
        self.ready: dict[str, deque[float]] = {}
        self._last: HostSample | None = None

    def add(self, sample: HostSample) -> HostRates:
        """The rates since the sample before. The first one says nothing yet and is not kept."""
        first = self._last is None
        self.now = rates(self._last, sample)
        self._last = sample
        names = {guest.name for guest in self.now.guests}
        for gone in self.used.keys() - names:
            del self.used[gone], self.ready[gone]
        for guest in self.now.guests:
            used = self.used.setdefault(guest.name, deque(maxlen=LOOKS))
            ready = self.ready.setdefault(guest.name, deque(maxlen=LOOKS))
            if not first:
                used.append(guest.cpu.used)
                ready.append(guest.cpu.ready)
        if not first:
            self.host.append(self.now.used)
        return self.now
