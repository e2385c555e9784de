"""Where the store of a host is."""

from pathlib import Path

import platformdirs

__all__ = ["default_folder"]


def default_folder() -> Path:
    """The user's data folder for emuvisor: ~/.local/share/emuvisor on Linux, below $XDG_DATA_HOME where that is set."""
    return platformdirs.user_data_path("emuvisor", appauthor=False)
