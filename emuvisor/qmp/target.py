"""What a monitor is of: one guest, which may be switched off now."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from emuvisor.errors import SnapshotError, UsageError
from emuvisor.host import Guest, GuestState, Host
from emuvisor.host.checkpoint import Checkpoint
from emuvisor.units import PAGE_SIZE

if TYPE_CHECKING:
    from emuvisor.manager.records import MigrationStatus

__all__ = ["PlainGuest", "Snapshot", "Target"]

MAX_CHECKPOINTS = 100


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of the guest: `created` in seconds since 1970, `size` of what it keeps in bytes, `guest_ns` on the
    guest's clock, where that is known."""

    name: str
    created: float
    size: int
    guest_ns: int = 0


class Target(Protocol):
    """A guest, its power, its snapshots, its moves. All raise EmuvisorError for what is impossible."""

    @property
    def name(self) -> str:
        """What it is called on its host."""
        ...

    @property
    def host(self) -> Host:
        """Whose events are heard."""
        ...

    @property
    def guest(self) -> Guest:
        """The guest as its host has it now. Raises StateError when it is switched off."""
        ...

    @property
    def state(self) -> GuestState:
        """Where it is in its life."""
        ...

    def start(self) -> None:
        """Switch it on."""
        ...

    def pause(self) -> None:
        """Stop it where it is."""
        ...

    def resume(self) -> None:
        """Let it go on."""
        ...

    def reset(self) -> None:
        """Press the reset button."""
        ...

    def stop(self) -> None:
        """Switch it off at once."""
        ...

    def snapshots(self) -> list[Snapshot]:
        """Those that there are, the oldest first."""
        ...

    def take_snapshot(self, name: str) -> None:
        """Keep what it is now; one of the same name is replaced."""
        ...

    def go_back(self, name: str) -> None:
        """Be again what it was at a snapshot. Raises SnapshotError when there is none called so."""
        ...

    def delete_snapshot(self, name: str) -> None:
        """Forget one. Raises SnapshotError when there is none called so."""
        ...

    def migrate(self, to: str, options: Mapping[str, Any], /) -> None:
        """Move to another host, and return when it is there. `to` is "tcp:host:port" or
        "unix:path"."""
        ...

    def migration(self) -> "MigrationStatus | None":
        """How far its last move is; None when there was none."""
        ...

    def cancel_migration(self) -> None:
        """End a move that is under way, so that it stays here."""
        ...


class PlainGuest:
    """A guest that its host's program made: its snapshots are checkpoints in the host's memory, and go with it."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.host = guest.host
        self._checkpoints: dict[str, Checkpoint] = {}

    @property
    def name(self) -> str:
        """What it is called on its host."""
        return self.guest.name

    @property
    def state(self) -> GuestState:
        """Where it is in its life."""
        return self.guest.state

    def start(self) -> None:
        """Switch it on."""
        self.guest.start()

    def pause(self) -> None:
        """Stop it where it is."""
        self.guest.pause()

    def resume(self) -> None:
        """Let it go on."""
        self.guest.resume()

    def reset(self) -> None:
        """Press the reset button."""
        self.guest.reset()

    def stop(self) -> None:
        """Switch it off at once. One that is off already, because it ended by itself, is well."""
        if self.guest.state in (GuestState.RUNNING, GuestState.PAUSED):
            self.guest.stop()

    def snapshots(self) -> list[Snapshot]:
        """The checkpoints, the oldest first."""
        return [
            Snapshot(name, checkpoint.taken, checkpoint.memory.census()["shared"] * PAGE_SIZE)
            for name, checkpoint in self._checkpoints.items()
        ]

    def take_snapshot(self, name: str) -> None:
        """Make a checkpoint. Raises StateError unless it is on."""
        if name not in self._checkpoints and len(self._checkpoints) >= MAX_CHECKPOINTS:
            raise SnapshotError(f"guest {self.name!r} has {MAX_CHECKPOINTS} checkpoints; that is the limit")
        checkpoint = self.guest.checkpoint()
        old = self._checkpoints.pop(name, None)
        self._checkpoints[name] = checkpoint
        if old is not None:
            old.close()

    def go_back(self, name: str) -> None:
        """Back to a checkpoint. Raises SnapshotError."""
        self.guest.reset_to(self._checkpoint(name))

    def delete_snapshot(self, name: str) -> None:
        """Give back what a checkpoint keeps. Raises SnapshotError."""
        self._checkpoint(name).close()
        del self._checkpoints[name]

    def _checkpoint(self, name: str) -> Checkpoint:
        if name not in self._checkpoints:
            raise SnapshotError(f"guest {self.name!r} has no snapshot {name!r}")
        return self._checkpoints[name]

    def migrate(self, _to: str, _options: Mapping[str, Any]) -> None:
        """Not from here. Raises UsageError."""
        raise UsageError(f"guest {self.name!r} is in no store; only guests of a store can be migrated by QMP")

    def migration(self) -> "MigrationStatus | None":
        """There was none."""
        return None

    def cancel_migration(self) -> None:
        """There is nothing to cancel, which is well with QEMU, too."""
