"""Guests of a host in this process, as a source for the dashboard."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from emuvisor.errors import StateError, UsageError
from emuvisor.host import Guest, GuestState, Host
from emuvisor.machine.config import GuestConfig
from emuvisor.metrics import HostSample, take_sample

__all__ = ["LocalSource"]

CONSOLE_TAIL = 32 * 1024
"""Characters of a console that are shown at most."""
MAX_WARNINGS = 100


class LocalSource:
    """Makes guests on `host` by `configs`; `start` starts them.

    A guest that ends stays, switched off, for people to look at. One whose `timeout_s` is over is stopped. `clock` says
    the time in seconds. Raises what Host.create raises.
    """

    def __init__(
        self, host: Host, configs: Sequence[GuestConfig], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._host = host
        self._clock = clock
        self._started = clock()
        self._warnings: deque[str] = deque(maxlen=MAX_WARNINGS)
        host.warnings.append(self._warnings.append)
        self._guests = [host.create(config) for config in configs]

    def start(self) -> None:
        """Switch the guests on. Raises ImageError, OutOfFrames and the like."""
        self._started = self._clock()
        for guest in self._guests:
            guest.start()

    @property
    def ended(self) -> bool:
        """Every guest has ended."""
        return all(
            guest.outcome is not None or guest.state not in (GuestState.RUNNING, GuestState.PAUSED)
            for guest in self._guests
        )

    def sample(self) -> HostSample:
        """All counters now."""
        self.stop_late_ones()
        return take_sample(self._host)

    def stop_late_ones(self) -> None:
        """Switch off those whose time is over."""
        seconds = self._clock() - self._started
        for guest in self._guests:
            timeout_s = guest.config.timeout_s
            if timeout_s is None or seconds < timeout_s or guest.state is not GuestState.RUNNING:
                continue
            with suppress(StateError):  # it has just ended
                guest.stop()
            self._warnings.append(f"{guest.name}: switched off: no end after {timeout_s:g} s")

    def warnings(self) -> list[str]:
        """What people should see to, since this was asked the last time."""
        return [self._warnings.popleft() for _ in range(len(self._warnings))]

    def console(self, name: str) -> str:
        """The last part of what the guest printed on its first serial port; nothing when it has none."""
        guest = self._guest(name)
        return guest.console.text[-CONSOLE_TAIL:] if guest.machine.consoles else ""

    def type(self, name: str, data: bytes) -> None:
        """Type `data` on its first serial port."""
        guest = self._guest(name)
        if not guest.machine.consoles:
            raise UsageError(f"guest {name!r} has no serial port")
        guest.type(data)

    def pause(self, name: str) -> None:
        """Stop the guest where it is."""
        self._guest(name).pause()

    def resume(self, name: str) -> None:
        """Let a paused guest go on."""
        self._guest(name).resume()

    def set_weight(self, name: str, weight: int) -> None:
        """Change its share of the processors against other guests."""
        self._guest(name).set_cpu(weight=weight)

    def set_cap(self, name: str, cap: float) -> None:
        """Change the percent of a pCPU that it never passes; 100 is no cap."""
        self._guest(name).set_cpu(cap=cap)

    def screenshot(self, name: str) -> bytes:
        """Its screen as a PNG file."""
        return self._guest(name).screen().png()

    def _guest(self, name: str) -> Guest:
        guest = self._host.guests.get(name)
        if guest is None:
            raise UsageError(f"there is no guest {name!r} any more")
        return guest
