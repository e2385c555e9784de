"""What the source says of a guest before anything of it is sent."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import MigrationError
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.config_file import from_mapping
from emuvisor.migration.disk_blocks import DiskPlan
from emuvisor.migration.frames import Message
from emuvisor.units import PAGE_SIZE

__all__ = ["Offer", "bitmap_of", "pages_of"]

MIN_KEY = 16
MAX_DEVICE_PAGES = 1 << 14
"""Pages that a guest has besides its RAM: ROM, and its devices' memory."""
MAX_GAP_PAGES = 1 << 15
"""By so many the numbers of what can be plugged are rounded up."""
MAX_ADDRESS = 256


@dataclass(frozen=True, slots=True)
class Offer:
    """A guest that somebody wants to send."""

    config: GuestConfig
    pages: int
    """As `GuestMemory.page_count`."""
    held: int
    """How many of these can hold something: what comes takes frames of this host before the guest is built."""
    disks: list[DiskPlan]
    """By drive."""
    key: bytes
    """What both sides show when they connect again."""
    ask: str | None
    """Where the source can be asked."""

    @classmethod
    def of(cls, message: Message) -> "Offer":
        """From a message. Raises MigrationError and ConfigError."""
        config, pages, disks, key, ask = (
            message.get(name) for name in ("config", "pages", "disks", "key", "ask")
        )
        if not isinstance(config, dict) or not isinstance(disks, list):
            raise MigrationError("migration: the other side does not say which guest it offers")
        if not isinstance(key, bytes) or len(key) < MIN_KEY or type(pages) is not int:
            raise MigrationError("migration: the other side does not say which guest it offers")
        if ask is not None and (not isinstance(ask, str) or len(ask) > MAX_ADDRESS):
            raise MigrationError("migration: the other side cannot be asked where it says")
        guest = from_mapping(config, "migration: the guest's configuration", Path("/"))
        held = (guest.memory_max or guest.memory) // PAGE_SIZE + MAX_DEVICE_PAGES
        most = held + MAX_GAP_PAGES
        if not 0 < pages <= most:
            raise MigrationError(
                f"migration: the other side offers a guest of {pages} pages; 1 to {most} are possible"
            )
        return cls(guest, pages, held, [DiskPlan.of(item) for item in disks], key, ask)


def bitmap_of(flags: NDArray[np.bool_]) -> bytes:
    """A bit for each page, the first in bit 0."""
    return np.packbits(flags, bitorder="little").tobytes()


def pages_of(bitmap: Any, count: int) -> NDArray[np.int64]:
    """The pages in a bitmap of `count`. Raises MigrationError for anything else."""
    if not isinstance(bitmap, bytes) or len(bitmap) != -(-count // 8):
        raise MigrationError("migration: the other side does not say which pages are missing")
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), count=count, bitorder="little")
    return np.flatnonzero(bits)
