"""Autopilot: looks at the host once in each period, has `plan` decide, carries it out, and takes it back when asked.

`step` is all of it that thinks; the thread, which is there only while it flies, calls it.
"""

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from emuvisor.errors import EmuvisorError, HostError, StateError, UsageError
from emuvisor.host.autopilot.constraints import Constraints
from emuvisor.host.autopilot.log import AutopilotLog, Entry, Kind
from emuvisor.host.autopilot.moves import Move, Target, as_text, set_value
from emuvisor.host.autopilot.objective import Objective
from emuvisor.host.autopilot.observe import Controls
from emuvisor.host.autopilot.plan import Flight, plan
from emuvisor.host.autopilot.score import score
from emuvisor.host.autopilot.trial import Proposal
from emuvisor.host.autopilot.view import HostCounters, HostView, between, value_of

__all__ = ["Autopilot"]

MIN_PERIOD_S, MAX_PERIOD_S = 0.01, 3600.0


@dataclass(frozen=True, slots=True)
class _Change:
    """A move that is in force, and the number of its entry in the log."""

    number: int
    move: Move


class Autopilot:
    """That of the host behind `controls`. It is off until `start`. All methods are for any thread."""

    def __init__(self, controls: Controls) -> None:
        self.log = AutopilotLog(controls.warn)
        """Every change, and why."""
        self.objective: Objective | None = None
        """What it raises; None while it is off."""
        self.constraints = Constraints()
        self.dry_run = False
        self.period_s = 1.0
        self._controls = controls
        self._flight = Flight()
        self._before: HostCounters | None = None
        self._view: HostView | None = None
        self._recommended: tuple[Proposal, ...] = ()
        self._changes: list[_Change] = []
        """Those in force, the latest last."""
        self._failure = ""
        self._warned = False
        self._lock = threading.RLock()
        """Guards all of that; taken before the guests' locks."""
        self._landing = threading.Event()
        self._thread: threading.Thread | None = None

    # ---- on and off ----

    def start(
        self,
        objective: Objective | str,
        constraints: Constraints | str | None = None,
        period_s: float = 1.0,
        dry_run: bool = False,
    ) -> None:
        """Raise `objective` within `constraints`, by a look at the host each `period_s` seconds. A dry run changes
        nothing, and only recommends.

        Raises UsageError for what they cannot be, StateError while it is on, HostError when the host gives no thread.
        """
        thread = threading.Thread(target=self._run, name="autopilot", daemon=True)
        with self._lock:
            if self._thread is not None:
                raise StateError("the autopilot is on already; it has to be stopped first")
            self.engage(objective, constraints, period_s, dry_run)
            self._landing.clear()
            try:
                thread.start()
            except RuntimeError:
                self.objective = None
                raise HostError("the host gives no thread for the autopilot") from None
            self._thread = thread
        self._controls.watch()

    def engage(
        self,
        objective: Objective | str,
        constraints: Constraints | str | None = None,
        period_s: float = 1.0,
        dry_run: bool = False,
    ) -> None:
        """As `start`, but without the thread: somebody calls `step`."""
        if isinstance(objective, str):
            objective = Objective.parse(objective)
        if isinstance(constraints, str):
            constraints = Constraints.parse(constraints)
        if not MIN_PERIOD_S <= period_s <= MAX_PERIOD_S:
            raise UsageError(
                f"a period of {period_s:g} s is impossible; it is {MIN_PERIOD_S} to {MAX_PERIOD_S:g}"
            )
        with self._lock:
            self.objective = objective
            self.constraints = constraints or Constraints()
            self.period_s = period_s
            self.dry_run = dry_run
            # How knobs were set before anybody turned them stays known from flight to flight.
            self._flight = Flight(starts=self._flight.starts, left=self._flight.left)
            self._before = self._view = None
            self._recommended = ()
            self._warned = False

    def stop(self, revert: bool = False) -> None:
        """Switch it off; with `revert` everything goes back to where it was. Nothing happens when it is off."""
        with self._lock:
            thread, self._thread = self._thread, None
            self.objective = None
            self._landing.set()
        if thread is not None:
            self._controls.unwatch()
            if thread is not threading.current_thread():
                thread.join()
        if revert:
            self.revert_all()

    @property
    def is_on(self) -> bool:
        """Whether it looks and plans."""
        return self.objective is not None

    def _run(self) -> None:
        while not self._landing.wait(self.period_s):
            try:
                self.step()
                self._failure = ""
            except Exception as error:  # it must not take the host with it, nor stop for what passes
                failure = f"{type(error).__name__}: {error}"
                if failure != self._failure:
                    self._failure = failure
                    self._controls.warn(f"the autopilot failed: {failure}")

    # ---- one period ----

    def step(self) -> None:
        """Look at what happened since the last step, plan, and carry it out."""
        with self._lock:
            objective = self.objective
            if objective is None:
                return
            now = self._controls.look()
            view = None if self._before is None else between(self._before, now)
            self._before = now
            if view is None:
                return
            self._view = view
            self._warn_of_misuse(view, objective)
            planned = plan(view, self._flight, objective, self.constraints)
            if self.dry_run:
                self._recommend(planned.proposals)
                # As if nothing had been done, which is so; what guests lack is remembered.
                flight = planned.flight
                self._flight = replace(
                    self._flight,
                    period=flight.period,
                    values=flight.values,
                    lacking=flight.lacking,
                    resting=flight.resting,
                )
                return
            self._flight = planned.flight
            for verdict in planned.taken_back:
                self._undo(list(verdict.proposal.moves), Kind.TAKEN_BACK, verdict.why)
            for proposal in planned.proposals:
                self._carry_out(proposal)

    def _warn_of_misuse(self, view: HostView, objective: Objective) -> None:
        """Once a flight: nothing will come of it."""
        if self._warned or not view.guests:
            return
        self._warned = True
        if objective.guest and view.guest(objective.guest) is None:
            self._controls.warn(f"the autopilot: no guest {objective.guest!r} runs")
        elif not self.constraints.virtual_clock and all(guest.deterministic for guest in view.guests):
            self._controls.warn("the autopilot: all guests are on the virtual clock, and left alone")

    def _recommend(self, proposals: tuple[Proposal, ...]) -> None:
        """What is new among them is noted."""
        known = {(move.target, move.after) for proposal in self._recommended for move in proposal.moves}
        self._recommended = proposals
        for proposal in proposals:
            for move in proposal.moves:
                if (move.target, move.after) not in known:
                    self._note(Kind.RECOMMENDED, move)

    def _carry_out(self, proposal: Proposal) -> None:
        """All of its moves, or none."""
        done: list[Move] = []
        for move in proposal.moves:
            try:
                self._set(move)
            except EmuvisorError as error:
                self._note(Kind.REFUSED, move, str(error))
                self._undo(done, Kind.TAKEN_BACK, "what belongs to it was refused")
                self._flight = self._flight.without(proposal)
                return
            done.append(move)
            self._changes.append(_Change(self._note(Kind.CHANGED, move), move))

    def _undo(self, moves: list[Move], kind: Kind, why: str) -> None:
        """The way back, the last one first; what cannot be undone is noted."""
        for move in reversed(moves):
            back = move.inverse(why)
            try:
                self._check(move.target, move.after)
                self._set(back)
            except EmuvisorError as error:
                self._note(Kind.REFUSED, back, str(error))
            else:
                self._note(kind, back)
            self._changes = [change for change in self._changes if change.move != move]

    def _set(self, move: Move) -> None:
        """Raises UsageError, also for a guest that is gone."""
        target = move.target
        guest = self._controls.tunable(target.guest)
        if guest is None:
            raise UsageError(f"guest {target.guest!r} is gone")
        set_value(guest, target, move.after, self._size(target.guest))

    def _size(self, name: str) -> int:
        counters = self._before
        sizes = [] if counters is None else [g.memory.size for g in counters.guests if g.name == name]
        return sizes[0] if sizes else 0

    def _check(self, target: Target, expected: object) -> None:
        """Raises UsageError when somebody else has turned it since."""
        view = next((g for g in self._controls.look().guests if g.name == target.guest), None)
        if view is None:
            raise UsageError(f"guest {target.guest!r} does not run")
        now = value_of(view, target)
        if now != expected:
            raise UsageError(
                f"guest {target.guest!r}: {target} is {as_text(target, now)} now; somebody has changed it"
            )

    def _note(self, kind: Kind, move: Move, why: str = "") -> int:
        number = self.log.added + 1
        target = move.target
        before, after = as_text(target, move.before), as_text(target, move.after)
        numbers = {name: value for name, value in move.numbers.items() if math.isfinite(value)}
        entry = Entry(
            number, time.time(), kind, target.guest, str(target), before, after, why or move.why, numbers
        )
        self.log.add(entry)
        return number

    # ---- the way back ----

    def revert(self, number: int) -> None:
        """Undo the change with that number in the log, and those of the same knob that came after it. It is not tried
        again for a while.

        Raises UsageError when there is no such change in force, or somebody else has changed the knob since.
        """
        with self._lock:
            change = next((change for change in self._changes if change.number == number), None)
            if change is None:
                raise UsageError(f"the autopilot has no change {number} in force")
            target = change.move.target
            later = [c for c in self._changes if c.move.target == target and c.number >= number]
            self._check(target, later[-1].move.after)
            back = Move(target, later[-1].move.after, change.move.before, f"change {number} was to be undone")
            self._set(back)
            self._changes = [c for c in self._changes if c not in later]
            self._note(Kind.REVERTED, back)
            self._flight = self._flight.turned([back]).ban([target])

    def revert_all(self) -> None:
        """Undo all changes in force; what somebody else has changed since stays, and is noted."""
        with self._lock:
            moves = [change.move for change in self._changes]
            self._undo(moves, Kind.REVERTED, "all changes were to be undone")
            self._flight = Flight(period=self._flight.period)

    # ---- numbers ----

    @property
    def recommendations(self) -> tuple[Move, ...]:
        """What a dry run would change now."""
        with self._lock:
            return tuple(move for proposal in self._recommended for move in proposal.moves)

    def scores(self) -> Mapping[str, float]:
        """Of each guest in the last period, 0 to 100; empty before there was one."""
        view = self._view
        return {} if view is None else {guest.name: score(guest) for guest in view.guests}

    def value(self) -> float | None:
        """The objective in the last period; None before there was one."""
        objective, view = self.objective, self._view
        return None if objective is None or view is None else objective.value(view)
