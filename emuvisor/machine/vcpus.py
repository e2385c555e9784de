"""A guest's vCPUs in turns on the pCPU that runs the guest.

Which one runs is a function of what they retire and of what they do, never of where a slice ends or of the host's time:
so a guest with several vCPUs repeats as exactly as one with a single vCPU.
"""

import reprlib
from collections.abc import Callable, Iterator, Sequence

from emuvisor.bus.device import SavedState, check_saved
from emuvisor.bus.saved import Number
from emuvisor.cpu.exits import ExitReason
from emuvisor.cpu.vcpu import Vcpu
from emuvisor.errors import SnapshotError

__all__ = ["DEFAULT_TURN", "Vcpus"]

DEFAULT_TURN = 2_000_000
"""Bytes of code in a turn: 2 ms of guest time, 0.2 to 1 ms of the host's. Shorter ones cost more, for behind a change
of vCPUs the engine's TLB is empty (30 to 150 us); longer ones let a vCPU wait longer for its interrupts."""
PAUSE_WINDOW = 2_000
"""Bytes of code that a vCPU may run in a loop around PAUSE: what it waits for mostly is a sibling, which does not run
meanwhile."""
PAUSE_SLACK = 256
"""What a turn that is nothing but a wait has besides: the loop's last round. An interrupt is more."""
PAUSE_DOUBLINGS = 20
"""More would pass the longest turn."""
INTERRUPT_DELAY = 20_000
"""Bytes of code after which a turn ends when a sibling has got an interrupt: time to send it to the others too."""

_DEVICE = "vcpus"
_VERSION = 1
_SAVED = {
    "number": "number",
    "idle_ns": "_idle_ns",
    "turn_start": "_turn_start",
    "turn_end": "_turn_end",
    "pauses": "_pauses",
    "switches": "switches",
}
"""Field of the saved state to attribute."""
_COUNT = Number(maximum=2**63 - 1)
_WAIT = Number(maximum=2**63 - 1, optional=True)


