import pytest

from emuvisor.machine.memory_map import MemoryMap


@pytest.fixture(scope="session")
def memory() -> MemoryMap:
    return MemoryMap.for_ram(64 << 20)
