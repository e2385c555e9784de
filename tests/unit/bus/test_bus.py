import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.bus.bus import Bus, Range
from emuvisor.errors import BusConflict, UsageError


class Memory:
    """A device that answers each byte with its offset, and remembers what it was asked."""

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.asked: list[tuple[object, ...]] = []

    def read(self, offset: int, size: int) -> int:
        self.asked.append(("read", offset, size))
        return int.from_bytes(bytes((offset + i) & 0xFF for i in range(size)), "little")

    def write(self, offset: int, value: int, size: int) -> None:
        self.asked.append(("write", offset, value, size))

    def reset(self) -> None:
        self.asked.clear()


class Chatty(Memory):
    """A device that returns more bits than it was asked for."""

    def read(self, offset: int, size: int) -> int:
        return -1


@pytest.fixture
def bus() -> Bus:
    return Bus("port", 0x10000)


def test_a_device_gets_the_offset_in_its_range(bus: Bus) -> None:
    device = Memory()
    bus.attach(0x3F8, 8, device)
    assert bus.read(0x3FD, 1) == 5
    assert bus.read(0x3FD, 1) == 5  # from the lookup cache
    bus.write(0x3F8, 0x1AB, 1)
    bus.write(0x3F8, 0x1AB, 1)
    assert device.asked == [("read", 5, 1)] * 2 + [("write", 0, 0xAB, 1)] * 2


def test_nobody_home_reads_all_ones_and_is_counted(bus: Bus) -> None:
    assert bus.read(0x80, 1) == 0xFF
    assert bus.read(0x80, 4) == 0xFFFF_FFFF
    bus.write(0x80, 0x1234, 2)
    assert (bus.unclaimed_reads, bus.unclaimed_writes) == (5, 2)


def test_an_access_behind_the_last_address_is_nobodys(bus: Bus) -> None:
    device = Memory()
    bus.attach(0xFFFF, 1, device)
    assert bus.read(0xFFFF, 4) == 0xFFFF_FF00
    bus.write(0xFFFF, 0x1234, 2)
    assert device.asked == [("read", 0, 1), ("write", 0, 0x34, 1)]


def test_an_access_over_the_edge_is_split_between_its_owners(bus: Bus) -> None:
    low, high = Memory("low"), Memory("high")
    bus.attach(0x10, 2, low)
    bus.attach(0x12, 2, high)
    assert bus.read(0x11, 4) == 0xFF_01_00_01
    bus.write(0x11, 0x44332211, 4)
    assert low.asked == [("read", 1, 1), ("write", 1, 0x11, 1)]
    assert high.asked == [("read", 0, 1), ("read", 1, 1), ("write", 0, 0x22, 1), ("write", 1, 0x33, 1)]
    assert (bus.unclaimed_reads, bus.unclaimed_writes) == (1, 1)


def test_an_access_wider_than_the_device_is_split(bus: Bus) -> None:
    device = Memory()
    bus.attach(0x20, 8, device, width=2)
    assert bus.read(0x20, 2) == 0x0100
    assert bus.read(0x20, 4) == 0x03020100
    assert device.asked == [("read", 0, 2), *(("read", i, 1) for i in range(4))]


def test_what_a_device_returns_is_cut_to_size(bus: Bus) -> None:
    bus.attach(0, 8, Chatty())
    assert [bus.read(0, size) for size in (1, 2, 4, 8)] == [0xFF, 0xFFFF, 0xFFFF_FFFF, 2**64 - 1]


def test_an_overlap_names_both_owners(bus: Bus) -> None:
    bus.attach(0x3F8, 8, Memory("com1"))
    for start, length in ((0x3F0, 9), (0x3FF, 1), (0x3F0, 0x100), (0x3FA, 2)):
        with pytest.raises(BusConflict) as caught:
            bus.attach(start, length, Memory("floppy"))
        assert str(caught.value) == (
            f"floppy at {start:#x}..{start + length - 1:#x} overlaps com1 at 0x3f8..0x3ff on the port bus"
        )
    bus.attach(0x3F0, 8, Memory("floppy"))
    bus.attach(0x400, 1, Memory("behind"))
    assert [r.device.name for r in bus] == ["floppy", "com1", "behind"]