class Vcpus:
    """`vcpus`, of which number 0 is the bootstrap processor. A turn is at most `turn` bytes of code. It ends early with
    HLT, with a loop around PAUSE and soon after a sibling got an interrupt; then it is the next one's that can run, so
    all get one in each round. `waits_for_sipi` says who cannot; `on_switch` hears who runs from now on, and for how
    long it could have run and waited for its turn: by `now`, or else by what all retired.

    They share a pCPU, and so a clock: while one runs, time passes for all. `idle_ns` of the one that runs is kept
    such that its `work + idle_ns` is what all have retired and the time that passed while all were halted.
    """

    def __init__(
        self,
        vcpus: Sequence[Vcpu],
        *,
        waits_for_sipi: Callable[[int], bool],
        on_switch: Callable[[int, int], None],
        now: Callable[[], int] | None = None,
        turn: int = DEFAULT_TURN,
    ) -> None:
        self._vcpus = tuple(vcpus)
        self._waits_for_sipi = waits_for_sipi
        self._on_switch = on_switch
        self._now = now or (lambda: self.work)
        self._turn = turn
        self._idle_ns = 0
        self._single = len(vcpus) == 1
        self.number = 0
        """The one whose turn it is."""
        self.running = self._vcpus[0]
        self._others = 0
        """What the others have retired."""
        self._waits_since: list[int | None] = [None] * len(vcpus)
        """Since when each wants to run and has no turn."""
        self._turn_start, self._turn_end = 0, turn
        self._pauses = 0
        """Turns in a row that were nothing but a wait."""
        self.switches = 0
        """How often another one's turn came."""
        self.reset()

    def __len__(self) -> int:
        return len(self._vcpus)

    def __getitem__(self, number: int) -> Vcpu:
        return self._vcpus[number]

    def __iter__(self) -> Iterator[Vcpu]:
        return iter(self._vcpus)

    def reset(self) -> None:
        """The bootstrap processor begins."""
        self._pauses = 0
        self._waits_since = [None] * len(self._vcpus)
        self._begin_turn(0)

    @property
    def work(self) -> int:
        """Bytes of code that all have retired."""
        return self._others + self.running.work

    def counters(self) -> dict[str, int]:
        """What all have done, by the core's names."""
        total = self._vcpus[0].counters()
        for vcpu in self._vcpus[1:]:
            for name, count in vcpu.counters().items():
                total[name] += count
        return total

    def idle(self, ns: int) -> None:
        """`ns` of guest time have passed while all were halted."""
        self._idle_ns += ns
        self.running.idle_ns += ns

    def can_run(self, number: int) -> bool:
        """Whether `number` would run if it were its turn."""
        return self._vcpus[number].ready and not self._waits_for_sipi(number)

    @property
    def all_halted(self) -> bool:
        """Whether none can run."""
        return not any(self.can_run(number) for number in range(len(self._vcpus)))

    def choose(self) -> Vcpu:
        """The vCPU to run now. When none can run it is one that has been started: run, it says that it is halted."""
        if self._single:
            return self.running
        if self.running.work >= self._turn_end or not self.can_run(self.number):
            self._pass_on()
        return self.running

    def _pass_on(self) -> None:
        count = len(self._vcpus)
        for step in range(1, count + 1):
            number = (self.number + step) % count
            if self.can_run(number):
                self._begin_turn(number)
                return
        if self._waits_for_sipi(self.number):
            self._begin_turn(0)

    def _begin_turn(self, number: int) -> None:
        vcpu = self._vcpus[number]
        waited = 0
        if number != self.number:
            self.switches += 1
            self._begin_wait(self.number)
            waited = self._end_wait(number)
        self._others = self.work - vcpu.work
        self.number = number
        self.running = vcpu
        vcpu.idle_ns = self._idle_ns + self._others
        self._turn_start = vcpu.work
        self._turn_end = vcpu.work + self._turn
        vcpu.pause_window = self._pause_window()
        self._on_switch(number, waited)

    def _begin_wait(self, number: int) -> None:
        """From now on `number` waits for its turn, if it has something to do."""
        if self._waits_since[number] is None and self.can_run(number):
            self._waits_since[number] = self._now()

    def _end_wait(self, number: int) -> int:
        """It waits no longer; returns for how long it has."""
        since, self._waits_since[number] = self._waits_since[number], None
        return 0 if since is None else self._now() - since

    def _pause_window(self) -> int:
        """How long the one whose turn begins may wait in a loop: as it likes when nobody else can run."""
        if not any(self.can_run(number) for number in range(len(self._vcpus)) if number != self.number):
            return 0
        # When all wait, for time to pass, they need not pass the turn on every 2 us.
        return PAUSE_WINDOW << min(self._pauses // len(self._vcpus), PAUSE_DOUBLINGS)

    @property
    def turn_is_over(self) -> bool:
        """Whether the present one has used its turn up."""
        return not self._single and self.running.work >= self._turn_end

    def budget(self, left: int) -> int:
        """Of `left` bytes of code, what belongs to the present turn; at least 1, for a halted one has no turn left."""
        return left if self._single else max(1, min(left, self._turn_end - self.running.work))

    def ran(self, reason: ExitReason) -> None:
        """The run of the present one has ended with `reason`: HALT and PAUSE end its turn."""
        if self._single:
            return
        vcpu = self.running
        if reason is ExitReason.PAUSE:
            only_waited = vcpu.work - self._turn_start < vcpu.pause_window + PAUSE_SLACK
            self._pauses = self._pauses + 1 if only_waited else 0
            self._turn_end = vcpu.work
        elif reason is ExitReason.HALT or vcpu.work >= self._turn_end:
            self._pauses = 0
            self._turn_end = vcpu.work

    def interrupt(self, number: int, level: bool) -> None:
        """The level at the INTR pin of `number`."""
        self._vcpus[number].interrupt = level
        if level:
            self.woken(number)
        elif self._waits_since[number] is not None and not self.can_run(number):
            self._end_wait(number)

    def nmi(self, number: int) -> None:
        """An NMI for `number`."""
        self._vcpus[number].raise_nmi()
        self.woken(number)

    def woken(self, number: int) -> None:
        """Something happened to `number` that it should act upon: a sibling of the one that runs has its turn soon, and
        at once when the one that runs waits for that."""
        if number == self.number:
            return
        self._begin_wait(number)
        running = self.running
        running.pause_window = running.pause_window or PAUSE_WINDOW
        end = running.work + INTERRUPT_DELAY
        if end < self._turn_end:
            self._turn_end = end
            running.shorten(end)

    # ---- saved state ----

    def save(self) -> SavedState:
        """Whose turn it is, since when, and for how long the others have waited for theirs; the vCPUs themselves are
        not part of it."""
        own = {field: getattr(self, attribute) for field, attribute in _SAVED.items()}
        now = self._now()
        waits = [None if since is None else now - since for since in self._waits_since]
        return {"device": _DEVICE, "version": _VERSION, **own, "waits": waits}

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave, with vCPUs that are loaded already. Raises SnapshotError."""
        check_saved(state, _DEVICE, _VERSION)
        for field in _SAVED:
            kind = Number(len(self) - 1) if field == "number" else _COUNT
            if not kind.accepts(state.get(field)):
                raise SnapshotError(
                    f"{_DEVICE}: saved field {field!r} is {reprlib.repr(state.get(field))}; expected {kind}"
                )
        waits = state.get("waits")
        if type(waits) is not list or len(waits) != len(self) or not all(map(_WAIT.accepts, waits)):
            raise SnapshotError(
                f"{_DEVICE}: saved field 'waits' is {reprlib.repr(waits)}; expected {len(self)} times or None"
            )
        for field, attribute in _SAVED.items():
            setattr(self, attribute, state[field])
        self.running = self._vcpus[self.number]
        self._others = sum(vcpu.work for vcpu in self._vcpus) - self.running.work
        now = self._now()
        self._waits_since = [None if waited is None else now - waited for waited in waits]
        self._on_switch(self.number, 0)
