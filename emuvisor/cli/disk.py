"""`emuvisor disk`: its actions and their options."""

import argparse
import re
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from emuvisor.cli import disk_convert, disk_files, disk_info
from emuvisor.cli.options import parse_size_option

__all__ = ["add_to"]

FORMATS = ("raw", "qcow2")
PREALLOCATIONS = ("off", "metadata", "falloc", "full")
OVERLAY = "overlay"
"""emuvisor's own format of changes to an image, which is made by running a guest."""
NEGATIVE_SIZE = re.compile(r"-[0-9].*")
RESIZE = re.compile(r"([+-]?)(.+)", re.DOTALL)


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "disk",
        help="make and look after disk images",
        description="Makes, shows, copies, resizes and checks images of disks: raw ones, whose holes take no "
        "space, and qcow2 ones.",
        epilog="The format of an image is what --format says, or else follows from its name: qcow2 if it ends in "
        ".qcow2, raw if not. The content never decides, because a guest writes it. The exit code is 0 or, after one "
        "line that says what is wrong, 2; 'check' has more. Images that a guest uses are left alone.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_create(actions)
    _add_info(actions)
    _add_convert(actions)
    _add_resize(actions)
    _add_check(actions)
    _add_commit(actions)


def _add_create(actions: "argparse._SubParsersAction[Any]") -> None:
    parser = actions.add_parser(
        "create",
        help="make an empty image",
        description="Make an image that reads as zeros, or as its backing file. It takes space when it is written.",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="the new file")
    parser.add_argument(
        "size",
        type=parse_size_option,
        metavar="SIZE",
        nargs="?",
        help="such as 10G; default: the backing file's",
    )
    _add_format(parser, "--format", "of the new image")
    parser.add_argument(
        "--backing",
        metavar="FILE",
        help="what the image (qcow2) shows where it was not written; stays unchanged. A relative name counts from the "
        "folder of PATH",
    )
    _add_format(parser, "--backing-format", "of the backing file")
    _add_layout(parser)
    parser.set_defaults(execute=disk_files.execute_create)


def _add_info(actions: "argparse._SubParsersAction[Any]") -> None:
    parser = actions.add_parser(
        "info",
        help="show what an image is",
        description="Show format, sizes, users and backing files of an image, also while a guest uses it.",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="the image")
    _add_format(parser, "--format", "of the image", OVERLAY)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(execute=disk_info.execute)


def _add_convert(actions: "argparse._SubParsersAction[Any]") -> None:
    parser = actions.add_parser(
        "convert",
        help="copy an image into another format",
        description="Copy what the disk has, backing files included. Zeros and holes take no space in the copy. "
        "TARGET appears when it is complete; until then it has another name beside it.",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the image to read")
    parser.add_argument("target", type=Path, metavar="TARGET", help="the image to make")
    _add_format(parser, "--format", "of TARGET")
    _add_format(parser, "--from-format", "of SOURCE")
    parser.add_argument(
        "--overlay", type=Path, metavar="FILE", help="copy SOURCE as it is with the changes in this overlay"
    )
    parser.add_argument("--compress", choices=("zlib", "zstd"), help="compress a qcow2 image's clusters")
    _add_layout(parser)
    parser.add_argument("--force", action="store_true", help="replace TARGET if it exists")
    parser.set_defaults(execute=disk_convert.execute)


def _add_resize(actions: "argparse._SubParsersAction[Any]") -> None:
    parser = actions.add_parser(
        "resize",
        help="make an image larger or smaller",
        description="Give an image another size. What is added reads as zeros; the guest's partitions and file systems "
        "stay as they are.",
    )
    # argparse takes "-4" for a number and "-4G" for an option; it has no public way to say otherwise.
    parser._negative_number_matcher = NEGATIVE_SIZE
    parser.add_argument("path", type=Path, metavar="PATH", help="the image")
    parser.add_argument(
        "size", type=parse_resize, metavar="SIZE|+SIZE|-SIZE", help="the new size, or by how much it changes"
    )
    _add_format(parser, "--format", "of the image")
    parser.add_argument("--shrink", action="store_true", help="allow that the image loses its end")
    parser.set_defaults(execute=disk_files.execute_resize)


def _add_check(actions: "argparse._SubParsersAction[Any]") -> None:
    parser = actions.add_parser(
        "check",
        help="look for damage in an image",
        description="Check that the tables of an image agree with each other. A raw image has none.",
        epilog="The exit code is 0 when the image is all right (or was repaired), 2 when it is damaged or cannot be "
        "checked, 3 when it only wastes space: leaked clusters, as they remain when a host stops.",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="the image")
    _add_format(parser, "--format", "of the image", OVERLAY)
    parser.add_argument("--repair", action="store_true", help="repair what can be repaired without guessing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(execute=disk_files.execute_check)


def _add_commit(actions: "argparse._SubParsersAction[Any]") -> None:
    parser = actions.add_parser(
        "commit",
        help="put changes into the image below",
        description="Write what an image has changed into its backing file, or an overlay's changes into its base, and "
        "empty it. Other images with the same backing file lose their ground.",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="a qcow2 image, or with --base an overlay")
    _add_format(parser, "--format", "of PATH without --base")
    parser.add_argument("--base", type=Path, metavar="FILE", help="the image that the overlay was made for")
    _add_format(parser, "--base-format", "of the base")
    parser.set_defaults(execute=disk_files.execute_commit)


def _add_format(parser: argparse.ArgumentParser, option: str, what: str, *more: str) -> None:
    choices = (*FORMATS, *more)
    parser.add_argument(option, choices=choices, help=f"format {what}; default: by its name")


def _add_layout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preallocation",
        choices=PREALLOCATIONS,
        default="off",
        help="take space from the host at once: metadata (qcow2's tables), falloc (all of it), full (all of it, "
        "written); default: off",
    )
    parser.add_argument(
        "--cluster-size",
        type=parse_size_option,
        metavar="SIZE",
        help="of a qcow2 image: 512 to 2M; default: 64K",
    )


def parse_resize(text: str) -> tuple[str, int]:
    """ "+", "-" or nothing, and a size in bytes."""
    match = RESIZE.fullmatch(text)
    if match is None:
        raise ArgumentTypeError("a size is needed")
    return match[1], parse_size_option(match[2])
