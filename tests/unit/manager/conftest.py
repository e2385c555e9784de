"""A manager of small guests, and their definitions."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from manager_rig import definition, managed

from emuvisor.manager import Manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with managed(tmp_path) as made:
        yield made


@pytest.fixture
def define(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    return partial(definition, tmp_path)
