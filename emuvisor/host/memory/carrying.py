"""Carrying out a plan. Each guest is off its pCPU for one slice of work at a time, some milliseconds at most."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress

from emuvisor.errors import OutOfFrames, PageLost, StateError
from emuvisor.host.memory.decisions import Decision, DecisionLog
from emuvisor.host.memory.given import note_request
from emuvisor.host.memory.instructions import (
    Allow,
    Balloon,
    Instruction,
    Resume,
    ScanSharing,
    SendAway,
)
from emuvisor.host.memory.managed import Account, ManagedGuest, ManagedHost
from emuvisor.host.memory.scanning import Scanner
from emuvisor.host.memory.stores import Stores
from emuvisor.host.memory.use import COMMON
from emuvisor.memory.shared_frames import evictable_shared, send_shared_away

__all__ = ["Carrier"]

SCAN_PAGES = 512
"""Pages that it is worth while to go round the guests for."""
SLICE_PAGES = 128
"""Pages sent away while a guest is off its pCPU once: 1 to 2 ms of compression."""


def _count(sent: dict[str, tuple[int, int]], store: str, pages: int, gained: int) -> None:
    """`pages` more were to go to `store`, which `gained` frames."""
    before = sent.get(store, (0, 0))
    sent[store] = before[0] + pages, before[1] + gained


class Carrier:
    """Does what instructions say to the guests of `host`, and notes in `log` what came of it."""

    def __init__(
        self,
        host: ManagedHost,
        stores: Stores,
        log: DecisionLog,
        account: Callable[[ManagedGuest], Account],
        tenants: Mapping[str, str],
    ) -> None:
        self._host = host
        self._stores = stores
        self._log = log
        self._account = account
        self._due = 0
        """Pages that should have been scanned by now."""
        self.scanned = (0, 0)
        """Pages that were looked at for sharing since somebody set this to 0, and the frames that it gained."""
        self.common_sent: dict[str, tuple[int, int]] = {}
        """As `Account.sent`, for frames that several guests share; emptied by somebody, too."""
        self.scanner = Scanner(host, tenants, account)

    def carry_out(self, instruction: Instruction, scan_part: float) -> int:
        """Returns how many frames the host gained at once. `scan_part` is the part of a period that has passed since
        pages were last scanned."""
        if isinstance(instruction, ScanSharing):
            return self._scan(instruction, int(instruction.pages * scan_part))
        if isinstance(instruction, SendAway) and instruction.guest == COMMON:
            return self._send_common_away(instruction)
        guest = next((g for g in self._host.all_guests() if g.name == instruction.guest), None)
        if guest is None:  # deleted since
            return 0
        if isinstance(instruction, SendAway):
            return self._send_away(instruction, guest)
        if isinstance(instruction, Balloon):
            self._balloon(instruction, guest)
        elif isinstance(instruction, Allow):
            limit = instruction.may_take
            guest.memory.take_limit = None if limit is None else self._account(guest).taken + limit
        elif isinstance(instruction, Resume):
            self._note(instruction, 0)
            self._host.feed(guest.name)
        return 0  # a Pause is carried out when it is known that the guest still starves

    def _note(self, instruction: Instruction, frames: int, guest: str | None = None) -> None:
        self._log.add(
            Decision(
                time=time.time(),
                guest=instruction.guest if guest is None else guest,
                rung=instruction.rung,
                frames=frames,
                why=instruction.why,
                numbers=instruction.numbers,
            )
        )

    def _scan(self, instruction: ScanSharing, pages: int) -> int:
        self._due += pages
        if self._due < min(instruction.pages, SCAN_PAGES):
            return 0  # a step that was taken early: it would cost more than it looks at
        looked, gained = self.scanner.scan(self._due)
        self._due = 0
        self.scanned = (self.scanned[0] + looked, self.scanned[1] + sum(gained.values()))
        for name, frames in gained.items():
            self._note(instruction, frames, name)
        return sum(gained.values())

    def _send_away(self, instruction: SendAway, guest: ManagedGuest) -> int:
        state = self._stores.state(instruction.store)
        account = self._account(guest)
        asked = freed = 0
        pages: list[tuple[int, int]] | None = None
        while state is not None and (pages is None or pages):
            with self._host.held(guest.name) as held:
                if not held:
                    break
                if pages is None:
                    pages = guest.memory.evictable(instruction.pages, state)
                    asked += instruction.pages - len(pages)  # it is known that others will not do
                part, pages = pages[:SLICE_PAGES], pages[SLICE_PAGES:]
                account.in_flight = len(part)
                asked += len(part)
                try:
                    freed += guest.memory.send_away(state, part)
                finally:
                    account.in_flight = 0
        _count(account.sent, instruction.store, asked, freed)
        if freed:
            self._note(instruction, freed)
        return freed

    def _send_common_away(self, instruction: SendAway) -> int:
        """Send frames away that guests share. All guests are off their pCPUs for each slice: who shows a frame is not
        known before."""
        state = self._stores.state(instruction.store)
        if state is None:
            return 0
        guests = {guest.name: guest.memory for guest in self._host.all_guests()}
        frames = evictable_shared(tuple(guests.values()), instruction.pages, state)
        freed = 0
        for start in range(0, len(frames), SLICE_PAGES):
            with ExitStack() as stack:
                held = [
                    memory for name, memory in guests.items() if stack.enter_context(self._host.held(name))
                ]
                freed += send_shared_away(held, state, frames[start : start + SLICE_PAGES])
        _count(self.common_sent, instruction.store, instruction.pages, freed)
        if freed:
            self._note(instruction, freed)
        return freed

    def drop_leftovers(self) -> int:
        """Forget the memory of guests that have switched themselves off: it is there to be looked at only. Returns
        how many frames that gained."""
        gained = 0
        for guest in self._host.all_guests():
            if not guest.is_leftover:
                continue
            with self._host.held(guest.name) as held:
                if not held or not guest.is_leftover:
                    continue
                frames = guest.memory.census()["resident"]
                guest.memory.reset()
            if frames:
                why = f"gives {frames} frames: it is switched off"
                self._log.add(Decision(time.time(), guest.name, "leftovers", frames, why))
            gained += frames
        return gained

    # ---- balloons ----

    def _balloon(self, instruction: Balloon, guest: ManagedGuest) -> None:
        account = self._account(guest)
        if instruction.target == account.target:
            return
        with self._host.held(guest.name) as held:
            if held:
                account.target = instruction.target
                account.balloon_why = instruction.why
                account.balloon_numbers = {**instruction.numbers, "asked": instruction.frames}
                self.set_balloon(guest, account)
                note_request(self._log, guest, account)

    @staticmethod
    def set_balloon(guest: ManagedGuest, account: Account) -> None:
        """Let the balloon hold what the manager, or who else asked, wants most. The guest is on no pCPU."""
        if guest.balloon_device is not None:
            guest.balloon_device.target_pages = max(account.target, account.wish)

    # ---- samples ----

    @staticmethod
    def sample(guest: ManagedGuest, account: Account, wanted: bool) -> None:
        """Begin, take or end the sampling of the pages that a guest uses; and ask it what it knows about its memory.
        The guest is on no pCPU."""
        if not wanted:
            guest.memory.stop_sampling()
        elif not account.sampling:
            guest.memory.start_sampling()
        else:
            account.accessed = guest.memory.collect_accessed()
            if guest.balloon_device is not None and not guest.deterministic:
                # It has no driver that tells, or there is no frame for its ring, or that is lost.
                with suppress(StateError, OutOfFrames, PageLost):
                    guest.balloon_device.request_statistics()
        account.sampling = wanted
