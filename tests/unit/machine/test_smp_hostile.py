"""Interrupts, INITs and start-up IPIs of any kind, sent by all processors at any time, and any values in the other
registers of their APICs: the guest may come to harm, the host does not, and the run repeats exactly in slices of any
length."""

import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from smp_rig import SECOND, build_machine

from emuvisor.cpu.pcpu import Pcpu
from emuvisor.machine.machine import Machine, Readiness
from emuvisor.memory import FramePool
from emuvisor.units import MIB

COMMANDS, INDEX, PULSE = 0xA000, 0x7000, 0x7010
"""A table of offsets in the APIC's page and values to write there, of which each processor takes the next; how many
were taken; and what they all do besides."""
END_NS = 600_000
SLICES = (7_001, 150_000, 10**9)
LONGEST_BLOCK = 10_000
CPUS = 3
ENTRIES = 16
SEND = (
    "mov eax, 1; lock xadd dword ptr [{index}], eax; and eax, {mask};"
    "mov ebx, dword ptr [eax * 8 + {table}]; mov edx, dword ptr [eax * 8 + {table} + 4];"
    "mov dword ptr [ebx + 0xfee00000], edx;"
)
ENABLE = "mov dword ptr [0xfee000f0], 0x1ff;"
WORK = "mov ecx, 300; w: lock inc dword ptr [{pulse}]; dec ecx; jnz w; sti; nop; jmp s;"

shorthand = st.sampled_from([0, 1 << 18, 2 << 18, 3 << 18])
command = st.builds(
    lambda mode, vector, to, flags: mode << 8 | vector | to | flags,
    st.integers(0, 7),
    st.one_of(st.just(SECOND >> 12), st.integers(0, 255)),
    shorthand,
    st.sampled_from([0, 1 << 11, 1 << 14, 1 << 15, 1 << 14 | 1 << 15, 1 << 12]),
)
number = st.integers(0, 0xFFFFFFFF)
ICR_LOW, ICR_HIGH = 0x300, 0x310
writes = st.lists(
    st.one_of(
        st.tuples(st.just(ICR_LOW), st.one_of(command, number)),
        st.tuples(st.just(ICR_HIGH), st.one_of(st.integers(0, CPUS).map(lambda cpu: cpu << 24), number)),
        st.tuples(st.integers(0, 0xFF).map(lambda register: register << 4), number),
    ),
    min_size=ENTRIES - 2,
    max_size=ENTRIES - 2,
)
START_ALL = [(ICR_LOW, 0xC4500), (ICR_LOW, 0xC4600 | SECOND >> 12)]

Seen = tuple[str, str, int]
"""How it went, the digest of all processors, and how often another one's turn came: at END_NS, or at the end."""


def run(sent: list[tuple[int, int]], slice_work: int) -> Seen:
    table = START_ALL + sent
    fill = {"index": INDEX, "mask": ENTRIES - 1, "table": COMMANDS, "pulse": PULSE}
    code = "s: " + (SEND + WORK).format(**fill)
    pool = FramePool(4 * MIB)
    with tempfile.TemporaryDirectory() as folder:
        machine = build_machine(pool, Path(folder) / "guest.bin", ENABLE + code, ENABLE + code, vcpus=CPUS)
    try:
        for position, pair in enumerate(table):
            for half, value in enumerate(pair):
                machine.memory.write(COMMANDS + position * 8 + half * 4, value.to_bytes(4, "little"))
        return play(machine, pool, slice_work)
    finally:
        machine.close()


def play(machine: Machine, pool: FramePool, slice_work: int) -> Seen:
    found: list[Seen] = []

    def look(end: str = "running") -> None:
        states = "".join(vcpu.digest() for vcpu in machine.vcpus)
        digest = hashlib.sha256(states.encode()).hexdigest()
        found.append((end, digest, machine.vcpus.switches))

    def on_time(_deadline_ns: int) -> None:
        look()
        machine.stop()

    machine.clock.timer(on_time).arm(END_NS)
    pcpu = Pcpu(pool, machine.model)
    while not found:
        before = machine.vcpus.work
        activity = machine.run_slice(pcpu, slice_work)
        assert machine.vcpus.work - before <= slice_work + LONGEST_BLOCK
        if activity.readiness is not Readiness.RUNNABLE and not found:
            look(f"{activity.readiness.value} {machine.outcome}")
    return found[0]


@settings(max_examples=20, deadline=None)
@given(writes)
@example(
    [(ICR_HIGH, 1 << 24), (ICR_LOW, 0x4500), (ICR_LOW, 0x4600)] * 4 + [(ICR_LOW, 0x4600 | SECOND >> 12)] * 2
)
@example([(ICR_LOW, 0x84500), (ICR_LOW, 0x84600 | SECOND >> 12)] * 7)
def test_any_writes(sent: list[tuple[int, int]]) -> None:
    assert len({run(sent, slice_work) for slice_work in SLICES}) == 1


@pytest.mark.parametrize("mode", range(8))
def test_a_storm_of_one_kind_at_everybody(mode: int) -> None:
    at_all = [(ICR_HIGH, 0xFF << 24), (ICR_LOW, mode << 8 | 0x4000 | 0x40)]
    sent = [*at_all, (ICR_LOW, mode << 8 | 0x84000 | 0xFF)] * 4 + at_all
    assert len({run(sent, slice_work) for slice_work in SLICES}) == 1
