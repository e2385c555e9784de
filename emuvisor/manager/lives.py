"""Where the guests of a store are in their lives, so that it is known when their process ended without a word."""

import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from emuvisor.host import GuestState
from emuvisor.store import Store

__all__ = ["Life", "read_life", "write_life"]

_FILE = "state.json"
MAX_SIZE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Life:
    """A guest is in `state` for `reason` since `since` (seconds since 1970).

    On the disk, RUNNING is a guest that is switched on. `consumed` is the id of the saved state from which it went on:
    no second life comes from that. `parent` is the snapshot that it last took or was restored from.
    """

    state: GuestState = GuestState.DEFINED
    reason: str = ""
    since: float = field(default_factory=time.time)
    consumed: str = ""
    parent: str = ""


def read_life(folder: Path) -> Life:
    """What the guest's `folder` says; a guest without the file, or with a damaged one, is just defined."""
    path = folder / _FILE
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(MAX_SIZE))
        life = Life(
            GuestState(data["state"]), data["reason"], data["since"], data["consumed"], data["parent"]
        )
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return Life(since=_made(folder))
    texts = all(isinstance(text, str) for text in (life.reason, life.consumed, life.parent))
    if texts and isinstance(life.since, int | float) and math.isfinite(life.since):
        return life
    return Life(since=_made(folder))


def _made(folder: Path) -> float:
    try:
        return (folder / "guest.toml").stat().st_mtime
    except OSError:
        return 0.0


def write_life(store: Store, guest: str, life: Life) -> None:
    """Note it, in one step that is on the disk when this returns. Raises UsageError, HostError."""
    store.write_file(guest, _FILE, json.dumps(asdict(life)).encode())
