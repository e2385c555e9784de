"""The memory manager: looks at the host, has `plan` decide, carries it out, and notes why.

It has a thread of its own only while there is something to do: a guest waits for a frame, frames are short, somebody
watches. `step` is one round of it, and all of it that thinks; the thread only calls it when it is time.
"""

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from emuvisor.host.memory.carrying import Carrier
from emuvisor.host.memory.contract import MemoryContract, admit
from emuvisor.host.memory.decisions import Decision, DecisionLog
from emuvisor.host.memory.given import note_gone, note_request, note_what_was_given
from emuvisor.host.memory.history import History, observe
from emuvisor.host.memory.host_state import HostState, recovery_level, threshold
from emuvisor.host.memory.instructions import Instruction, Pause
from emuvisor.host.memory.managed import Account, ManagedGuest, ManagedHost, guest_use
from emuvisor.host.memory.plan import plan
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.host.memory.rungs.sharing import WORTH
from emuvisor.host.memory.statistics import GuestMemoryStatistics, HostMemoryStatistics
from emuvisor.host.memory.stores import Stores
from emuvisor.host.memory.survey import guest_statistics, host_statistics
from emuvisor.host.memory.use import HostUse
from emuvisor.host.states import GuestState
from emuvisor.memory import FrameState
from emuvisor.memory.shared_frames import evictable_shared
from emuvisor.memory.store import PageStore
from emuvisor.units import PAGE_SIZE

if TYPE_CHECKING:
    from emuvisor.store.lazy import LazyPages

__all__ = ["MemoryManager"]

NICENESS = 10
"""Of the manager's thread. Guests that wait for it leave their pCPUs idle, and it runs there; it is not to take time
from guests that have all that they want."""
LINGER = 5
"""So many samples are taken after the last that was of use: a host on the edge of being short goes there and back many
times a second, and working sets are not to be forgotten each time."""


def _is_particular(guest: ManagedGuest) -> bool:
    """Whether its contract bounds what it, or others, may take."""
    return bool(guest.contract.reservation) or guest.contract.limit is not None


