"""A host on the virtual clock has the same schedule each time, to the nanosecond, and its guests end in the same state:
whatever the number of threads, and however short memory is."""

import hashlib
import random
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emuvisor import firmware
from emuvisor.host import Guest, GuestState, Host
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.host.memory.rungs import CompressionRung, PauseRung
from emuvisor.host.scheduler.recording import Recorder, Stretch
from emuvisor.host.virtual_pcpus import LANES, QUANTUM_NS, VirtualPcpus
from emuvisor.machine.config import FlatConfig, GuestConfig, NicConfig
from emuvisor.net.config import NetworkConfig
from emuvisor.units import MIB, PAGE_SIZE

PATIENCE_S = 180
THREADS = (1, 2, 4)
TIMES = 2
NETWORK = "lan"
POLICIES = ("proportional", "round-robin", "credit", "deadline")
FAR_JUMP = b"\xea\x00\x00\x00\x08".ljust(16, b"\0")
"""jmp 0800h:0, over the parameter block."""

Config = Callable[..., GuestConfig]


@dataclass(frozen=True)
class Found:
    schedule: list[Stretch]
    ends: list[tuple[str, ...]]
    """Of each guest: output, outcome, time, registers, memory."""
    now_ns: int
    compressed: int = field(compare=False)
    """Frames that the memory manager gained so."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """config(program, name, *parameters, **fields): a firmware guest."""
    folder = tmp_path_factory.mktemp("guests")

    def make(program: str, name: str, *parameters: int, **fields: Any) -> GuestConfig:
        path = folder / f"{program}-{'-'.join(map(str, parameters))}.bin"
        block = struct.pack(f"<{len(parameters)}Q", *parameters).ljust(firmware.PARAMETERS_SIZE, b"\0")
        path.write_bytes(FAR_JUMP + block + firmware.image(program))
        flat = FlatConfig(path, firmware.PARAMETERS - len(FAR_JUMP))
        if program == "dice":
            fields = {"board": "microvm", "rng": True, "nics": (NicConfig(network=NETWORK),)} | fields
        return GuestConfig(name=name, memory=4 * MIB, flat=flat, clock="virtual", **fields)

    return make


def mix(config: Config, seed: int = 0) -> list[GuestConfig]:
    """Guests of all kinds, with all kinds of claims."""
    return [
        config("dice", "a", 48, seed=seed, cpu_weight=50),
        config("dice", "b", 48, seed=seed, cpu_weight=400, cpu_latency_us=700),
        config("dice", "c", 48, seed=seed, cpu_affinity=(1, 3)),
        config("dice", "d", seed=seed, nics=(), cpu_reservation=60),
        config("smp", "smp", 40, vcpus=3, board="pc", cpu_cap=30),
        config("smp", "smp2", 40, vcpus=2, board="microvm"),
        config("ring", "ring", cpu_weight=200, cpu_limit=300_000_000),
        config("halt", "halt", 1),
        config("memtouch", "memory", 0x100000, MIB, PAGE_SIZE, 2),
    ]


def fingerprint(guest: Guest, memory: bool) -> tuple[str, ...]:
    content = hashlib.sha256()
    for gfn in guest.memory.written_pages() if memory else ():
        content.update(gfn.to_bytes(8, "little") + guest.memory.read(gfn * PAGE_SIZE, PAGE_SIZE))
    vcpus = [vcpu.digest() for vcpu in guest.machine.vcpus]
    time_ns = str(guest.machine.clock.now_ns())
    return guest.console.text, str(guest.outcome), guest.reason, time_ns, *vcpus, content.hexdigest()


def found(host: Host, recorder: Recorder, guests: Sequence[Guest], memory: bool = True) -> Found:
    assert isinstance(host.processors, VirtualPcpus)
    return Found(
        list(recorder.stretches),
        [fingerprint(guest, memory) for guest in guests],
        host.processors.now_ns,
        host.memory.log.gained.get("compression", 0),
    )


def run(
    configs: Iterable[GuestConfig], threads: int, memory: int = 128 * MIB, *, look: bool = True, **fields: Any
) -> Found:
    """`look`: at what is in their memory at the end, which they are the first to lose when it is short."""
    with Host(memory, pcpus=threads, clock="virtual", **fields) as host:
        host.add_network(NetworkConfig(NETWORK))
        recorder = Recorder(host.processors.scheduler)
        host.processors.listeners.append(recorder.record)
        guests = [host.create(each) for each in configs]
        with host.lock:  # all at virtual time 0
            for guest in guests:
                guest.start()
        ended(host, guests)
        return found(host, recorder, guests, look)


def ended(host: Host, guests: Sequence[Guest]) -> None:
    with host.lock:
        done = host.changed.wait_for(
            lambda: all(guest.state in (GuestState.DEFINED, GuestState.CRASHED) for guest in guests),
            PATIENCE_S,
        )
    assert done, [(guest.name, guest.state, guest.reason) for guest in guests]


def check_the_same(runs: Sequence[Found]) -> None:
    """With the first difference, should there be one."""
    for other in runs[1:]:
        for one, two in zip(runs[0].schedule, other.schedule, strict=False):
            assert one == two
        assert runs[0] == other


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_schedule(config: Config, policy: str) -> None:
    times = TIMES if policy == POLICIES[0] else 1
    all_found = [run(mix(config), threads, scheduler=policy) for threads in THREADS for _ in range(times)]
    check_the_same(all_found)
    schedule = all_found[0].schedule
    assert {stretch.pcpu for stretch in schedule} == set(range(LANES))
    assert {stretch.pcpu for stretch in schedule if stretch.guest == "c"} <= {1, 3}
    for lane in range(LANES):
        for one, two in pairwise(stretch for stretch in schedule if stretch.pcpu == lane):
            assert one.end_ns <= two.start_ns, "a lane runs one guest at a time"
    assert any(", 0 frames heard" not in end[0] for end in all_found[0].ends[:3]), "they talk to each other"
    assert all(end[1] == "power-off" for end in all_found[0].ends)


def test_another_seed_gives_another_schedule(config: Config) -> None:
    one, two = run(mix(config), 2), run(mix(config, seed=1), 2)
    assert one.schedule != two.schedule
    check_the_same([two, run(mix(config, seed=1), 1)])


@given(st.integers(0, 2**32))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_mixes(config: Config, seed: int) -> None:
    chance = random.Random(seed)

    def guest(number: int) -> GuestConfig:
        program, parameters = chance.choice(
            (("dice", (8, 2**14)), ("ring", ()), ("smp", (16,)), ("halt", (1,)))
        )
        cap = chance.choice((None, None, 10, 50))
        return config(
            program,
            f"g{number}",
            *parameters,
            seed=seed,
            board=chance.choice(("pc", "microvm"))
            if program == "smp"
            else "microvm"
            if program == "dice"
            else "pc",
            vcpus=chance.randint(1, 4) if program == "smp" else 1,
            cpu_weight=chance.choice((1, 100, 1000)),
            cpu_cap=cap,
            cpu_reservation=chance.choice((0, 0, 0, 8)),
            cpu_affinity=chance.choice((None, None, (0,), (1, 2))),
            cpu_latency_us=chance.choice((100, 700, 5000)),
        )

    configs = [guest(number) for number in range(chance.randint(1, 9))]
    fields: dict[str, Any] = {
        "scheduler": chance.choice(POLICIES),
        "slice_work": chance.choice((None, None, 50_000)),
    }
    check_the_same([run(configs, threads, **fields) for threads in (1, 3)])


def test_frames_arrive_when_a_quantum_is_over(config: Config) -> None:
    """So a guest that is alone on its lane hears of one that sent at another time only then."""
    deaf = run([config("dice", name, 4, 2**10) for name in ("a", "b")], 2)
    assert max(stretch.end_ns for stretch in deaf.schedule) < QUANTUM_NS
    assert all(", 0 frames heard" in end[0] for end in deaf.ends), "both have ended before anything arrives"


def test_memory_that_is_short_changes_nothing(config: Config) -> None:
    def configs() -> list[GuestConfig]:
        guests = [
            config(
                "memtouch", f"m{number}", 0x100000, MIB, PAGE_SIZE, 3 + number, cpu_weight=50 + 50 * number
            )
            for number in range(4)
        ]
        return [*guests, config("ring", "ring"), config("halt", "halt", 1)]

    expected = run(configs(), 2, look=False)
    for threads in THREADS:
        policy = MemoryPolicy(rungs=(CompressionRung(), PauseRung()), period_s=0.02, sampling_s=0.02)
        short = run(configs(), threads, 4 * MIB, look=False, memory_policy=policy)
        assert short.compressed > 0
        check_the_same([expected, short])


def test_a_guest_that_is_paused_for_memory_leaves_its_lane(config: Config) -> None:
    policy = MemoryPolicy(rungs=(PauseRung(),), period_s=0.02)
    guests = [config("memtouch", f"m{number}", 0x100000, MIB, PAGE_SIZE, 1) for number in range(4)]
    ends = run(guests, 2, 3 * MIB, look=False, memory_policy=policy).ends
    assert all(end[1] == "power-off" for end in ends)


def test_what_people_do_while_no_guest_runs_is_repeated(config: Config) -> None:
    """They see an answer, wait until the others have ended, and go on."""

    def script(threads: int) -> Found:
        with Host(64 * MIB, pcpus=threads, clock="virtual") as host:
            recorder = Recorder(host.processors.scheduler)
            host.processors.listeners.append(recorder.record)
            first = host.create(config("ring", "first", until="ring: "))
            other = host.create(config("halt", "other", 1))
            with host.lock:
                first.start()
                other.start()
            ended(host, [other])
            assert first.wait(PATIENCE_S)
            assert first.state is GuestState.PAUSED
            first.set_cpu(cap=20)
            with host.lock:
                first.resume()
                other.start()
            ended(host, [first, other])
            return found(host, recorder, [first, other])

    check_the_same([script(threads) for threads in THREADS])
