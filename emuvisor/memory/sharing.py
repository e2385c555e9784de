"""Content-based page sharing: pages of equal content, of one guest or of several, get one frame, copied when written.

Waldspurger, "Memory resource management in VMware ESX Server" (OSDI 2002), section 4, for hints found by hash, and
Linux's KSM for leaving pages alone whose content changes. It goes in two steps: `find` reads and hashes while guests
run; `share` compares byte by byte and shares, with the guests concerned stopped.

Memory: 4 bytes per page of the guests, and at most 64 per frame of the pool (1.6 %).
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from emuvisor.memory.guest import GuestMemory
from emuvisor.memory.hints import HintTable
from emuvisor.memory.pagehash import PageHash, mixed
from emuvisor.memory.pool import FramePool
from emuvisor.memory.stage2 import FRAME_MASK, FRAMED, STATE_SHIFT, Entries, FrameState, entry, in_states

__all__ = ["Findings", "PageSharing", "Savings", "ScanResult", "SharingStatistics", "savings"]

Places = NDArray[np.int64]
"""Pages of a slot, by index."""

_WINDOW, _LEAST_WINDOW = 8192, 1024
"""Entries of a slot that are looked at in one step, a lot: at most, and at least for a small budget."""
_SHARED = np.uint32(entry(FrameState.SHARED))
_PRESENT = 1 << 63
"""A hint is: this bit, the guest's number, the slot's number, the page's index."""
_GUEST_SHIFT = 37
_GUEST_MASK = (1 << 26) - 1
_SLOT_SHIFT = 32
_SLOT_MASK = (1 << 5) - 1
_PAGE_MASK = (1 << 32) - 1


@dataclass(slots=True)
class _Scan:
    """What is known of a guest."""

    memory: GuestMemory
    number: int
    tenant: str
    salt: int
    cursor: tuple[int, int] = (0, 0)
    """Slot number and page at which the next scan begins."""
    tags: list[NDArray[np.uint32]] = field(default_factory=list)
    """By slot: half of each page's hash when it was last seen, 0 when it never was."""

    def tags_of(self, slot: int) -> NDArray[np.uint32]:
        """Those of one slot; slots are added while the guest is built."""
        for other in self.memory.slots[len(self.tags) : slot + 1]:
            self.tags.append(np.zeros(len(other.entries), np.uint32))
        return self.tags[slot]


@dataclass(frozen=True, slots=True)
class _Match:
    """Pages of one slot that look like pages of one slot of another guest, or the same."""

    slot: int
    pages: Places
    keys: NDArray[np.uint64]
    partner: GuestMemory
    partner_slot: int
    partner_pages: Places


