"""The consoles of a guest that is switched on: who looks at them, and its log."""

import threading
from collections.abc import Callable

from emuvisor.errors import UsageError
from emuvisor.host import Guest
from emuvisor.machine.console import Console
from emuvisor.manager.attachment import SCREENFUL, ConsoleAttachment
from emuvisor.manager.console_log import ConsoleLog, LogWriter

__all__ = ["Consoles"]


class _Hub:
    """Passes what one console prints on, to all who look at it."""

    def __init__(self, console: Console, hears: Callable[[bytes], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._hears = hears
        self._last = bytearray(console.text.encode()[-SCREENFUL:])
        self._attached: list[ConsoleAttachment] = []
        self._ended = False
        console.listeners.append(self._printed)

    def _printed(self, data: bytes) -> None:
        with self._lock:
            self._last += data
            del self._last[:-SCREENFUL]
            for attachment in self._attached:
                attachment.printed(data)
        if self._hears is not None:
            self._hears(data)

    def attach(self, send: Callable[[bytes], None]) -> ConsoleAttachment:
        with self._lock:
            attachment = ConsoleAttachment(bytes(self._last), send, self._detach)
            if self._ended:
                attachment.end()
            else:
                self._attached.append(attachment)
            return attachment

    def _detach(self, attachment: ConsoleAttachment) -> None:
        with self._lock:
            if attachment in self._attached:
                self._attached.remove(attachment)

    def end(self) -> None:
        with self._lock:
            self._ended = True
            for attachment in self._attached:
                attachment.end()
            self._attached.clear()


class Consoles:
    """Those of `guest`, from before it runs until `end`; what its first serial port prints goes to `log`."""

    def __init__(self, guest: Guest, log: ConsoleLog, writer: LogWriter) -> None:
        self._guest = guest
        self._log = log
        self._writer = writer
        self._hubs: dict[str | None, _Hub] = {}
        """By port; the first serial port is None."""
        if guest.machine.consoles:
            self._hubs[None] = _Hub(guest.console, log.printed)
        for name in guest.config.console_ports:
            self._hubs[name] = _Hub(guest.port(name))
        writer.add(log)

    def attach(self, port: str | None) -> ConsoleAttachment:
        """Look at a port and type on it. Raises UsageError when it has none such."""
        hub = self._hubs.get(port)
        if hub is None:
            name = self._guest.name
            if port is None:
                raise UsageError(f"guest {name!r} has no serial port")
            known = ", ".join(self._guest.config.console_ports) or "none"
            raise UsageError(f"guest {name!r}: there is no console port {port!r}; there are: {known}")
        return hub.attach(lambda data: self._guest.type(data, port))

    def end(self) -> None:
        """The guest is off: attachments end, and the log is on the disk."""
        for hub in self._hubs.values():
            hub.end()
        self._writer.remove(self._log)
