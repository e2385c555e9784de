"""The floppy controller's registers and commands, by the sections of Intel's 82077AA data sheet."""

from collections.abc import Callable

import pytest
from device_rigs import Rig, Wires
from floppy_fakes import FakeFloppy
from floppy_rig import (
    CMD_BSY,
    DIO,
    DMA_FROM_MEMORY,
    DMA_TO_MEMORY,
    READ,
    READ_DELETED,
    RQM,
    SECTOR,
    VERIFY,
    WRITE,
    WRITE_DELETED,
    FloppyDriver,
)

from emuvisor.devices.dma import DmaController
from emuvisor.devices.floppy import FloppyController
from emuvisor.errors import ImageError, OutOfFrames, UsageError

DSKCHG = 0x80
SPECIFY_DMA, SPECIFY_NON_DMA = (0x03, 0xAF, 0x02), (0x03, 0xAF, 0x03)


@pytest.fixture
def cold(rig_of: Callable[[str], Rig]) -> FloppyDriver:
    """After power-on."""
    return FloppyDriver(rig_of("floppy"))


@pytest.fixture(params=["fresh", "restored"])
def driver(request: pytest.FixtureRequest) -> FloppyDriver:
    """Ready to transfer."""
    started = FloppyDriver(Rig("floppy")).start()
    return started.restored() if request.param == "restored" else started


def lba(cylinder: int, head: int, sector: int) -> int:
    return (cylinder * 2 + head) * 18 + sector - 1


# Reset.


def test_after_power_on_it_is_held_in_reset(cold: FloppyDriver) -> None:
    assert cold.status() == 0
    cold.chip.write(5, 0x10, 1)
    assert cold.chip.read(5, 1) == 0
    assert cold.status() == 0


def test_leaving_reset_polls_four_drives(cold: FloppyDriver) -> None:
    cold.set_dor(0x0C)
    assert cold.status() == 0
    cold.wait()
    assert cold.status() == RQM
    for number in range(4):
        assert cold.irq == (number == 0)
        assert cold.ask(0x08) == bytes((0xC0 | number, 0))
    assert cold.ask(0x08) == b"\x80"


def test_the_dsr_resets_by_itself(driver: FloppyDriver) -> None:
    driver.chip.write(4, 0x80, 1)
    assert driver.status() == 0
    driver.wait()
    assert driver.ask(0x08) == b"\xc0\x00"
    driver.set_dor(0)
    driver.chip.write(4, 0x80, 1)
    assert driver.rig.pass_ns(10**9) == 0  # the DOR still holds it


def test_reset_ends_a_command_and_a_seek(driver: FloppyDriver) -> None:
    driver.send(0x0F, 0, 40)
    driver.command(READ, 0, 0, 1)
    driver.set_dor(0x10)
    assert driver.rig.pass_ns(10**9) == 0
    driver.set_dor(0x1C)
    driver.wait()
    assert driver.status() == RQM


def test_power_on_reset_forgets_what_a_software_reset_keeps(driver: FloppyDriver) -> None:
    driver.ask(0x94)
    driver.send(0x13, 0, 0x5A, 0x33)
    driver.chip.rate_and_change.reset()
    driver.start()
    assert driver.ask(0x0E)[7:] == bytes((0, 0x20, 0))


# Registers.


def test_the_status_registers_in_ps2_mode(driver: FloppyDriver) -> None:
    assert driver.chip.read(0, 1) == 0x06  # track 0, two drives, not write-protected
    assert driver.chip.read(1, 1) == 0xC1
    driver.disk.read_only = True
    driver.seek(1)
    driver.send(0x0F, 0, 2)
    driver.rig.pass_ns(10**9)
    assert driver.chip.read(0, 1) == 0x94
    driver.set_dor(0x2D)
    assert driver.chip.read(0, 1) == 0x86
    assert driver.chip.read(1, 1) == 0xE2


def test_registers_that_hold_what_was_written(driver: FloppyDriver) -> None:
    assert driver.chip.read(2, 1) == 0x1C
    driver.chip.write(3, 0xFE, 1)
    assert driver.chip.read(3, 1) == 0x02
    for offset in (0, 1, 6):
        driver.chip.write(offset, 0x55, 1)
    assert driver.chip.read(6, 1) == 0xFF


