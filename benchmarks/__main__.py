"""The command line: python -m benchmarks [NAME...]"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import chart, curve, qemu, report
from benchmarks.harness import Benchmark, Result, Settings, run
from benchmarks.machine import Machine, describe
from benchmarks.workloads import ALL, CURVES
from emuvisor.errors import EmuvisorError
from emuvisor.images.cache import Image, find

IMAGE = "debian"
CHARTED = ("disk", "net")
"""What the chart beside the markdown shows."""
QUICK_REPEATS = 3
REPEATS = 5
SHOWN_WIDTH = 60
"""Characters of what is being measured that the progress line shows."""
FILE_WIDTH = 150
"""Columns of the tables when the output is not a terminal."""
FAILED = 1


def positive(text: str) -> int:
    """A whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def parser() -> argparse.ArgumentParser:
    """The options."""
    names = ", ".join(benchmark.name for benchmark in ALL)
    found = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure emuvisor.")
    found.add_argument("names", nargs="*", metavar="NAME", help=f"what to run: {names} (default: all)")
    found.add_argument(
        "--repeats",
        type=positive,
        help=f"measurements of each contender (default {REPEATS}; quick {QUICK_REPEATS})",
    )
    found.add_argument("--quick", action="store_true", help="less work in each measurement")
    found.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    found.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="write docs/performance.md's text to FILE, its charts beside it (matplotlib)",
    )
    found.add_argument(
        "--append", default="", metavar="WORDS", help="more kernel command line, for all contenders"
    )
    found.add_argument("--qemu-cpu", default="qemu64", metavar="MODEL", help="QEMU's -cpu (default qemu64)")
    return found


def chosen(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks called `names`, all without names. Raises KeyError with an unknown one."""
    known = {benchmark.name: benchmark for benchmark in ALL}
    return [known[name] for name in names] or list(ALL)


def debian_image() -> Image | None:
    """The image when it is there; when it is damaged, what says so is printed."""
    try:
        return find(IMAGE)
    except EmuvisorError as error:
        print(error, file=sys.stderr)
        return None


def measure(benchmark: Benchmark, settings: Settings, console: Console) -> Result:
    """Run one, with a progress line that goes away."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(benchmark.name, total=None)

        def progress(what: str, done: int, total: int) -> None:
            text = f"{benchmark.name}: {what}"[:SHOWN_WIDTH].ljust(SHOWN_WIDTH)
            bars.update(bar, description=text, completed=done, total=total)

        return run(benchmark, settings, progress)


def show_machine(machine: Machine, console: Console) -> None:
    """What is measured on."""
    for name, value in machine.lines():
        console.print(f"{name:>10}  {value}", markup=False, highlight=False)
    for text in machine.warnings:
        console.print(f"   warning  {text}", markup=False, style="yellow")


def write_markdown(path: Path, machine: Machine, command: str, results: Sequence[Result]) -> None:
    """The report, and the pictures beside it when anything was measured that they show."""
    charted = [result for result in results if result.name in CHARTED and result.rows]
    picture = path.with_name(f"{path.stem}-io.svg")
    if charted:
        picture.write_text(chart.as_svg(chart.sections(charted), qemu.NAME))
    pictures = {}
    for result in results:
        if result.name in CURVES and result.rows:
            curve_picture = path.with_name(f"{path.stem}-{result.name}.svg")
            try:
                curve.draw(CURVES[result.name], result, curve_picture)
            except ImportError as error:
                print(f"there is no picture of {result.name}: {error}", file=sys.stderr)
            else:
                pictures[result.name] = curve_picture.name
    path.write_text(report.as_markdown(machine, command, results, picture.name if charted else "", pictures))


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when all ran or was skipped with a notice, 1 when something failed, 2 for a wrong command line."""
    options = parser()
    args = options.parse_args(arguments)
    try:
        benchmarks = chosen(args.names)
    except KeyError as error:
        options.error(f"no benchmark {error}; there are {', '.join(benchmark.name for benchmark in ALL)}")
    settings = Settings(
        repeats=args.repeats or (QUICK_REPEATS if args.quick else REPEATS),
        quick=args.quick,
        append=args.append,
        qemu_cpu=args.qemu_cpu,
        image=debian_image(),
    )
    console = Console()
    if not console.is_terminal:
        console = Console(width=FILE_WIDTH)
    machine = describe()
    show_machine(machine, console)
    results = []
    for benchmark in benchmarks:
        result = measure(benchmark, settings, console)
        results.append(result)
        console.print()
        console.print(report.as_table(result))
        for notice in result.notices:
            console.print(f"notice: {notice}", markup=False, style="yellow")
    command = shlex.join(["python", "-m", "benchmarks", *(sys.argv[1:] if arguments is None else arguments)])
    if args.json is not None:
        args.json.write_text(json.dumps(report.as_json(machine, command, results), indent=2) + "\n")
    if args.markdown is not None:
        write_markdown(args.markdown, machine, command, results)
    return FAILED if any(result.failed for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
