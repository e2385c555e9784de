"""A question with one line for the answer."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from emuvisor.tui.plain import plain

__all__ = ["Question"]


class Question(ModalScreen[str | None]):
    """Asks `text`; gives what was typed, or None after Escape. `answer` is there to begin with."""

    DEFAULT_CSS = """
    Question { align: center middle; }
    Question Vertical { width: 60; max-width: 95%; height: auto; border: round $primary; padding: 0 1; }
    Question Input { border: none; height: 1; padding: 0; background: $surface-lighten-1; }
    Question Input:focus { border: none; }
    Question .hint { color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss(None)", "Leave it")]

    def __init__(self, text: str, answer: str) -> None:
        super().__init__()
        self._text = text
        self._answer = answer

    def compose(self) -> ComposeResult:
        """The question, and where to type."""
        with Vertical():
            yield Static(plain(self._text), markup=False)
            yield Input(self._answer)
            yield Static("Enter sets it, Escape leaves it", classes="hint")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter."""
        self.dismiss(event.value)
