"""What guests get of the pCPUs, by the scheduler's own accounting, over a second: weights, caps, reservations, pinning.

Real time is shared with whatever else the machine does. What a guest was given is therefore compared with what all were
given, never with a clock, and may be off by what slices lasted longer than the scheduler said. The same on the virtual
clock, where no slice does, has no such allowance to hide behind.
"""

import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keystone
import pytest

from emuvisor import firmware
from emuvisor.host import Guest, GuestState, Host
from emuvisor.host.scheduler.instructions import Event, Instruction, Left, Run
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.units import MIB

PATIENCE_S = 120
POOL = 32 * MIB
SECOND = 1_000_000_000
MS = 1_000_000
PERIOD_NS = 20 * MS
"""Of caps and reservations."""
TURN_NS = 10 * MS
"""The longest of any policy here, credit's."""
CREDITS_NS = 90 * MS
"""What a guest can be given under credit beyond its share: from a period's credits to a period's debt, of 30 ms each,
half of what is handed out at once, and a turn."""
WARM_SLICES = 5
LINE = 20_000_000
"""Iterations of the spin guest; some 50 ms."""

Make = Callable[..., Guest]


def assemble(source: str) -> bytes:
    """Machine code for real mode."""
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_16).asm(source, firmware.FLAT_ADDRESS)
    return bytes(code)


def out(port: int, value: int) -> str:
    return f"mov al, {value}; out {port}, al;"


