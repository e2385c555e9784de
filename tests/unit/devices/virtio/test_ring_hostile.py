"""Rings as no honest driver writes them: the device needs a reset, and nothing worse happens."""

from struct import pack

import pytest
from driver import (
    AVAIL,
    BUFFERS_AT,
    INDIRECT,
    NEXT,
    RAM,
    RINGS_AT,
    USED,
    WRITE,
    Driver,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.devices.virtio import mmio
from emuvisor.devices.virtio.chain import Chain
from emuvisor.devices.virtio.device import CHAINS_PER_TURN, VirtioDevice
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import MIB

DATA = BUFFERS_AT
TABLE = BUFFERS_AT + 0x1_0000
SIZE = 8


class Echo(VirtioDevice):
    device_id = 42

    def __init__(self, hold: bool = False) -> None:
        super().__init__(name="echo", queue_sizes=[SIZE])
        self.hold = hold
        self.chains = 0

    def notified(self, index: int) -> None:
        self.serve(self.queues[index], self._answer)

    def _answer(self, chain: Chain) -> int | None:
        self.chains += 1
        return None if self.hold else chain.write(chain.read(0, 64))


def split(gpa: int, length: int, flags: int = 0, following: int = 0) -> bytes:
    return pack("<QIHH", gpa, length, flags, following)


def packed(gpa: int, length: int, flags: int = 0, buffer_id: int = 0) -> bytes:
    return pack("<QIHH", gpa, length, buffer_id, flags | AVAIL)


def offer(driver: Driver, heads: list[int], idx: int | None = None) -> None:
    """Write the available ring of a split queue and notify."""
    ring = driver.rings[0]
    entries = pack(f"<{len(heads)}H", *heads)
    driver.memory.write(ring.driver_area + 2, pack("<H", len(heads) if idx is None else idx) + entries)
    driver.kick(0)


def assert_broken(driver: Driver, why: str) -> None:
    assert driver.needs_reset
    assert driver.device.failure == why
    assert driver.get(mmio.INTERRUPT_STATUS) & mmio.CONFIG_CHANGE
    served = driver.device.chains
    driver.kick(0)
    assert driver.device.chains == served, "nothing is served until the reset"
    driver.setup()
    assert driver.request(0, b"again", [5]) == b"again"


SPLIT = {
    "a loop": ([split(DATA, 1, NEXT, 1), split(DATA, 1, NEXT, 0)], "queue 0: descriptor 0 of 8, or a loop"),
    "a loop of one": ([split(DATA, 1, NEXT, 0)], "queue 0: descriptor 0 of 8, or a loop"),
    "a wild next": ([split(DATA, 1, NEXT, 8)], "queue 0: descriptor 8 of 8, or a loop"),
    "no bytes": ([split(DATA, 0)], "queue 0: a buffer of no bytes"),
    "wrong order": (
        [split(DATA, 1, WRITE | NEXT, 1), split(DATA, 1)],
        "queue 0: a readable buffer behind a writable one",
    ),
    "too many bytes": (
        [split(0, 0xFFFF_FFFF, NEXT, 1), split(0, 0xFFFF_FFFF)],
        "queue 0: a chain of 8589934590 bytes",
    ),
    "a wild address": ([split(1 << 40, 16)], f"guest physical address {1 << 40:#x} is not memory"),
    "an address that wraps": (
        [split((1 << 64) - 8, 16)],
        "guest physical address 0xfffffffffffffff8 is not memory",
    ),
    "partly in memory": ([split(RAM - 8, 16)], f"guest physical address {RAM:#x} is not memory"),
    "writing to nowhere": (
        [split(DATA, 1, NEXT, 1), split(RAM, 16, WRITE)],
        f"guest physical address {RAM:#x} is not RAM",
    ),
    "an empty table": ([split(TABLE, 0, INDIRECT)], "queue 0: an indirect table of 0 bytes"),
    "an odd table": ([split(TABLE, 24, INDIRECT)], "queue 0: an indirect table of 24 bytes"),
    "a huge table": ([split(TABLE, 16 * 1025, INDIRECT)], "queue 0: an indirect table of 16400 bytes"),
    "a table that goes on": (
        [split(TABLE, 16, INDIRECT | NEXT, 1)],
        "queue 0: an indirect table inside another, or one with a successor",
    ),
    "a table in a table": (
        [split(TABLE + 16, 16, INDIRECT)],
        "queue 0: an indirect table inside another, or one with a successor",
    ),
    "a table with a wild next": (
        [split(TABLE + 32, 16, INDIRECT)],
        "queue 0: descriptor 1 of 1, or a loop",
    ),
    "a table with a loop": ([split(TABLE + 48, 16, INDIRECT)], "queue 0: descriptor 0 of 1, or a loop"),
    "a table nowhere": (
        [split(RAM, 16, INDIRECT)],
        f"queue 0: an indirect table is not in memory: guest physical address {RAM:#x} is not memory",
    ),
}
TABLE_BYTES = [
    split(DATA, 1),
    split(TABLE, 16, INDIRECT),
    split(DATA, 1, NEXT, 1),
    split(DATA, 1, NEXT, 0),
]


@pytest.mark.parametrize(("descriptors", "why"), SPLIT.values(), ids=SPLIT)
def test_split_chains(descriptors: list[bytes], why: str) -> None:
    driver = Driver(Echo())
    driver.memory.write(TABLE, b"".join(TABLE_BYTES))
    driver.memory.write(RINGS_AT, b"".join(descriptors))
    offer(driver, [0])
    assert_broken(driver, why)


def test_indirect_without_the_feature() -> None:
    driver = Driver(Echo(), indirect=False)
    driver.memory.write(RINGS_AT, split(TABLE, 16, INDIRECT))
    offer(driver, [0])
    assert_broken(driver, "queue 0: an indirect descriptor without the feature")


def test_a_wild_head() -> None:
    driver = Driver(Echo())
    offer(driver, [SIZE])
    assert_broken(driver, "queue 0: descriptor 8 of 8, or a loop")


@pytest.mark.parametrize("idx", [SIZE + 1, 0x8000, 0xFFFF])
def test_an_available_index_that_jumps(idx: int) -> None:
    driver = Driver(Echo())
    offer(driver, [], idx)
    assert_broken(driver, f"queue 0: {idx} chains available; 8 descriptors")


def test_a_chain_that_is_in_flight_is_made_available_again() -> None:
    driver = Driver(Echo(hold=True))
    driver.memory.write(RINGS_AT, split(DATA, 1))
    offer(driver, [0, 0])
    assert driver.device.failure == "queue 0: chain 0 was made available twice"


def test_a_chain_that_changes_in_flight() -> None:
    device = Echo()
    driver = Driver(device)
    driver.add(0, b"x", [4])
    chain = device.queues[0].pop()
    assert chain is not None
    driver.memory.write(RINGS_AT, b"\xff" * 0x4000)
    driver.memory.write(BUFFERS_AT + 0x80, b"\xff" * 0x100)
    assert chain.readable_length == 1
    assert chain.write(b"fits!") == 4
    device.queues[0].push(chain, 4)
    assert [answer[:4] for _, answer in driver.used(0)] == [b"fits"]


PACKED = {
    "longer than the ring": (
        [packed(DATA, 1, NEXT)] * SIZE,
        "queue 0: a chain of more descriptors than there are",
    ),
    "no bytes": ([packed(DATA, 0)], "queue 0: a buffer of no bytes"),
    "wrong order": (
        [packed(DATA, 1, WRITE | NEXT), packed(DATA, 1)],
        "queue 0: a readable buffer behind a writable one",
    ),
    "too many bytes": (
        [packed(0, 0xFFFF_FFFF, NEXT), packed(0, 0xFFFF_FFFF)],
        "queue 0: a chain of 8589934590 bytes",
    ),
    "a wild address": ([packed(RAM, 1)], f"guest physical address {RAM:#x} is not memory"),
    "a table that goes on": (
        [packed(TABLE, 16, INDIRECT | NEXT)],
        "queue 0: an indirect table that is not alone",
    ),
    "a table at the end": (
        [packed(DATA, 1, NEXT), packed(TABLE, 16, INDIRECT)],
        "queue 0: an indirect table that is not alone",
    ),
    "a table in a table": ([packed(TABLE, 16, INDIRECT)], "queue 0: an indirect table inside another"),
    "an odd table": ([packed(TABLE, 17, INDIRECT)], "queue 0: an indirect table of 17 bytes"),
}


@pytest.mark.parametrize(("descriptors", "why"), PACKED.values(), ids=PACKED)
def test_packed_chains(descriptors: list[bytes], why: str) -> None:
    driver = Driver(Echo(), packed=True)
    driver.memory.write(TABLE, packed(TABLE, 16, INDIRECT))
    driver.memory.write(RINGS_AT, b"".join(descriptors))
    driver.kick(0)
    assert_broken(driver, why)


def test_a_packed_buffer_id_that_is_in_flight() -> None:
    driver = Driver(Echo(hold=True), packed=True)
    driver.memory.write(RINGS_AT, packed(DATA, 1, 0, 9) * 2)
    driver.kick(0)
    assert driver.device.failure == "queue 0: chain 9 was made available twice"


@pytest.mark.parametrize("area", [mmio.QUEUE_DESC_LOW, mmio.QUEUE_DRIVER_LOW, mmio.QUEUE_DEVICE_LOW])
@pytest.mark.parametrize("packed_ring", [False, True])
@pytest.mark.parametrize("gpa", [RAM - 16, RAM, (1 << 64) - 16])
def test_rings_that_are_not_in_memory(area: int, packed_ring: bool, gpa: int) -> None:
    if packed_ring and area != mmio.QUEUE_DESC_LOW and gpa == RAM - 16:
        gpa = RAM  # an event suppression structure fits there
    driver = Driver(Echo(), packed_ring)
    driver.set(mmio.QUEUE_RESET, 1)
    driver.set(area, gpa & 0xFFFF_FFFF)
    driver.set(area + 4, gpa >> 32)
    driver.set(mmio.QUEUE_READY, 1)
    assert not driver.needs_reset
    driver.kick(0)
    outside = max(gpa & ~0xFFF, RAM)
    assert_broken(driver, f"queue 0: a ring is not in RAM: guest physical address {outside:#x} is not RAM")


def test_rings_in_rom() -> None:
    memory = GuestMemory(FramePool(RAM + MIB), [(0, RAM)])
    memory.add_rom(0x20_0000, b"rom")
    driver = Driver(Echo(), memory=memory)
    driver.set(mmio.QUEUE_RESET, 1)
    driver.set(mmio.QUEUE_DESC_LOW, 0x20_0000)
    driver.set(mmio.QUEUE_READY, 1)
    driver.kick(0)
    assert_broken(driver, "queue 0: a ring is not in RAM: guest physical address 0x200000 is not RAM")


@pytest.mark.parametrize(
    ("register", "value", "why"),
    [
        (mmio.QUEUE_NUM, 0, "queue 0: size 0; 1 to 8"),
        (mmio.QUEUE_NUM, 16, "queue 0: size 16; 1 to 8"),
        (mmio.QUEUE_NUM, 6, "queue 0: size 6 is not a power of two"),
        (mmio.QUEUE_DESC_LOW, 8, "queue 0: a ring at 0x8, which is not a multiple of 16"),
        (mmio.QUEUE_DRIVER_LOW, 1, "queue 0: a ring at 0x1, which is not a multiple of 2"),
        (mmio.QUEUE_DEVICE_LOW, 2, "queue 0: a ring at 0x2, which is not a multiple of 4"),
    ],
)
def test_registers_that_make_no_queue(register: int, value: int, why: str) -> None:
    driver = Driver(Echo())
    driver.set(mmio.QUEUE_RESET, 1)
    driver.set(register, value)
    driver.set(mmio.QUEUE_READY, 1)
    assert driver.get(mmio.QUEUE_READY) == 0
    assert_broken(driver, why)


RING_BYTES = st.lists(
    st.tuples(st.integers(0, 0x7FFF), st.binary(min_size=1, max_size=64)), min_size=1, max_size=12
)
LIKELY = st.lists(
    st.builds(
        lambda gpa, length, flags, following: pack("<QIHH", gpa, length, flags, following),
        st.sampled_from([DATA, TABLE, RINGS_AT, RAM - 4, RAM, 0, (1 << 64) - 1]),
        st.sampled_from([0, 1, 16, 32, 48, 4096, 1 << 20, 0xFFFF_FFFF]),
        st.integers(0, 7).flatmap(lambda low: st.sampled_from([low, low | AVAIL, low | USED])),
        st.integers(0, SIZE),
    ),
    min_size=SIZE,
    max_size=SIZE,
)


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("packed_ring", [False, True])
@settings(max_examples=60, deadline=None)
@given(
    descriptors=LIKELY, table=LIKELY, noise=RING_BYTES, heads=st.lists(st.integers(0, SIZE), max_size=SIZE)
)
def test_any_bytes_in_the_rings(  # noqa: PLR0917 - hypothesis passes them by name
    packed_ring: bool,
    hold: bool,
    descriptors: list[bytes],
    table: list[bytes],
    noise: list[tuple[int, bytes]],
    heads: list[int],
) -> None:
    device = Echo(hold)
    driver = Driver(device, packed_ring)
    driver.memory.write(RINGS_AT, b"".join(descriptors))
    driver.memory.write(TABLE, b"".join(table))
    offer(driver, heads)
    for offset, data in noise:
        driver.memory.write(RINGS_AT + offset, data)
        driver.kick(0)
        driver.run_timers()
    assert device.chains <= (len(noise) + 1) * CHAINS_PER_TURN
    assert len(device.save()["queues"]["0"]["in_flight"]) <= SIZE
