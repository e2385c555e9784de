"""What a snapshot says besides pages: how the guest was made, its machine's state, and how its memory is laid out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from emuvisor.bus.device import SavedState, check_saved
from emuvisor.bus.saved import saved_part
from emuvisor.errors import SnapshotError
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.config_file import from_mapping
from emuvisor.machine.config_mapping import to_mapping
from emuvisor.machine.state_versions import upgrade
from emuvisor.memory import GuestMemory
from emuvisor.memory.saved_layout import Layout

__all__ = ["Contents"]

_DEVICE = "guest"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Contents:
    """A guest's snapshot without pages, and without what is on disks."""

    config: GuestConfig
    machine: SavedState
    """Of `machine_state.save_machine`."""
    memory: Any
    """Of `Layout.as_plain`."""
    disks: Sequence[SavedState | None]
    """By drive, what `keep_disks` says of it; None for one that is not in the snapshot."""

    @classmethod
    def of(
        cls,
        config: GuestConfig,
        machine: SavedState,
        memory: GuestMemory,
        disks: Sequence[SavedState | None],
    ) -> Self:
        """Those of a guest that was made by `config`."""
        return cls(config, machine, Layout.of(memory).as_plain(), disks)

    def as_plain(self) -> SavedState:
        """As plain data."""
        return {
            "device": _DEVICE,
            "version": _VERSION,
            "config": to_mapping(self.config),
            "machine": self.machine,
            "memory": self.memory,
            "disks": list(self.disks),
        }

    @classmethod
    def from_plain(cls, data: Any) -> Self:
        """What `as_plain` made `data` from, also in an earlier version. Raises SnapshotError for anything else, and
        ConfigError for a configuration that this version does not have."""
        if not isinstance(data, dict):
            raise SnapshotError("it holds no guest")
        data = upgrade(data)
        check_saved(data, _DEVICE, _VERSION)
        disks = data.get("disks")
        if not isinstance(disks, list) or not all(disk is None or isinstance(disk, dict) for disk in disks):
            raise SnapshotError("it does not say which disks the guest has")
        config = from_mapping(saved_part(data, _DEVICE, "config"), "its configuration", Path("/"))
        if len(disks) != len(config.disks):
            raise SnapshotError(f"it has {len(disks)} disks for a guest with {len(config.disks)}")
        return cls(config, saved_part(data, _DEVICE, "machine"), data.get("memory"), disks)
