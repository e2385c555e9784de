"""Runs the programs that build images."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from emuvisor.errors import HostError

__all__ = ["require", "run"]

PACKAGES = {
    "apt-cache": "apt",
    "apt-get": "apt",
    "e2fsck": "e2fsprogs",
    "fakeroot": "fakeroot",
    "grub-mkimage": "grub-common",
    "mcopy": "mtools",
    "mformat": "mtools",
    "mke2fs": "e2fsprogs",
    "mmd": "mtools",
    "mmdebstrap": "mmdebstrap",
    "sh": "dash",
    "syslinux": "syslinux",
    "xorriso": "xorriso",
}
"""Debian's package of each program that is used."""
SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")
"""Not on every user's PATH."""
TIMEOUT_S = 600


def require(*programs: str) -> None:
    """Check before the work begins that `programs` are there. Raises HostError naming their packages."""
    missing = sorted({program for program in programs if _find(program) is None})
    if missing:
        packages = sorted({PACKAGES[program] for program in missing})
        raise HostError(f"{_and(missing)} not installed; on Debian: apt-get install {' '.join(packages)}")


def run(
    command: Sequence[str | Path],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> str:
    """What `command` prints, run in `folder` with `environment` added to ours.

    Raises HostError: with the command's last line of complaint if it fails.
    """
    program, *arguments = map(str, command)
    require(program)
    text = " ".join((program, *arguments))
    try:
        result = subprocess.run(
            [_find(program) or program, *arguments],
            cwd=folder,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"{text}: no end after {timeout_s:g} s") from None
    if result.returncode:
        lines = [line for line in (result.stderr or result.stdout).splitlines() if line.strip()]
        raise HostError(f"{text}: {lines[-1].strip() if lines else f'exit code {result.returncode}'}")
    return result.stdout


def _find(program: str) -> str | None:
    return shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM_FOLDERS)))


def _and(names: Sequence[str]) -> str:
    verb = "is" if len(names) == 1 else "are"
    return f"{' and '.join(filter(None, (', '.join(names[:-1]), names[-1])))} {verb}"
