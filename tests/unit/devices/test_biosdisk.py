"""The BIOS's disk controller: commands, statuses, hostile registers."""

import errno
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import loaded

from emuvisor.devices.storage import biosdisk
from emuvisor.devices.storage.biosdisk import MAX_SECTORS, PORT_COUNT, BiosDisk
from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.errors import GuestAddressError, SnapshotError

MEMORY_SIZE = 256 * 1024
FLOPPY, HARD_DISK = 0x00, 0x80


class FakeMemory:
    def __init__(self) -> None:
        self.bytes = bytearray(MEMORY_SIZE)

    def _check(self, gpa: int, length: int) -> None:
        if gpa + length > MEMORY_SIZE:
            raise GuestAddressError(f"{gpa:#x} is outside guest memory")

    def read(self, gpa: int, length: int) -> bytes:
        self._check(gpa, length)
        return bytes(self.bytes[gpa : gpa + length])

    def write(self, gpa: int, data: bytes) -> None:
        self._check(gpa, len(data))
        self.bytes[gpa : gpa + len(data)] = data


class FakeDisk:
    name = "fake"

    def __init__(self, sectors: int, read_only: bool = False) -> None:
        self.sectors = sectors
        self.read_only = read_only
        self.broken = False
        self.bytes = bytearray(b"".join(bytes([lba & 0xFF]) * SECTOR_SIZE for lba in range(sectors)))

    def read(self, lba: int, count: int) -> bytes:
        if self.broken:
            raise OSError(errno.EIO, "no such luck")
        assert lba + count <= self.sectors
        return bytes(self.bytes[lba * SECTOR_SIZE : (lba + count) * SECTOR_SIZE])

    def write(self, lba: int, data: bytes) -> None:
        if self.broken:
            raise OSError(errno.ENOSPC, "no such luck")
        assert not self.read_only
        assert lba * SECTOR_SIZE + len(data) <= len(self.bytes)
        self.bytes[lba * SECTOR_SIZE : lba * SECTOR_SIZE + len(data)] = data


class Rig:
    def __init__(self) -> None:
        self.memory = FakeMemory()
        self.hard_disk = FakeDisk(300)
        self.floppy = FakeDisk(20, read_only=True)
        self.drives = {FLOPPY: self.floppy, HARD_DISK: self.hard_disk}
        self.controller = BiosDisk(self.memory, self.drives)

    def command(
        self, command: int, drive: int = HARD_DISK, lba: int = 0, count: int = 1, buffer: int = 0
    ) -> int:
        controller = self.controller
        controller.write(biosdisk.DRIVE, drive, 1)
        controller.write(biosdisk.COUNT, count, 2)
        controller.write(biosdisk.LBA, lba & 0xFFFFFFFF, 4)
        controller.write(biosdisk.LBA + 4, lba >> 32, 4)
        controller.write(biosdisk.BUFFER, buffer, 4)
        controller.write(biosdisk.COMMAND, command, 1)
        return controller.read(biosdisk.STATUS, 1)


def saved_and_restored(rig: Rig) -> None:
    rig.controller = loaded(BiosDisk(rig.memory, rig.drives), rig.controller.save())


@pytest.fixture(params=[lambda rig: None, saved_and_restored], ids=["fresh", "restored"])
def rig(request: pytest.FixtureRequest) -> Rig:
    rig = Rig()
    prepare: Callable[[Rig], None] = request.param
    prepare(rig)
    return rig


def test_read_copies_sectors_into_guest_memory(rig: Rig) -> None:
    assert rig.command(biosdisk.CMD_READ, lba=7, count=2, buffer=0x1000) == biosdisk.OK
    assert rig.memory.bytes[0x1000:0x1400] == b"\x07" * 512 + b"\x08" * 512
    assert not any(rig.memory.bytes[0x1400:])
    assert rig.controller.errors == 0


def test_write_copies_guest_memory_to_the_disk(rig: Rig) -> None:
    rig.memory.write(0x2000, b"w" * 512)
    assert rig.command(biosdisk.CMD_WRITE, lba=299, buffer=0x2000) == biosdisk.OK
    assert rig.hard_disk.bytes[299 * 512 :] == b"w" * 512
    assert rig.hard_disk.bytes[298 * 512 : 299 * 512] == bytes([298 & 0xFF]) * 512


def test_verify_reads_the_disk_and_leaves_memory_alone(rig: Rig) -> None:
    assert rig.command(biosdisk.CMD_VERIFY, lba=7) == biosdisk.OK
    assert not any(rig.memory.bytes)
    rig.hard_disk.broken = True
    assert rig.command(biosdisk.CMD_VERIFY, lba=7) == biosdisk.CONTROLLER_FAILURE


