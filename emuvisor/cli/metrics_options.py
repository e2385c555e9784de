"""The options of `emuvisor run` and `emuvisor top` that give statistics to other programs."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from emuvisor.errors import HostError

if TYPE_CHECKING:
    from emuvisor.host import Host

__all__ = ["add_metrics_options", "metrics"]


def add_metrics_options(parser: argparse.ArgumentParser) -> None:
    """Add where statistics go."""
    group = parser.add_argument_group("statistics for other programs", "docs/top.md names every number")
    group.add_argument(
        "--statistics",
        type=Path,
        metavar="FILE",
        help="write host and guests to FILE: a JSON object a second",
    )
    group.add_argument(
        "--metrics",
        metavar="ADDRESS",
        help="serve them to Prometheus at http://ADDRESS/metrics, such as 127.0.0.1:9100 or :9100",
    )


@contextmanager
def metrics(args: argparse.Namespace, host: "Host", say: Callable[[str], object]) -> Iterator[None]:
    """Inside, the statistics of `host` go where the options say; `say` is told the endpoint's address.

    Raises HostError for a file that cannot be written or an address that cannot be had, UsageError for what is none.
    """
    with ExitStack() as stack:
        if args.metrics is not None:
            from emuvisor.metrics.sample import take_sample
            from emuvisor.metrics.server import MetricsServer

            server = stack.enter_context(MetricsServer(args.metrics, lambda: take_sample(host)))
            say(f"metrics at {server.url}")
        if args.statistics is not None:
            stack.enter_context(_statistics(args.statistics, host))
        yield


@contextmanager
def _statistics(path: Path, host: "Host") -> Iterator[None]:
    from emuvisor.metrics.json_lines import JsonLines
    from emuvisor.metrics.sampler import Sampler

    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise HostError(f"{path}: cannot be written: {error.strerror}") from None

    def failed(error: OSError) -> None:
        host.warn(f"{path}: the statistics end early: {error.strerror}")

    try:
        with Sampler(host, JsonLines(file, failed)):
            yield
    finally:
        with suppress(OSError):  # what could not be written has been said
            file.close()
