"""The options of `emuvisor run` and `emuvisor top` that say what the host is."""

from argparse import ArgumentTypeError, _ArgumentGroup
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emuvisor.cli.options import parse_rate, parse_size_option
from emuvisor.cli.scheduler_options import add_scheduler_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from emuvisor.host import Host

__all__ = ["add_host_options", "limit_backends", "parse_backend_limit"]

BACKEND_FORM = "PATH,bytes=RATE[:BURST],iops=RATE[:BURST]"


def add_host_options(group: _ArgumentGroup) -> None:
    """Memory, pCPUs, networks, and what guests have in common."""
    group.add_argument(
        "--pool",
        type=parse_size_option,
        metavar="SIZE",
        help="memory for all guests together (default: what they may use)",
    )
    group.add_argument(
        "--pcpus", type=int, default=1, metavar="N", help="threads that run guests (default: 1)"
    )
    add_scheduler_options(group)
    group.add_argument(
        "--backend-limit",
        type=parse_backend_limit,
        action="append",
        default=[],
        metavar=BACKEND_FORM,
        help="limit what guests on the host's clock read and write together on the file system that PATH is on, in a "
        "second; they divide it by their disks' shares (repeatable)",
    )
    group.add_argument(
        "--networks",
        type=Path,
        metavar="FILE",
        help="virtual networks defined in TOML; others that cards name lead nowhere but to each other",
    )


def parse_backend_limit(text: str) -> dict[str, Any]:
    """PATH and its rates, as the arguments of `Host.set_backend_limit`."""
    path, *options = text.split(",")
    limit: dict[str, Any] = {"path": Path(path)}
    for option in options:
        name, _, value = option.partition("=")
        if name not in ("bytes", "iops"):
            path = ""
            break
        limit[name] = parse_rate(name, value)
    if not path or len(limit) == 1:
        raise ArgumentTypeError(f"{text!r} is not {BACKEND_FORM}, with one of the two at least")
    return limit


def limit_backends(host: "Host", limits: "Iterable[dict[str, Any]]") -> None:
    """Set what `parse_backend_limit` has read. Raises UsageError for a path that there is not."""
    for limit in limits:
        host.set_backend_limit(**limit)