@pytest.mark.parametrize(
    ("drive", "sectors", "flags"), [(HARD_DISK, 300, 0), (FLOPPY, 20, biosdisk.INFO_READ_ONLY)]
)
def test_info_reports_capacity_and_flags(rig: Rig, drive: int, sectors: int, flags: int) -> None:
    assert rig.command(biosdisk.CMD_INFO, drive, lba=1 << 40, count=9) == biosdisk.OK
    assert rig.controller.read(biosdisk.LBA, 8) == sectors
    assert rig.controller.read(biosdisk.COUNT, 2) == flags


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"command": 0}, biosdisk.BAD_COMMAND),
        ({"command": 5}, biosdisk.BAD_COMMAND),
        ({"command": biosdisk.CMD_READ, "drive": 0x81}, biosdisk.NOT_READY),
        ({"command": biosdisk.CMD_INFO, "drive": 0x81}, biosdisk.NOT_READY),
        ({"command": biosdisk.CMD_READ, "count": MAX_SECTORS + 1}, biosdisk.BAD_COMMAND),
        ({"command": biosdisk.CMD_READ, "lba": 300}, biosdisk.SECTOR_NOT_FOUND),
        ({"command": biosdisk.CMD_READ, "lba": 299, "count": 2}, biosdisk.SECTOR_NOT_FOUND),
        ({"command": biosdisk.CMD_READ, "lba": (1 << 64) - 1}, biosdisk.SECTOR_NOT_FOUND),
        ({"command": biosdisk.CMD_WRITE, "drive": FLOPPY}, biosdisk.WRITE_PROTECTED),
        ({"command": biosdisk.CMD_READ, "buffer": MEMORY_SIZE - 511}, biosdisk.DMA_BOUNDARY),
        ({"command": biosdisk.CMD_WRITE, "buffer": 0xFFFFFFFF}, biosdisk.DMA_BOUNDARY),
    ],
)
def test_a_refused_command_has_a_status_and_changes_nothing(
    rig: Rig, arguments: dict[str, int], status: int
) -> None:
    disk = bytes(rig.hard_disk.bytes)
    assert rig.command(**arguments) == status
    assert rig.controller.errors == 1
    assert rig.hard_disk.bytes == disk
    assert not any(rig.memory.bytes)


def test_a_transfer_of_nothing_succeeds(rig: Rig) -> None:
    assert rig.command(biosdisk.CMD_READ, lba=300, count=0) == biosdisk.OK


def test_the_largest_transfer(rig: Rig) -> None:
    assert rig.command(biosdisk.CMD_READ, count=MAX_SECTORS) == biosdisk.OK
    assert rig.memory.bytes[: MAX_SECTORS * 512] == rig.hard_disk.bytes[: MAX_SECTORS * 512]


@pytest.mark.parametrize("command", [biosdisk.CMD_READ, biosdisk.CMD_WRITE])
def test_a_host_error_is_a_controller_failure(rig: Rig, command: int) -> None:
    rig.hard_disk.broken = True
    assert rig.command(command) == biosdisk.CONTROLLER_FAILURE


def test_writing_two_bytes_at_drive_runs_the_command(rig: Rig) -> None:
    rig.controller.write(biosdisk.DRIVE, biosdisk.CMD_INFO << 8 | HARD_DISK, 2)
    assert rig.controller.read(biosdisk.DRIVE, 2) == biosdisk.OK << 8 | HARD_DISK
    assert rig.controller.read(biosdisk.LBA, 4) == 300


def test_reset_clears_the_registers(rig: Rig) -> None:
    rig.command(biosdisk.CMD_INFO)
    rig.controller.reset()
    assert [rig.controller.read(offset, 1) for offset in range(PORT_COUNT)] == [0] * PORT_COUNT


def test_save_keeps_the_registers() -> None:
    rig = Rig()
    rig.command(biosdisk.CMD_READ, drive=0x85, lba=5, count=6, buffer=7)
    before = [rig.controller.read(offset, 1) for offset in range(PORT_COUNT)]
    saved_and_restored(rig)
    assert [rig.controller.read(offset, 1) for offset in range(PORT_COUNT)] == before


def test_another_devices_state_is_refused() -> None:
    rig = Rig()
    with pytest.raises(SnapshotError) as error:
        rig.controller.load({"device": "pit", "version": 1})
    assert str(error.value) == "the saved state is of device 'pit', not 'biosdisk'"


PLACES = [(offset, size) for size in (1, 2, 4, 8) for offset in range(PORT_COUNT - size + 1)]
VALUES = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES, st.booleans())))
def test_no_sequence_of_accesses_raises(sequence: list[tuple[tuple[int, int], int, bool]]) -> None:
    rig = Rig()
    for (offset, size), value, is_write in sequence:
        if is_write:
            rig.controller.write(offset, value & ((1 << 8 * size) - 1), size)
        assert 0 <= rig.controller.read(offset, size) < 1 << 8 * size
