"""Guest physical memory as the model sees it."""

from typing import Protocol

__all__ = ["PhysicalMemory"]


class PhysicalMemory(Protocol):
    """Bytes by guest physical address (GPA). Accesses never cross a 4 KiB page.

    Nobody home reads all ones; writes there go nowhere.
    """

    def read(self, gpa: int, size: int) -> bytes:
        """The `size` bytes at `gpa`."""
        ...

    def write(self, gpa: int, data: bytes) -> None:
        """Store `data` at `gpa`."""
        ...
