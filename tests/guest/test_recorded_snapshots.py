"""Snapshots that an earlier version took go on in this one."""

import copy
import shutil
from pathlib import Path

import pytest

from emuvisor.errors import ImageError
from emuvisor.host import Host
from emuvisor.host.snapshots import restore_guest
from emuvisor.machine.outcome import Ending
from emuvisor.machine.state_versions import UPGRADES, upgrade
from emuvisor.net.config import NetworkConfig
from emuvisor.store import Store
from emuvisor.units import MIB

RECORDED = Path(__file__).parent / "recorded_snapshots"
PRINTED = Path(__file__).parents[2] / "firmware/ring/expected.txt"
PATIENCE_S = 60


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    shutil.copytree(RECORDED, folder, ignore=shutil.ignore_patterns("README.md"))
    for name in ("disks", "trash"):
        (folder / name).mkdir()
    with Store(folder) as store:
        yield store


@pytest.mark.parametrize("board", ["microvm", "pc"])
def test_a_guest_of_version_1_goes_on(store, board):
    with store.open_snapshot(board, "recorded") as opened:
        state = opened.states()["machine"]
    assert (state["version"], "generation ID" in state["board"]["parts"]) == (1, False)
    with Host(8 * MIB, clock="virtual") as host:
        host.add_network(NetworkConfig("lab", uplink="none"))
        guest = restore_guest(host, store, board, "recorded")
        assert guest.wait(PATIENCE_S)
        assert guest.outcome.ending is Ending.POWER_OFF
        assert guest.console.text.replace("\r\n", "\n") == PRINTED.read_text()
        assert guest.machine.board.generation_id.identifier == bytes(16)
        with pytest.raises(ImageError) as caught:  # only now is the image wanted
            guest.start()
        assert str(caught.value) == "/nowhere/guest.bin: cannot be read: No such file or directory"


def test_states_of_the_present_version_stay_as_they_are(store):
    with store.open_snapshot("pc", "recorded") as opened:
        states = opened.states()
    before = copy.deepcopy(states)
    new = upgrade(states)
    assert states == before
    assert new["machine"]["version"] == 2
    registers = new["machine"]["processors"][0]["registers"]
    assert registers["version"] == 2
    assert [registers["fpu"][key] for key in ("fop", "fip", "fcs", "fdp", "fds")] == [0] * 5
    assert upgrade(new) == new


def test_a_step_leads_to_the_next_version(monkeypatch):
    monkeypatch.setitem(UPGRADES, ("thing", 1), lambda state: {**state, "speed": state["rate"] * 2})
    monkeypatch.setitem(UPGRADES, ("thing", 2), lambda state: {"device": "thing", "pace": state["speed"] + 1})
    old = {"device": "thing", "version": 1, "rate": 4}
    assert upgrade([{"inside": old}]) == [{"inside": {"device": "thing", "version": 3, "pace": 9}}]


@pytest.mark.parametrize(
    "state",
    [
        {"device": "machine", "version": 1},
        {"device": "machine", "version": 1, "consoles": 3},
        {
            "device": "machine",
            "version": 1,
            "consoles": [],
            "processors": [],
            "turns": 5,
            "board": {"device": "pc board"},
        },
        {"device": ["machine"], "version": 1},
        {"device": "machine", "version": True},
        None,
    ],
)
def test_what_is_no_state_is_left_for_others_to_refuse(state):
    assert upgrade({"machine": copy.deepcopy(state)}) == {"machine": state}
    assert upgrade(copy.deepcopy(state)) == state


def test_nesting_without_end_is_not_followed():
    nested = bottom = {}
    for _ in range(200):
        bottom["in"] = bottom = {}
    assert upgrade(nested) == nested
