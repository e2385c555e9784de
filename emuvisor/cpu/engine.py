"""Finding Unicorn and starting the C core on it, once per process."""

import importlib.util
import mmap
import os
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from emuvisor.cpu import _core
from emuvisor.errors import EngineError
from emuvisor.units import MIB, format_size

__all__ = ["Engine", "engine", "require_space"]

ENGINE_SPACE = 96 * MIB
"""Bytes of address space that must be free when an engine is made; it takes 65 MiB, most of it for translated code, and
more as it runs."""

KEEP_CHECKS = "EMUVISOR_KEEP_CHECKS"
"""Environment switch: leave the exit checks in translated code in place."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The Unicorn that this process uses."""

    version: str
    library: Path
    pristine: bytes
    """The state of a new engine in the engine's own form."""
    short_code: bool
    """The exit checks in translated code were taken out (see docs/architecture.md)."""


def _library() -> Path:
    spec = importlib.util.find_spec("unicorn")
    if spec is None or spec.origin is None:
        raise EngineError("the Python package 'unicorn' is not installed; pip install unicorn")
    folder = Path(spec.origin).parent / "lib"
    for name in ("libunicorn.so.2", "libunicorn.so"):
        if (folder / name).is_file():
            return folder / name
    raise EngineError(f"the Python package 'unicorn' has no libunicorn.so.2 in {folder}")


def require_space() -> None:
    """Make sure that an engine can be made. Raises EngineError where the host does not give the address space for that:
    Unicorn itself would end the process."""
    try:
        mmap.mmap(-1, ENGINE_SPACE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError as error:
        size = format_size(ENGINE_SPACE)
        raise EngineError(
            f"the host does not give {size} of address space for an engine: {error.strerror}"
        ) from None


@cache
def engine() -> Engine:
    """Load libunicorn from the installed wheel and verify everything the core relies on.

    Raises EngineError with what is missing or different.
    """
    library = _library()
    require_space()
    version = metadata.version("unicorn")
    try:
        pristine, short = _core.load(str(library), not os.environ.get(KEEP_CHECKS))
    except RuntimeError as error:
        raise EngineError(f"unicorn {version}: {error}") from None
    return Engine(version, library, pristine, short)
