"""The dashboard: an app with one main screen."""

from pathlib import Path

from textual.app import App

from emuvisor.tui.overview import PERIOD_S, Overview
from emuvisor.tui.source import Source

__all__ = ["Dashboard"]


class Dashboard(App[None], inherit_bindings=False):
    """Shows `source`, sampled every `period_s` seconds; with None, only `overview.look` samples. Screenshots go to
    `folder`."""

    ENABLE_COMMAND_PALETTE = False

    def __init__(self, source: Source, *, period_s: float | None = PERIOD_S, folder: Path = Path()) -> None:
        super().__init__()
        self.title = "emuvisor top"
        self.overview = Overview(source, period_s=period_s, folder=folder)
        """The main screen."""

    def get_default_screen(self) -> Overview:
        """What textual shows first."""
        return self.overview
