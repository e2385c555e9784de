"""The C core and the reference model on the same random guests: state and memory must agree."""

import random
from collections import Counter

import pytest
from cpu_guest import (
    CODE0,
    DATA0,
    IDT,
    TASK,
    TSS2_SEL,
    Core,
    FlatMemory,
    Model,
    deliver,
    gate,
    good_task,
    protected,
    put,
    tables,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from random_guests import Guest, PagedGuest

from emuvisor.cpu import _core
from emuvisor.cpu.layout import pack
from emuvisor.cpu.reference import events, system_calls
from emuvisor.cpu.reference.faults import Event

seeds = st.integers(0, 2**32 - 1)
DELIVERED, SHUTDOWN, HOST = 0, 1, 2


@settings(max_examples=600, deadline=None)
@given(seeds)
def test_page_walks(seed):
    guest = PagedGuest(random.Random(seed))
    memory = bytearray(guest.memory)
    expected = Model().walk(guest.state, memory, guest.address, guest.access)
    assert Core().walk(guest.state, guest.memory, guest.address, guest.access) == expected
    assert guest.memory == memory


@settings(max_examples=500, deadline=None)
@given(seeds)
def test_deliveries(seed):
    guest = Guest(random.Random(seed))
    event = guest.event()
    memory = bytearray(guest.memory)
    expected = events.deliver(guest.state, FlatMemory(memory), event)
    env = pack(guest.state)
    assert deliver(env, guest.memory, event) == (SHUTDOWN if expected.shutdown else DELIVERED)
    assert env == pack(expected.state), str(expected)
    assert guest.memory == memory


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_system_calls(seed):
    guest = Guest(random.Random(seed))
    for model, core in (
        (
            lambda memory: system_calls.syscall(guest.state, memory, 2),
            lambda *args: _core.check_syscall(*args, 2),
        ),
        (lambda memory: system_calls.sysenter(guest.state, memory), _core.check_sysenter),
    ):
        env, core_memory, memory = pack(guest.state), bytearray(guest.memory), bytearray(guest.memory)
        expected = model(FlatMemory(memory))
        assert core(env, core_memory) == (SHUTDOWN if expected.shutdown else DELIVERED)
        assert env == pack(expected.state)
        assert core_memory == memory


@settings(max_examples=150, deadline=None)
@given(seeds, st.integers(0, 0xFFFF), st.sampled_from([1, 2, 4]))
def test_port_permissions(seed, port, size):
    guest = Guest(random.Random(seed))
    for chosen in (port, port % 0x300):
        expected = Model().port_fault(guest.state, bytearray(guest.memory), chosen, size)
        assert Core().port_fault(guest.state, guest.memory, chosen, size) == expected


@settings(max_examples=150, deadline=None)
@given(seeds, st.integers(0, 20) | st.integers(0, 150))
def test_a_delivery_that_the_host_interrupts_can_be_repeated(seed, accesses):
    guest = Guest(random.Random(seed))
    interrupt_and_repeat(guest.state, guest.memory, guest.event(), accesses)


def interrupt_and_repeat(state, memory, event, accesses):
    """Deliver with a host that refuses one access, then once more with one that does not."""
    env, interrupted_memory = pack(state), bytearray(memory)
    result = interrupted = deliver(env, interrupted_memory, event, accesses)
    if interrupted == HOST:
        assert env == pack(state)
        result = deliver(env, interrupted_memory, event)
    expected_env, expected_memory = pack(state), bytearray(memory)
    assert result == deliver(expected_env, expected_memory, event)
    assert env == expected_env
    assert interrupted_memory == expected_memory
    return interrupted


def test_a_task_switch_can_be_interrupted_at_every_access():
    """Above all after the new TSS has become busy."""
    memory = good_task(tables(), cs=CODE0, ss=DATA0)
    put(memory, IDT, gate(TASK, TSS2_SEL))
    results = [interrupt_and_repeat(protected(), memory, Event(0), accesses) for accesses in range(80)]
    assert results == sorted(results, reverse=True)
    assert 30 < results.count(HOST) < 80


def test_the_binding_refuses_a_state_of_another_size():
    with pytest.raises(ValueError, match=r"^env has 10 bytes, a vCPU state has 5568$"):
        _core.check_sysenter(bytearray(10), bytearray())


def test_the_random_guests_reach_what_they_should():
    outcomes = Counter()
    for seed in range(400):
        guest = Guest(random.Random(seed))
        event = guest.event()
        done = events.deliver(guest.state, FlatMemory(guest.memory), event)
        outcomes["at once"] += not done.shutdown and len(done.attempts) == 1
        outcomes["after a fault"] += not done.shutdown and len(done.attempts) > 1
        outcomes["double fault"] += not done.shutdown and done.attempts[-1].vector == 8
        outcomes["shutdown"] += done.shutdown
        outcomes["task switch"] += done.state.tr.selector != guest.state.tr.selector
        outcomes["inner stack"] += not done.shutdown and done.state.cpl < guest.state.cpl
        outcomes["page fault on the way"] += any(attempt.vector == 14 for attempt in done.attempts[1:])
    assert outcomes["at once"] > 180
    assert min(outcomes.values()) > 8, outcomes
