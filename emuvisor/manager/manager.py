"""The manager of guests: names to guests, from creation to deletion."""

import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from emuvisor.errors import EmuvisorError, StateError, UsageError
from emuvisor.host import Guest, GuestState, Host
from emuvisor.host.states import require
from emuvisor.manager.access import Access
from emuvisor.manager.core import ON
from emuvisor.manager.moves import Moves
from emuvisor.manager.switching import WITH_HOST
from emuvisor.manager.upkeep import Upkeep
from emuvisor.store import Store

__all__ = ["Manager"]

PRESS_S = 1.0
"""How often the power button is tried until somebody in the guest listens."""


class Manager(Moves, Access, Upkeep):
    """The guests of `store`, of which there are `max_guests` at most; those that are on run on `host`.

    It owns both and closes them; use it as a context manager, or call `close`. Methods may be called from any thread.
    A guest is named; an unknown name raises UsageError, an operation in the wrong state StateError with guest, state
    and what is needed, anything that the disk refuses HostError.

    Guests that ran when the process of an earlier manager was killed are `crashed`.
    """

    def __init__(self, host: Host, store: Store, *, max_guests: int = 10_000) -> None:
        self.max_guests = max_guests
        self._closed = False
        super().__init__(host, store)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- life ----

    def shutdown(self, name: str, timeout_s: float = 60.0) -> bool:
        """Press the power button, which asks the guest's system to shut down, as soon as that listens, and wait; after
        `timeout_s` it is switched off. Returns whether it went by itself."""
        require(name, self._entry(name).life.state, (GuestState.RUNNING,), "shutdown")
        guest = self.guest(name)
        end = time.monotonic() + timeout_s
        pressed = False
        while guest.state is GuestState.RUNNING and (left := end - time.monotonic()) > 0:
            if not pressed:
                with suppress(UsageError):  # nobody listens yet
                    guest.press_power_button()
                    pressed = True
            guest.wait(left if pressed else min(left, PRESS_S))
        by_itself = guest.state is not GuestState.RUNNING
        if not by_itself:
            with suppress(StateError):
                self.stop(name)
        self.settle()
        return by_itself

    def reset(self, name: str) -> None:
        """Press the reset button of a guest that is on."""
        with self._locked(name):
            self._on(name, "reset").reset()

    def pause(self, name: str) -> None:
        """Stop a running guest where it is."""
        with self._locked(name):
            self._on(name, "pause").pause()

    def resume(self, name: str) -> None:
        """Let a paused guest go on."""
        with self._locked(name):
            self._on(name, "resume", GuestState.PAUSED).resume()

    def _on(self, name: str, verb: str, *states: GuestState) -> Guest:
        require(name, self._entry(name).life.state, states or ON, verb)
        return self.guest(name)

    # ---- the end and the beginning of the process ----

    def close(self, save: bool = True) -> None:
        """Save the guests that are on, or with `save` off switch them off, and close host and store. Closing it twice
        does no harm."""
        if self._closed:
            return
        self._closed = True
        for name, entry in sorted(self._entries.items()):
            self._end_disk_move(entry)
            if entry.life.state in ON:
                self._put_away(name, save)
        self.settle()
        self.host.listeners.remove(self._heard)
        self.host.close()
        self._ended.put(None)
        self._reaper.join()
        self._journal.close()
        self._log_writer.close()
        self.store.close()

    def _put_away(self, name: str, save: bool) -> None:
        """The process ends: save the guest, or else switch it off."""
        try:
            if save:
                self._save(name, WITH_HOST)
        except EmuvisorError as error:
            self.host.warn(f"guest {name!r} cannot be saved, and is switched off: {error}")
        try:
            if self.state(name) in ON:
                self.stop(name)
        except EmuvisorError as error:
            self.host.warn(f"guest {name!r}: {error}")
