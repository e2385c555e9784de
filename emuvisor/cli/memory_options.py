"""The options of `emuvisor run` for the host's memory, and the policy that they describe."""

import argparse
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING

from emuvisor.cli.options import parse_size_option
from emuvisor.errors import UsageError

if TYPE_CHECKING:
    from emuvisor.host.memory.policy import MemoryPolicy

__all__ = ["add_memory_options", "memory_policy", "parse_compression", "parse_ratio", "parse_swap"]

SWAP_FORM = "FILE[,SIZE]"
COMPRESSION_FORM = "SIZE, 0, lz4:SIZE or zstd:SIZE"


def parse_ratio(text: str) -> float:
    """A number above 0."""
    try:
        ratio = float(text)
    except ValueError:
        ratio = 0
    if not 0 < ratio < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a number above 0, such as 1.5")
    return ratio


def parse_swap(text: str) -> tuple[Path, int | None]:
    """FILE and the most that it may become."""
    path, comma, size = text.partition(",")
    try:
        limit = parse_size_option(size) if comma else None
    except ArgumentTypeError:
        path = ""
    if not path:
        raise ArgumentTypeError(f"{text!r} is not {SWAP_FORM}, such as swap.bin,1G")
    return Path(path), limit


def parse_compression(text: str) -> tuple[str | None, int]:
    """The algorithm, if it is named, and bytes for compressed pages."""
    algorithm, colon, size = text.rpartition(":")
    try:
        limit = parse_size_option(size)
    except ArgumentTypeError:
        limit = -1
    if limit < 0 or (colon and algorithm not in ("lz4", "zstd")):
        raise ArgumentTypeError(f"{text!r} is not {COMPRESSION_FORM}, such as zstd:64M")
    return algorithm or None, limit


def add_memory_options(parser: argparse.ArgumentParser, *, table: bool = True) -> None:
    """Add what happens when guests want more memory than there is, and who is told; with a live `table`, or not."""
    memory = parser.add_argument_group(
        "when guests want more memory than the host has",
        "see --reservation, --limit, --shares for each guest's part",
    )
    memory.add_argument(
        "--overcommit",
        type=parse_ratio,
        metavar="RATIO",
        help="how many times the pool all guests' sizes may be together (default: any number of times)",
    )
    memory.add_argument(
        "--swap",
        type=parse_swap,
        metavar=SWAP_FORM,
        help="swap pages to this new file, removed in the end, up to SIZE (default: four times the pool)",
    )
    memory.add_argument(
        "--compression",
        type=parse_compression,
        metavar="[lz4:|zstd:]SIZE",
        help="memory beside the pool for compressed pages; 0: none (default: a fifth of the pool, lz4)",
    )
    memory.add_argument("--no-sharing", action="store_true", help="leave equal pages as they are")
    memory.add_argument("--no-balloon", action="store_true", help="leave the guests' balloons alone")
    if table:
        memory.add_argument(
            "--memory-table",
            action="store_true",
            help="show where the memory is, live, below what guests print",
        )
    memory.add_argument(
        "--memory-record",
        type=Path,
        metavar="FILE",
        help="record where the memory is, and every decision; 'emuvisor memory FILE' shows it",
    )


def memory_policy(args: argparse.Namespace) -> "MemoryPolicy":
    """What the options say. Raises UsageError for impossible sizes."""
    from emuvisor.host.memory.policy import MemoryPolicy
    from emuvisor.host.memory.rungs import BalloonRung, SharingRung, default_rungs

    left_out = {SharingRung: args.no_sharing, BalloonRung: args.no_balloon}
    rungs = tuple(rung for rung in default_rungs() if not left_out.get(type(rung), False))
    swap, swap_limit = args.swap or (None, None)
    algorithm, limit = args.compression or (None, None)
    if algorithm is not None and not limit:
        raise UsageError(f"--compression {algorithm}:0: that is no compression; write --compression 0")
    return MemoryPolicy(
        rungs=rungs,
        overcommit=args.overcommit,
        swap=swap,
        swap_limit=swap_limit,
        compression_limit=limit,
        compression=algorithm or "lz4",
    )
