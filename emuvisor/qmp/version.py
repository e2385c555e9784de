"""What clients are told that they talk to."""

from importlib.metadata import version
from typing import Any

__all__ = ["VERSION", "VERSION_TEXT"]

QEMU = {"major": 9, "minor": 0, "micro": 0}
"""The version of QEMU whose QMP reference the commands follow."""
VERSION: dict[str, Any] = {"qemu": QEMU, "package": f"emuvisor {version('emuvisor')}"}
VERSION_TEXT = f"{QEMU['major']}.{QEMU['minor']}.{QEMU['micro']} ({VERSION['package']})"
