"""What people see of guests and type to them, and what happened."""

from collections.abc import Callable, Sequence

from emuvisor.errors import StateError, UsageError
from emuvisor.manager.attachment import ConsoleAttachment
from emuvisor.manager.core import ManagerCore
from emuvisor.manager.records import EventRecord, LogPart

__all__ = ["Access"]

MAX_KEYS = 1000


class Access(ManagerCore):
    """The part of the manager for consoles, logs, screens, keys and events."""

    @property
    def listeners(self) -> list[Callable[[EventRecord], None]]:
        """Called with every event, in order, in a thread of the manager's own; it is in the store then."""
        return self._journal.listeners

    @property
    def last_event(self) -> int:
        """The number of the newest event; 0 when there has been none."""
        return self._journal.last

    def events(self, after: int = 0, guest: str | None = None, limit: int = 1000) -> list[EventRecord]:
        """The first `limit` events behind number `after`, of all guests or of one; those of long ago are dropped."""
        return self._journal.events(after, guest, limit)

    def console(self, name: str, port: str | None = None) -> ConsoleAttachment:
        """Look at the first serial port of a guest and type on it, or at a port of its virtio console; it begins with
        the last screenful. Raises UsageError when there is no such guest or port, StateError when it is off."""
        guest, consoles = self.guest(name), self._entry(name).consoles
        if consoles is None:  # it ended just now
            raise StateError(f"guest {guest.name!r} is {guest.state}; console needs it running or paused")
        return consoles.attach(port)

    def logs(self, name: str, tail_bytes: int | None = None) -> bytes:
        """What the guest's first serial port printed, in all its lives, as far as it is kept; or the end of that.
        Raises UsageError when there is no such guest."""
        with self._locked(name) as entry:
            return self._log(entry).read(tail_bytes)

    def log_after(self, name: str, position: int) -> LogPart:
        """What its log has behind byte `position`, at most 1 MiB of it: to be called again with the position that
        comes back. Raises UsageError when there is no such guest."""
        with self._locked(name) as entry:
            return self._log(entry).after(position)

    def screenshot(self, name: str) -> bytes:
        """What its display shows, as PNG. Raises UsageError on a board without one, StateError when it is off."""
        return self.guest(name).screen().png()

    def send_keys(self, name: str, keys: Sequence[str]) -> None:
        """Press and release keys of its keyboard: "ret", "ctrl-alt-delete". Raises UsageError, StateError."""
        if len(keys) > MAX_KEYS:
            raise UsageError(f"{len(keys)} keys at once are too many; the limit is {MAX_KEYS}")
        self.guest(name).send_keys(*keys)