@dataclass(frozen=True, slots=True)
class Findings:
    """What `PageSharing.find` found in `memory`."""

    memory: GuestMemory
    scanned: int
    zero: list[tuple[int, Places]]
    """Pages that look like zeros, by slot number."""
    matches: list[_Match]

    @property
    def pages(self) -> int:
        """How many pages of `memory` may be shared."""
        return sum(len(pages) for _, pages in self.zero) + sum(len(match.pages) for match in self.matches)

    @property
    def guests(self) -> tuple[GuestMemory, ...]:
        """Who must be on no pCPU while these are shared; nobody when there is nothing to share."""
        if not self.zero and not self.matches:
            return ()
        return tuple(dict.fromkeys([self.memory, *(match.partner for match in self.matches)]))


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What a scan did, in pages: `scanned`, found to be `zero`, `shared` with others; and frames `freed`."""

    scanned: int
    zero: int
    shared: int
    freed: int


@dataclass(slots=True)
class SharingStatistics:
    """What all scans did, as in `ScanResult`."""

    scanned: int = 0
    zero: int = 0
    shared: int = 0
    freed: int = 0
    mismatched: int = 0
    """Pages that were taken to be equal for their hashes and were not, or not any more."""
    seconds: float = 0.0
    """Spent in them."""


class PageSharing:
    """Finds pages of guests of `pool` that hold the same. Not for several threads at once.

    Guests of different tenants never share, but for pages of zeros, which tell nothing. `clock` gives seconds; `seed`
    makes hashes the same in each run.
    """

    def __init__(
        self, pool: FramePool, *, clock: Callable[[], float] = time.perf_counter, seed: int | None = None
    ) -> None:
        self.pool = pool
        self.statistics = SharingStatistics()
        self._clock = clock
        self._hash = PageHash(pool, seed)
        self._secret = secrets.token_bytes(16)
        self._hints = HintTable(pool.limit)
        self._scans: dict[GuestMemory, _Scan] = {}
        self._by_number: dict[int, _Scan] = {}
        self._last_number = 0

    # ---- guests ----

    def join(self, memory: GuestMemory, tenant: str = "") -> None:
        """`memory` belongs to `tenant`. A guest that is scanned without belongs to the tenant "". What was known of it
        before is forgotten."""
        self.forget(memory)
        self._last_number = self._last_number + 1 & _GUEST_MASK
        salt = hashlib.blake2b(tenant.encode(), key=self._secret, digest_size=8).digest()
        scan = _Scan(memory, self._last_number, tenant, int.from_bytes(salt, "little"))
        self._scans[memory] = self._by_number[scan.number] = scan

    def forget(self, memory: GuestMemory) -> None:
        """A guest is gone. What it shares stays shared."""
        scan = self._scans.pop(memory, None)
        if scan is not None:
            del self._by_number[scan.number]

    def scan(self, memory: GuestMemory, budget: int) -> ScanResult:
        """`find` and `share` in one, while all guests are on no pCPU."""
        return self.share(self.find(memory, budget))

    # ---- find ----

    def find(self, memory: GuestMemory, budget: int) -> Findings:
        """Look at up to `budget` pages from where the last look at this guest ended, at each once at most. Guests may
        run: what is found is made sure of in `share`.

        A page is a candidate only when its hash is what it was one look before; pages of zeros always are.
        """
        began = self._clock()
        if memory not in self._scans:
            self.join(memory)
        scan = self._scans[memory]
        findings = Findings(memory, 0, [], [])
        scanned = 0
        for slot, pages in self._next_pages(scan, budget):
            scanned += len(pages)
            self._look(scan, slot, pages, findings)
        self.statistics.scanned += scanned
        self.statistics.seconds += self._clock() - began
        return Findings(memory, scanned, findings.zero, findings.matches)

    def _next_pages(self, scan: _Scan, budget: int) -> Iterator[tuple[int, Places]]:
        """Up to `budget` pages with a frame, in lots, once round the guest at most."""
        slots = scan.memory.slots
        first, page = scan.cursor
        turns = [(number, 0, len(slots[number].entries)) for number in range(len(slots))]
        turns = [*turns[first:], *turns[:first], *((n, 0, page) for n, _, _ in turns[first : first + 1])]
        for turn, (number, low, high) in enumerate(turns):
            start = page if turn == 0 else low
            while start < high and budget > 0:
                end = min(start + min(_WINDOW, max(_LEAST_WINDOW, 2 * budget)), high)
                pages = start + np.flatnonzero(self._has_frame(slots[number].entries[start:end]))
                if len(pages) > budget:
                    pages = pages[:budget]
                    end = int(pages[-1]) + 1
                budget -= len(pages)
                start = end
                scan.cursor = (number, end)
                if len(pages):
                    yield number, pages

    def _has_frame(self, entries: Entries) -> NDArray[np.bool_]:
        """Which of `entries` are RAM or ROM with a frame that is not the zero frame."""
        own: NDArray[np.bool_] = (entries & np.uint32(FRAME_MASK)) != self.pool.zero_frame
        return own & in_states(entries, FRAMED)

    def _look(self, scan: _Scan, slot: int, pages: Places, findings: Findings) -> None:
        """Look at `pages` of `slot`, which have frames, and add to `findings`."""
        hashes = self._hash(scan.memory.slots[slot].entries[pages] & np.uint32(FRAME_MASK))
        zero = hashes == 0
        if zero.any():
            findings.zero.append((slot, pages[zero]))
        pages, keys = pages[~zero], mixed(hashes[~zero], scan.salt)
        known, tags = scan.tags_of(slot), _tags(keys)
        stable = known[pages] == tags
        known[pages] = tags
        pages, keys = pages[stable], keys[stable]
        alone = ~self._follow(scan, slot, pages, keys, findings)
        pages, keys = pages[alone], keys[alone]
        self._hints.put(keys, _hints(scan.number, slot, pages))
        self._follow(scan, slot, pages, keys, findings)  # to others of this lot

    def _follow(
        self, scan: _Scan, slot: int, pages: Places, keys: NDArray[np.uint64], findings: Findings
    ) -> NDArray[np.bool_]:
        """Follow the hints for `keys` of `pages`, and add the matches; returns which hints were of use."""
        hints = self._hints.find(keys)
        of_use: NDArray[np.bool_] = hints == _hints(scan.number, slot, pages)
        groups = hints >> np.uint64(_SLOT_SHIFT)
        for group in np.unique(groups[~of_use & (hints != 0)]).tolist():
            partner = self._by_number.get(group >> _GUEST_SHIFT - _SLOT_SHIFT & _GUEST_MASK)
            if partner is None or partner.tenant != scan.tenant:
                continue  # it is gone, or its number was given to somebody else
            there = group & _SLOT_MASK
            same = np.flatnonzero(~of_use & (groups == group))
            places = (hints[same] & np.uint64(_PAGE_MASK)).astype(np.int64)
            entries = partner.memory.slots[there].entries[places]
            good = self._has_frame(entries) & (partner.tags_of(there)[places] == _tags(keys[same]))
            same, places, entries = same[good], places[good], entries[good]
            of_use[same] = True
            own = scan.memory.slots[slot].entries[pages[same]]
            new = (entries & np.uint32(FRAME_MASK)) != (own & np.uint32(FRAME_MASK))
            if new.any():
                same = same[new]
                findings.matches.append(
                    _Match(slot, pages[same], keys[same], partner.memory, there, places[new])
                )
        return of_use

    # ---- share ----

    def share(self, findings: Findings) -> ScanResult:
        """Share those pages of `findings` that do hold the same; all of `findings.guests` are on no pCPU."""
        began = self._clock()
        pool, memory = self.pool, findings.memory
        before = memory.frames_merged
        zero = shared = wrong = 0
        for slot, pages in findings.zero:
            zeros = np.full(len(pages), pool.zero_frame, np.uint32)
            zero += int(memory.share_frames(slot, pages, zeros).sum())
        for match in findings.matches:
            done = self._share(memory, match)
            shared += int(done.sum())
            wrong += int((~done).sum())
            scan = self._scans.get(memory)
            if scan is not None:
                self._hints.put(match.keys[~done], _hints(scan.number, match.slot, match.pages[~done]))
        result = ScanResult(findings.scanned, zero, shared, memory.frames_merged - before)
        self.statistics.zero += zero
        self.statistics.shared += shared
        self.statistics.freed += result.freed
        self.statistics.mismatched += wrong
        self.statistics.seconds += self._clock() - began
        return result

    def _share(self, memory: GuestMemory, match: _Match) -> NDArray[np.bool_]:
        """Let pages show their partner's frames; returns which do."""
        entries = match.partner.slots[match.partner_slot].entries
        values = entries[match.partner_pages]
        done = self._has_frame(values)
        frames = values[done] & np.uint32(FRAME_MASK)
        own = match.partner_pages[values >> STATE_SHIFT == FrameState.RESIDENT]
        entries[own] = _SHARED | entries[own] & np.uint32(FRAME_MASK)
        match.partner.revoke()
        # Lent for a moment, so that each frame has the second reference that makes it unchanging.
        self.pool.share(frames)
        done[done] = memory.share_frames(match.slot, match.pages[done], frames)
        self.pool.release(frames)
        return done