def test_the_data_rate_by_either_register(driver: FloppyDriver) -> None:
    for rate, direction in ((0, 0x78), (1, 0x7B), (2, 0x7D), (3, 0x7E)):
        driver.set_rate(rate)
        assert driver.chip.rate_and_change.read(0, 1) & ~DSKCHG == direction
        driver.set_rate(0)
        driver.chip.write(4, rate, 1)
        assert driver.chip.rate_and_change.read(0, 1) & ~DSKCHG == direction


def test_the_change_line_falls_with_a_step_on_a_disk(driver: FloppyDriver) -> None:
    def changed() -> bool:
        return bool(driver.chip.rate_and_change.read(0, 1) & DSKCHG)

    assert changed()
    driver.recalibrate()  # no step: the head is there
    assert changed()
    driver.seek(1)
    assert not changed()
    driver.chip.drives[0].insert(None)
    driver.seek(0)
    assert changed()
    driver.chip.drives[0].insert(driver.disk)
    assert changed()
    driver.seek(1)
    assert not changed()
    driver.set_dor(0x1D)  # the second drive is empty
    driver.seek(5, drive=1)
    assert changed()
    driver.set_dor(0x1E)  # there is no third
    assert not changed()


def test_the_main_status_through_a_command(driver: FloppyDriver) -> None:
    assert driver.status() == RQM
    driver.send(0x46)
    assert driver.status() == RQM | CMD_BSY
    driver.send(0, 0, 0, 1, 2, 18, 0x1B, 0xFF)
    assert driver.status() == CMD_BSY
    driver.wait()
    assert driver.status() == RQM | DIO | CMD_BSY
    driver.chip.write(5, 0x08, 1)  # while there are results it takes nothing
    assert len(driver.results()) == 7
    assert driver.status() == RQM


# Commands that answer at once.


@pytest.mark.parametrize("opcode", [0x00, 0x02, 0x11, 0x18, 0x1F, 0x28, 0x87, 0xFF])
def test_unknown_commands_are_invalid(driver: FloppyDriver, opcode: int) -> None:
    assert driver.ask(opcode) == b"\x80"
    assert not driver.irq


def test_version(driver: FloppyDriver) -> None:
    assert driver.ask(0x10) == b"\x90"


def test_sense_drive_status(driver: FloppyDriver) -> None:
    assert driver.ask(0x04, 0x04) == b"\x3c"
    driver.seek(3)
    assert driver.ask(0x04, 0x00) == b"\x28"
    driver.disk.read_only = True
    assert driver.ask(0x04, 0x00) == b"\x68"
    assert driver.ask(0x04, 0x03) == b"\x2b"  # nobody there


def test_dumpreg_shows_what_was_set(driver: FloppyDriver) -> None:
    driver.send(0x03, 0xDF, 0x02)
    driver.send(0x13, 0xFF, 0x57, 0x22)
    driver.send(0x12, 0x80 | 0x24)
    driver.seek(7)
    driver.transfer(VERIFY, 7, 0, 1, last=18)
    assert driver.ask(0x0E) == bytes((7, 0, 0, 0, 0xDF, 0x02, 18, 0x24, 0x57, 0x22))


def test_lock_keeps_the_fifo_settings_through_a_software_reset(driver: FloppyDriver) -> None:
    driver.send(0x13, 0, 0x5A, 0x33)
    assert driver.ask(0x94) == b"\x10"
    driver.chip.write(4, 0x80, 1)
    driver.rig.pass_ns(10**9)
    assert driver.ask(0x0E)[7:] == bytes((0x80, 0x0A, 0x33))
    assert driver.ask(0x14) == b"\x00"
    driver.chip.write(4, 0x80, 1)
    driver.rig.pass_ns(10**9)
    assert driver.ask(0x0E)[7:] == bytes((0, 0x20, 0))


def test_perpendicular_mode_overwrites_drives_only_when_told(driver: FloppyDriver) -> None:
    driver.send(0x12, 0x80 | 0x0F)
    driver.send(0x12, 0x32)
    assert driver.ask(0x0E)[7] == 0x0E
    driver.chip.write(4, 0x80, 1)
    driver.rig.pass_ns(10**9)
    assert driver.ask(0x0E)[7] == 0x0C


# Seeks.


