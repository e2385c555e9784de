"""The live table of guests' memory, at the bottom of the terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from emuvisor.cli.memory_overview import Overview
from emuvisor.cli.memory_table import view
from emuvisor.cli.screen import Screen
from emuvisor.host import Host
from emuvisor.host.memory.decisions import Decision
from emuvisor.host.memory.recording import Sample
from emuvisor.host.memory.sampler import MemorySampler

__all__ = ["LiveView", "memory_table"]


class LiveView:
    """While it is entered, the last `update` stands at the bottom of `console` (standard output); what others print
    goes above it, and `write` puts bytes there. At the end the table is taken away."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=not self._console.stderr,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def update(self, overview: Overview) -> None:
        """Show what `overview` has now."""
        self._live.update(view(overview, self._console.width, live=True), refresh=True)

    def write(self, lines: bytes) -> None:
        """Put whole lines, in ANSI's colours, above the table."""
        text = Text.from_ansi(lines.decode(errors="replace").removesuffix("\n"))
        self._console.print(text, soft_wrap=True, highlight=False)


@contextmanager
def memory_table(host: Host, screen: Screen, console: Console | None = None) -> Iterator[None]:
    """Inside, the memory of `host` is shown live on `console` (standard output, or standard error where only that is a
    terminal), below what `screen` shows; afterwards, what it came to."""
    above = sys.stdout.isatty()
    console = console or Console(stderr=not above)
    overview = Overview()
    with LiveView(console) as live:

        def take(item: Sample | Decision) -> None:
            overview.add(item)
            if isinstance(item, Sample):
                with suppress(OSError):  # the terminal is gone: whoever prints there finds out
                    live.update(overview)

        if above:
            screen.elsewhere = live.write
        try:
            with MemorySampler(host, take):
                yield
        finally:
            screen.elsewhere = None
    console.print(view(overview, console.width, fullest=True))
