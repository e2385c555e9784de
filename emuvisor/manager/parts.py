"""The files that a definition names, and the same definition with others in their places: for exports."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from emuvisor.errors import UsageError
from emuvisor.machine.choices import FirmwareName

__all__ = ["named_files", "portable", "refuse_local", "replace_files"]

_LOCAL = ("shares", "devices")
"""What of a definition is of one host only: folders of its user's, and Python code."""


def _places(data: dict[str, Any]) -> Iterator[tuple[dict[str, Any] | list[Any], Any, str]]:
    """Each place in plain `data` that holds a file's path, as container and key, and what the file is."""
    kernel, flat = data.get("kernel"), data.get("flat")
    if isinstance(kernel, dict):
        yield from (
            (kernel, key, name) for key, name in (("path", "kernel"), ("initrd", "initrd")) if key in kernel
        )
    if isinstance(flat, dict):
        yield flat, "path", "flat"
    for key in ("firmware", "firmware_variables"):
        if key in data and data[key] not in get_args(FirmwareName):
            yield data, key, key.replace("_", "-")
    roms = data.get("option_roms", [])
    yield from ((roms, number, f"rom{number}") for number in range(len(roms)))
    for number, disk in enumerate(data.get("disks", [])):
        yield disk, "path", f"disk{number}"


def named_files(data: dict[str, Any]) -> dict[str, str]:
    """The paths in a definition, by what they are: "kernel", "initrd", "disk0" ..."""
    return {name: container[key] for container, key, name in _places(data)}


def replace_files(data: dict[str, Any], path_of: Callable[[str, str], Path | str]) -> None:
    """Put `path_of(what, path)` in the place of each path."""
    for container, key, name in _places(data):
        container[key] = str(path_of(name, container[key]))


def portable(data: dict[str, Any]) -> list[str]:
    """Take out of a definition what is of one host only; returns what that was. Disks lose overlay and format."""
    gone = [key for key in _LOCAL if data.pop(key, None)]
    for disk in data.get("disks", []):
        disk.pop("overlay", None)
        disk.pop("format", None)
        if disk.get("kind", "disk") == "disk":
            disk["format"] = "qcow2"
    for nic in data.get("nics", []):
        if nic.pop("forwards", None):
            gone.append("forwards")
    return gone


def refuse_local(data: dict[str, Any]) -> None:
    """Raises UsageError for a definition from elsewhere with what `portable` takes out."""
    forwards = any(nic.get("forwards") for nic in data.get("nics", []))
    for key in (*(key for key in _LOCAL if data.get(key)), *(["forwards"] if forwards else [])):
        raise UsageError(f"its definition has {key}, which no export has")
