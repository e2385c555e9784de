"""How much memory a guest has, in QMP's terms."""

from emuvisor.host import Guest
from emuvisor.units import PAGE_SIZE

__all__ = ["actual_memory", "plugged_memory", "ram_size"]


def plugged_memory(guest: Guest) -> int:
    """Bytes that were plugged beside those that it booted with."""
    virtio = guest.machine.virtio
    return 0 if virtio is None or virtio.mem is None else virtio.mem.plugged_size


def ram_size(guest: Guest) -> int:
    """Bytes of RAM that it has."""
    return guest.config.memory + plugged_memory(guest)


def actual_memory(guest: Guest) -> int:
    """Bytes of them that are not in its balloon, of which it has one. Raises UsageError when it has none."""
    return ram_size(guest) - guest.balloon.ballooned_pages * PAGE_SIZE
