"""The dashboard's main screen: its panels and its keys."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from emuvisor.errors import EmuvisorError, UsageError
from emuvisor.metrics import GuestRates
from emuvisor.tui import views
from emuvisor.tui.bars import short_size
from emuvisor.tui.console import ConsoleScreen
from emuvisor.tui.console_text import console_lines
from emuvisor.tui.dialogs import Question
from emuvisor.tui.history import History
from emuvisor.tui.pictures import keep_picture
from emuvisor.tui.plain import plain
from emuvisor.tui.source import Source

__all__ = ["Overview"]

PERIOD_S = 1.0
PANELS = ("cpu", "memory", "exits", "transfers")
TEXTS = ("header", "host", "heading", *PANELS, "tail", "footer")
KEYS = (
    ("p", "pause", "Pause"),
    ("r", "resume", "Resume"),
    ("w", "weight", "Weight"),
    ("c", "cap", "Cap"),
    ("o", "console", "Console"),
    ("s", "picture", "Screenshot"),
    ("q", "app.quit", "Quit"),
)


class _Panel(Vertical):
    """Tells `resized` when it has another size."""

    def __init__(self, resized: Callable[[], None], *, id: str, classes: str) -> None:
        super().__init__(id=id, classes=classes)
        self._resized = resized

    def on_resize(self, _event: Resize) -> None:
        self._resized()


class Overview(Screen[None], inherit_bindings=False):
    """Shows `source`, sampled every `period_s` seconds; None: only `look` samples. Screenshots go to `folder`."""

    DEFAULT_CSS = """
    Overview { background: $background; }
    Overview #header { height: 1; background: $primary; color: $text; text-style: bold; }
    Overview #host { height: 2; }
    Overview #heading { height: 1; margin: 1 0 0 0; padding: 0 1; }
    Overview #guests { height: auto; max-height: 30%; min-height: 1; border: none; padding: 0; background: $background;
              scrollbar-size-vertical: 1; overflow-x: hidden; }
    Overview #guests:focus { background-tint: $background 0%; }
    Overview #guests > .option-list--option { padding: 0 1; }
    Overview #guests > .option-list--option-highlighted { background: $primary-muted; color: $text; text-style: bold; }
    Overview #panels { height: 9; }
    Overview .panel { width: 1fr; height: 9; border: round $primary-darken-1; }
    Overview #panel-tail { height: 1fr; }
    Overview #footer { height: 1; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(key, action, label, show=False) for key, action, label in KEYS),
        Binding("ctrl+c", "app.quit", show=False),
    ]

    def __init__(self, source: Source, *, period_s: float | None = PERIOD_S, folder: Path = Path()) -> None:
        super().__init__()
        self._source = source
        self._period_s = period_s
        self._folder = folder
        self._history = History()
        self._names: list[str] = []
        """The guests in the list, from the top."""
        self._chosen: str | None = None
        self._printed = ""
        """What the chosen one printed."""
        self._looking = False
        # Kept, not looked up: a look may end when the app is about to, and some of them are gone.
        self._texts = {name: Static(id=name, markup=False) for name in TEXTS}
        self._panels = {
            name: _Panel(self._show, classes="panel", id=f"panel-{name}") for name in (*PANELS, "tail")
        }
        self._options = OptionList(id="guests", markup=False)

    # ---- what is there ----

    def compose(self) -> ComposeResult:
        """The panels."""
        yield from (self._texts[name] for name in ("header", "host", "heading"))
        yield self._options
        with Horizontal(id="panels"):
            for name in PANELS:
                with self._panels[name]:
                    yield self._texts[name]
        with self._panels["tail"]:
            yield self._texts["tail"]
        yield self._texts["footer"]

    def on_mount(self) -> None:
        """Shown: look once, and then again and again."""
        self._options.focus()
        self._say("")
        self._look_aside()
        if self._period_s is not None:
            self.set_interval(self._period_s, self._look_aside)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Another guest is looked at."""
        if event.option_index < len(self._names) and self._names[event.option_index] != self._chosen:
            self._chosen = self._names[event.option_index]
            self._say("")
            self.run_worker(self._look_at_console())

    def on_option_list_option_selected(self, _event: OptionList.OptionSelected) -> None:
        """Enter, or a second click."""
        self.action_console()

    # ---- sampling ----

    def _look_aside(self) -> None:
        if not self._looking:  # a host that takes its time is not asked twice
            self.run_worker(self.look())

    async def look(self) -> None:
        """Take a sample and show it."""
        self._looking = True
        try:
            sample = await asyncio.to_thread(self._source.sample)
        except EmuvisorError as error:
            self._say(str(error))
            return
        finally:
            self._looking = False
        now = self._history.add(sample)
        self._list([guest.name for guest in now.guests])
        for warning in self._source.warnings():
            self._say(warning)
        await self._look_at_console()

    async def _look_at_console(self) -> None:
        name = self._chosen
        self._printed = ""
        if name is not None:
            try:
                self._printed = await asyncio.to_thread(self._source.console, name)
            except EmuvisorError as error:
                self._say(str(error))
        self._show()

    def _list(self, names: list[str]) -> None:
        """Have `names` in the list; the chosen one stays that, or else the one in its place is."""
        if names == self._names:
            return
        guests = self._options
        place = guests.highlighted or 0
        if self._chosen in names:
            place = names.index(self._chosen)
        self._names = names
        guests.clear_options()
        guests.add_options([Option("") for _ in names])
        self._chosen = names[min(place, len(names) - 1)] if names else None
        guests.highlighted = min(place, len(names) - 1) if names else None

    # ---- showing ----

    @property
    def _guest(self) -> GuestRates | None:
        """The chosen one."""
        now = self._history.now
        return next((guest for guest in now.guests if guest.name == self._chosen), None) if now else None

    def _show(self) -> None:
        now = self._history.now
        if now is None or not self.is_attached:
            return
        width = self.size.width
        self._update("header", views.header(now, width))
        self._update("host", views.host(now, self._history.host, width))
        self._update("heading", views.heading(width - 3))
        guests = self._options
        for index, guest in enumerate(now.guests):
            text = views.row(guest, self._history.used[guest.name], width - 3)
            guests.replace_option_prompt_at_index(index, text)
        self._show_guest()

    def _show_guest(self) -> None:
        guest = self._guest
        if guest is None:
            for name in (*PANELS, "tail"):
                self._update(name, Text("no guest" if name == "tail" else ""))
            return
        used, ready = self._history.used[guest.name], self._history.ready[guest.name]
        widths = {name: self._panels[name].content_size.width for name in PANELS}
        height = self._panels["exits"].content_size.height
        if not all(widths.values()):
            return  # not laid out yet
        self._update("cpu", views.cpu(guest, used, ready, widths["cpu"]))
        self._update("memory", views.memory(guest, widths["memory"]))
        self._update("exits", views.exits(guest, widths["exits"], height))
        self._update("transfers", views.transfers(guest, widths["transfers"]))
        self._entitle("cpu", "CPU")
        self._entitle("memory", f"memory of {short_size(guest.memory.configured)}")
        self._entitle("exits", "exits/s")
        self._entitle("transfers", "per second")
        self._entitle("tail", f"{guest.name}: {guest.reason}" if guest.reason else guest.name)
        console = self._panels["tail"].content_size
        if console.width and console.height:
            lines = console_lines(self._printed.rstrip("\r\n"), console.width, console.height)
            self._update("tail", Text("\n".join(lines), no_wrap=True))

    def _update(self, name: str, text: Text) -> None:
        self._texts[name].update(text)

    def _entitle(self, name: str, title: str) -> None:
        self._panels[name].border_title = Text(plain(title))  # as Text: names are no markup

    def _say(self, text: str) -> None:
        """Show `text` in the footer until a key is pressed; or the keys."""
        line = Text(no_wrap=True, overflow="ellipsis")
        if text:
            line.append(f" {plain(text)}", "bold yellow")
        else:
            for key, _, label in KEYS:
                line.append(f" {key}", "bold cyan").append(f" {label} ")
        self._update("footer", line)

    # ---- what people ask for ----

    def _act(self, act: Callable[[str], str]) -> None:
        """Call `act` with the chosen guest's name, in a thread, and show what it says or why it cannot."""
        self._say("")
        if self._chosen is None:
            self._say("there is no guest")
        else:
            self.run_worker(self._acted(partial(act, self._chosen)))

    async def _acted(self, act: Callable[[], str]) -> None:
        try:
            text = await asyncio.to_thread(act)
        except EmuvisorError as error:
            text = str(error)
        await self.look()
        self._say(text)

    def action_pause(self) -> None:
        """Stop the guest where it is."""
        self._act(self._pause)

    def action_resume(self) -> None:
        """Let it go on."""
        self._act(self._resume)

    def action_weight(self) -> None:
        """Ask for its weight."""
        self._ask("weight", "1 to 10,000; others have 100", self._set_weight)

    def action_cap(self) -> None:
        """Ask for its cap."""
        self._ask("cap", "percent of a pCPU; 100 is none", self._set_cap)

    def action_console(self) -> None:
        """Open its console."""
        self._say("")
        if self._chosen is None:
            self._say("there is no guest")
        else:
            self.app.push_screen(ConsoleScreen(self._source, self._chosen))

    def action_picture(self) -> None:
        """Keep a picture of its screen."""
        self._act(self._take_picture)

    def _pause(self, name: str) -> str:
        self._source.pause(name)
        return f"{name} is paused"

    def _resume(self, name: str) -> str:
        self._source.resume(name)
        return f"{name} goes on"

    def _ask(self, what: str, meaning: str, change: Callable[[str, str], str]) -> None:
        """Ask for the `what` of the chosen guest, and have `change` set it, which gets the name and the answer."""
        self._say("")
        guest = self._guest
        if guest is None:
            self._say("there is no guest")
            return
        old = guest.weight if what == "weight" else guest.cap

        def answered(answer: str | None) -> None:
            if answer is not None and answer.strip():
                self.run_worker(self._acted(partial(change, guest.name, answer.strip())))

        question = f"The {what} of {guest.name}: {meaning}"
        self.app.push_screen(Question(question, "" if old is None else f"{old:g}"), answered)

    def _set_weight(self, name: str, answer: str) -> str:
        try:
            weight = int(answer)
        except ValueError:
            raise UsageError(f"a weight is a whole number, not {answer!r}") from None
        self._source.set_weight(name, weight)
        return f"{name} has weight {weight}"

    def _set_cap(self, name: str, answer: str) -> str:
        try:
            cap = float(answer.removesuffix("%"))
        except ValueError:
            raise UsageError(f"a cap is a number of percent, not {answer!r}") from None
        self._source.set_cap(name, cap)
        return f"{name} has a cap of {cap:g} %"

    def _take_picture(self, name: str) -> str:
        path = keep_picture(self._folder, name, self._source.screenshot(name))
        return f"{path} has the screen of {name}"
