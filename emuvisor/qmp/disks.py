"""A guest's drives by the names that QEMU gives them."""

from collections import Counter
from dataclasses import dataclass

from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.host import Guest
from emuvisor.machine.boards.wiring import Drive
from emuvisor.machine.config import DiskConfig

__all__ = ["Disk", "disks"]

IDE_DRIVES = 2
"""Drives on a channel."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A drive: its name with QEMU ("ide0-hd1", "ide1-cd0", "floppy0", "virtio0"), and what it is."""

    device: str
    drive: Drive
    config: DiskConfig

    @property
    def image(self) -> BlockDevice | None:
        """What is in it."""
        return self.drive.image

    @property
    def removable(self) -> bool:
        """Whether its medium can be taken out."""
        return self.drive.kind != "disk"

    @property
    def path(self) -> str:
        """Its place in a tree like QEMU's object model."""
        return f"/machine/peripheral-anon/{self.device}"


def disks(guest: Guest) -> list[Disk]:
    """All of its drives, in the order of its configuration."""
    counts: Counter[str] = Counter()
    found = []
    for drive, config in zip(guest.machine.drives, guest.config.disks, strict=True):
        bus = "floppy" if drive.kind == "floppy" else drive.bus
        place = counts[bus]
        counts[bus] += 1
        if bus == "ide":
            kind = "cd" if drive.kind == "cdrom" else "hd"
            name = f"ide{place // IDE_DRIVES}-{kind}{place % IDE_DRIVES}"
        else:
            name = f"{bus}{place}"
        found.append(Disk(name, drive, config))
    return found
