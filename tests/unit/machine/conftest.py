from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from smp_rig import Build, build_machine

from emuvisor.machine.machine import Machine
from emuvisor.machine.memory_map import MemoryMap
from emuvisor.memory import FramePool
from emuvisor.units import MIB


@pytest.fixture(scope="session")
def memory() -> MemoryMap:
    return MemoryMap.for_ram(64 << 20)


@pytest.fixture
def pool() -> Iterator[FramePool]:
    pool = FramePool(4 * MIB)
    yield pool
    assert pool.used == 0, "close gives everything back"


@pytest.fixture
def build(pool: FramePool, tmp_path: Path) -> Iterator[Build]:
    """build(first, second, handler="", **fields of the configuration): see `smp_rig.build_machine`."""
    machines: list[Machine] = []

    def build(first: str, second: str, handler: str = "", **fields: Any) -> Machine:
        path = tmp_path / f"guest{len(machines)}.bin"
        machines.append(build_machine(pool, path, first, second, handler, **fields))
        return machines[-1]

    yield build
    for machine in machines:
        machine.close()