def test_seek_and_sense_interrupt_status(driver: FloppyDriver) -> None:
    driver.send(0x0F, 0x00, 40)
    assert driver.status() == RQM | 0x01
    driver.wait()
    assert driver.status() == RQM
    assert driver.ask(0x08) == b"\x20\x28"
    assert not driver.irq
    assert driver.ask(0x08) == b"\x80"


def test_overlapping_seeks_have_an_interrupt_each(driver: FloppyDriver) -> None:
    driver.send(0x0F, 0x00, 2)
    driver.send(0x0F, 0x01, 2)
    assert driver.status() == RQM | 0x03
    driver.wait()
    driver.rig.pass_ns(10**9)
    assert driver.ask(0x08) == b"\x20\x02"
    assert driver.irq
    assert driver.rig.logged("irq6")[-2:] == [False, True]
    assert driver.ask(0x08) == b"\x21\x02"
    assert not driver.irq


def test_a_second_seek_of_a_drive_replaces_its_interrupt(driver: FloppyDriver) -> None:
    driver.send(0x0F, 0x00, 2)
    driver.rig.pass_ns(10**9)
    driver.send(0x0F, 0x00, 5)
    driver.rig.pass_ns(10**9)
    assert driver.ask(0x08) == b"\x20\x05"
    assert driver.ask(0x08) == b"\x80"


def test_recalibrate_finds_track_0(driver: FloppyDriver) -> None:
    driver.seek(79)
    assert driver.recalibrate() == b"\x20\x00"
    assert driver.ask(0x04, 0)[0] & 0x10


def test_recalibrate_gives_up_after_79_steps(driver: FloppyDriver) -> None:
    driver.seek(83)
    assert driver.recalibrate() == b"\x70\x00"
    assert driver.recalibrate() == b"\x20\x00"


def test_recalibrate_without_a_drive(driver: FloppyDriver) -> None:
    assert driver.recalibrate(drive=2) == b"\x72\x00"
    assert driver.seek(3, drive=2) == b"\x22\x03"


def test_relative_seek(driver: FloppyDriver) -> None:
    driver.send(0xCF, 0, 10)
    driver.wait()
    assert driver.ask(0x08) == b"\x20\x0a"
    driver.send(0x8F, 0, 3)
    driver.wait()
    assert driver.ask(0x08) == b"\x20\x07"
    driver.send(0x8F, 0, 30)
    driver.wait()
    assert driver.ask(0x08) == b"\x20\x00"


def test_the_head_stops_where_the_tracks_end(driver: FloppyDriver) -> None:
    assert driver.seek(255) == b"\x20\xff"
    assert driver.chip.drives[0].track == 83


# Data transfers by DMA.


def test_read_data(driver: FloppyDriver) -> None:
    driver.seek(3)
    driver.program_dma(DMA_TO_MEMORY, 2 * SECTOR)
    assert driver.transfer(READ, 3, 0, 5) == bytes((0x00, 0, 0, 3, 0, 7, 2))
    assert driver.memory(3 * SECTOR) == driver.disk.read(lba(3, 0, 5), 2) + bytes(SECTOR)


def test_the_interrupt_goes_with_the_first_result_byte(driver: FloppyDriver) -> None:
    driver.program_dma(DMA_TO_MEMORY, SECTOR)
    driver.command(READ, 0, 0, 1)
    driver.wait()
    assert driver.chip.read(5, 1) == 0
    assert not driver.irq
    assert len(driver.results()) == 6


def test_write_data(driver: FloppyDriver) -> None:
    driver.program_dma(DMA_FROM_MEMORY, SECTOR + 3)
    driver.ram[0x1_0000:0x1_0203] = b"x" * SECTOR + b"end"
    assert driver.transfer(WRITE, 0, 1, 17) == bytes((0x04, 0, 0, 1, 0, 1, 2))
    assert driver.disk.written == {
        lba(0, 1, 17): b"x" * SECTOR,
        lba(0, 1, 18): b"end" + bytes(SECTOR - 3),
    }


@pytest.mark.parametrize("opcode", [WRITE_DELETED, 0x45])
def test_other_ways_to_write(driver: FloppyDriver, opcode: int) -> None:
    driver.program_dma(DMA_FROM_MEMORY, SECTOR)
    driver.ram[0x1_0000:0x1_0200] = b"y" * SECTOR
    assert driver.transfer(opcode, 0, 0, 1)[0] == 0
    assert driver.disk.written == {0: b"y" * SECTOR}


