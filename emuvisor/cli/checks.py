"""What `emuvisor doctor` looks at. A check never raises: whatever is wrong becomes its finding."""

import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from emuvisor.errors import EmuvisorError, ImageError
from emuvisor.units import GIB, KIB, MIB, format_size

__all__ = ["CHECKS", "Finding", "Status", "run_checks"]

OLDEST_PYTHON = (3, 11)
LITTLE_ADDRESS_SPACE = 4 * GIB
LITTLE_MEMORY = 512 * MIB
NARROW = 100
PROOF_TIMEOUT_S = 20

OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
OVERCOMMIT_NEVER = 2
MEMINFO = Path("/proc/meminfo")
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
CGROUP_USES = (Path("/sys/fs/cgroup/memory.current"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"))

PACKAGES = ("unicorn", "capstone", "numpy", "rich", "lz4", "zstandard")
COMPILERS = ("cc", "gcc", "clang")
TOOLS = (
    ("qemu-system-x86_64", "to compare with in the benchmarks", "apt-get install qemu-system-x86"),
    ("apt-get", "to pull Debian images", "use a Debian or Ubuntu system to pull images, and copy the cache"),
    ("as", "to rebuild the firmware", "apt-get install binutils"),
    ("ld", "to rebuild the firmware", "apt-get install binutils"),
    ("perf", "to profile emuvisor", "apt-get install linux-perf"),
)


class Status(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check. `essential`: without it emuvisor does not work."""

    name: str
    status: Status
    detail: str
    advice: str = ""
    essential: bool = False

    @property
    def breaks(self) -> bool:
        """Whether emuvisor cannot work for this reason."""
        return self.essential and self.status in (Status.MISSING, Status.FAILED)


def check_python() -> Finding:
    """Version and implementation."""
    detail = f"{platform.python_implementation()} {platform.python_version()}"
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return Finding("Python", Status.FAILED, detail, f"use Python {wanted} or newer", True)
    return Finding("Python", Status.OK, detail, essential=True)


def check_system() -> Finding:
    """Operating system and processor; the engine's state has been verified on x86-64 Linux."""
    machine = platform.machine()
    detail = f"{platform.system()} {platform.release()}, {machine}, {len(os.sched_getaffinity(0))} CPUs"
    if machine == "x86_64":
        return Finding("system", Status.OK, detail)
    return Finding("system", Status.WARNING, detail, "tested on x86-64 alone; see the proof below")


def check_packages() -> Finding:
    """The Python packages that emuvisor depends on."""
    versions, missing = [], []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        names = " ".join(missing)
        return Finding("packages", Status.MISSING, f"without {names}", f"pip install {names}", True)
    return Finding("packages", Status.OK, ", ".join(versions), essential=True)


def check_core() -> Finding:
    """The C core."""
    try:
        from emuvisor.cpu import _core
    except ImportError as error:
        advice = "install emuvisor again, with a C compiler at hand"
        return Finding("C core", Status.MISSING, str(error), advice, True)
    return Finding("C core", Status.OK, Path(_core.__file__).name, essential=True)


def check_engine() -> Finding:
    """Unicorn, and whether its inner layout is the one that the core knows."""
    from emuvisor.cpu.engine import KEEP_CHECKS, engine

    try:
        found = engine()
    except EmuvisorError as error:
        return Finding("Unicorn", Status.FAILED, str(error), "pip install 'unicorn>=2.1.4,<2.2'", True)
    detail = f"{found.version}, layout verified, "
    if found.short_code:
        return Finding("Unicorn", Status.OK, detail + "without exit checks", essential=True)
    why = f"unset {KEEP_CHECKS}" if os.environ.get(KEEP_CHECKS) else "nothing: guests run, at less speed"
    return Finding("Unicorn", Status.WARNING, detail + "with exit checks", why, True)


def check_proof() -> Finding:
    """A guest of our own runs from power-on to power-off."""
    from emuvisor import firmware
    from emuvisor.host import Host
    from emuvisor.machine.config import FlatConfig, GuestConfig
    from emuvisor.machine.outcome import Ending

    with tempfile.TemporaryDirectory() as folder, Host(memory=32 * MIB) as host:
        image = Path(folder, "hello.bin")
        image.write_bytes(firmware.image("hello"))
        flat = FlatConfig(image, firmware.FLAT_ADDRESS)
        guest = host.create(GuestConfig(name="hello", memory=16 * MIB, flat=flat))
        start = time.perf_counter()
        guest.start()
        guest.wait(PROOF_TIMEOUT_S)
        seconds = time.perf_counter() - start
        outcome, last_line = guest.outcome, guest.console.last_line
    if outcome is not None and outcome.ending is Ending.POWER_OFF:
        return Finding("proof", Status.OK, f"{last_line} ({seconds * 1000:.0f} ms)", essential=True)
    how = f"no end after {PROOF_TIMEOUT_S} s" if outcome is None else str(outcome)
    return Finding("proof", Status.FAILED, f"{how}; last line: {last_line!r}", "please report this", True)


def check_address_space() -> Finding:
    """Address space, which guest memory and Unicorn's translation buffers need more of than memory."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return Finding("address space", Status.OK, "no limit")
    detail = f"limited to {format_size(limit)}"
    if limit >= LITTLE_ADDRESS_SPACE:
        return Finding("address space", Status.OK, detail)
    return Finding("address space", Status.WARNING, detail, "ulimit -v unlimited, or keep guests small")


def check_overcommit() -> Finding:
    """Whether the kernel lets memory be reserved that may never be used."""
    policy = int(OVERCOMMIT.read_text())
    detail = f"vm.overcommit_memory = {policy}"
    if policy != OVERCOMMIT_NEVER:
        return Finding("overcommit", Status.OK, detail)
    advice = "a host's memory counts in full against the system's: keep --pool small"
    return Finding("overcommit", Status.WARNING, detail, advice)


def _available_memory() -> int:
    for line in MEMINFO.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "MemAvailable":
            return int(value.split()[0]) * KIB
    return 0


def _cgroup_room() -> int | None:
    """Bytes left in this process's memory cgroup as a container sees it; None without a limit."""
    for limit_file, use_file in zip(CGROUP_LIMITS, CGROUP_USES, strict=True):
        try:
            limit, use = limit_file.read_text().strip(), int(use_file.read_text())
        except (OSError, ValueError):
            continue
        if limit.isdigit() and int(limit) < 1 << 60:  # version 1 says "no limit" with a number near 2^63
            return max(0, int(limit) - use)
    return None


def check_memory() -> Finding:
    """Memory that guests can use."""
    room = _available_memory()
    detail = f"{format_size(room)} available"
    cgroup = _cgroup_room()
    if cgroup is not None:
        detail += f", {format_size(cgroup)} left in the cgroup"
        room = min(room, cgroup)
    if room >= LITTLE_MEMORY:
        return Finding("memory", Status.OK, detail)
    return Finding("memory", Status.WARNING, detail, "a Debian guest wants about 100 MiB")


def check_compiler() -> Finding:
    """A C compiler, which only an installation from source needs."""
    for name in COMPILERS:
        if (path := shutil.which(name)) is not None:
            return Finding("C compiler", Status.OK, path)
    return Finding("C compiler", Status.MISSING, "to build the C core", "apt-get install gcc python3-dev")


def check_terminal() -> Finding:
    """What `emuvisor demo` and consoles are shown on."""
    if not sys.stdout.isatty():
        return Finding("terminal", Status.OK, "none; output is plain text")
    size = shutil.get_terminal_size()
    detail = f"{os.environ.get('TERM', 'unknown')}, {size.columns}x{size.lines}, {sys.stdout.encoding}"
    if sys.stdout.encoding.lower() != "utf-8":
        return Finding("terminal", Status.WARNING, detail, "use a UTF-8 locale, such as LC_ALL=C.UTF-8")
    if size.columns < NARROW:
        return Finding("terminal", Status.WARNING, detail, f"{NARROW} columns show the demo whole")
    return Finding("terminal", Status.OK, detail)


def _tool_check(name: str, purpose: str, advice: str) -> Callable[[], Finding]:
    def check() -> Finding:
        path = shutil.which(name)
        if path is not None:
            return Finding(name, Status.OK, path)
        return Finding(name, Status.MISSING, f"optional, {purpose}", advice)

    return check


def _image_check(name: str) -> Callable[[], Finding]:
    def check() -> Finding:
        from emuvisor.images import cache

        advice = f"emuvisor images pull {name}"
        try:
            image = cache.find(name)
        except ImageError as error:
            return Finding(f"image {name}", Status.WARNING, str(error), advice)
        if image is None:
            return Finding(f"image {name}", Status.MISSING, "optional, not in the cache", advice)
        return Finding(f"image {name}", Status.OK, f"{format_size(image.size)} in {image.path}")

    return check


IMAGES = ("debian", "seabios")
"""Those that people start with."""
CHECKS: tuple[tuple[str, Callable[[], Finding], bool], ...] = (
    ("Python", check_python, True),
    ("system", check_system, False),
    ("packages", check_packages, True),
    ("C core", check_core, True),
    ("Unicorn", check_engine, True),
    ("proof", check_proof, True),
    ("address space", check_address_space, False),
    ("overcommit", check_overcommit, False),
    ("memory", check_memory, False),
    ("C compiler", check_compiler, False),
    ("terminal", check_terminal, False),
    *((name, _tool_check(name, purpose, advice), False) for name, purpose, advice in TOOLS),
    *((f"image {name}", _image_check(name), False) for name in IMAGES),
)
"""Name, check, and whether it is essential, in the order in which they are shown."""


def run_checks() -> list[Finding]:
    """Make every check. One that cannot even be made has failed, with the reason as its detail."""
    findings = []
    for name, check, essential in CHECKS:
        try:
            findings.append(check())
        except Exception as error:  # people look here when their machine is broken in unforeseen ways
            detail = str(error) or type(error).__name__
            findings.append(Finding(name, Status.FAILED, detail, essential=essential))
    return findings
