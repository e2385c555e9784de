from collections.abc import Callable

import pytest
from device_rigs import Rig


@pytest.fixture(params=["fresh", "restored"])
def rig_of(request: pytest.FixtureRequest) -> Callable[[str], Rig]:
    """Makes a bench; every test that uses it runs on a new chip and on one rebuilt from a saved state."""

    def make(kind: str) -> Rig:
        rig = Rig(kind)
        return rig.restored() if request.param == "restored" else rig

    return make
