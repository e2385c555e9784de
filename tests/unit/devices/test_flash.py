"""The flash chip for UEFI variables: commands, status, and what reaches the file."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.devices.flash import Flash
from emuvisor.devices.flash_file import FlashFile
from emuvisor.errors import ImageError, SnapshotError, UsageError

BLOCK = 0x1000
SIZE = 2 * BLOCK
READY, ERASE_ERROR, PROGRAM_ERROR = 0x80, 0x20, 0x10


class Bench:
    def __init__(self) -> None:
        self.shown: list[bytes | None] = []
        self.stored: list[tuple[int, bytes]] = []
        self.full = False
        self.chip = Flash(b"\xff" * SIZE, show=self.shown.append, store=self.store)

    def store(self, offset: int, data: bytes) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no space")
        self.stored.append((offset, data))

    def write(self, *accesses: tuple[int, int]) -> None:
        for offset, value in accesses:
            self.chip.write(offset, value, 1)

    def restored(self) -> "Bench":
        again = Bench()
        again.chip.load(self.chip.save())
        return again


@pytest.fixture(params=["fresh", "restored"])
def bench(request) -> Bench:
    bench = Bench()
    return bench if request.param == "fresh" else bench.restored()


def test_it_is_memory_at_first(bench):
    assert bench.shown == [b"\xff" * SIZE]
    assert bench.chip.read(8, 4) == 0xFFFFFFFF


def test_the_firmware_tells_flash_from_ram_and_rom(bench):
    """The probe of OVMF: a cleared status register reads 0 where RAM would have the command and ROM the content."""
    bench.write((0, 0x50))
    assert bench.chip.read(0, 1) == 0xFF
    bench.write((0, 0x70))
    assert bench.chip.read(0, 1) == 0
    bench.write((0, 0xFF))
    assert bench.chip.read(0, 1) == 0xFF


@pytest.mark.parametrize("command", [0x10, 0x40])
def test_programming_clears_bits(bench, command):
    bench.write((5, command), (5, 0x0F))
    assert bench.shown[-1] is None
    assert bench.chip.read(5, 2) == READY << 8 | READY
    bench.write((5, command), (5, 0x3C), (0, 0xFF))
    assert bench.chip.read(5, 1) == 0x0C
    assert bench.shown[-1] == bytes(bench.chip.data)
    assert bench.stored == [(5, b"\x0f"), (5, b"\x0c")]


def test_erasing_sets_a_block(bench):
    bench.write((5, 0x10), (5, 0), (BLOCK, 0x10), (BLOCK, 0))
    bench.write((BLOCK - 1, 0x20), (BLOCK - 1, 0xD0), (0, 0xFF))
    assert bench.chip.data == b"\xff" * BLOCK + b"\0" + b"\xff" * (BLOCK - 1)
    assert bench.stored[-1] == (0, b"\xff" * BLOCK)


def test_an_erase_without_confirmation_is_an_error(bench):
    bench.write((0, 0x20), (0, 0xFF))
    assert bench.chip.read(0, 1) == READY | ERASE_ERROR | PROGRAM_ERROR
    bench.write((0, 0x50), (0, 0x70))
    assert bench.chip.read(0, 1) == 0
    assert bench.stored == []


def test_a_buffered_write(bench):
    bench.write((0x100, 0xE8), (0x100, 1), (0x100, 0x12), (0x101, 0x34))
    assert bench.stored == []
    bench.write((0x100, 0xD0))
    assert bench.chip.read(0, 1) == READY
    assert bench.stored == [(0x100, b"\x12"), (0x101, b"\x34")]


@pytest.mark.parametrize("writes", [[32], [0, 1, 0xFF]])
def test_a_wrong_buffered_write_is_an_error(bench, writes):
    bench.write((0, 0xE8), *((0, value) for value in writes))
    assert bench.chip.read(0, 1) == READY | ERASE_ERROR | PROGRAM_ERROR
    assert bench.stored == []


def test_the_identifiers(bench):
    bench.write((0, 0x90))
    assert [bench.chip.read(offset, 1) for offset in range(3)] == [0x89, 0x18, 0]


@pytest.mark.parametrize(
    ("writes", "error"),
    [
        ([0x10, 0], PROGRAM_ERROR),
        ([0x20, 0xD0], ERASE_ERROR),
        ([0xE8, 0, 0, 0xD0], PROGRAM_ERROR),
    ],
)
def test_a_full_host_is_the_chips_error(bench, writes, error):
    bench.full = True
    bench.write(*((0, value) for value in writes))
    assert bench.chip.read(0, 1) == READY | error
    bench.write((0, 0xFF))
    assert bench.chip.read(0, 1) == 0xFF


def test_a_reset_shows_the_content(bench):
    bench.write((0, 0x10), (0, 0x55), (0, 0x20))
    bench.chip.reset()
    assert bench.chip.read(0, 1) == 0x55
    bench.write((0, 0x70))
    assert bench.chip.read(0, 1) == 0


def test_restoring_in_the_middle_of_a_command(bench):
    bench.write((3, 0xE8), (3, 0), (3, 0x77))
    again = bench.restored()
    assert again.shown == [b"\xff" * SIZE, None]
    again.write((3, 0xD0))
    assert again.stored == [(3, b"\x77")]


def test_content_that_is_loaded_is_shown_and_stored_where_it_is_new(bench):
    state = bench.chip.save()
    shown = list(bench.shown)
    bench.chip.load(state)
    assert (bench.shown, bench.stored) == (shown, [])
    bench.write((3, 0x40), (3, 0x77), (0, 0xFF))
    bench.shown.clear()
    bench.chip.load(state)
    assert bench.shown == [b"\xff" * SIZE]
    assert bench.stored[1:] == [(0, b"\xff" * SIZE)]
    assert bench.chip.save() == state


def test_content_that_cannot_be_stored_is_not_loaded(bench):
    state = bench.chip.save()
    bench.write((3, 0x40), (3, 0x77))
    bench.full = True
    with pytest.raises(SnapshotError) as error:
        bench.chip.load(state)
    assert str(error.value) == "flash: its content cannot be stored: no space"


@pytest.mark.parametrize("size", [0, 100, 17 << 20])
def test_a_wrong_size_is_refused(size):
    with pytest.raises(UsageError) as error:
        Flash(bytes(size), show=lambda _: None)
    assert str(error.value) == f"flash: {size} bytes; the chip has a multiple of 4096 bytes up to 16777216"


def test_a_saved_state_that_does_not_fit_is_refused(bench):
    state = bench.chip.save()
    for field, value, message in (
        (
            "data",
            bytes(5000),
            "flash: saved field 'data' is b'\\x00\\x00\\x0...0\\x00\\x00\\x00'; expected 8192 to 8192 bytes",
        ),
        ("buffer", [SIZE << 8], "flash: saved field 'buffer' has an address outside the chip's 8192 bytes"),
    ):
        with pytest.raises(SnapshotError) as error:
            bench.chip.load({**state, field: value})
        assert str(error.value) == message


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, SIZE - 1),
            st.sampled_from([0x10, 0x20, 0x40, 0x50, 0x70, 0x90, 0xD0, 0xE8, 0xFF, 0, 3])
            | st.integers(0, 255),
        ),
        max_size=60,
    )
)
def test_no_command_raises_and_what_is_stored_is_the_content(accesses):
    bench = Bench()
    mirror = bytearray(b"\xff" * SIZE)
    for offset, value in accesses:
        bench.chip.write(offset, value, 1)
        assert 0 <= bench.chip.read(offset, 1) <= 0xFF
    for offset, data in bench.stored:
        mirror[offset : offset + len(data)] = data
    assert bench.chip.data == mirror
    assert bench.restored().chip.save() == bench.chip.save()


def test_a_file_is_made_and_keeps_what_is_written(tmp_path):
    path = tmp_path / "vars.fd"
    FlashFile(path, b"abcd").write(1, b"XY")
    assert path.read_bytes() == b"aXYd"
    assert FlashFile(path, b"abcd").data == b"aXYd"


def test_a_file_of_another_size_is_refused(tmp_path):
    path = tmp_path / "vars.fd"
    path.write_bytes(b"abc")
    with pytest.raises(ImageError) as error:
        FlashFile(path, b"abcd")
    assert str(error.value) == f"{path}: 3 bytes; the firmware keeps its variables in a file of 4 bytes"


def test_a_file_that_cannot_be_made_is_named(tmp_path):
    path = tmp_path / "no" / "vars.fd"
    with pytest.raises(ImageError) as error:
        FlashFile(path, b"abcd")
    assert str(error.value) == f"{path}: cannot be used for UEFI variables: No such file or directory"


def test_a_file_that_went_away_is_an_error_of_the_write(tmp_path):
    file = FlashFile(tmp_path / "vars.fd", b"abcd")
    file.path.unlink()
    with pytest.raises(OSError, match="No such file"):
        file.write(0, b"x")
