"""`emuvisor disk info`."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from emuvisor.units import format_size

if TYPE_CHECKING:
    from emuvisor.devices.storage.imageinfo import ImageInfo

__all__ = ["execute"]

USES = {"no": "no", "reading": "by readers", "writing": "by a writer"}


def execute(args: argparse.Namespace) -> int:
    """Show what the image `args.path` is, and its backing files."""
    from emuvisor.devices.storage.imageinfo import image_info

    info = image_info(args.path, args.format)
    if args.json:
        print(json.dumps(_as_dict(info), indent=2))
        return 0
    print(_as_text(info))
    while (below := info.backing) is not None:
        print(f"\nbacking file\n{_as_text(below)}")
        info = below
    return 0


def _as_text(info: "ImageInfo") -> str:
    lines = [
        ("image", str(info.path)),
        ("format", info.format if info.version is None else f"{info.format}, version {info.version}"),
        ("disk size", _size(info.virtual_size)),
        ("on the host", f"{format_size(info.allocated)} of a file of {format_size(info.file_size)}"),
        ("in use", USES[info.in_use]),
    ]
    if info.cluster_size is not None:
        lines.append(("cluster size", format_size(info.cluster_size)))
    if info.compression is not None:
        lines.append(("compression", info.compression))
    if info.backing_file is not None:
        lines.append(("backing file", f"{info.backing_file} ({info.backing_format or 'format not named'})"))
    if info.backing_error is not None:
        lines.append(("warning", info.backing_error))
    return "\n".join(f"{name + ':':<14}{value}" for name, value in lines)


def _size(size: int) -> str:
    return f"{format_size(size)} ({size} bytes)"


def _as_dict(info: "ImageInfo") -> dict[str, Any]:
    """All fields; sizes in bytes."""
    return {
        "path": str(info.path),
        "format": info.format,
        "virtual_size": info.virtual_size,
        "file_size": info.file_size,
        "allocated": info.allocated,
        "in_use": info.in_use,
        "cluster_size": info.cluster_size,
        "version": info.version,
        "compression": info.compression,
        "backing_file": info.backing_file,
        "backing_format": info.backing_format,
        "backing_error": info.backing_error,
        "backing": None if info.backing is None else _as_dict(info.backing),
    }