@pytest.mark.parametrize(
    ("opcode", "head", "sector", "count", "result"),
    [
        (0x46, 0, 17, 1, (0, 0, 18)),  # C, H, R after the terminal count: the data sheet's table
        (0x46, 0, 18, 1, (1, 0, 1)),
        (0x46, 1, 17, 1, (0, 1, 18)),
        (0x46, 1, 18, 1, (1, 1, 1)),
        (0xC6, 0, 18, 1, (0, 1, 1)),
        (0xC6, 1, 18, 1, (1, 0, 1)),
        (0xC6, 0, 17, 4, (0, 1, 3)),
    ],
)
def test_the_sector_id_in_the_result(
    driver: FloppyDriver, *, opcode: int, head: int, sector: int, count: int, result: tuple[int, ...]
) -> None:
    driver.program_dma(DMA_TO_MEMORY, count * SECTOR)
    answer = driver.transfer(opcode, 0, head, sector)
    assert (answer[0] & 0xC0, *answer[1:]) == (0, 0, 0, *result, 2)
    assert driver.memory(count * SECTOR) == driver.disk.read(lba(0, head, sector), count)


def test_the_end_of_the_track_without_a_terminal_count(driver: FloppyDriver) -> None:
    driver.program_dma(DMA_TO_MEMORY, 64 * SECTOR)
    answer = driver.transfer(0x46, 0, 0, 17)
    assert answer[:2] == bytes((0x40, 0x80))
    assert driver.memory(3 * SECTOR) == driver.disk.read(lba(0, 0, 17), 2) + bytes(SECTOR)
    driver.program_dma(DMA_TO_MEMORY, 64 * SECTOR)
    assert driver.transfer(READ, 0, 0, 1)[:2] == bytes((0x44, 0x80))
    assert driver.memory(37 * SECTOR) == driver.disk.read(0, 36) + bytes(SECTOR)


def test_without_dma_service_data_is_lost(driver: FloppyDriver) -> None:
    assert driver.transfer(READ, 0, 0, 1)[:2] == bytes((0x40, 0x10))
    assert driver.transfer(WRITE, 0, 0, 1)[:2] == bytes((0x40, 0x10))
    assert not driver.disk.written


@pytest.mark.parametrize(
    ("cylinder", "head_id", "sector", "n", "st1", "st2"),
    [
        (3, 0, 1, 2, 0x04, 0x10),  # wrong cylinder
        (0xFF, 0, 1, 2, 0x04, 0x02),  # bad cylinder
        (2, 1, 1, 2, 0x04, 0),
        (2, 0, 0, 2, 0x04, 0),
        (2, 0, 19, 2, 0x04, 0),
        (2, 0, 1, 3, 0x04, 0),
    ],
)
def test_a_sector_that_is_not_there(
    driver: FloppyDriver, *, cylinder: int, head_id: int, sector: int, n: int, st1: int, st2: int
) -> None:
    driver.seek(2)
    driver.send(READ, 0, cylinder, head_id, sector, n, 18, 0x1B, 0xFF)
    driver.wait()
    assert driver.results() == bytes((0x40, st1, st2, cylinder, head_id, sector, n))


def test_implied_seek(driver: FloppyDriver) -> None:
    driver.send(0x13, 0, 0x40, 0)
    driver.program_dma(DMA_TO_MEMORY, SECTOR)
    assert driver.transfer(READ, 30, 0, 2)[0] == 0
    assert driver.memory(SECTOR) == driver.disk.read(lba(30, 0, 2), 1)
    assert driver.ask(0x0E)[0] == 30


@pytest.mark.parametrize("why", ["motor", "disk", "rate", "fm", "track", "drive"])
def test_where_no_marks_can_be_read(driver: FloppyDriver, why: str) -> None:
    opcode, drive, cylinder = READ, 0, 0
    if why == "motor":
        driver.set_dor(0x0C)
    elif why == "disk":
        driver.chip.drives[0].insert(None)
    elif why == "rate":
        driver.set_rate(2)
    elif why == "fm":
        opcode = 0x06
    elif why == "track":
        driver.seek(80)
        cylinder = 80
    else:
        drive = 3
    driver.program_dma(DMA_TO_MEMORY, SECTOR)
    assert driver.transfer(opcode, cylinder, 0, 1, drive=drive)[:3] == bytes((0x40 | drive, 0x01, 0))


