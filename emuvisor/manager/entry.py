"""What the manager knows of one guest."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from emuvisor.errors import StateError
from emuvisor.host import Guest
from emuvisor.host.disk_moving import DiskMove
from emuvisor.host.snapshots import Prefetch
from emuvisor.manager.console_log import ConsoleLog
from emuvisor.manager.consoles import Consoles
from emuvisor.manager.definitions import Definition
from emuvisor.manager.lives import Life
from emuvisor.migration import Source

__all__ = ["Entry"]


@dataclass(slots=True)
class Entry:
    """A guest by `name`; `guest` is the host's while it is switched on, or has crashed."""

    name: str
    life: Life
    """Where it is in its life, and why."""
    definition: Definition | None = None
    """As far as it has been read."""
    guest: Guest | None = None
    consoles: Consoles | None = None
    log: ConsoleLog | None = None
    prefetch: Prefetch | None = None
    """Brings the pages of a saved state from which it went on."""
    source: Source | None = None
    """Its last migration from here."""
    disk_move: DiskMove | None = None
    """A move of one of its disks that goes on."""
    disk_moving: threading.Lock = field(default_factory=threading.Lock)
    """Held until that has ended and is noted."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    """One operation at a time; taken before the guest's and the host's."""
    busy: str = ""
    """What goes on in the background, which must not be disturbed."""
    gone: bool = False
    """It was removed, or has another name."""

    def require_idle(self, verb: str) -> None:
        """Raises StateError when something goes on that `verb` would disturb."""
        if self.busy:
            raise StateError(f"guest {self.name!r}: {verb} has to wait until {self.busy}")

    @contextmanager
    def working(self, verb: str, until: str) -> Iterator[None]:
        """Around what takes long and is done without `lock`: `until` says how it ends. Raises StateError when something
        else goes on."""
        with self.lock:
            self.require_idle(verb)
            self.busy = until
        try:
            yield
        finally:
            with self.lock:
                self.busy = ""
