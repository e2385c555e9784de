"""virtio over MMIO: virtio 1.2, section 4.2."""

import pytest
from driver import RAM, Driver
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import loaded

from emuvisor.bus.bus import Bus
from emuvisor.bus.clock import VirtualClock
from emuvisor.bus.irq import InterruptLine
from emuvisor.devices.virtio import mmio
from emuvisor.devices.virtio.chain import Chain
from emuvisor.devices.virtio.device import VirtioDevice
from emuvisor.devices.virtio.features import Status
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import MIB

BASE = 0xFEB0_0000
ONES = 0xFFFF_FFFF


class Echo(VirtioDevice):
    device_id = 42

    def __init__(self) -> None:
        super().__init__(name="echo", queue_sizes=[64, 16], features=0x8)
        self.bytes = bytearray(b"\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa")
        self.kicks: list[int] = []

    def config(self) -> bytes:
        return bytes(self.bytes)

    def write_config(self, offset: int, data: bytes) -> None:
        self.bytes[offset : offset + len(data)] = data

    def notified(self, index: int) -> None:
        self.kicks.append(index)
        self.serve(self.queues[index], self._answer)

    def _answer(self, chain: Chain) -> int:
        return chain.write(chain.read(0, 4096))


@pytest.fixture
def driver() -> Driver:
    return Driver(Echo())


def test_what_it_is(driver: Driver) -> None:
    assert driver.get(mmio.MAGIC_VALUE).to_bytes(4, "little") == b"virt"
    assert driver.get(mmio.VERSION) == 2
    assert driver.get(mmio.DEVICE_ID) == 42
    assert driver.get(mmio.VENDOR_ID).to_bytes(4, "little") == b"EMUV"
    assert driver.mmio.name == "echo (virtio-mmio)"


def test_features_by_halves(driver: Driver) -> None:
    halves = []
    for select in (0, 1, 2, ONES):
        driver.set(mmio.DEVICE_FEATURES_SEL, select)
        halves.append(driver.get(mmio.DEVICE_FEATURES))
    assert halves == [1 << 28 | 1 << 29 | 0x8, 1 << 0 | 1 << 8, 0, 0]
    before = driver.mmio.driver_features
    driver.set(mmio.DRIVER_FEATURES_SEL, 2)
    driver.set(mmio.DRIVER_FEATURES, ONES)
    assert driver.mmio.driver_features == before


def test_queue_registers(driver: Driver) -> None:
    driver.set(mmio.STATUS, 0)
    driver.set(mmio.QUEUE_SEL, 1)
    assert (driver.get(mmio.QUEUE_NUM_MAX), driver.get(mmio.QUEUE_READY)) == (16, 0)
    driver.set(mmio.QUEUE_NUM, 8)
    driver.set(mmio.QUEUE_DESC_LOW, 0x1000)
    driver.set(mmio.QUEUE_DESC_HIGH, 0x12)
    driver.set(mmio.QUEUE_DRIVER_LOW, 0x2000)
    driver.set(mmio.QUEUE_DEVICE_HIGH, 0x34)
    queue = driver.device.queues[1]
    assert (queue.size, queue.descriptor_area, queue.driver_area, queue.device_area) == (
        8,
        0x12_0000_1000,
        0x2000,
        0x34_0000_0000,
    )
    driver.set(mmio.QUEUE_READY, 1)
    assert driver.get(mmio.QUEUE_READY) == 1
    for register in (mmio.QUEUE_NUM, mmio.QUEUE_DESC_LOW, mmio.QUEUE_READY):
        driver.set(register, 5)
    assert (queue.size, queue.descriptor_area) == (8, 0x12_0000_1000), "a live queue keeps its registers"
    driver.set(mmio.QUEUE_READY, 0)
    assert (driver.get(mmio.QUEUE_READY), queue.size) == (0, 16)


def test_a_queue_that_does_not_exist(driver: Driver) -> None:
    driver.set(mmio.QUEUE_SEL, 2)
    assert (driver.get(mmio.QUEUE_NUM_MAX), driver.get(mmio.QUEUE_READY)) == (0, 0)
    for register in (mmio.QUEUE_NUM, mmio.QUEUE_READY, mmio.QUEUE_DESC_LOW, mmio.QUEUE_RESET):
        driver.set(register, 1)
    driver.set(mmio.QUEUE_NOTIFY, 2)
    driver.set(mmio.QUEUE_NOTIFY, ONES)
    assert driver.device.kicks == []
    assert not driver.needs_reset