def test_a_write_protected_disk(driver: FloppyDriver) -> None:
    driver.disk.read_only = True
    driver.program_dma(DMA_FROM_MEMORY, SECTOR)
    assert driver.transfer(WRITE, 0, 0, 1)[:3] == bytes((0x40, 0x02, 0))
    driver.send(0x4D, 0, 2, 18, 0x50, 0xF6)
    driver.wait()
    assert driver.results()[:3] == bytes((0x40, 0x02, 0))
    assert not driver.disk.written


def test_host_errors_are_data_errors(driver: FloppyDriver) -> None:
    driver.disk.broken = True
    for opcode, mode in ((READ, DMA_TO_MEMORY), (VERIFY, DMA_TO_MEMORY), (WRITE, DMA_FROM_MEMORY)):
        driver.program_dma(mode, SECTOR)
        assert driver.transfer(opcode, 0, 0, 3) == bytes((0x40, 0x20, 0x20, 0, 0, 3, 2))
    driver.program_dma(DMA_FROM_MEMORY, 4)
    driver.ram[0x1_0000:0x1_0004] = bytes((0, 0, 3, 2))
    driver.send(0x4D, 0, 2, 1, 0x50, 0xF6)
    driver.wait()
    assert driver.results()[:3] == bytes((0x40, 0x20, 0x20))


def test_read_deleted_data_finds_plain_sectors(driver: FloppyDriver) -> None:
    driver.program_dma(DMA_TO_MEMORY, 2 * SECTOR)
    assert driver.transfer(READ_DELETED, 0, 0, 1) == bytes((0x00, 0, 0x40, 0, 0, 1, 2))
    assert driver.memory(2 * SECTOR) == driver.disk.read(0, 1) + bytes(SECTOR)
    assert driver.transfer(READ_DELETED | 0x20, 0, 0, 1)[:3] == bytes((0x44, 0x80, 0x40))
    assert driver.memory(2 * SECTOR) == driver.disk.read(0, 1) + bytes(SECTOR)


def test_verify_moves_nothing(driver: FloppyDriver) -> None:
    assert driver.transfer(VERIFY & ~0x80, 0, 0, 1) == bytes((0x00, 0, 0, 1, 0, 1, 2))
    assert driver.transfer(VERIFY, 0, 0, 1) == bytes((0x04, 0, 0, 1, 0, 1, 2))
    driver.send(VERIFY, 0x80, 0, 0, 17, 2, 18, 0x1B, 3)  # three sectors
    driver.wait()
    assert driver.results() == bytes((0x04, 0, 0, 0, 1, 2, 2))
    driver.send(VERIFY, 0x80, 0, 0, 17, 2, 18, 0x1B, 30)  # more than there are
    driver.wait()
    assert driver.results()[:2] == bytes((0x44, 0x80))


def test_read_id_shows_what_passes_under_the_head(driver: FloppyDriver) -> None:
    driver.seek(9)
    sectors = set()
    for _ in range(100):
        driver.rig.pass_ns(13_000)
        driver.send(0x4A, 0x04)
        driver.wait()
        st0, st1, st2, cylinder, head, sector, n = driver.results()
        assert (st0, st1, st2, cylinder, head, n) == (0x04, 0, 0, 9, 1, 2)
        sectors.add(sector)
    assert sectors == set(range(1, 19))


def test_format_track(driver: FloppyDriver) -> None:
    driver.seek(4)
    ids = b"".join(bytes((4, 1, sector, 2)) for sector in range(1, 19))
    driver.ram[0x1_0000 : 0x1_0000 + len(ids)] = ids
    driver.program_dma(DMA_FROM_MEMORY, len(ids))
    driver.send(0x4D, 0x04, 2, 18, 0x50, 0xF6)
    driver.wait()
    assert driver.results()[:3] == bytes((0x04, 0, 0))
    assert driver.disk.written == {lba(4, 1, sector): b"\xf6" * SECTOR for sector in range(1, 19)}


