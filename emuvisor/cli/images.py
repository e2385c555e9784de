"""`emuvisor images`: ready-made guests in the user's cache."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from emuvisor.cli.tables import show_table
from emuvisor.errors import UsageError
from emuvisor.units import format_size

if TYPE_CHECKING:
    from pathlib import Path

    from emuvisor.images.cache import Image
    from emuvisor.images.progress import Progress

__all__ = ["add_to", "execute_list", "execute_pull"]


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "images",
        help="fetch and list ready-made guests",
        description="Ready-made guests, built from Debian's packages and kept in the user's cache "
        "($EMUVISOR_CACHE, else emuvisor/ in $XDG_CACHE_HOME or ~/.cache).",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    pull = actions.add_parser("pull", help="fetch images", description="Fetch and build images.")
    pull.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="debian (a shell on a cloud kernel), debian-system (a whole Debian on a disk), seabios; "
        "'images list' shows them all",
    )
    pull.add_argument("--all", action="store_true", help="all of them, but those that are there already")
    pull.set_defaults(execute=execute_pull)
    listing = actions.add_parser("list", help="list images", description="List the images that can be had.")
    listing.add_argument("--json", action="store_true", help="print JSON, of the installed images alone")
    listing.set_defaults(execute=execute_list)


def execute_pull(args: argparse.Namespace) -> int:
    """Fetch and build the images `args.names`, or all that are missing."""
    from emuvisor.images.cache import usable
    from emuvisor.images.recipes import RECIPES, pull

    if bool(args.names) == args.all:
        raise UsageError("name the images to pull, or say --all")
    for name in args.names or [name for name in RECIPES if usable(name) is None]:
        with _progress() as progress:
            image = pull(name, progress)
        versions = ", ".join(f"{package} {version}" for package, version in image.packages.items())
        print(f"{image.name}: {format_size(image.size)} in {image.path} ({versions})")
        print(f"Boot {_how_to_boot(image)}")
    return 0


def execute_list(args: argparse.Namespace) -> int:
    """List the images in the cache, and those that can be pulled."""
    from emuvisor.images.cache import list_images
    from emuvisor.images.recipes import RECIPES

    images = list_images()
    if args.json:
        print(json.dumps([_as_dict(image) for image in images], indent=2))
        return 0
    rows = [
        (
            image.name,
            format_size(image.size),
            ", ".join(f"{package} {version}" for package, version in image.packages.items()),
        )
        for image in images
    ]
    missing = [name for name in RECIPES if name not in {image.name for image in images}]
    rows += [(name, "", f"not here yet; emuvisor images pull {name}") for name in missing]
    show_table(("image", "size", "made from"), rows, right=("size",))
    return 0


def _how_to_boot(image: "Image") -> str:
    if image.kernel is None and image.disk is None:
        return f"a disk by it with: emuvisor run --firmware {image.name} --disk FILE"
    return f"it with: emuvisor run --image {image.name}"


def _as_dict(image: "Image") -> dict[str, Any]:
    return {
        "name": image.name,
        "path": str(image.path),
        "kernel": _path(image.kernel),
        "initrd": _path(image.initrd),
        "append": image.append,
        "disk": _path(image.disk),
        "firmware": image.firmware,
        "packages": dict(image.packages),
        "size": image.size,
    }


def _path(path: "Path | None") -> str | None:
    return None if path is None else str(path)


@contextmanager
def _progress() -> "Iterator[Progress]":
    """Shows the steps on standard error: a bar on a terminal, a line for each one elsewhere."""
    if not sys.stderr.isatty():

        def line(step: str, done: int, total: int) -> None:
            if done < total:
                print(f"[{done + 1}/{total}] {step}", file=sys.stderr)

        yield line
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda step, done, total: bar.update(task, description=step, completed=done, total=total)
