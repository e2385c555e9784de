"""Packed virtqueues by their bytes: virtio 1.2, section 2.8."""

from struct import pack, unpack

import pytest
from driver import AVAIL, EVENTS_AT, INDIRECT, NEXT, RINGS_AT, USED, WRITE, Driver

from emuvisor.devices.virtio import mmio
from emuvisor.devices.virtio.chain import Chain
from emuvisor.devices.virtio.device import VirtioDevice

DATA = 0x90_0000


class Upper(VirtioDevice):
    """Writes what it reads in capitals."""

    device_id = 42

    def notified(self, index: int) -> None:
        self.serve(self.queues[index], self._answer)

    def _answer(self, chain: Chain) -> int:
        return chain.write(chain.read().upper())


def packed_driver(size: int = 4, **options: bool) -> Driver:
    return Driver(Upper(name="upper", queue_sizes=[4]), packed=True, sizes=[size], **options)


def put(driver: Driver, slot: int, *descriptor: int) -> None:
    """Address, length, buffer ID, flags."""
    driver.memory.write(RINGS_AT + 16 * slot, pack("<QIHH", *descriptor))


def slot(driver: Driver, number: int) -> tuple[int, ...]:
    return unpack("<QIHH", driver.memory.read(RINGS_AT + 16 * number, 16))


def test_one_used_descriptor_for_a_chain() -> None:
    driver = packed_driver()
    driver.memory.write(DATA, b"abc")
    put(driver, 1, DATA + 8, 4, 0x77, WRITE | AVAIL)
    put(driver, 0, DATA, 3, 0, NEXT | AVAIL)
    driver.kick(0)
    assert slot(driver, 0) == (DATA, 3, 0x77, AVAIL | USED), "the ID of the chain's last descriptor"
    assert slot(driver, 1) == (DATA + 8, 4, 0x77, WRITE | AVAIL), "as the driver left it"
    assert driver.memory.read(DATA + 8, 4) == b"ABC\0"


@pytest.mark.parametrize("size", [3, 4])
def test_the_wrap_counters_turn_over_inside_a_chain(size: int) -> None:
    driver = packed_driver(size)
    driver.memory.write(DATA, b"abc")
    place, wrap = 0, True
    for buffer_id in range(9):
        flags = []
        for more in (NEXT, WRITE):
            flags.append((place, more | (AVAIL if wrap else USED), wrap))
            place += 1
            if place == size:
                place, wrap = 0, not wrap
        put(driver, flags[1][0], DATA + 8, 3, buffer_id, flags[1][1])
        put(driver, flags[0][0], DATA, 3, 0, flags[0][1])
        driver.kick(0)
        used = AVAIL | USED if flags[0][2] else 0
        assert slot(driver, flags[0][0]) == (DATA, 3, buffer_id, used)


def test_an_indirect_table_has_no_next_flags() -> None:
    driver = packed_driver()
    driver.memory.write(DATA, b"xyz")
    table = (
        pack("<QIHH", DATA, 3, 0, 0)
        + pack("<QIHH", DATA + 8, 1, 9, WRITE)
        + pack("<QIHH", DATA + 16, 9, 9, WRITE)
    )
    driver.memory.write(DATA + 0x100, table)
    put(driver, 0, DATA + 0x100, len(table), 5, INDIRECT | AVAIL)
    driver.kick(0)
    assert slot(driver, 0)[1:] == (3, 5, AVAIL | USED)
    assert driver.memory.read(DATA + 8, 1) + driver.memory.read(DATA + 16, 2) == b"XYZ"


def test_the_device_says_at_which_descriptor_it_wants_to_be_told() -> None:
    driver = packed_driver()
    for expected in (0, 2, 0 | 1 << 15, 2 | 1 << 15):
        driver.kick(0)
        event, flags = unpack("<HH", driver.memory.read(driver.rings[0].device_area, 4))
        assert (event ^ 1 << 15, flags) == (expected, EVENTS_AT)
        driver.indirect = False
        assert driver.request(0, b"a", [1]) == b"A"


def test_without_the_event_index_it_always_wants_to_be_told() -> None:
    driver = packed_driver(event_idx=False)
    driver.request(0, b"a", [1])
    assert driver.memory.read(driver.rings[0].device_area, 4) == bytes(4)
    driver.memory.write(driver.rings[0].driver_area, pack("<HH", 3, EVENTS_AT))
    driver.request(0, b"a", [1])
    assert driver.interrupts == 2, "a flag that was not negotiated does not silence the device"


def test_a_chain_that_is_in_flight_is_not_available_again() -> None:
    class Holds(Upper):
        def _answer(self, chain: Chain) -> int | None:  # type: ignore[override]
            return None

    driver = Driver(Holds(name="holds", queue_sizes=[4]), packed=True)
    for number in range(4):
        put(driver, number, DATA, 1, number, AVAIL)
    driver.kick(0)
    for number in range(4):
        put(driver, number, DATA, 1, number, USED)
    driver.kick(0)
    assert not driver.needs_reset
    assert not driver.device.queues[0].available
    assert driver.get(mmio.QUEUE_READY) == 1