def test_format_track_with_what_the_image_has_no_place_for(driver: FloppyDriver) -> None:
    driver.ram[0x1_0000:0x1_0008] = bytes((0, 0, 1, 2, 0, 0, 19, 2))
    driver.program_dma(DMA_FROM_MEMORY, 8)
    driver.send(0x4D, 0, 2, 2, 0x50, 0xF6)
    driver.wait()
    assert driver.results() == bytes((0x40, 0x24, 0, 0, 0, 19, 2))
    assert list(driver.disk.written) == [0]
    driver.send(0x4D, 0, 2, 1, 0x50, 0xF6)  # the channel is masked now
    driver.wait()
    assert driver.results()[:2] == bytes((0x40, 0x10))


def test_no_frame_for_the_data_is_tried_again(driver: FloppyDriver) -> None:
    class Starved:
        def write(self, gpa: int, data: bytes) -> None:
            raise OutOfFrames("none left")

    channel = driver.dma.channels[2]
    memory = channel._memory
    driver.program_dma(DMA_TO_MEMORY, SECTOR)
    driver.command(READ, 0, 0, 1)
    channel._memory = Starved()
    with pytest.raises(OutOfFrames):
        driver.wait()
    channel._memory = memory
    driver.wait()
    assert driver.results()[:3] == b"\0\0\0"
    assert driver.memory(SECTOR) == driver.disk.read(0, 1)


# Without DMA.


def test_reading_through_the_fifo_ends_at_the_end_of_the_track(driver: FloppyDriver) -> None:
    driver.send(*SPECIFY_NON_DMA)
    driver.command(READ, 0, 0, 1, last=2)
    assert driver.status() == 0x30
    for number in range(4):
        driver.wait()
        assert driver.status() == 0xF0
        assert bytes(driver.chip.read(5, 1) for _ in range(SECTOR)) == driver.disk.read(
            (0, 1, 18, 19)[number], 1
        )
    driver.wait()
    assert driver.results() == bytes((0x44, 0x80, 0, 1, 0, 1, 2))


def test_writing_through_the_fifo(driver: FloppyDriver) -> None:
    driver.send(*SPECIFY_NON_DMA)
    driver.command(0x45, 0, 0, 17)
    for _ in range(2):
        driver.wait()
        assert driver.status() == 0xB0
        driver.send(*b"q" * SECTOR)
        assert driver.status() == 0x30  # the result comes with its interrupt, not before
    driver.wait()
    assert driver.results() == bytes((0x40, 0x80, 0, 1, 0, 1, 2))
    assert driver.disk.written == {16: b"q" * SECTOR, 17: b"q" * SECTOR}


def test_formatting_through_the_fifo(driver: FloppyDriver) -> None:
    driver.send(*SPECIFY_NON_DMA)
    driver.send(0x4D, 0, 2, 2, 0x50, 0xAA)
    driver.wait()
    driver.send(0, 0, 5, 2, 0, 0, 6, 2)
    driver.wait()
    assert driver.results()[:3] == b"\0\0\0"
    assert driver.disk.written == {4: b"\xaa" * SECTOR, 5: b"\xaa" * SECTOR}
    driver.send(0x4D, 0, 2, 0, 0x50, 0xAA)
    driver.wait()
    assert driver.results()[:3] == b"\0\0\0"


def test_a_host_that_stops_reading_ends_the_command(driver: FloppyDriver) -> None:
    driver.send(*SPECIFY_NON_DMA)
    driver.command(READ, 0, 0, 1)
    driver.wait()
    for _ in range(SECTOR):
        driver.chip.read(5, 1)
    driver.wait()
    driver.chip.read(5, 1)
    driver.wait()
    assert driver.results() == bytes((0x40, 0x10, 0, 0, 0, 2, 2))


def test_a_host_that_stops_writing_ends_the_command(driver: FloppyDriver) -> None:
    driver.send(*SPECIFY_NON_DMA)
    driver.command(WRITE, 0, 0, 1)
    driver.wait()
    driver.send(*b"abc")
    driver.wait()
    assert driver.results() == bytes((0x40, 0x10, 0, 0, 0, 2, 2))
    assert driver.disk.written == {0: b"abc" + bytes(SECTOR - 3)}
    driver.command(WRITE, 0, 0, 1)
    driver.wait()
    driver.rig.pass_ns(10**9)
    assert driver.rig.logged("irq6")[-3:] == [True, False, True]
    assert driver.results() == bytes((0x40, 0x10, 0, 0, 0, 1, 2))
    assert driver.disk.written == {0: b"abc" + bytes(SECTOR - 3)}


