"""What the tests of QMP have in common."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from qmp_rig import Rig, make_rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with make_rig(tmp_path) as rig:
        yield rig
