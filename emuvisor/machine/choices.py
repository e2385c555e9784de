"""The names that a configuration chooses among."""

from typing import Literal

__all__ = ["BoardName", "ClockMode", "DiskKind", "FirmwareName"]

BoardName = Literal["pc", "microvm", "isa"]
ClockMode = Literal["virtual", "host"]
DiskKind = Literal["disk", "cdrom", "floppy"]
FirmwareName = Literal["seabios", "ovmf"]
"""Firmware that the image cache has by name."""