def test_a_disk_that_goes_while_the_host_writes(driver: FloppyDriver) -> None:
    driver.send(*SPECIFY_NON_DMA)
    driver.command(0x45, 0, 0, 17)
    driver.wait()
    driver.chip.drives[0].insert(None)
    driver.send(*b"q" * SECTOR)
    driver.wait()
    assert driver.results()[:2] == bytes((0x40, 0x01))
    driver.chip.drives[0].insert(driver.disk)
    driver.command(0x45, 0, 0, 17)
    driver.wait()
    driver.chip.drives[0].insert(FakeFloppy(1440))
    driver.set_rate(2)
    driver.send(*b"q" * SECTOR)
    driver.wait()
    assert driver.results()[:2] == bytes((0x40, 0x04))


# Drives and disks.


@pytest.mark.parametrize(
    ("sectors", "last", "rate", "tracks", "drive_type"),
    [(720, 9, 1, 40, 1), (720, 9, 2, 40, 1), (2400, 15, 0, 80, 2), (1440, 9, 2, 80, 3), (5760, 36, 3, 80, 5)],
)
def test_formats_by_size(
    driver: FloppyDriver, *, sectors: int, last: int, rate: int, tracks: int, drive_type: int
) -> None:
    disk = FakeFloppy(sectors)
    driver.chip.drives[0].insert(disk)
    assert driver.chip.drives[0].drive_type == drive_type
    driver.set_rate(rate)
    driver.seek(tracks - 1)
    driver.program_dma(DMA_TO_MEMORY, SECTOR)
    assert driver.transfer(READ, tracks - 1, 1, last, last=last)[:3] == bytes((0x04, 0, 0))
    assert driver.memory(SECTOR) == disk.read(sectors - 1, 1)


def test_drive_types_for_the_cmos(driver: FloppyDriver) -> None:
    assert [drive.drive_type for drive in driver.chip.drives] == [4, 4, 0, 0]


def test_the_second_drive(driver: FloppyDriver) -> None:
    disk = FakeFloppy(2880)
    disk.written[20] = b"z" * SECTOR
    driver.chip.drives[1].insert(disk)
    driver.set_dor(0x2D)
    driver.program_dma(DMA_TO_MEMORY, SECTOR)
    assert driver.transfer(READ, 0, 1, 3, drive=1)[0] == 0x05
    assert driver.memory(SECTOR) == b"z" * SECTOR


def test_a_disk_of_no_format_is_refused(driver: FloppyDriver) -> None:
    with pytest.raises(ImageError) as caught:
        driver.chip.drives[0].insert(FakeFloppy(3))
    assert str(caught.value) == (
        "fake.img: no floppy disk has 1536 bytes; sizes are 360 KiB (360 KB), 1200 KiB (1.2 MB), "
        "720 KiB (720 KB), 1440 KiB (1.44 MB), 2880 KiB (2.88 MB)"
    )


def test_too_many_drives_are_refused() -> None:
    wires = Wires()
    dma = DmaController(memory=wires.memory)
    with pytest.raises(UsageError) as caught:
        FloppyController(
            clock=wires.clock, irq=wires.line("irq6"), dma=dma.channels[2], disks=[None, None, None]
        )
    assert str(caught.value) == "82077aa: 3 floppy drives; a PC has at most 2"


def test_one_drive_shows_in_status_register_a() -> None:
    wires = Wires()
    dma = DmaController(memory=wires.memory)
    chip = FloppyController(clock=wires.clock, irq=wires.line("irq6"), dma=dma.channels[2], disks=[None])
    assert chip.read(0, 1) == 0x46
    assert [drive.present for drive in chip.drives] == [True, False, False, False]


def test_restoring_makes_no_edge(driver: FloppyDriver) -> None:
    driver.command(READ, 0, 0, 1)
    driver.wait()
    log = list(driver.rig.logged("irq6"))
    assert driver.restored().rig.logged("irq6") == log
