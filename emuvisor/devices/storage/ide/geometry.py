"""Cylinders, heads and sectors: the addresses of the time before LBA (ATA-5, T13/1321D, section 6.2)."""

from dataclasses import dataclass

__all__ = ["Geometry", "default_geometry"]

MAX_CYLINDERS = 16383
"""What a disk of any larger size says it has (ATA/ATAPI-6, annex D)."""
MAX_TRANSLATED_CYLINDERS = 65535
HEADS = 16
SECTORS = 63


@dataclass(frozen=True, slots=True)
class Geometry:
    """A translation; sectors count from 1."""

    cylinders: int
    heads: int
    sectors: int

    @property
    def capacity(self) -> int:
        """Sectors that have an address."""
        return self.cylinders * self.heads * self.sectors

    def to_lba(self, cylinder: int, head: int, sector: int) -> int | None:
        """The sector's number; None for an address outside."""
        if cylinder < self.cylinders and head < self.heads and 1 <= sector <= self.sectors:
            return (cylinder * self.heads + head) * self.sectors + sector - 1
        return None

    def from_lba(self, lba: int) -> tuple[int, int, int]:
        """Cylinder, head and sector of a sector's number."""
        track, sector = divmod(lba, self.sectors)
        cylinder, head = divmod(track, self.heads)
        return cylinder, head, sector + 1


def default_geometry(capacity: int) -> Geometry:
    """What a disk of `capacity` sectors (at least 1) shows: 16 heads and 63 sectors, fewer if it is very small."""
    sectors = min(SECTORS, capacity)
    heads = min(HEADS, capacity // sectors)
    return Geometry(min(MAX_CYLINDERS, capacity // (heads * sectors)), heads, sectors)


def translated(capacity: int, heads: int, sectors: int) -> Geometry:
    """The geometry that INITIALIZE DEVICE PARAMETERS asks for."""
    return Geometry(min(MAX_TRANSLATED_CYLINDERS, capacity // (heads * sectors)), heads, sectors)
