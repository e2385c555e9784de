"""What guests give on their own time, or take back: counted from one look to the next, and noted with the reason."""

import time

from emuvisor.host.memory.decisions import Decision, DecisionLog
from emuvisor.host.memory.managed import Account, ManagedGuest

__all__ = ["note_gone", "note_request", "note_what_was_given"]

BALLOON = "balloon"
REPORTING = "reporting"
"""Pages of which a guest says that it does not use them: free page reporting, and hints."""


def note_request(log: DecisionLog, guest: ManagedGuest, account: Account) -> None:
    """The guest's balloon has a new target, for the reason in `account`. No frame has moved yet."""
    target = _target(guest)
    why = f"its balloon is to hold {target} pages: {account.balloon_why}"
    log.add(Decision(time.time(), guest.name, BALLOON, 0, why, {**account.balloon_numbers, "target": target}))


def _target(guest: ManagedGuest) -> int:
    return 0 if guest.balloon_device is None else guest.balloon_device.target_pages


def note_what_was_given(log: DecisionLog, guest: ManagedGuest, account: Account, ballooned: int) -> None:
    """The guest's balloon holds `ballooned` pages by the host's own count: note what moved since the last look."""
    memory = guest.memory
    freed, account.frames_ballooned = account.frames_ballooned, memory.frames_ballooned
    freed = account.frames_ballooned - freed
    pages, account.ballooned = ballooned - account.ballooned, ballooned
    if pages:
        target = _target(guest)
        moved = f"gave {-pages} pages back"
        if pages > 0:
            moved = f"took {pages} pages, which freed {freed} frames,"
        why = f"its balloon {moved} and holds {ballooned} of {target}"
        if account.balloon_why:
            why += f": {account.balloon_why}"
        numbers = {**account.balloon_numbers, "target": target, "ballooned": ballooned, "freed": freed}
        log.add(Decision(time.time(), guest.name, BALLOON, pages, why, numbers))
    reported, account.frames_discarded = account.frames_discarded, memory.frames_discarded
    reported = account.frames_discarded - reported
    if reported:
        why = f"said that it does not use {reported} frames"
        log.add(Decision(time.time(), guest.name, REPORTING, reported, why))


def note_gone(log: DecisionLog, name: str, account: Account) -> None:
    """A guest is gone, and what was in its balloon with it."""
    if account.ballooned:
        why = f"is gone, and its balloon of {account.ballooned} pages with it"
        log.add(Decision(time.time(), name, BALLOON, -account.ballooned, why))
