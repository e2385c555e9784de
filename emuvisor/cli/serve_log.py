"""What `emuvisor serve` says on standard error: a line for each event, and on a terminal where it stands."""

import logging
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape

from emuvisor.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from emuvisor.manager import EventRecord, Manager

__all__ = ["ServeLog"]


class _Handler(logging.Handler):
    """Prints above the status line."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line, or a traceback."""
        try:
            self._console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)
        except Exception:
            self.handleError(record)


class ServeLog:
    """A context manager: inside, what is logged anywhere goes to standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._handler = _Handler(self._console)
        self._status = self._console.status("starting") if self._console.is_terminal else None
        self._logger = logging.getLogger("emuvisor")
        self._root = logging.getLogger()

    def __enter__(self) -> Self:
        self._root.addHandler(self._handler)
        self._logger.setLevel(logging.INFO)
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()
        self._root.removeHandler(self._handler)
        sys.stderr.flush()

    @property
    def has_status(self) -> bool:
        """Whether there is a line to be kept up to date."""
        return self._status is not None

    def say(self, text: str) -> None:
        """A line of its own."""
        self._logger.info("%s", text)

    def warn(self, text: str) -> None:
        """What people should see to."""
        self._logger.warning("warning: %s", text)

    def event(self, event: "EventRecord") -> None:
        """What happened to a guest."""
        reason = event.details.get("reason")
        self.say(f"{event.guest}: {event.kind}" + (f" ({reason})" if reason else ""))

    def show(self, manager: "Manager", where: Sequence[str]) -> None:
        """Bring the status line up to date."""
        if self._status is None:
            return
        guests = manager.guests()
        running = sum(guest.state == "running" for guest in guests)
        pool = manager.host.pool
        used = f"{format_size(pool.used * PAGE_SIZE)} of {format_size(pool.limit * PAGE_SIZE)}"
        self._status.update(
            escape(f"{len(guests)} guests, {running} running; {used} used; {', '.join(where)}; Ctrl-C ends")
        )

    def ending(self, text: str) -> None:
        """It takes a moment."""
        if self._status is not None:
            self._status.update(escape(text))
        else:
            self.say(text)
