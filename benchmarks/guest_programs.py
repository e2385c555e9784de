"""Programs in C for inside the guest: compiled on the host, and put into the guest's initramfs."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import BenchmarkError, Context
from emuvisor.images.cache import Image
from emuvisor.images.cpio import CpioWriter

__all__ = ["COMPILER", "SOURCES", "compiled", "has_compiler", "with_programs"]

COMPILER = "cc"
SOURCES = Path(__file__).parent / "programs"


def has_compiler(context: Context, what: str) -> bool:
    """Whether programs can be compiled; a notice that `what` is skipped when they cannot."""
    if shutil.which(COMPILER) is None:
        context.notice(f"{what} is skipped: no C compiler ({COMPILER}; Debian: gcc, libc6-dev)")
        return False
    return True


def compiled(context: Context, name: str, folder: Path, what: str) -> Path | None:
    """`name`.c as a program that needs no libraries, in `folder`; None without a compiler, with a notice that `what` is
    skipped. Raises BenchmarkError when it cannot be compiled."""
    if not has_compiler(context, what):
        return None
    program = folder / name
    command = [COMPILER, "-O2", "-static", "-o", str(program), str(SOURCES / f"{name}.c")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BenchmarkError(f"{name}.c cannot be compiled: {result.stderr.strip()}")
    return program


def with_programs(image: Image, programs: Mapping[str, Path], folder: Path) -> Image:
    """`image` with an initramfs that has the programs in /bin, by name.

    The kernel unpacks archives that follow each other one after the other.
    """
    assert image.initrd is not None
    archive = CpioWriter()
    for name, path in programs.items():
        archive.file(f"bin/{name}", path.read_bytes(), 0o755)
    initrd = folder / "initrd"
    initrd.write_bytes(image.initrd.read_bytes() + archive.finish())
    return replace(image, initrd=initrd)
