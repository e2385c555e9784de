"""`emuvisor disk create, resize, check, commit`."""

import argparse
import json
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

from emuvisor.cli.transfer import transfer_bar
from emuvisor.errors import UsageError
from emuvisor.units import format_size

if TYPE_CHECKING:
    from emuvisor.devices.storage.qcow2.check import CheckReport

__all__ = [
    "EXIT_CORRUPT",
    "EXIT_LEAKS",
    "execute_check",
    "execute_commit",
    "execute_create",
    "execute_resize",
]

EXIT_CORRUPT = 2
EXIT_LEAKS = 3
"""These two as qemu-img check."""


def execute_create(args: argparse.Namespace) -> int:
    """Make the image `args.path`."""
    from emuvisor.devices.storage.formats import format_of
    from emuvisor.devices.storage.imagefiles import create_image

    if args.backing_format is not None and args.backing is None:
        raise UsageError("--backing-format needs --backing")
    with transfer_bar(args.path.name) as progress:
        size = create_image(
            args.path,
            args.size,
            args.format,
            backing=args.backing,
            backing_format=args.backing_format,
            preallocation=args.preallocation,
            cluster_size=args.cluster_size,
            progress=progress,
        )
    over = f" over {args.backing}" if args.backing is not None else ""
    print(f"{args.path}: {format_of(args.path, args.format)}, {format_size(size)}{over}")
    return 0


def execute_resize(args: argparse.Namespace) -> int:
    """Give the image `args.path` another size."""
    from emuvisor.devices.storage.imagefiles import resize_image
    from emuvisor.devices.storage.imageinfo import image_info

    sign, size = args.size
    if sign:
        before = image_info(args.path, args.format).virtual_size
        size = before + size if sign == "+" else before - size
    resize_image(args.path, size, args.format, shrink=args.shrink)
    print(f"{args.path}: {format_size(size)}")
    return 0


def execute_check(args: argparse.Namespace) -> int:
    """Check the image `args.path`; the exit code says what was found."""
    from emuvisor.devices.storage.formats import format_of, open_image
    from emuvisor.devices.storage.imagefiles import check_overlay
    from emuvisor.devices.storage.qcow2.check import check

    if args.format == "overlay":
        check_overlay(args.path)
    elif format_of(args.path, args.format) == "raw":
        open_image(args.path, args.format, read_only=True).close()
    else:
        return _show_report(check(args.path, args.repair), args.json)
    if args.json:
        print(json.dumps({"path": str(args.path), "corruptions": 0, "leaks": 0, "messages": []}, indent=2))
    else:
        print(f"{args.path}: no errors found")
    return 0


def _show_report(report: "CheckReport", as_json: bool) -> int:
    if as_json:
        print(json.dumps(asdict(report), indent=2))
    else:
        for message in report.messages:
            print(message)
        found = [
            f"{count} {what}{'s' if count > 1 else ''}"
            for count, what in ((report.corruptions, "corruption"), (report.leaks, "leaked cluster"))
            if count
        ]
        after = " after the repair" if report.repaired else ""
        print(f"{report.path}: {' and '.join(found) or 'no errors'} found{after}")
    if report.corruptions:
        return EXIT_CORRUPT
    return EXIT_LEAKS if report.leaks else 0


def execute_commit(args: argparse.Namespace) -> int:
    """Put what `args.path` has changed into its backing file, or into `args.base`."""
    from emuvisor.devices.storage.formats import format_of, open_image
    from emuvisor.devices.storage.overlay_commit import commit_overlay
    from emuvisor.devices.storage.qcow2.commit import commit

    if args.base is None:
        if args.base_format is not None:
            raise UsageError("--base-format needs --base")
        if format_of(args.path, args.format) == "raw":
            raise UsageError(f"{args.path}: a raw image has no backing file; an overlay needs --base")
        commit(args.path)
        print(f"{args.path}: committed into its backing file")
        return 0
    with closing(open_image(args.base, args.base_format)) as base, transfer_bar(args.path.name) as progress:
        changed = commit_overlay(args.path, base, progress)
    print(f"{args.path}: {format_size(changed)} committed into {args.base}")
    return 0
