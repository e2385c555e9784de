"""virtio over PCI: virtio 1.2, section 4.1."""

import re
from itertools import pairwise
from struct import pack, unpack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import loaded

from emuvisor.bus.bus import Bus
from emuvisor.bus.clock import VirtualClock
from emuvisor.bus.device import SavedState
from emuvisor.devices.pci.pci_bus import PciBus
from emuvisor.devices.virtio.chain import Chain
from emuvisor.devices.virtio.device import VirtioDevice
from emuvisor.devices.virtio.features import Feature, Status, mask_of
from emuvisor.devices.virtio.pci import BAR_SIZE, NO_VECTOR, VirtioPci
from emuvisor.errors import SnapshotError
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import MIB

RAM = 16 * MIB
SLOT = 3
MSIX_AT, BAR_AT = 0xFE00_0000, 0xFE10_0000
COMMAND, BAR0, CAPABILITIES = 0x04, 0x10, 0x34
MEMORY, MASTER, INTX_OFF = 2, 4, 0x400
VENDOR_SPECIFIC, MSIX = 0x09, 0x11
COMMON, NOTIFY, ISR, DEVICE, PCI_ACCESS = 1, 2, 3, 4, 5
MESSAGE = 0xFEE0_0000
RINGS, DATA = 0x10_0000, 0x20_0000
WANTED = mask_of(Feature.VERSION_1, Feature.RING_RESET)


class Echo(VirtioDevice):
    device_id = 2

    def __init__(self) -> None:
        super().__init__(name="echo", queue_sizes=[8, 8], features=0x8)
        self.bytes = bytearray(b"\x11\x22\x33\x44\x55")

    def config(self) -> bytes:
        return bytes(self.bytes)

    def write_config(self, offset: int, data: bytes) -> None:
        self.bytes[offset : offset + len(data)] = data

    def notified(self, index: int) -> None:
        self.serve(self.queues[index], self._answer)

    def _answer(self, chain: Chain) -> int:
        return chain.write(chain.read(0, 4096))