TICK = 11932
"""Of the PIT, at 1,193,182 Hz: 10 ms."""
THIEF = (
    # A handler at 7000h for vector 20h: push ax; mov al, 20h; out 20h, al; pop ax; iret
    "cli; mov dword ptr [0x7000], 0xe620b050; mov dword ptr [0x7004], 0x00cf5820; mov dword ptr [0x80], 0x7000;"
    + out(0x20, 0x11) + out(0x21, 0x20) + out(0x21, 4) + out(0x21, 1) + out(0x21, 0xFE)
    + out(0x43, 0x34) + out(0x40, TICK & 0xFF) + out(0x40, TICK >> 8)
    + "sti; a: mov cx, 20000; b: loop b;"
    + out(0x43, 0) + "in al, 0x40; mov ah, al; in al, 0x40; xchg al, ah;"
    + f"cmp ax, {TICK // 20}; ja a; hlt; jmp a"
)  # fmt: skip
"""Computes until just before the tick, in which it sleeps: who is looked at in ticks is never seen to run."""


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(host, name, lines=0, **fields): the spin guest, started; it ends after `lines` lines. make(..., code=...)
    runs that instead."""

    def make(host: Host, name: str, lines: int = 0, code: bytes | None = None, **fields: Any) -> Guest:
        path = tmp_path / f"{name}.bin"
        if code is None:
            entry = b"\xea\x00\x00\x00\x08".ljust(16, b"\0")  # jmp 0800h:0, over the parameter block
            block = struct.pack("<2Q", LINE, lines)
            code = entry + block.ljust(firmware.PARAMETERS_SIZE, b"\0") + firmware.image("spin")
            flat = FlatConfig(path, firmware.PARAMETERS - len(entry))
        else:
            flat = FlatConfig(path, firmware.FLAT_ADDRESS)
        path.write_bytes(code)
        guest = host.create(GuestConfig(name=name, board="isa", memory=2 * MIB, flat=flat, **fields))
        guest.start()
        return guest

    return make


class Meter:
    """What guests ran while it listened."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.ran: Counter[str] = Counter()
        self.slices: Counter[str] = Counter()
        self.pcpus: defaultdict[str, set[int]] = defaultdict(set)
        self.longest = 0
        self.overrun: Counter[str] = Counter()
        """How much longer each guest's slices were than the scheduler said, together."""
        self.late = 0
        """The part of that by which slices were longer than another turn: so far guests cannot fall behind a lighter
        one, and get it back."""
        self.occupied: Counter[str] = Counter()
        """From when each was told to run until it was off its pCPU: more than it ran where the machine was busy."""
        self._first_ns: int | None = None
        self._last_ns = 0
        running = [entity for entity in host.processors.scheduler.running if entity is not None]
        self._since = {entity.name: entity.since_ns for entity in running}
        self._slice: dict[str, int] = {}

    @property
    def total(self) -> int:
        return sum(self.ran.values())

    @property
    def elapsed(self) -> int:
        """By the scheduler's clock."""
        return self._last_ns - (self._first_ns or 0)

    def listen(self, now_ns: int, event: Event, answer: Sequence[Instruction]) -> None:
        self._first_ns, self._last_ns = self._first_ns or now_ns, now_ns
        if isinstance(event, Left):
            self.occupied[event.name] += now_ns - self._since.pop(event.name)
            if event.ran_ns:
                # What it was told before anybody listened was no more than a turn.
                over_ns = max(0, event.ran_ns - self._slice.get(event.name, TURN_NS))
                self.overrun[event.name] += over_ns
                self.late += max(0, over_ns - TURN_NS // 2)
                self.ran[event.name] += event.ran_ns
                self.slices[event.name] += 1
                self.pcpus[event.name].add(event.pcpu)
                self.longest = max(self.longest, event.ran_ns)
                self._host.changed.notify_all()
        for run in answer:
            if isinstance(run, Run):
                self._since[run.name], self._slice[run.name] = now_ns, run.slice_ns

    def check(self, shares: Mapping[str, float]) -> None:
        """Each guest has got its share of what all got."""
        whole = sum(shares.values())
        due = {name: self.total * share / whole for name, share in shares.items()}
        off = max(abs(self.ran[name] - due[name]) for name in due)
        assert off <= 0.01 * self.total + self.longest + self.late, (self.ran, due, self.longest, self.late)


@contextmanager
def listening(host: Host) -> Iterator[Meter]:
    with host.lock:
        meter = Meter(host)
        host.processors.listeners.append(meter.listen)
    try:
        yield meter
    finally:
        with host.lock:
            host.processors.listeners.remove(meter.listen)


def on(clock: str) -> dict[str, Any]:
    """Fields of guests that share a pCPU on that clock. A host on the virtual one has several."""
    return {"clock": clock} | ({"cpu_affinity": (0,)} if clock == "virtual" else {})


each_clock = pytest.mark.parametrize("clock", ["host", "virtual"])


def until(host: Host, condition: Callable[[], bool]) -> None:
    with host.lock:
        assert host.changed.wait_for(condition, PATIENCE_S)


def measure(host: Host, guests: Sequence[Guest], ran_ns: int = SECOND) -> Meter:
    """What `guests` run until that is `ran_ns` in all and each has run, once all have begun."""
    with listening(host) as warm:
        until(host, lambda: all(warm.slices[guest.name] >= WARM_SLICES for guest in guests))
    with listening(host) as meter:
        until(host, lambda: meter.total >= ran_ns and all(meter.ran[guest.name] for guest in guests))
    return meter


# ---- weights ----


@each_clock
def test_weights(make: Make, clock: str) -> None:
    with Host(POOL, clock=clock) as host:
        weights = {"a": 100, "b": 200, "c": 400}
        guests = [make(host, name, cpu_weight=weight, **on(clock)) for name, weight in weights.items()]
        measure(host, guests).check(weights)


def test_three_guests_on_two_pcpus(make: Make) -> None:
    """Each gets two thirds of a pCPU, though one of them has to move all the time."""
    with Host(POOL, pcpus=2) as host:
        guests = [make(host, name) for name in "abc"]
        meter = measure(host, guests, 2 * SECOND)
        meter.check({"a": 1, "b": 1, "c": 1})


def test_a_weight_that_changes(make: Make) -> None:
    with Host(POOL) as host:
        guests = [make(host, name) for name in "ab"]
        measure(host, guests).check({"a": 1, "b": 1})
        guests[1].set_cpu(weight=300)
        measure(host, guests).check({"a": 1, "b": 3})


# ---- caps ----


def at_most(meter: Meter, name: str, cap: float) -> None:
    """It got no more than its cap of the time that passed, and what it may have saved."""
    limit = cap * (meter.elapsed + PERIOD_NS) + meter.longest
    assert meter.ran[name] <= limit + 0.01 * meter.elapsed, (meter.ran, meter.elapsed, meter.longest)


@each_clock
def test_caps(make: Make, clock: str) -> None:
    """What they leave goes to who has none."""
    with Host(POOL, clock=clock) as host:
        caps = {"a": 10.0, "b": 25.0, "c": 50.0}
        guests = [make(host, name, cpu_cap=cap, **on(clock)) for name, cap in caps.items()]
        guests.append(make(host, "free", cpu_weight=1, **on(clock)))
        meter = measure(host, guests)
        for name, cap in caps.items():
            at_most(meter, name, cap / 100)
        if clock == "virtual":  # or else buckets run over while the machine does something else
            meter.check(caps | {"free": 15.0})
        assert meter.ran["free"] > 0


def test_a_cap_on_an_idle_host(make: Make) -> None:
    with Host(POOL, pcpus=2) as host:
        guest = make(host, "g", cpu_cap=20.0)
        at_most(measure(host, [guest], SECOND // 10), "g", 0.20)
        guest.set_cpu(cap=50)
        at_most(measure(host, [guest], SECOND // 4), "g", 0.50)
        guest.set_cpu(cap=100)
        before = guest.statistics().throttled_ns
        measure(host, [guest], SECOND // 4)
        assert guest.statistics().throttled_ns == before


# ---- reservations ----


@each_clock
def test_a_reservation_beside_heavy_load(make: Make, clock: str) -> None:
    """By weight it would get a thousandth."""
    with Host(POOL, clock=clock) as host:
        hogs = [make(host, f"hog{number}", cpu_weight=10_000, **on(clock)) for number in range(6)]
        guest = make(host, "g", cpu_weight=60, cpu_reservation=30.0, **on(clock))
        meter = measure(host, [*hogs, guest])
        lost = 0.30 * meter.overrun.total() + meter.longest
        assert meter.ran["g"] >= 0.30 * meter.total - 0.01 * meter.total - lost, (meter.ran, meter.longest)


# ---- pinning ----


def test_pinning(make: Make) -> None:
    with Host(POOL, pcpus=2) as host:
        guests = [make(host, name, cpu_affinity=(0,)) for name in "ab"]
        other = make(host, "c", cpu_affinity=(1,))
        meter = measure(host, [*guests, other], 2 * SECOND)
        assert meter.pcpus == {"a": {0}, "b": {0}, "c": {1}}
        off = abs(meter.ran["a"] - meter.ran["b"])
        assert off <= 0.02 * meter.total + 2 * meter.longest + 2 * meter.late
        with host.lock:
            assert other.entity.waited_ns <= meter.longest, "it has a pCPU for itself"
        guests[0].set_cpu(affinity=(1,))
        assert measure(host, [*guests, other]).pcpus == {"a": {1}, "b": {0}, "c": {1}}


# ---- theft ----


@each_clock
@pytest.mark.parametrize("scheduler", ["proportional", "round-robin", "credit", "deadline"])
def test_who_yields_before_the_tick_gets_no_more_than_its_share(
    make: Make, scheduler: str, clock: str
) -> None:
    """Schedulers that looked who runs in each tick gave such a guest 95 %."""
    with Host(POOL, scheduler=scheduler, clock=clock) as host:
        thief = make(host, "thief", code=assemble(THIEF), **on(clock))
        victim = make(host, "victim", **on(clock))
        meter = measure(host, [thief, victim], SECOND // 2)
        ran, overrun = meter.ran, meter.overrun
        most = 0.51 * meter.total + 2 * TURN_NS
        if scheduler == "credit":  # it hands out the time that passes, not what guests were given of it
            most = 0.5 * meter.elapsed + CREDITS_NS
        assert ran["thief"] <= most + overrun["thief"], (ran, overrun, meter.elapsed)
        least = 0.1 * (meter.total - overrun["victim"])
        assert ran["thief"] > least, "or it takes no interest in what the other has"


# ---- several pCPUs ----


def test_no_pcpu_is_idle_while_guests_wait_on_another(make: Make) -> None:
    """Two guests are at home on pCPU 0, and those on pCPU 1 end: one takes its place."""
    with Host(POOL, pcpus=2) as host:
        stay = [make(host, name, cpu_affinity=(0,)) for name in "ab"]
        leave = [make(host, name, lines=3, cpu_affinity=(1,)) for name in "cd"]
        for guest in leave:
            assert guest.wait(PATIENCE_S)
            assert guest.state is GuestState.DEFINED
        measure(host, stay, SECOND // 10)
        for guest in stay:
            guest.set_cpu(affinity=())
        measure(host, stay, SECOND // 10)
        with host.lock:
            before = [guest.entity.waited_ns for guest in stay]
        meter = measure(host, stay)
        with host.lock:
            waited = [guest.entity.waited_ns - start for guest, start in zip(stay, before, strict=True)]
        assert meter.pcpus["a"] | meter.pcpus["b"] == {0, 1}
        assert sum(waited) <= 0.02 * meter.total + meter.longest, "each has a pCPU for itself"


# ---- what is told of it ----


def test_stolen_time_is_what_others_ran(make: Make) -> None:
    with Host(POOL) as host:
        guests = [make(host, name) for name in "ab"]
        measure(host, guests, 0)
        with host.lock, listening(host) as meter:
            before, since = [guest.statistics() for guest in guests], [g.entity.since_ns for g in guests]
            host.changed.wait_for(lambda: meter.total >= SECOND, PATIENCE_S)
            after, until_ns = [guest.statistics() for guest in guests], [g.entity.since_ns for g in guests]
        for old, new, start, end, other in zip(before, after, since, until_ns, "ba", strict=True):
            stolen = new.stolen_ns - old.stolen_ns
            assert new.throttled_ns == 0
            assert stolen == new.waited_ns - old.waited_ns
            assert stolen >= 0.98 * meter.ran[other] - 2 * meter.longest, "it waited while the other ran"
            assert stolen == end - start - meter.occupied[new.name], "all that it was not on the pCPU"
            assert new.cpu_ns - old.cpu_ns == meter.ran[new.name] <= meter.occupied[new.name]


def test_throttled_time_is_what_a_cap_takes(make: Make) -> None:
    """All of the time in which it does not run, but for the wait for its turn."""
    with Host(POOL) as host:
        guest = make(host, "g", cpu_cap=25.0)
        measure(host, [guest], 0)
        with host.lock, listening(host) as meter:
            before, start = guest.statistics(), guest.entity.since_ns
            host.changed.wait_for(lambda: meter.total >= SECOND // 5, PATIENCE_S)
            after, end = guest.statistics(), guest.entity.since_ns
        at_most(meter, "g", 0.25)
        waited = after.waited_ns - before.waited_ns
        assert after.throttled_ns - before.throttled_ns == end - start - meter.occupied["g"] - waited > 0
        assert after.stolen_ns == after.waited_ns + after.throttled_ns
