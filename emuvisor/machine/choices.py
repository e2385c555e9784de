"""The names that a configuration chooses among."""

from typing import Literal

__all__ = [
    "BoardName",
    "ClockMode",
    "DiskBus",
    "DiskFormat",
    "DiskKind",
    "FirmwareName",
    "InputKind",
    "RingLayout",
]

BoardName = Literal["pc", "microvm", "isa"]
ClockMode = Literal["virtual", "host"]
DiskKind = Literal["disk", "cdrom", "floppy"]
DiskFormat = Literal["raw", "qcow2", "overlay"]
DiskBus = Literal["ide", "virtio"]
InputKind = Literal["keyboard", "mouse", "tablet"]
RingLayout = Literal["split", "packed"]
FirmwareName = Literal["seabios", "ovmf"]
"""Firmware that the image cache has by name."""
