"""Which machine the figures come from."""

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from emuvisor.units import KIB, format_size

__all__ = ["QEMU", "Machine", "describe"]

QEMU = "qemu-system-x86_64"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Machine:
    """A description for people; `warnings` say why figures from it may be worth less."""

    cpu: str
    cores: int
    memory: str
    kernel: str
    governor: str
    python: str
    unicorn: str
    qemu: str
    load: float
    """Average number of running processes in the minute before the run."""
    time: str
    warnings: tuple[str, ...]

    def lines(self) -> list[tuple[str, str]]:
        """What it is and its value, for tables."""
        values = asdict(self)
        values["load"] = f"{self.load:.2f} at the start"
        return [(key, str(value)) for key, value in values.items() if key != "warnings"]


def describe(proc: Path = Path("/proc"), cpu: Path = Path("/sys/devices/system/cpu")) -> Machine:
    """This machine, now. What cannot be read is "unknown"."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0]
    governor = _text(cpu / "cpu0/cpufreq/scaling_governor")
    return Machine(
        cpu=_field(proc / "cpuinfo", "model name") or platform.processor() or UNKNOWN,
        cores=cores,
        memory=_memory(proc / "meminfo"),
        kernel=f"{platform.system()} {platform.release()}",
        governor=governor or "not shown (a virtual machine?)",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        unicorn=_package("unicorn"),
        qemu=_qemu_version(),
        load=load,
        time=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        warnings=warnings(load, cores, governor),
    )


def warnings(load: float, cores: int, governor: str) -> tuple[str, ...]:
    """Why a machine with this load average and frequency governor gives poor figures."""
    found = []
    if load > cores / 4:
        found.append(f"the machine was busy when the run began: load average {load:.2f} on {cores} cores")
    if governor and governor != "performance":
        found.append(f"the CPU frequency governor is {governor!r}; figures vary less with 'performance'")
    if not sys.platform.startswith("linux"):
        found.append(f"{sys.platform} is not Linux; parts of the machine are not described")
    return tuple(found)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _field(path: Path, name: str) -> str:
    """The value behind the first "name : value" line."""
    for line in _text(path).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _memory(path: Path) -> str:
    number = _field(path, "MemTotal").removesuffix("kB").strip()
    return format_size(int(number) * KIB) if number.isdecimal() else UNKNOWN


def _package(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _qemu_version() -> str:
    if shutil.which(QEMU) is None:
        return "not installed"
    try:
        result = subprocess.run([QEMU, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    first = result.stdout.partition("\n")[0]
    return first.removeprefix("QEMU emulator version ").strip() or UNKNOWN
