import pytest

from emuvisor.errors import ConfigError
from emuvisor.machine.memory_map import E820Type, MemoryMap

RAM, RESERVED = E820Type.RAM, E820Type.RESERVED


def entries(size: int) -> list[tuple[int, int, E820Type]]:
    return [(e.base, e.end, e.kind) for e in MemoryMap.for_ram(size).entries]


def test_small_guest():
    assert entries(64 << 20) == [(0, 0x9FC00, RAM), (0x9FC00, 0x100000, RESERVED), (0x100000, 0x4000000, RAM)]
    assert MemoryMap.for_ram(64 << 20).blocks == ((0, 64 << 20),)


def test_smallest_guest_has_no_memory_above_1_mib():
    assert entries(1 << 20) == [(0, 0x9FC00, RAM), (0x9FC00, 0x100000, RESERVED)]


def test_memory_beyond_3_gib_goes_on_at_4_gib():
    four = MemoryMap.for_ram(4 << 30)
    assert four.blocks == ((0, 0xC0000000), (0x100000000, 1 << 30))
    assert entries(4 << 30)[2:] == [(0x100000, 0xC0000000, RAM), (0x100000000, 0x140000000, RAM)]
    assert four.low_end == 0xC0000000
    assert MemoryMap.for_ram(3 << 30).blocks == ((0, 0xC0000000),)


def test_is_ram_needs_one_usable_range():
    memory = MemoryMap.for_ram(64 << 20)
    assert memory.is_ram(0x100000, 63 << 20)
    assert not memory.is_ram(0x100000, (63 << 20) + 1)
    assert not memory.is_ram(0x9FBFF, 2)
    assert memory.describe_ram() == "0x0..0x9fbff, 0x100000..0x3ffffff"


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (4096, "memory: 4096 bytes (4 KiB) is outside 1 MiB to 512 GiB"),
        (1 << 40, "memory: 1099511627776 bytes (1 TiB) is outside 1 MiB to 512 GiB"),
        ((1 << 20) + 1, "memory: 1048577 bytes is not a multiple of 4 KiB"),
    ],
)
def test_impossible_sizes(size, message):
    with pytest.raises(ConfigError) as error:
        MemoryMap.for_ram(size)
    assert str(error.value) == message
