"""What all sockets of a daemon have in common."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from emuvisor.daemon.exports import Exports
from emuvisor.daemon.faults import TooManyRequests
from emuvisor.daemon.hub import Hub
from emuvisor.daemon.limits import Limits
from emuvisor.daemon.operations import Operation, Operations
from emuvisor.manager import Manager

__all__ = ["Service", "Slots"]

logger = logging.getLogger(__name__)


class Slots:
    """At most `most` of `what` at a time. Any thread."""

    def __init__(self, what: str, most: int) -> None:
        self._what = what
        self._most = most
        self._free = threading.Semaphore(most)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Inside, one of them is taken. Raises TooManyRequests when there is none left."""
        if not self._free.acquire(blocking=False):
            raise TooManyRequests(f"there are {self._most} {self._what} already, which is the limit")
        try:
            yield
        finally:
            self._free.release()


class Service:
    """The guests of `manager`, within `limits`. Files of exported guests are in the folder `exports`."""

    def __init__(self, manager: Manager, exports: Path, limits: Limits | None = None) -> None:
        self.manager = manager
        self.limits = limits or Limits()
        self.exports = Exports(exports)
        self.started = time.time()
        self.closing = False
        """Streams and consoles end."""
        self.hub = Hub()
        """Rings for events of guests and changes of operations."""
        self.operations = Operations(self.limits.operations, self.limits.kept_operations, self.hub.ring)
        self.streams = Slots("streams of events", self.limits.streams)
        self.consoles = Slots("consoles", self.limits.consoles)
        self.console_threads = ThreadPoolExecutor(self.limits.consoles, "consoles")
        """Which wait for what guests print."""
        manager.listeners.append(self.hub.ring)

    @contextmanager
    def news(self) -> Iterator[asyncio.Event]:
        """An event of the running loop that is set when there is news of guests or operations."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        with self.hub.waking(lambda: loop.call_soon_threadsafe(event.set)):
            yield event

    async def wait(self, uid: str, timeout_s: float) -> Operation:
        """An operation as it is when it has ended, `timeout_s` have passed or the daemon ends. Raises NotFound."""
        with self.news() as news, suppress(TimeoutError):
            async with asyncio.timeout(min(timeout_s, self.limits.wait_s)):
                while self.operations.get(uid).state == "running" and not self.closing:
                    await news.wait()
                    news.clear()
        return self.operations.get(uid)

    def end_streams(self) -> None:
        """Streams of events and consoles end."""
        self.closing = True
        self.hub.ring()

    def close(self, timeout_s: float = 30.0) -> None:
        """End what has no end, begin no more operations, and wait for those that do something, `timeout_s` at
        most."""
        self.end_streams()
        if not self.operations.close(timeout_s):
            logger.warning("operations still run after %g s; they are left", timeout_s)
        self.manager.listeners.remove(self.hub.ring)
        self.console_threads.shutdown(wait=False)
