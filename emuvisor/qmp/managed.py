"""A guest of a store, for a monitor: its snapshots are the store's, and it can be moved."""

from collections.abc import Mapping
from typing import Any

from emuvisor.host import Guest, GuestState, Host
from emuvisor.manager import Manager
from emuvisor.manager.records import MigrationStatus
from emuvisor.qmp.target import Snapshot

__all__ = ["ManagedGuest"]


class ManagedGuest:
    """Guest `name` of `manager`; see `Target`. Whether there is such a guest shows when it is used."""

    def __init__(self, manager: Manager, name: str) -> None:
        self._manager = manager
        self.name = name

    @property
    def host(self) -> Host:
        """The manager's."""
        return self._manager.host

    @property
    def guest(self) -> Guest:
        """The guest as its host has it now. Raises StateError when it is switched off."""
        return self._manager.guest(self.name)

    @property
    def state(self) -> GuestState:
        """Where it is in its life."""
        return self._manager.state(self.name)

    def start(self) -> None:
        """Switch it on; a saved one goes on where it was."""
        self._manager.start(self.name)

    def pause(self) -> None:
        """Stop it where it is."""
        self._manager.pause(self.name)

    def resume(self) -> None:
        """Let it go on."""
        self._manager.resume(self.name)

    def reset(self) -> None:
        """Press the reset button."""
        self._manager.reset(self.name)

    def stop(self) -> None:
        """Switch it off at once. One that is off already is well."""
        if self.state not in (GuestState.DEFINED, GuestState.SAVED):
            self._manager.stop(self.name)

    def snapshots(self) -> list[Snapshot]:
        """Those of the store, the oldest first."""
        return [
            Snapshot(record.name, record.created, record.bytes)
            for record in self._manager.snapshots(self.name)
        ]

    def take_snapshot(self, name: str) -> None:
        """Write one to the store; one of the same name is replaced."""
        if any(snapshot.name == name for snapshot in self.snapshots()):
            self._manager.delete_snapshot(self.name, name)
        self._manager.snapshot(self.name, name)

    def go_back(self, name: str) -> None:
        """Go on from a snapshot, as it did: running or paused."""
        self._manager.restore(self.name, name, running=self.state is GuestState.RUNNING)

    def delete_snapshot(self, name: str) -> None:
        """Forget one."""
        self._manager.delete_snapshot(self.name, name)

    def migrate(self, to: str, options: Mapping[str, Any]) -> None:
        """Move to the emuvisor that listens at `to`."""
        self._manager.migrate(self.name, to, **options)

    def migration(self) -> MigrationStatus | None:
        """How far its last move is; None when there was none."""
        return self._manager.migration(self.name)

    def cancel_migration(self) -> None:
        """End a move that is under way."""
        self._manager.cancel_migration(self.name)
