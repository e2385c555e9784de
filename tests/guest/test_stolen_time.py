"""Guests that watch the stolen time which they are told of, beside others on the same pCPU."""

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keystone
import pytest

from emuvisor.host import Guest, Host
from emuvisor.machine.choices import ClockMode
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.outcome import Ending
from emuvisor.units import MIB

PATIENCE_S = 180
FIRST, SECOND = 0x8000, 0x9000
"""Where the processors' code is."""
RECORDS = 0x6000, 0x6040
NOTES = 0x7000, 0x7010
"""Where each keeps the time when it began, and what it was told last."""
DONE = 0x7020
"""Set by the second processor."""
WATCH_NS = 100_000_000
STOLEN_NS = 10_000_000
ODD, SHRUNK, BEYOND = 1, 2, 3

SPIN = "s: jmp s;"
START = f"mov dword ptr [0xfee00300], 0xc4500; mov dword ptr [0xfee00300], {0xC4600 | SECOND >> 12};"
POWER_OFF = "mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt;"
SAY = "mov dx, 0x3f8; mov al, 0x41; out dx, al;"


def complain(label: str, code: int) -> str:
    return f"{label}: mov al, {code}; out 0xf4, al; hlt;"


def watch(number: int, then: str, stolen_ns: int = 0) -> str:
    """Look at the record for a while, as Linux does (kvm_steal_clock), and until `stolen_ns` have been stolen; and
    check what it says: a version is never odd, the time never less than before, and never more than has passed.
    EDI:ESI is the time that has passed."""
    record, note = RECORDS[number], NOTES[number]
    return f"""
        rdtsc
        mov [{note}], eax
        mov [{note + 4}], edx
        mov ecx, 0x4b564d03
        mov eax, {record | 1}
        xor edx, edx
        wrmsr
        {SAY}
    look:
        mov ebp, [{record + 8}]
        test ebp, 1
        jnz odd
        mov ebx, [{record}]
        mov ecx, [{record + 4}]
        cmp ebp, [{record + 8}]
        jne look
        mov eax, ebx
        mov edx, ecx
        sub eax, [{note + 8}]
        sbb edx, [{note + 12}]
        jc shrunk
        mov [{note + 8}], ebx
        mov [{note + 12}], ecx
        rdtsc
        sub eax, [{note}]
        sbb edx, [{note + 4}]
        mov esi, eax
        mov edi, edx
        sub eax, ebx
        sbb edx, ecx
        jc beyond
        cmp ebx, {stolen_ns}
        jb look
        test edi, edi
        jnz over
        cmp esi, {WATCH_NS}
        jb look
    over:
        {then}
        {complain("odd", ODD)}
        {complain("shrunk", SHRUNK)}
        {complain("beyond", BEYOND)}
    """


@cache
def asm(source: str, bits: int, at: int) -> bytes:
    modes = {16: keystone.KS_MODE_16, 32: keystone.KS_MODE_32}
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, modes[bits]).asm(source, at)
    return bytes(code)


Create = Callable[..., Guest]


@pytest.fixture
def create(tmp_path: Path) -> Create:
    """create(host, name, first, second="", **fields of the configuration)."""

    def create(
        host: Host, name: str, first: str, second: str = "hlt", clock: ClockMode = "host", **fields: Any
    ) -> Guest:
        path = tmp_path / f"{name}.bin"
        path.write_bytes(asm(first, 32, FIRST).ljust(SECOND - FIRST, b"\0") + asm(second, 16, SECOND))
        flat = FlatConfig(path, FIRST, "protected32")
        return host.create(GuestConfig(name=name, memory=MIB, flat=flat, clock=clock, **fields))

    return create


def told(guest: Guest, number: int = 0) -> int:
    """Nanoseconds stolen from a processor, as its record says."""
    return int.from_bytes(guest.memory.read(RECORDS[number], 8), "little")


def end(guest: Guest) -> None:
    assert guest.wait(PATIENCE_S)
    assert guest.outcome is not None
    assert (guest.outcome.ending, guest.outcome.code) == (Ending.POWER_OFF, 0)


def test_what_a_busy_neighbour_takes(create: Create) -> None:
    with Host(16 * MIB) as host:
        guest = create(host, "watcher", watch(0, POWER_OFF, STOLEN_NS))
        neighbour = create(host, "neighbour", SPIN)
        began = time.perf_counter_ns()
        guest.start()
        assert guest.expect("A", PATIENCE_S)
        neighbour.start()
        end(guest)
        passed = time.perf_counter_ns() - began
        statistics = guest.statistics()
        assert STOLEN_NS <= told(guest) == statistics.stolen_ns
        assert statistics.stolen_ns + statistics.cpu_ns <= passed


def test_a_cap_takes_time_too(create: Create) -> None:
    with Host(16 * MIB) as host:
        guest = create(host, "watcher", watch(0, POWER_OFF, STOLEN_NS), cpu_cap=30)
        guest.start()
        end(guest)
        statistics = guest.statistics()
        assert STOLEN_NS <= told(guest) <= statistics.stolen_ns
        assert statistics.waited_ns == 0
        assert statistics.throttled_ns == statistics.stolen_ns


def test_alone_nothing_is_stolen(create: Create) -> None:
    with Host(16 * MIB) as host:
        guest = create(host, "watcher", watch(0, POWER_OFF))
        guest.start()
        end(guest)
        assert told(guest) == guest.statistics().stolen_ns == 0


@pytest.mark.parametrize("neighbours", [0, 1])
def test_processors_take_it_from_each_other(create: Create, neighbours: int) -> None:
    with Host(16 * MIB) as host:
        wait = f"w: cmp byte ptr [{DONE}], 1; jne w;"
        first = START + watch(0, wait + POWER_OFF, STOLEN_NS)
        second = watch(1, f"mov byte ptr [{DONE}], 1; cli; hlt;", STOLEN_NS)
        guest = create(host, "watcher", first, second, vcpus=2)
        crowd = [create(host, f"neighbour{number}", SPIN) for number in range(neighbours)]
        for neighbour in crowd:
            neighbour.start()
        began = time.perf_counter_ns()
        guest.start()
        end(guest)
        passed = time.perf_counter_ns() - began
        statistics = guest.statistics()
        stolen = [told(guest, number) for number in range(2)]
        assert all(STOLEN_NS <= ns < passed for ns in stolen)
        # Of the time that they had together, each had at most what was not the other's.
        assert sum(stolen) <= statistics.cpu_ns + 2 * statistics.stolen_ns


def test_on_the_virtual_clock_a_neighbour_takes_nothing(create: Create) -> None:
    with Host(16 * MIB) as host:
        guest = create(host, "watcher", watch(0, POWER_OFF), clock="virtual")
        create(host, "neighbour", SPIN).start()
        guest.start()
        end(guest)
        assert guest.statistics().stolen_ns > 0
        assert told(guest) == 0
