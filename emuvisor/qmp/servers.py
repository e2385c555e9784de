"""A QMP socket for each guest of a manager that is on."""

import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from emuvisor.errors import EmuvisorError, HostError, UsageError
from emuvisor.host import GuestState
from emuvisor.manager import Manager
from emuvisor.manager.records import EventRecord
from emuvisor.qmp.managed import ManagedGuest
from emuvisor.qmp.server import QmpServer

__all__ = ["QmpServers"]

SERVED = (GuestState.RUNNING, GuestState.PAUSED, GuestState.CRASHED)
"""As with QEMU, whose socket is there for as long as its process."""
FOLDER_MODE = 0o700


class QmpServers:
    """Serves each guest of `manager` that is on at the Unix socket NAME.qmp in `folder`, which is made when it is not
    there. A context manager; it has to be closed before the manager is.

    Where a socket cannot be made, the host warns. Raises HostError for a folder that cannot be made.
    """

    def __init__(self, manager: Manager, folder: Path) -> None:
        self._manager = manager
        self._folder = folder
        self._servers: dict[str, QmpServer] = {}
        self._events: queue.Queue[str | None] = queue.Queue()
        """Guests whose state has changed. Not served by the manager's thread: a server that closes waits for the
        commands that are being carried out, and these may wait for that thread."""
        try:
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        except OSError as error:
            raise HostError(f"{folder}: cannot be made: {error.strerror}") from None
        manager.listeners.append(self._heard)
        for info in manager.guests():
            self._events.put(info.name)
        self._thread = threading.Thread(target=self._run, name="qmp sockets", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop all clients and stop listening."""
        if self._heard in self._manager.listeners:
            self._manager.listeners.remove(self._heard)
            self._events.put(None)
            self._thread.join()

    def settle(self) -> None:
        """Return when all that the manager has told until now is done."""
        self._events.join()

    def _heard(self, event: EventRecord) -> None:
        self._events.put(event.guest)

    def _run(self) -> None:
        while (name := self._events.get()) is not None:
            self._look_at(name)
            self._events.task_done()
        for server in self._servers.values():
            server.close()

    def _look_at(self, name: str) -> None:
        try:
            served = self._manager.state(name) in SERVED
        except UsageError:  # it is deleted, or is called otherwise now
            served = False
        if not served:
            server = self._servers.pop(name, None)
            if server is not None:
                server.close()
        elif name not in self._servers:
            try:
                self._servers[name] = QmpServer(
                    ManagedGuest(self._manager, name), f"unix:{self._folder / f'{name}.qmp'}"
                )
            except EmuvisorError as error:
                self._manager.host.warn(str(error))
