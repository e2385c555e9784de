"""Any order of operations against a model of the states: what is allowed works, all else is refused in clear words."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from manager_rig import definition, managed

from emuvisor.errors import StateError, UsageError

NAMES = st.sampled_from(["a", "b"])
OFF = ("defined", "saved", "crashed")
ON = ("running", "paused")
NEEDS = {
    "start": OFF,
    "stop": (*ON, "crashed", "saved"),
    "reset": ON,
    "pause": ON,
    "resume": ("paused",),
    "save": ON,
    "snapshot": ON,
}
AFTER = {"start": "running", "stop": "defined", "pause": "paused", "resume": "running", "save": "saved"}
WORDS = NEEDS | {"pause": ON}


class Guests(RuleBasedStateMachine):
    """`model` has the state and the number of snapshots by guest."""

    @initialize()
    def open(self):
        self.folder = Path(tempfile.mkdtemp())
        self.context = managed(self.folder)
        self.manager = self.context.__enter__()
        self.model = {}

    def refused(self, name, act):
        """Whether there is no such guest, which `act` says then."""
        if name in self.model:
            return False
        with pytest.raises(UsageError) as error:
            act()
        assert str(error.value) == f"there is no guest {name!r} in store {self.folder / 'store'}"
        return True

    @rule(name=NAMES)
    def create(self, name):
        if name in self.model:
            with pytest.raises(StateError, match=f"^there is a guest '{name}' already$"):
                self.manager.create(definition(self.folder, name))
            return
        self.manager.create(definition(self.folder, name))
        self.model[name] = ["defined", 0]

    @rule(name=NAMES, verb=st.sampled_from(sorted(NEEDS)))
    def do(self, name, verb):
        act = getattr(self.manager, verb)
        if self.refused(name, lambda: act(name)):
            return
        state, snapshots = self.model[name]
        if verb == "pause" and state == "paused":  # the host's guest says it
            with pytest.raises(StateError) as error:
                act(name)
            assert str(error.value) == f"guest {name!r} is paused; pause needs it running"
            return
        if state not in NEEDS[verb]:
            with pytest.raises(StateError) as error:
                act(name)
            wanted = " or ".join(WORDS[verb])
            assert str(error.value) == f"guest {name!r} is {state}; {verb} needs it {wanted}"
            return
        act(name)
        self.model[name] = [AFTER.get(verb, state), snapshots + (verb == "snapshot")]

    @rule(name=NAMES, running=st.booleans())
    def restore(self, name, running):
        if self.refused(name, lambda: self.manager.restore(name, "snapshot-1")):
            return
        if not self.model[name][1]:
            with pytest.raises(UsageError, match=f"^guest '{name}' has no snapshot 'snapshot-1'$"):
                self.manager.restore(name, "snapshot-1")
            return
        self.manager.restore(name, "snapshot-1", running=running)
        self.model[name][0] = "running" if running else "paused"

    @rule(name=NAMES, new=NAMES)
    def clone(self, name, new):
        if new in self.model or self.refused(name, lambda: self.manager.clone(name, [new])):
            return
        if self.model[name][0] not in (*ON, "saved"):
            with pytest.raises(StateError) as error:
                self.manager.clone(name, [new])
            assert str(error.value) == (
                f"guest {name!r} is {self.model[name][0]}; clone needs it running or paused or saved"
            )
            return
        self.manager.clone(name, [new])
        self.model[new] = ["running", 0]

    @rule(name=NAMES, force=st.booleans())
    def remove(self, name, force):
        if self.refused(name, lambda: self.manager.remove(name)):
            return
        state = self.model[name][0]
        if state in ON and not force:
            with pytest.raises(StateError) as error:
                self.manager.remove(name)
            assert str(error.value) == f"guest {name!r} is {state}; rm needs it defined or saved or crashed"
            return
        try:
            self.manager.remove(name, force=force)
        except StateError:  # a clone that was made of its saved state takes pages from that
            if state in ON:
                self.model[name][0] = "defined"
        else:
            del self.model[name]

    @rule()
    def end_and_begin_anew(self):
        self.manager.close(save=True)
        self.context = managed(self.folder)
        self.manager = self.context.__enter__()
        for entry in self.model.values():
            entry[0] = "saved" if entry[0] in ON else entry[0]

    @invariant()
    def agrees(self):
        found = {guest.name: [guest.state, guest.snapshots] for guest in self.manager.guests()}
        assert found == self.model
        on = {name for name, (state, _) in self.model.items() if state in ON}
        assert {name for name, guest in self.manager.host.guests.items() if guest.state in ON} == on

    def teardown(self):
        self.manager.close(save=False)
        shutil.rmtree(self.folder)


Guests.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=14,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestGuests = Guests.TestCase
