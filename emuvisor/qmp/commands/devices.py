"""Balloon, screen, memory and NMI-like things that are one device's: parts of "Machines" and "User interface"."""

from functools import partial
from pathlib import Path
from typing import Any

from emuvisor.errors import GuestAddressError, UsageError
from emuvisor.host import Guest
from emuvisor.qmp.errors import ErrorClass, QmpError
from emuvisor.qmp.memory import actual_memory, ram_size
from emuvisor.qmp.monitor import Monitor
from emuvisor.qmp.registry import Registry
from emuvisor.units import MIB

__all__ = ["REGISTRY"]

REGISTRY = Registry()
CHUNK = MIB


def _require_balloon(guest: Guest) -> None:
    if guest.balloon_device is None:
        raise QmpError("No balloon device has been activated", ErrorClass.DEVICE_NOT_ACTIVE)


@REGISTRY.command("balloon")
def balloon(monitor: Monitor, *, value: int) -> dict[str, Any]:
    """Ask the guest to get along with `value` bytes of memory."""
    guest = monitor.guest
    _require_balloon(guest)
    size = ram_size(guest)
    if value <= 0:
        raise QmpError("Parameter 'target' expects a size")
    guest.set_balloon(max(0, size - value))
    return {}


@REGISTRY.command("query-balloon")
def query_balloon(monitor: Monitor) -> dict[str, Any]:
    """Bytes of memory that it has now."""
    guest = monitor.guest
    _require_balloon(guest)
    return {"actual": actual_memory(guest)}


@REGISTRY.command("screendump")
def screendump(
    monitor: Monitor,
    *,
    filename: str,
    device: str | None = None,
    head: int | None = None,
    format: str = "ppm",
) -> dict[str, Any]:
    """Write what the screen shows to a file of the host's, as PPM or PNG."""
    if device is not None:
        raise QmpError(f"Device '{device}' not found", ErrorClass.DEVICE_NOT_FOUND)
    if head:
        raise QmpError(f"There is one display, number 0, not {head}")
    if format not in ("ppm", "png"):
        raise QmpError(f"Parameter 'format' does not accept value '{format}'")
    screen = monitor.guest.screen()
    header = f"P6\n{screen.width} {screen.height}\n255\n".encode()
    _write_file(filename, screen.png() if format == "png" else header + screen.pixels.tobytes())
    return {}


@REGISTRY.command("pmemsave")
def pmemsave(monitor: Monitor, *, val: int, size: int, filename: str) -> dict[str, Any]:
    """Write `size` bytes of the guest's physical memory, from address `val` on, to a file of the host's."""
    if val < 0 or size < 0 or size > ram_size(monitor.guest):
        raise QmpError(f"There are no {size} bytes of memory at address {val}")
    parts = []
    for start in range(val, val + size, CHUNK):
        length = min(CHUNK, val + size - start)
        parts.append(monitor.look(partial(_read, gpa=start, length=length)))
    _write_file(filename, b"".join(parts))
    return {}


def _read(guest: Guest, gpa: int, length: int) -> bytes:
    try:
        return guest.memory.read(gpa, length)
    except GuestAddressError as error:
        raise UsageError(f"Cannot access memory: {error}") from None


def _write_file(filename: str, data: bytes) -> None:
    """Raises QmpError."""
    try:
        Path(filename).write_bytes(data)
    except OSError as error:
        raise QmpError(f"Could not open '{filename}': {error.strerror}") from None
    except ValueError:  # a NUL in it, or half a character
        raise QmpError(f"Could not open {filename!a}: it cannot be the name of a file") from None