def test_interrupts_stay_until_acknowledged(driver: Driver) -> None:
    driver.add(0, b"a", [1])
    driver.kick(0)
    driver.device.config_changed()
    assert (driver.irq.level, driver.get(mmio.INTERRUPT_STATUS)) == (True, 3)
    driver.set(mmio.INTERRUPT_ACK, mmio.USED_BUFFER)
    assert (driver.irq.level, driver.get(mmio.INTERRUPT_STATUS)) == (True, mmio.CONFIG_CHANGE)
    driver.set(mmio.INTERRUPT_ACK, ONES)
    assert (driver.irq.level, driver.get(mmio.INTERRUPT_STATUS)) == (False, 0)


@pytest.mark.parametrize("how", ["status", "board"])
def test_a_reset_lowers_the_line(driver: Driver, how: str) -> None:
    driver.device.config_changed()
    if how == "status":
        driver.set(mmio.STATUS, 0)
    else:
        driver.mmio.reset()
    assert (driver.irq.level, driver.get(mmio.INTERRUPT_STATUS), driver.status) == (False, 0, 0)
    driver.setup()
    assert driver.request(0, b"a", [1]) == b"a"


def test_shared_memory_regions_do_not_exist(driver: Driver) -> None:
    driver.set(mmio.SHM_SEL, 0)
    registers = (mmio.SHM_LEN_LOW, mmio.SHM_LEN_HIGH, mmio.SHM_BASE_LOW, mmio.SHM_BASE_HIGH)
    assert [driver.get(register) for register in registers] == [ONES] * 4


def test_a_queue_is_reset_alone(driver: Driver) -> None:
    for index in (0, 1):
        assert driver.request(index, b"a", [1]) == b"a"
    driver.set(mmio.QUEUE_SEL, 0)
    driver.set(mmio.QUEUE_RESET, 1)
    assert (driver.get(mmio.QUEUE_RESET), driver.get(mmio.QUEUE_READY)) == (0, 0)
    assert driver.request(1, b"b", [1]) == b"b"
    driver.enable(0)
    assert driver.request(0, b"c", [1]) == b"c"


def test_a_queue_is_not_reset_without_the_feature() -> None:
    driver = Driver(Echo(), setup=False)
    assert driver.negotiate(1 << 32)
    driver.set(mmio.QUEUE_READY, 1)
    driver.set(mmio.QUEUE_RESET, 1)
    assert driver.get(mmio.QUEUE_READY) == 1


def test_registers_are_double_words(driver: Driver) -> None:
    assert driver.mmio.read(mmio.MAGIC_VALUE, 1) == driver.mmio.read(mmio.MAGIC_VALUE + 2, 2) == 0
    driver.mmio.write(mmio.STATUS, 0, 1)
    assert driver.status & Status.DRIVER_OK
    assert driver.get(0x00C + 0x100 - 0x10) == 0, "nothing is there"
    driver.set(mmio.MAGIC_VALUE, 0)


def test_configuration_space_has_bytes(driver: Driver) -> None:
    bus = Bus("memory", 1 << 32)
    bus.attach(BASE, mmio.MMIO_SIZE, driver.mmio, width=4)
    at = BASE + mmio.CONFIG
    assert [bus.read(at, size) for size in (1, 2, 4, 8)] == [0x11, 0x2211, 0x4433_2211, 0x8877_6655_4433_2211]
    assert bus.read(at + 8, 4) == 0xAA99
    assert bus.read(at + 0xF8, 4) == 0
    bus.write(at + 1, 0xBEEF, 2)
    bus.write(at + 8, 0xFFFF_FFFF, 4)
    assert driver.config(0, 10) == b"\x11\xef\xbe\x44\x55\x66\x77\x88\x99\xaa"


def test_restore() -> None:
    driver = Driver(Echo())
    parts = {
        "device": Echo(),
        "memory": driver.memory,
        "clock": VirtualClock(),
        "irq": InterruptLine(lambda level: None),
        "on_suspend": driver.suspensions.append,
    }
    chip = loaded(mmio.VirtioMmio(**parts), driver.mmio.save())
    assert chip.save() == driver.mmio.save()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.one_of(st.sampled_from(range(0, 0x104, 4)), st.integers(0, mmio.MMIO_SIZE - 8)),
            st.one_of(st.sampled_from([0, 1, 2, 4, 8, 15, 64]), st.integers(0, ONES)),
            st.sampled_from([1, 2, 4]),
        ),
        max_size=60,
    )
)
def test_any_accesses(accesses: list[tuple[bool, int, int, int]]) -> None:
    memory = GuestMemory(FramePool(RAM + MIB), [(0, RAM)])
    driver = Driver(Echo(), memory=memory)
    for write, offset, value, size in accesses:
        if write:
            driver.mmio.write(offset, value & (1 << 8 * size) - 1, size)
        else:
            assert 0 <= driver.mmio.read(offset, size) <= ONES
    driver.run_timers()
    chip = driver.mmio.save()
    driver.mmio.load(chip)
    assert driver.mmio.save() == chip
    driver.setup()
    assert driver.request(0, b"still there", [16]) == b"still there"