def _hints(guest: int, slot: int, pages: Places) -> NDArray[np.uint64]:
    """Hints at `pages` of a guest's slot."""
    return np.uint64(_PRESENT | guest << _GUEST_SHIFT | slot << _SLOT_SHIFT) | pages.astype(np.uint64)


def _tags(keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """What is remembered of each page's key; never 0."""
    return (keys >> np.uint64(32)).astype(np.uint32) | np.uint32(1)


@dataclass(frozen=True, slots=True)
class Savings:
    """What sharing saves at the moment, whoever brought it about: scans, or clones that were made so."""

    zero_pages: int
    """Show the zero frame."""
    shared_pages: int
    """Show a frame that other pages show too."""
    shared_frames: int
    """Those frames."""

    @property
    def frames_without_zero(self) -> int:
        """Frames that there would be more, if pages of zeros cost nothing."""
        return self.shared_pages - self.shared_frames

    @property
    def frames(self) -> int:
        """Frames that there would be more."""
        return self.zero_pages + self.frames_without_zero


def savings(pool: FramePool, memories: Iterable[GuestMemory]) -> Savings:
    """What guests with `memories`, all that there are in `pool`, save by sharing."""
    counts = pool.references[pool.references >= 2]
    zero = sum(memory.census()["zero"] for memory in memories)
    return Savings(zero, int(counts.sum()), len(counts))