class Rig:
    """A driver that finds everything by the capabilities, as a kernel does."""

    def __init__(
        self, *, vectors: int | None = None, memory: GuestMemory | None = None, device_id: int = 2
    ) -> None:
        self.ports, self.mmio = Bus("port", 1 << 16), Bus("memory", 1 << 40)
        self.memory = memory or GuestMemory(FramePool(RAM), [(0, RAM)])
        self.messages: list[tuple[int, int]] = []
        self.pin = False
        self.bus = PciBus(
            ports=self.ports,
            mmio=self.mmio,
            memory=self.memory,
            msi=lambda address, data: self.messages.append((address, data)),
            intx=self._set_pin,
        )
        self.device = Echo()
        self.device.device_id = device_id  # type: ignore[misc]
        self.function = VirtioPci(**self.collaborators(self.device), vectors=vectors)
        self.bus.plug(self.function, SLOT)
        self.places: dict[int, tuple[int, int, int]] = {}
        self.msix = 0
        self.find()
        self.available = [0, 0]

    def collaborators(self, device: VirtioDevice) -> dict[str, Any]:
        return {
            "device": device,
            "memory": self.memory,
            "clock": VirtualClock(),
            "on_suspend": lambda reason: None,
        }

    def _set_pin(self, slot: int, pin: int, level: bool) -> None:
        assert (slot, pin) == (SLOT, 1)
        self.pin = level

    def cfg(self, offset: int, size: int = 4) -> int:
        return self.bus.config_read(SLOT, 0, offset, size)

    def set_cfg(self, offset: int, value: int, size: int = 4) -> None:
        self.bus.config_write(SLOT, 0, offset, value, size)

    def find(self) -> None:
        """Walk the capabilities: type to (where it lies in memory, length, offset of the capability)."""
        at = self.cfg(CAPABILITIES, 1)
        while at:
            kind, following, length, cfg_type = (self.cfg(at + i, 1) for i in range(4))
            if kind == MSIX:
                self.msix = at
            else:
                assert kind == VENDOR_SPECIFIC
                assert length == {NOTIFY: 20, PCI_ACCESS: 20}.get(cfg_type, 16)
                assert cfg_type == PCI_ACCESS or self.cfg(at + 4, 1) == 4
                self.places[cfg_type] = (BAR_AT + self.cfg(at + 8), self.cfg(at + 12), at)
            at = following
        self.set_cfg(BAR0 + 4, MSIX_AT)
        self.set_cfg(BAR0 + 16, BAR_AT)
        self.set_cfg(COMMAND, MEMORY | MASTER, 2)

    def get(self, offset: int, size: int, kind: int = COMMON) -> int:
        return self.mmio.read(self.places[kind][0] + offset, size)

    def set(self, offset: int, value: int, size: int, kind: int = COMMON) -> None:
        self.mmio.write(self.places[kind][0] + offset, value, size)

    @property
    def status(self) -> int:
        return self.get(0x14, 1)

    def negotiate(self, wanted: int = WANTED) -> None:
        self.set(0x14, 0, 1)
        self.set(0x14, 3, 1)
        for half in (0, 1):
            self.set(0x08, half, 4)
            self.set(0x0C, wanted >> 32 * half & 0xFFFF_FFFF, 4)
        self.set(0x14, 3 | Status.FEATURES_OK, 1)

    def enable(self, index: int, vector: int = NO_VECTOR) -> None:
        base = RINGS + 0x1_0000 * index
        self.memory.write(base, bytes(0x3000))
        self.set(0x16, index, 2)
        self.set(0x18, 8, 2)
        self.set(0x1A, vector, 2)
        self.set(0x20, base, 8)
        self.set(0x28, base + 0x1000, 4)
        self.set(0x2C, 0, 4)
        self.set(0x30, base + 0x2000, 4)
        self.set(0x1C, 1, 2)
        self.available[index] = 0

    def setup(self, *vectors: int) -> "Rig":
        self.negotiate()
        for index, vector in enumerate(vectors or (NO_VECTOR, NO_VECTOR)):
            self.enable(index, vector)
        self.set(0x14, self.status | Status.DRIVER_OK, 1)
        return self

    def request(self, index: int, data: bytes) -> bytes | None:
        """Echo `data`; None without an answer."""
        base = RINGS + 0x1_0000 * index
        self.memory.write(DATA, data + bytes(len(data)))
        size = len(data)
        self.memory.write(base, pack("<QIHHQIHH", DATA, size, 1, 1, DATA + size, size, 2, 0))
        self.available[index] += 1
        number = self.available[index]
        self.memory.write(base + 0x1000 + 2, pack("<H", number))
        where, _, capability = self.places[NOTIFY]
        self.set(0x16, index, 2)
        self.mmio.write(where + self.get(0x1E, 2) * self.cfg(capability + 16), index, 2)
        (idx,) = unpack("<H", self.memory.read(base + 0x2000 + 2, 2))
        return self.memory.read(DATA + size, size) if idx == number else None

    def enable_msix(self, masked: bool = False) -> None:
        for vector in range(3):
            for offset, value in ((0, MESSAGE), (4, 0), (8, 0x40 + vector), (12, int(masked))):
                self.mmio.write(MSIX_AT + 16 * vector + offset, value, 4)
        self.set_cfg(self.msix + 2, 0x8000, 2)


@pytest.mark.parametrize(
    ("device_id", "class_code"),
    [(1, 0x020000), (2, 0x010000), (3, 0x078000), (4, 0x00FF00), (18, 0x090000), (42, 0x00FF00)],
)
def test_what_it_is(device_id: int, class_code: int) -> None:
    rig = Rig(device_id=device_id)
    assert rig.cfg(0x00) == 0x1AF4 | 0x1040 + device_id << 16
    assert rig.cfg(0x08) == class_code << 8 | 1
    assert rig.cfg(0x2C) == 0x1100_1AF4
    assert rig.cfg(0x3D, 1) == 1


def test_the_structures_do_not_overlap() -> None:
    rig = Rig()
    places = sorted((at, at + length) for kind, (at, length, _) in rig.places.items() if kind != PCI_ACCESS)
    assert set(rig.places) == {COMMON, NOTIFY, ISR, DEVICE, PCI_ACCESS}
    assert all(end <= start for (_, end), (start, _) in pairwise(places))
    assert places[0][0] >= BAR_AT
    assert places[-1][1] <= BAR_AT + BAR_SIZE
    assert rig.places[COMMON][1] == 0x3C
    assert rig.cfg(rig.places[NOTIFY][2] + 16) == 4


def test_requests_by_intx() -> None:
    rig = Rig().setup()
    for index in (0, 1, 0):
        assert rig.request(index, b"ping") == b"ping"
        assert rig.pin
        assert rig.get(0, 1, ISR) == 1
        assert not rig.pin
        assert rig.get(0, 1, ISR) == 0
    rig.device.config_changed()
    assert (rig.pin, rig.get(0, 1, ISR), rig.get(0x15, 1)) == (True, 2, 1)


