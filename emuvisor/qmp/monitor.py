"""What all clients of one guest have in common."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from emuvisor.errors import StateError
from emuvisor.host import Guest, GuestState
from emuvisor.qmp.target import Target

if TYPE_CHECKING:
    from emuvisor.manager.records import MigrationStatus

__all__ = ["Monitor", "Then"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Then:
    """A command's answer, and what is to be done when the client has it."""

    answer: Any
    action: Callable[[], object]


@dataclass(eq=False)
class Monitor:
    """The guest `target`, and what commands left behind. `publish(event, data)` tells all clients, from any thread.

    Commands of all clients are carried out one after the other, as in QEMU: with `lock`.
    """

    target: Target
    publish: Callable[[str, Mapping[str, Any]], None]
    lock: threading.RLock = field(default_factory=threading.RLock)
    ready: threading.Event = field(default_factory=threading.Event)
    """Commands are carried out once this is set."""
    buttons: int = 0
    """Buttons of the PS/2 mouse that are held, as `Guest.point` has them."""
    quits: bool = False
    """A client has said `quit`."""
    resetting: bool = False
    """A client's reset is being carried out."""
    migration_parameters: dict[str, int | str] = field(default_factory=dict)
    """By QAPI's names, as far as they were set."""
    credentials: dict[str, dict[str, str]] = field(default_factory=dict)
    """Options for `Target.migrate`, by the id that `object-add` gave them."""
    capabilities: set[str] = field(default_factory=set)
    """QAPI's MigrationCapability, those that are on."""
    moving: threading.Thread | None = None
    """What carries out the last `migrate`."""
    migrates: bool = False
    """It has not ended, as clients have been told."""
    moved_before: "MigrationStatus | None" = None
    """How the migration before that ended, which the target may still say when it has begun."""
    migration_error: str = ""
    """Why that failed."""
    cancelled: bool = False
    """A client has ended it."""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Jobs that are concluded, by name, as `query-jobs` shows them."""

    @property
    def guest(self) -> Guest:
        """The guest as its host has it now. Raises StateError when it is switched off."""
        return self.target.guest

    def look(self, function: Callable[[Guest], _T]) -> _T:
        """What `function` finds in the guest while that is on no pCPU. Raises StateError while it is off or boots."""
        guest = self.guest
        with guest.host.lock:
            if guest.loading or guest.state is GuestState.GONE:
                raise StateError(f"guest {guest.name!r} is being started or deleted")
            return guest.host.between_runs(guest, lambda: function(guest))
