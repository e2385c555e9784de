"""Saved states that somebody has changed: one clear error or a guest, nothing else; the machine can be used again."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_machine_state import BOARDS, booted, config

from emuvisor.bus.device import SavedState
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.errors import SnapshotError
from emuvisor.machine.machine import Machine
from emuvisor.machine.machine_state import load_machine, save_machine
from emuvisor.memory import FramePool
from emuvisor.units import MIB

Place = tuple[Any, ...]


def places(state: Any, place: Place = ()) -> Iterator[Place]:
    """Where everything in a state is, by keys and indices."""
    if place:
        yield place
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    for key, value in items:
        yield from places(value, (*place, key))


def at(state: Any, place: Place) -> Any:
    for key in place:
        state = state[key]
    return state


class Victim:
    """A machine in the middle of its work, and its state."""

    def __init__(self, folder: Path, board: str) -> None:
        folder.mkdir()
        self.pool = FramePool(24 * MIB)
        self.pcpu = Pcpu(self.pool)
        self.machine: Machine = booted(config(folder, board, "compute"), self.pool)
        self.machine.run_slice(self.pcpu, 100_000)
        self.state: SavedState = save_machine(self.machine)
        self.places = sorted(places(self.state), key=repr)

    def try_to_load(self, state: SavedState) -> str:
        try:
            load_machine(self.machine, state)
        except SnapshotError as error:
            return str(error)
        for _ in range(3):
            self.machine.run_slice(self.pcpu, 3_000)
        return ""

    def check_use(self) -> None:
        """The machine is as good as new."""
        self.machine.reset()
        self.machine.run_slice(self.pcpu, 50_000)
        save_machine(self.machine)


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Victim]]:
    made = {board: Victim(tmp_path_factory.mktemp("state") / board, board) for board in BOARDS}
    yield made
    for victim in made.values():
        victim.machine.close()


strange = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 300),
    st.integers(-(1 << 70), 1 << 70),
    st.sampled_from([0xFFFF, 1 << 31, 1 << 32, (1 << 63) - 1, (1 << 64) - 1]),
    st.binary(max_size=300),
    st.text(max_size=3),
    st.floats(),
    st.lists(st.integers(0, 1 << 64), max_size=4),
    st.just({}),
)


@pytest.mark.parametrize("board", BOARDS)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mangled_state(victims: dict[str, Victim], board: str, data: st.DataObject) -> None:
    victim = victims[board]
    state = copy.deepcopy(victim.state)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.sampled_from(victim.places))
        try:
            holder, present = at(state, place[:-1]), at(state, place)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took it away
        kind = data.draw(st.sampled_from(["drop", "strange", "near"]))
        if kind == "drop":
            del holder[place[-1]]
        elif kind == "near" and type(present) is int:
            holder[place[-1]] = present ^ 1 << data.draw(st.integers(0, 63))
        elif kind == "near" and type(present) is bytes and present:
            changed = bytearray(present)
            changed[data.draw(st.integers(0, len(present) - 1))] ^= data.draw(st.integers(1, 255))
            holder[place[-1]] = bytes(changed)
        else:
            holder[place[-1]] = data.draw(strange)
    victim.try_to_load(state)
    victim.check_use()