def test_requests_by_msix() -> None:
    rig = Rig()
    rig.enable_msix()
    rig.set(0x10, 2, 2)
    rig.setup(0, 1)
    assert rig.get(0x10, 2) == NO_VECTOR, "a reset takes the vectors back"
    rig.set(0x10, 2, 2)
    rig.request(1, b"a")
    rig.request(0, b"a")
    rig.device.config_changed()
    assert rig.messages == [(MESSAGE, 0x41), (MESSAGE, 0x40), (MESSAGE, 0x42)]
    assert not rig.pin
    assert rig.get(0, 1, ISR) == 0


def test_masked_messages_wait() -> None:
    rig = Rig()
    rig.enable_msix(masked=True)
    rig.setup(0, 0)
    rig.request(0, b"a")
    assert rig.messages == []
    rig.mmio.write(MSIX_AT + 12, 0, 4)
    assert rig.messages == [(MESSAGE, 0x40)]


def test_queues_without_a_vector_are_silent() -> None:
    rig = Rig()
    rig.enable_msix()
    rig.setup()
    assert rig.request(0, b"a") == b"a"
    assert (rig.messages, rig.pin) == ([], False)


def test_vectors_that_do_not_exist() -> None:
    rig = Rig()
    for select, offset in ((0, 0x10), (0, 0x1A)):
        rig.set(0x16, select, 2)
        rig.set(offset, 2, 2)
        assert rig.get(offset, 2) == 2
        rig.set(offset, 3, 2)
        assert rig.get(offset, 2) == NO_VECTOR


def test_without_msix() -> None:
    rig = Rig(vectors=0)
    assert rig.msix == 0
    rig.set(0x10, 0, 2)
    assert rig.get(0x10, 2) == NO_VECTOR
    rig.setup()
    rig.request(0, b"a")
    assert rig.pin


def test_no_dma_without_bus_mastering() -> None:
    rig = Rig().setup()
    rig.set_cfg(COMMAND, MEMORY, 2)
    assert rig.request(0, b"ping") is None
    assert rig.device.queues[0].pop() is None
    rig.set_cfg(COMMAND, MEMORY | MASTER, 2)
    assert rig.request(0, b"ping") == b"ping"


def test_common_configuration() -> None:
    rig = Rig()
    rig.negotiate(WANTED | 1 << 3)
    assert rig.get(0x12, 2) == 2
    for select, offered, chosen in ((0, 1 << 28 | 1 << 29 | 8, 8), (1, 0x101, 0x101), (2, 0, 0)):
        rig.set(0x00, select, 4)
        rig.set(0x08, select, 4)
        rig.set(0x0C, chosen, 4)
        assert [rig.get(offset, 4) for offset in (0x00, 0x04, 0x08, 0x0C)] == [
            select,
            offered,
            select,
            chosen,
        ]
    rig.enable(1)
    expected = {0x16: 1, 0x18: 8, 0x1A: NO_VECTOR, 0x1C: 1, 0x1E: 1, 0x38: 0, 0x3A: 0}
    assert {offset: rig.get(offset, 2) for offset in expected} == expected
    base = RINGS + 0x1_0000
    assert [rig.get(offset, 8) for offset in (0x20, 0x28, 0x30)] == [base, base + 0x1000, base + 0x2000]
    assert rig.get(0x3C, 4) == 0
    rig.set(0x16, 2, 2)
    assert [rig.get(offset, 2) for offset in (0x18, 0x1A, 0x1C)] == [0, NO_VECTOR, 0]
    for offset, size in ((0x18, 2), (0x1A, 2), (0x1C, 2), (0x20, 8), (0x3A, 2)):
        rig.set(offset, 1, size)


def test_a_live_queue_keeps_its_registers() -> None:
    rig = Rig().setup()
    rig.set(0x16, 0, 2)
    for offset, size in ((0x18, 2), (0x20, 8), (0x1C, 2)):
        rig.set(offset, 0, size)
    assert (rig.get(0x18, 2), rig.get(0x20, 8), rig.get(0x1C, 2)) == (8, RINGS, 1)


def test_a_queue_is_reset_alone() -> None:
    rig = Rig().setup()
    rig.set(0x16, 0, 2)
    rig.set(0x3A, 1, 2)
    assert (rig.get(0x3A, 2), rig.get(0x1C, 2)) == (0, 0)
    assert rig.request(0, b"a") is None
    rig.set(0x16, 0, 2)
    rig.enable(0)
    assert rig.request(0, b"a") == b"a"


def test_device_configuration() -> None:
    rig = Rig()
    assert [rig.get(1, 2, DEVICE), rig.get(4, 4, DEVICE), rig.get(64, 4, DEVICE)] == [0x3322, 0x55, 0]
    rig.set(1, 0xBEEF, 2, DEVICE)
    rig.set(4, 0xFFFF, 2, DEVICE)
    assert rig.device.config() == b"\x11\xef\xbe\x44\x55"