class MemoryManager:
    """Divides the frames of `host` among its guests by `policy`.

    Raises UsageError and HostError for a swap file that cannot be made.
    """

    def __init__(self, host: ManagedHost, policy: MemoryPolicy) -> None:
        self.policy = policy
        self.log = DecisionLog(host.warn)
        """Every movement, and why."""
        self.wake_below = 0
        """With fewer free frames than this somebody should call `wake`; 0 while that would change nothing."""
        self._host = host
        self._stores = Stores(policy, host.pool.limit)
        self._accounts: dict[str, Account] = {}
        self._carrier = Carrier(host, self._stores, self.log, self._account, policy.tenants)
        self._history = History()
        self._use = HostUse(frames=host.pool.limit, free=host.pool.free, guests=())
        self._next_plan = self._next_sample = self._last_scan = policy.clock()
        self._sample_until = self._next_plan
        self._watchers = 0
        self._wait_s = policy.period_s
        """Until the next step, when nobody wakes us before."""
        self._common = 0
        """Frames that guests share, when they were last counted."""
        self._failure = ""
        """What went wrong in the last step; empty when nothing did."""
        self._given_up: set[str] = set()
        """Guests that were paused for that."""
        self._careful = False
        """Some guest has a reservation or a limit: what others take is bounded."""
        self._gathering = 0
        """How many gather what changes."""
        self._gathered = False
        self._event = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._lock = threading.Lock()
        """Guards the thread's life."""
        self._rest()

    def saved_pages(self) -> "LazyPages":
        """Where guests that were restored from a snapshot have the pages that they have not yet touched."""
        return self._stores.saved_pages()

    # ---- contracts ----

    def admit(self, name: str, contract: MemoryContract) -> None:
        """Raises AdmissionError when the host cannot promise `contract` to guest `name` beside the others."""
        if not contract.reserved_frames and self.policy.overcommit is None:
            return  # nothing is promised: no need to look at the others
        others = {guest.name: guest.contract for guest in self._host.all_guests()}
        admit(name, contract, others, self._host.pool.limit, self.policy.overcommit)

    def starting(self, guest: ManagedGuest) -> None:
        """`guest` is about to be switched on. Where frames are promised, it gets its first by a plan."""
        guest.memory.take_limit = None
        self._careful = self._careful or _is_particular(guest)
        if self._careful:
            guest.memory.take_limit = guest.memory.frames_taken

    def changed(self) -> None:
        """A guest came or went, or its contract changed: plan anew, if that can matter."""
        if self._gathering:
            self._gathered = True
            return
        if self._thread is not None:
            self.wake()
            return
        guests = self._host.all_guests()
        self._careful = self._careful or any(map(_is_particular, guests))
        on = sum(
            g.contract.size
            for g in guests
            if g.state in (GuestState.RUNNING, GuestState.PAUSED, GuestState.MIGRATING)
        )
        if self._careful or on > self._host.pool.limit * PAGE_SIZE:
            self.wake()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Many guests come or go: what `changed` tells meanwhile is looked at once, in the end."""
        with self._lock:
            self._gathering += 1
        try:
            yield
        finally:
            with self._lock:
                self._gathering -= 1
            if self._gathered and not self._gathering:
                self._gathered = False
                self.changed()

    # ---- the thread ----

    def wake(self) -> None:
        """There is something to do. Any thread, whatever locks it holds. Where the host gives no thread for it, guests
        that starve are paused."""
        with self._lock:
            self._event.set()
            if self._thread is not None or self._stopping:
                return
            thread = threading.Thread(target=self._run, name="memory", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                pass
            else:
                self._thread = thread
                return
        for guest in self._host.starving():
            self._host.starve(guest.name, "no memory: the host gives no thread for the memory manager")

    def watch(self) -> None:
        """Sample which pages guests use, and plan, until `unwatch`: somebody looks at the statistics."""
        with self._lock:  # anybody may look, from any thread
            self._watchers += 1
        self.wake()

    def unwatch(self) -> None:
        """One watcher less."""
        with self._lock:
            self._watchers -= 1

    def stop(self) -> None:
        """End the thread."""
        with self._lock:
            self._stopping = True
            self._event.set()
            thread = self._thread
        if thread is not None:
            thread.join()

    def close(self) -> None:
        """Remove the stores, once no guest is left. The swap file is deleted."""
        self._stores.close()

    def _run(self) -> None:
        with suppress(OSError):  # a system without it does with what it has
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while not self._stopping:
            self._event.clear()
            if self.guarded_step():
                continue
            if self._failure or self.busy or self._lingers:
                self.wake_below = threshold(self._worse, self._host.pool.limit) + self._reserved()
                self._event.wait(self._wait_s)
            else:
                self._rest()
                self._event.wait()
            self.wake_below = 0

    def guarded_step(self) -> bool:
        """A `step` now, whatever goes wrong in it."""
        try:
            again = self.step(self.policy.clock())
        except Exception as error:  # of somebody's rung or listener; or no memory for the plan itself
            self._failed(error)
            return False
        self._failure = ""
        if self._given_up:
            for guest in self._host.all_guests():
                if guest.name in self._given_up and guest.out_of_memory:
                    self._host.feed(guest.name)
            self._given_up.clear()
        return again

    def _failed(self, error: Exception) -> None:
        """A step went wrong. Nobody waits for what does not come: guests that starve are paused, with the reason, until
        a step succeeds. It is tried again after each period."""
        self._wait_s = self.policy.period_s
        failure = f"{type(error).__name__}: {error}"
        reason = f"the memory manager failed: {failure}"
        if failure != self._failure:
            self._failure = failure
            self._host.warn(reason)
            self.log.add(Decision(time.time(), "", "manager", 0, reason))
        for guest in self._host.starving():
            self._given_up.add(guest.name)
            with suppress(Exception):  # a listener; the guest is paused
                self._host.starve(guest.name, f"no memory: {reason}")

    def _rest(self) -> None:
        """Nothing is to be done before free frames fall below this."""
        self.wake_below = recovery_level(HostState.HIGH, self._host.pool.limit) + self._reserved()

    def _reserved(self) -> int:
        return sum(guest.contract.reserved_frames for guest in self._host.all_guests())

    @property
    def _worse(self) -> HostState:
        return HostState(min(HostState.LOW, self._use.state + 1))

    @property
    def _lingers(self) -> bool:
        """Whether there is something to do now and then: samples to take, balloons that are still to give pages back,
        pages to look at because guests could take more than is free."""
        accounts = self._accounts
        if any(account.sampling for account in accounts.values()):
            return True
        for guest in self._use.guests:
            account = accounts.get(guest.name)
            if account is not None and guest.balloon and guest.ballooned > max(account.target, account.wish):
                return True
        return self._use.tight and any(rung.state is HostState.HIGH for rung in self.policy.rungs)

    def _choose_wait(self, moved: bool) -> None:
        """How long until the next step: a period, and where nothing moves longer each time, up to the time between two
        samples. Who starves, and free frames below the next threshold, end the wait."""
        use = self._use
        waited_for = any(
            guest.starved or guest.paused or guest.balloon_target != guest.ballooned for guest in use.guests
        )
        searching = use.scan_yield >= WORTH and use.tight and use.short(HostState.HIGH) > 0
        if moved or waited_for or searching:
            self._wait_s = self.policy.period_s
        else:
            self._wait_s = min(2 * self._wait_s, max(self.policy.period_s, self.policy.sampling_s))

    @property
    def busy(self) -> bool:
        """Whether a step is due after each period."""
        use = self._use
        return (
            self._watchers > 0
            or (use.tight and use.available < recovery_level(HostState.HIGH, use.frames))
            or any(guest.starved or guest.paused or guest.balloon_target for guest in use.guests)
        )

    # ---- one round ----

    def step(self, now: float) -> bool:
        """Look, plan, and carry it out; returns whether another step should follow at once: somebody starves, and
        something was gained. `now` is in seconds of the policy's clock: what belongs to each period is done once in
        it, however often a step is taken."""
        periodic = now >= self._next_plan
        self._sample(now)
        history, use = observe(self._history, self._look(periodic))
        self._use = use
        if periodic:
            self._history = history
            self._next_plan = now + self.policy.period_s
            for account in self._accounts.values():
                account.accessed = None
                account.sent.clear()
                account.fed = False
            self._carrier.scanned = (0, 0)
            self._carrier.common_sent.clear()
        noted = self.log.added
        instructions = plan(use, self.policy.rungs)
        longest = max(self.policy.period_s, self.policy.sampling_s)
        scan_part = min(longest, now - self._last_scan) / self.policy.period_s
        self._last_scan = now
        gained = self._carrier.drop_leftovers() if use.state > HostState.HIGH else 0
        for instruction in instructions:
            gained += self._carrier.carry_out(instruction, scan_part)
        fed = self._feed(instructions)
        again = (fed or gained > 0) and bool(self._host.starving())
        self._choose_wait(moved=fed or self.log.added > noted)
        return again

    def _look(self, periodic: bool) -> HostUse:
        starving = {guest.name for guest in self._host.starving()}
        guests = self._host.all_guests()
        for name in self._accounts.keys() - {guest.name for guest in guests}:
            note_gone(self.log, name, self._accounts.pop(name))
        self._careful = any(map(_is_particular, guests))
        uses = []
        for guest in guests:
            account = self._account(guest)
            use = guest_use(
                guest,
                account,
                starves=guest.name in starving,
                balloon_virtual_clock=self.policy.balloon_virtual_clock,
            )
            note_what_was_given(self.log, guest, account, use.ballooned)
            if (
                use.starved
                or use.resident
                or guest.state in (GuestState.RUNNING, GuestState.PAUSED, GuestState.MIGRATING)
            ):
                uses.append(use)
        return HostUse(
            frames=self._host.pool.limit,
            free=self._host.pool.free,
            guests=tuple(uses),
            room=self._stores.room(),
            troubles=self._stores.troubles(),
            period_s=self.policy.period_s,
            tax=self.policy.tax,
            scanned=self._carrier.scanned,
            common=self._count_common(guests, periodic) if any(u.starved or u.paused for u in uses) else 0,
            common_sent=dict(self._carrier.common_sent),
        )

    def _count_common(self, guests: Sequence[ManagedGuest], periodic: bool) -> int:
        """Frames that guests share and that can be taken. It takes 5 ms for each GiB of guests: the number of this
        period, or since some were taken, will do."""
        if periodic or not self._common or self._carrier.common_sent:
            self._common = len(evictable_shared([guest.memory for guest in guests], self._host.pool.limit))
        return self._common

    def _account(self, guest: ManagedGuest) -> Account:
        account = self._accounts.get(guest.name)
        if account is None or account.memory is not guest.memory:
            if account is not None:  # another guest has its name now
                note_gone(self.log, guest.name, account)
            account = self._accounts[guest.name] = Account(guest.memory)
        return account

    def _sample(self, now: float) -> None:
        """Count what guests used since the last sample, while that is of interest."""
        if self.busy:
            self._sample_until = now + LINGER * self.policy.sampling_s
        wanted = now < self._sample_until
        for guest in self._host.all_guests():
            account = self._account(guest)
            due = now >= self._next_sample and guest.state is GuestState.RUNNING
            if wanted == account.sampling and not (wanted and due):
                continue
            with self._host.held(guest.name) as held:
                if held:
                    self._carrier.sample(guest, account, wanted)
        if now >= self._next_sample:
            self._next_sample = now + self.policy.sampling_s

    def _feed(self, instructions: list[Instruction]) -> bool:
        """Let guests that starve try again where there are frames; pause those that were to be. Returns whether
        somebody goes on."""
        paused = {i.guest: i for i in instructions if isinstance(i, Pause)}
        free = self._host.pool.free
        fed = False
        for guest in self._host.starving():
            memory = guest.memory
            if guest.name in paused:
                why = paused[guest.name].why
                self._host.starve(guest.name, why)
                self.log.add(Decision(time.time(), guest.name, "pause", 0, why, paused[guest.name].numbers))
            elif free >= guest.needed_frames and (
                memory.take_limit is None or memory.frames_taken + guest.needed_frames <= memory.take_limit
            ):
                self._host.feed(guest.name)
                self._account(guest).fed = fed = True
        return fed

    # ---- balloons that people set ----

    def set_wish(self, guest: ManagedGuest, pages: int) -> None:
        """Somebody wants the guest's balloon to hold `pages`. The guest is on no pCPU."""
        account = self._account(guest)
        account.wish = pages
        account.balloon_why, account.balloon_numbers = f"somebody asked for {pages}", {}
        self._carrier.set_balloon(guest, account)
        note_request(self.log, guest, account)

    # ---- numbers ----

    @property
    def stores(self) -> dict[FrameState, PageStore]:
        """Where pages go; all guests have this same dictionary."""
        return self._stores.by_state

    def statistics(self) -> HostMemoryStatistics:
        """Where the host's memory is."""
        state = self._use.state
        starving = len(self._host.starving())
        return host_statistics(self._host, self._stores, state, starving, self._carrier.scanner.cost)

    def guest_statistics(self, guest: ManagedGuest) -> GuestMemoryStatistics:
        """Where one guest's memory is."""
        known: Mapping[str, int | None] = {use.name: use.active for use in self._use.guests}
        return guest_statistics(guest, self._account(guest), known.get(guest.name))