@pytest.mark.parametrize(
    ("start", "length", "width", "message"),
    [
        (0xFFFF, 2, 8, "com1: 0xffff..0x10000 is outside the port bus (0..0xffff)"),
        (-1, 1, 8, "com1: -0x1..-0x1 is outside the port bus (0..0xffff)"),
        (0x10, 0, 8, "com1: length is 0; a range has at least one address"),
        (0x10, 8, 3, "com1: width is 3; an access has 1, 2, 4 or 8 bytes"),
    ],
)
def test_a_bad_range_is_refused_where_it_is_made(
    bus: Bus, start: int, length: int, width: int, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        bus.attach(start, length, Memory("com1"), width)
    assert str(caught.value) == message
    assert list(bus) == []


def test_detaching_takes_back_every_range_and_the_cached_lookups(bus: Bus) -> None:
    device = Memory()
    bus.attach(0x60, 1, device)
    bus.attach(0x64, 1, device)
    assert (bus.read(0x60, 1), bus.read(0x64, 1)) == (0, 0)
    bus.write(0x64, 1, 1)
    bus.detach(device)
    assert (bus.read(0x60, 1), bus.read(0x64, 1)) == (0xFF, 0xFF)
    bus.write(0x64, 1, 1)
    assert bus.unclaimed_writes == 1
    assert bus.find(0x60) is None


def test_detaching_one_of_a_devices_ranges(bus: Bus) -> None:
    device = Memory()
    bus.attach(0x60, 1, device)
    bus.attach(0x64, 1, device)
    bus.detach(device, 0x64)
    assert [r.start for r in bus] == [0x60]


def test_attaching_is_seen_where_a_split_was_looked_up_before(bus: Bus) -> None:
    bus.attach(0x10, 1, Memory())
    assert bus.read(0x10, 2) == 0xFF00
    bus.attach(0x11, 1, Memory())
    assert bus.read(0x10, 2) == 0


def test_the_lookup_cache_is_bounded() -> None:
    bus = Bus("mmio", 1 << 30)
    device = Memory()
    bus.attach(0, 1 << 20, device)
    for address in range(0, 20_000):
        assert bus.read(address, 1) == address & 0xFF
        bus.write(address, 0, 1)
    assert len(bus._readers) == len(bus._writers) == 4096


def test_find_tells_the_range(bus: Bus) -> None:
    device = Memory()
    bus.attach(0x40, 4, device, width=1)
    assert bus.find(0x43) == Range(0x40, 4, device, 1)
    assert bus.find(0x44) is None
    assert bus.find(0x3F) is None


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [
        (0, 0x10, []),
        (0, 0x11, [0x10]),
        (0x10, 0x11, [0x10]),
        (0x13, 0x20, [0x10]),
        (0x14, 0x20, []),
        (0x12, 0x21, [0x10, 0x20]),
        (0x21, 0x100, [0x20, 0x30]),
        (0, 0x100, [0x10, 0x20, 0x30]),
        (0x34, 0x100, []),
    ],
)
def test_ranges_that_have_some_of_the_addresses(bus: Bus, start: int, end: int, found: list[int]) -> None:
    for first in (0x10, 0x20, 0x30):
        bus.attach(first, 4, Memory())
    assert [range_.start for range_ in bus.overlapping(start, end)] == found


@given(
    ranges=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 8), st.sampled_from([1, 2, 4, 8]))),
    accesses=st.lists(st.tuples(st.integers(0, 70), st.sampled_from([1, 2, 4, 8]))),
)
def test_every_byte_of_an_access_comes_from_its_owner(
    ranges: list[tuple[int, int, int]], accesses: list[tuple[int, int]]
) -> None:
    bus = Bus("port", 64)
    owner: dict[int, int] = {}
    for start, length, width in ranges:
        if start + length <= 64 and not any(a in owner for a in range(start, start + length)):
            bus.attach(start, length, Memory(), width)
            owner.update({start + i: i for i in range(length)})
    for address, size in accesses:
        expected = bytes(owner.get(address + i, 0xFF) for i in range(size))
        assert bus.read(address, size) == int.from_bytes(expected, "little")