def test_what_has_no_meaning() -> None:
    rig = Rig().setup()
    before = rig.function.save()
    assert rig.get(4, 4, ISR) == rig.get(0, 2, NOTIFY) == 0
    rig.set(0, 1, 1, ISR)
    rig.set(0x1E, 5, 2)
    rig.set(0x14, 0, 4)
    rig.set(0x21, 0, 1)
    rig.mmio.write(rig.places[NOTIFY][0] + 0x100, 0, 2)
    assert rig.function.save() == before


def test_access_through_configuration_space() -> None:
    rig = Rig().setup()
    at = rig.places[PCI_ACCESS][2]

    def select(bar: int, offset: int, length: int) -> None:
        rig.set_cfg(at + 4, bar, 1)
        rig.set_cfg(at + 8, offset)
        rig.set_cfg(at + 12, length)

    device = rig.places[DEVICE][0] - BAR_AT
    select(4, device, 4)
    assert rig.cfg(at + 16) == 0x4433_2211
    select(4, device + 2, 2)
    rig.set_cfg(at + 16, 0xFFFF_ABCD)
    assert rig.device.config() == b"\x11\x22\xcd\xab\x55"
    assert rig.cfg(at + 16, 2) == 0xABCD
    for bar, offset, length in (
        (1, 0, 4),
        (4, 1, 2),
        (4, BAR_SIZE, 1),
        (4, 0, 8),
        (4, 0, 0),
        (4, 0xFFFF_FFFF, 1),
    ):
        select(bar, offset, length)
        rig.set_cfg(at + 16, 0)
        assert rig.cfg(at + 16) == 0xABCD, "no access"
    assert rig.status & Status.DRIVER_OK


@pytest.mark.parametrize("how", ["status", "board"])
def test_reset(how: str) -> None:
    rig = Rig().setup()
    rig.request(0, b"a")
    assert rig.pin
    if how == "status":
        rig.set(0x14, 0, 1)
    else:
        rig.bus.reset()
        assert rig.function.dma is False
        rig.find()
    assert (rig.pin, rig.status, rig.get(0, 1, ISR)) == (False, 0, 0)
    rig.setup()
    assert rig.request(1, b"b") == b"b"


def test_a_restored_function_goes_on() -> None:
    rig = Rig()
    rig.enable_msix()
    rig.setup(1, 0)
    rig.request(0, b"a")
    twin = Rig(memory=rig.memory)
    twin.function.load(rig.function.save())
    twin.available = rig.available
    assert twin.function.save() == rig.function.save()
    assert twin.request(0, b"b") == b"b"
    assert twin.messages == [(MESSAGE, 0x41)]
    device = Echo()
    third = loaded(VirtioPci(**rig.collaborators(device)), rig.function.save())
    assert third.save() == rig.function.save()


@pytest.mark.parametrize("vectors", [[0], [0, 3], [0, 1, 2]])
def test_a_state_with_wrong_vectors(vectors: list[int]) -> None:
    rig = Rig()
    state: SavedState = rig.function.save()
    state["virtio"]["queue_vectors"] = vectors
    message = f"echo: the saved interrupt vectors {[NO_VECTOR, *vectors]} are not those of this device"
    with pytest.raises(SnapshotError, match=f"^{re.escape(message)}$"):
        rig.function.load(state)


ACCESSES = st.lists(
    st.tuples(
        st.booleans(),
        st.one_of(
            st.integers(0, 0x40),
            st.integers(0, BAR_SIZE - 8),
            st.sampled_from([0x1000, 0x2000, 0x3000, 0x3004]),
        ),
        st.one_of(st.sampled_from([0, 1, 2, 4, 8, 15]), st.integers(0, (1 << 64) - 1)),
        st.sampled_from([1, 2, 4, 8]),
    ),
    max_size=60,
)
CONFIG_WRITES = st.lists(st.tuples(st.integers(0, 63), st.integers(0, 0xFFFF_FFFF)), max_size=20)


@settings(max_examples=80, deadline=None)
@given(ACCESSES, CONFIG_WRITES)
def test_any_accesses(accesses: list[tuple[bool, int, int, int]], config: list[tuple[int, int]]) -> None:
    rig = Rig().setup()
    for write, offset, value, size in accesses:
        if write:
            rig.mmio.write(BAR_AT + offset, value, size)
        else:
            rig.mmio.read(BAR_AT + offset, size)
    for register, value in config:
        rig.set_cfg(4 * register, value)
        rig.cfg(4 * register)
    state = rig.function.save()
    rig.function.load(state)
    assert rig.function.save() == state
    rig.bus.reset()
    rig.find()
    rig.setup()
    assert rig.request(0, b"still there") == b"still there"
