"""A processor's state as plain data: every register comes back, and what is none is refused by its name."""

import copy
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.cpu.reference.faults import Event, Kind
from emuvisor.cpu.saved_state import load_cpu, save_cpu
from emuvisor.cpu.state import CpuState, DescriptorTable, Fpu, Mtrrs, Segment
from emuvisor.errors import SnapshotError

SELECTORS, DOUBLEWORDS = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
QUADWORDS = st.integers(0, (1 << 64) - 1)


def registers(bits: int, count: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, (1 << bits) - 1), min_size=count, max_size=count)


SEGMENTS = st.builds(Segment, SELECTORS, QUADWORDS, DOUBLEWORDS, DOUBLEWORDS)
TABLES = st.builds(DescriptorTable, QUADWORDS, DOUBLEWORDS)
FPUS = st.builds(
    Fpu,
    SELECTORS,
    SELECTORS,
    st.integers(0, 255),
    registers(80, 8),
    DOUBLEWORDS,
    registers(128, 16),
    fop=SELECTORS,
    fip=QUADWORDS,
    fcs=SELECTORS,
    fdp=QUADWORDS,
    fds=SELECTORS,
)
MTRRS = st.builds(Mtrrs, registers(64, 11), QUADWORDS, registers(64, 16))
EVENTS = st.none() | st.builds(
    Event, st.integers(0, 255), st.sampled_from(Kind), st.none() | DOUBLEWORDS, QUADWORDS
)


def states() -> st.SearchStrategy[CpuState]:
    """Any state: each field by the type of its default."""
    kinds = {Segment: SEGMENTS, DescriptorTable: TABLES, Fpu: FPUS, Mtrrs: MTRRS, bool: st.booleans()}
    default = CpuState()
    found: dict[str, st.SearchStrategy[Any]] = {}
    for field in fields(CpuState):
        found[field.name] = kinds.get(type(getattr(default, field.name)), QUADWORDS)
    found["event"] = EVENTS
    found["sysenter_cs"] = DOUBLEWORDS
    return st.builds(CpuState, **found)


@given(states())
def test_every_register_comes_back(state: CpuState) -> None:
    saved = save_cpu(state)
    assert load_cpu(saved) == state
    assert save_cpu(load_cpu(saved)) == saved


def test_the_saved_state_is_a_copy() -> None:
    state = CpuState()
    saved = save_cpu(state)
    state.fpu.xmm[3] = 7
    loaded = load_cpu(saved)
    assert loaded.fpu.xmm[3] == 0
    loaded.fpu.st[0] = 1
    assert saved["fpu"]["st"][0] == 0


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("rax",), 1 << 64, "register 'rax' is 18446744073709551616, which it cannot hold"),
        (("rax",), -1, "register 'rax' is -1, which it cannot hold"),
        (("rax",), True, "register 'rax' is True, which it cannot hold"),
        (("a20",), 1, "register 'a20' is 1, which it cannot hold"),
        (("cs", "selector"), 1 << 16, "register 'selector' is 65536, which it cannot hold"),
        (("fpu", "ftw"), 256, "register 'ftw' is 256, which it cannot hold"),
        (("fpu", "st"), [0] * 7, "register 'st' is [0, 0, 0, 0, 0, 0, ...], which it cannot hold"),
        (("mtrrs", "fixed"), None, "register 'fixed' is None, which it cannot hold"),
        (("fpu", "xmm"), [1 << 128] * 16, None),
        (("event",), [256, 0, None, 0], "event [256, 0, None, 0] is none"),
        (("event",), [1, 99, None, 0], "event [1, 99, None, 0] is none"),
        (("event",), [1, 0, "x", 0], "event [1, 0, 'x', 0] is none"),
        (("event",), [1, 0, None], "event [1, 0, None] is none"),
        (("event",), 5, "event 5 is none"),
    ],
)
def test_what_a_register_cannot_hold(path: tuple[str, ...], value: Any, text: str | None) -> None:
    saved = save_cpu(CpuState())
    part = saved
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(SnapshotError) as caught:
        load_cpu(saved)
    if text is not None:
        assert str(caught.value) == f"cpu: saved {text}"


@pytest.mark.parametrize("name", [field.name for field in fields(CpuState) if field.name != "event"])
def test_nothing_may_be_missing(name: str) -> None:
    saved = copy.deepcopy(save_cpu(CpuState()))
    del saved[name]
    with pytest.raises(SnapshotError, match=f"^cpu: saved (register|field) '{name}' is None"):
        load_cpu(saved)


def test_another_device_or_a_newer_version() -> None:
    saved = save_cpu(CpuState())
    with pytest.raises(SnapshotError, match=r"^the saved state is of device 'fpu', not 'cpu'$"):
        load_cpu(saved | {"device": "fpu"})
    with pytest.raises(SnapshotError, match=r"^cpu: saved state has version 3; this emuvisor reads 1 to 2$"):
        load_cpu(saved | {"version": 3})
