"""fw_cfg: items by selector, the file directory, and DMA transfers however they are asked for."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import loaded

from emuvisor.devices.fw_cfg import PORT_COUNT, FwCfg, Item
from emuvisor.errors import GuestAddressError, OutOfFrames, UsageError

SELECTOR, DATA, DMA_HIGH, DMA_LOW = 0, 1, 4, 8
ERROR, READ, SKIP, SELECT, WRITE = 1, 2, 4, 8, 16
DESCRIPTOR = 0x1000
BUFFER = 0x2000
RAM_SIZE = 0x40000


class Ram:
    """A little RAM at 0."""

    def __init__(self) -> None:
        self.data = bytearray(RAM_SIZE)
        self.full = False

    def read(self, gpa: int, length: int) -> bytes:
        self._check(gpa, length)
        return bytes(self.data[gpa : gpa + length])

    def write(self, gpa: int, data: bytes | memoryview) -> None:
        self._check(gpa, len(data))
        if self.full:
            raise OutOfFrames("no frame")
        self.data[gpa : gpa + len(data)] = data

    def _check(self, gpa: int, length: int) -> None:
        if gpa + length > RAM_SIZE:
            raise GuestAddressError(f"guest physical address {gpa:#x} is not memory")


class Bench:
    def __init__(self) -> None:
        self.ram = Ram()
        self.chip = FwCfg(memory=self.ram)

    def select(self, key: int) -> None:
        self.chip.write(SELECTOR, key, 2)

    def take(self, count: int) -> bytes:
        return bytes(self.chip.read(DATA, 1) for _ in range(count))

    def start(self, address: int) -> None:
        raw = address.to_bytes(8, "big")
        self.chip.write(DMA_HIGH, int.from_bytes(raw[:4], "little"), 4)
        self.chip.write(DMA_LOW, int.from_bytes(raw[4:], "little"), 4)

    def dma(self, control: int, length: int = 0, address: int = BUFFER) -> int:
        """Carry out a transfer; what the control field holds afterwards."""
        self.ram.data[DESCRIPTOR : DESCRIPTOR + 16] = struct.pack(">IIQ", control, length, address)
        self.start(DESCRIPTOR)
        return struct.unpack_from(">I", self.ram.data, DESCRIPTOR)[0]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_signature_is_selected_at_first_and_after_a_reset(bench):
    assert bench.take(5) == b"QEMU\0"
    bench.select(Item.ID)
    bench.chip.reset()
    assert bench.take(4) == b"QEMU"


def test_the_id_names_both_interfaces(bench):
    bench.select(Item.ID)
    assert bench.take(4) == struct.pack("<I", 3)


def test_selecting_starts_at_the_first_byte_and_behind_the_end_come_zeros(bench):
    bench.chip.set_item(Item.NB_CPUS, b"\x05\x00")
    for _ in range(2):
        bench.select(Item.NB_CPUS)
        assert bench.take(4) == b"\x05\0\0\0"
    bench.select(0x7777)
    assert bench.take(2) == bytes(2)


def test_other_accesses_do_nothing(bench):
    bench.chip.write(SELECTOR, Item.ID, 1)
    bench.chip.write(DATA, 1, 1)
    assert bench.chip.read(SELECTOR, 2) == 0
    assert bench.take(4) == b"QEMU"


def test_what_is_selected_is_saved(bench):
    bench.chip.add_file("file", b"abc")
    bench.select(Item.FIRST_FILE)
    bench.take(1)
    bench.chip = loaded(FwCfg(memory=bench.ram), bench.chip.save())
    bench.chip.add_file("file", b"abc")
    assert bench.take(3) == b"bc\0"


def test_the_directory_lists_files_by_name(bench):
    bench.chip.add_file("etc/b", b"second")
    bench.chip.add_file("etc/a", b"1st")
    bench.chip.add_file("etc/b", b"changed")
    bench.select(Item.FILE_DIR)
    directory = bench.take(4 + 2 * 64)
    assert directory[:4] == struct.pack(">I", 2)
    assert struct.unpack(">IHH56s", directory[4:68]) == (3, 0x20, 0, b"etc/a".ljust(56, b"\0"))
    assert struct.unpack(">IHH56s", directory[68:]) == (7, 0x21, 0, b"etc/b".ljust(56, b"\0"))
    bench.select(0x21)
    assert bench.take(7) == b"changed"


def test_a_file_can_be_made_anew_when_it_is_selected(bench):
    contents = iter([b"one", b"two"])
    bench.chip.add_file("file", b"...", lambda: next(contents))
    for expected in (b"one", b"two"):
        assert bench.dma(Item.FIRST_FILE << 16 | SELECT | READ, 3) == 0
        assert bench.ram.data[BUFFER : BUFFER + 3] == expected
    bench.chip.add_file("file", b"fixed")
    bench.select(Item.FIRST_FILE)
    assert bench.take(5) == b"fixed"


@pytest.mark.parametrize("name", ["", "ü", "x" * 56])
def test_a_bad_file_name_is_refused(bench, name):
    with pytest.raises(UsageError) as error:
        bench.chip.add_file(name, b"")
    assert str(error.value) == f"fw_cfg: file name {name!r} is not 1 to 55 ASCII characters"


def test_too_many_files_are_refused(bench, monkeypatch):
    monkeypatch.setattr("emuvisor.devices.fw_cfg.MAX_FILES", 1)
    bench.chip.add_file("a", b"")
    bench.chip.add_file("a", b"again")
    with pytest.raises(UsageError) as error:
        bench.chip.add_file("b", b"")
    assert str(error.value) == "fw_cfg: no room for file 'b': there are 1 already"


@pytest.mark.parametrize("key", [-1, Item.FILE_DIR, Item.FIRST_FILE, 0x101F, 0xFFFF, 0x10000])
def test_a_key_that_is_no_items_is_refused(bench, key):
    with pytest.raises(UsageError) as error:
        bench.chip.set_item(key, b"")
    assert str(error.value) == (
        f"fw_cfg: {key:#x} is not the key of an item (0..0x1f without 0x19, 0x8000..0xfffe)"
    )


def test_the_dma_registers_read_as_a_signature(bench):
    words = [bench.chip.read(offset, 4).to_bytes(4, "little") for offset in (DMA_HIGH, DMA_LOW)]
    assert b"".join(words) == b"QEMU CFG"


def test_dma_reads_select_and_go_on(bench):
    bench.chip.add_file("file", bytes(range(100)))
    assert bench.dma(0x20 << 16 | SELECT | READ, 10) == 0
    assert bench.dma(SKIP, 5) == 0
    assert bench.dma(READ, 10, BUFFER + 10) == 0
    assert bench.ram.data[BUFFER : BUFFER + 20] == bytes([*range(10), *range(15, 25)])
    assert bench.take(1) == bytes([25])


def test_dma_beyond_the_end_gives_zeros_up_to_a_limit(bench):
    bench.ram.data[BUFFER : BUFFER + 16] = b"\xff" * 16
    assert bench.dma(SELECT | READ, 16) == 0
    assert bench.ram.data[BUFFER : BUFFER + 16] == b"QEMU" + bytes(12)
    assert bench.dma(SELECT | READ, 4 + 0x10000) == 0
    assert bench.dma(SELECT | READ, 4 + 0x10001) == ERROR
    assert bench.dma(SELECT | READ, 0xFFFFFFFF) == ERROR
    assert bench.dma(SELECT | SKIP, 0xFFFFFFFF) == 0
    assert bench.take(1) == b"\0"


def test_dma_errors(bench):
    assert bench.dma(SELECT | READ, 4, RAM_SIZE - 2) == ERROR
    assert bench.dma(SELECT | READ, 4, 2**64 - 1) == ERROR
    assert bench.dma(SELECT | WRITE, 1) == ERROR
    assert bench.dma(SELECT | WRITE, 0) == 0
    assert bench.take(4) == b"QEMU"


def test_a_descriptor_outside_memory_does_nothing(bench):
    before = bytes(bench.ram.data)
    for address in (RAM_SIZE, RAM_SIZE - 15, 2**64 - 1):
        bench.start(address)
    assert bench.ram.data == before


def test_the_high_half_is_forgotten_after_a_transfer(bench):
    bench.start(1 << 32)
    bench.ram.data[DESCRIPTOR : DESCRIPTOR + 16] = struct.pack(">IIQ", SELECT | READ, 4, BUFFER)
    bench.chip.write(DMA_LOW, int.from_bytes(DESCRIPTOR.to_bytes(4, "big"), "little"), 4)
    assert bench.ram.data[BUFFER : BUFFER + 4] == b"QEMU"


def test_a_transfer_that_found_no_frame_can_be_repeated(bench):
    bench.ram.full = True
    with pytest.raises(OutOfFrames):
        bench.dma(SELECT | READ, 4)
    bench.ram.full = False
    bench.chip.write(DMA_LOW, int.from_bytes(DESCRIPTOR.to_bytes(4, "big"), "little"), 4)
    assert bench.ram.data[BUFFER : BUFFER + 4] == b"QEMU"


addresses = st.integers(0, 2**64 - 1) | st.integers(0, RAM_SIZE)


@settings(max_examples=200, deadline=None)
@given(
    descriptor=addresses,
    control=st.integers(0, 2**32 - 1) | st.integers(0, 31),
    length=st.integers(0, 2**32 - 1) | st.integers(0, 200),
    address=addresses,
    accesses=st.lists(
        st.tuples(st.integers(0, PORT_COUNT - 1), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1)),
        max_size=8,
    ),
)
def test_nothing_that_a_guest_writes_raises(descriptor, control, length, address, accesses):
    bench = Bench()
    bench.chip.add_file("file", bytes(100))
    if descriptor + 16 <= RAM_SIZE:
        struct.pack_into(">IIQ", bench.ram.data, descriptor, control, length, address)
    bench.start(descriptor)
    for offset, size, value in accesses:
        if offset + size <= PORT_COUNT:
            bench.chip.write(offset, value & (1 << 8 * size) - 1, size)
            assert 0 <= bench.chip.read(offset, size) < 1 << 8 * size
