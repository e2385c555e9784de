"""A guest's console, full screen: it gets every key but Ctrl-A, which works as in `emuvisor run`."""

import asyncio
from functools import partial

from rich.text import Text
from textual.app import ComposeResult
from textual.events import Key, Paste, Resize
from textual.screen import Screen
from textual.widgets import Static

from emuvisor.errors import EmuvisorError
from emuvisor.tui.console_text import console_lines
from emuvisor.tui.keys import key_bytes
from emuvisor.tui.plain import plain
from emuvisor.tui.source import Source

__all__ = ["ConsoleScreen"]

REFRESH_S = 0.1
COMMAND_KEY = "ctrl+a"
CURSOR = "reverse"


class ConsoleScreen(Screen[None], inherit_bindings=False):
    """Shows the console of the guest `name` and types to it."""

    DEFAULT_CSS = """
    ConsoleScreen #title { height: 1; background: $primary; color: $text; }
    ConsoleScreen #text { height: 1fr; }
    """

    def __init__(self, source: Source, name: str) -> None:
        super().__init__()
        self._source = source
        self._guest = name
        self._command = False
        """Ctrl-A was pressed."""
        self._heading = Static(id="title", markup=False)
        self._text = Static(id="text", markup=False)

    def compose(self) -> ComposeResult:
        """A title and the text."""
        yield self._heading
        yield self._text

    def on_mount(self) -> None:
        """Shown."""
        self._say("")
        self.refresh_text()
        self.set_interval(REFRESH_S, self.refresh_text)

    def on_resize(self, _event: Resize) -> None:
        """The terminal has another size."""
        self.refresh_text()

    def refresh_text(self) -> None:
        """Show what the guest has printed until now, and the cursor behind it."""
        width, height = self._text.size
        if not (width and height):
            return  # not laid out yet
        try:
            text = self._source.console(self._guest)
        except EmuvisorError as error:
            self._say(str(error))
            return
        shown = Text("\n".join(console_lines(text, width, height)), no_wrap=True)
        shown.append(" ", CURSOR)
        self._text.update(shown)

    async def on_key(self, event: Key) -> None:
        """Every key is the guest's, but for Ctrl-A X (leave) and Ctrl-A Ctrl-A (one Ctrl-A)."""
        event.stop()
        event.prevent_default()
        if self._command:
            self._command = False
            self._say("")
            if event.key in ("x", "X"):
                self.dismiss()
            elif event.key == COMMAND_KEY:
                await self._type(key_bytes(event.key, event.character))
            return
        if event.key == COMMAND_KEY:
            self._command = True
            self._say("Ctrl-A: X leaves, Ctrl-A again is one for the guest")
            return
        await self._type(key_bytes(event.key, event.character))

    async def on_paste(self, event: Paste) -> None:
        """Text from the clipboard."""
        event.stop()
        await self._type(event.text.encode(errors="ignore"))

    async def _type(self, data: bytes) -> None:
        if not data:
            return
        try:
            await asyncio.to_thread(partial(self._source.type, self._guest, data))
        except EmuvisorError as error:
            self._say(str(error))
        self.refresh_text()

    def _say(self, text: str) -> None:
        """Show `text` in the title, or else what the title is."""
        self._heading.update(plain(text or f" {self._guest}: console   Ctrl-A X leaves"))
