"""Our own guests print what their READMEs promise, and end as they should."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emuvisor import firmware

SOURCES = Path(__file__).resolve().parents[2] / "firmware"
RunFirmware = Callable[..., Any]

POWER_OFF = bytes.fromhex("ba0406 b80020 ef f4")  # mov dx, 604h; mov ax, 2000h; out dx, ax; hlt


def block(*values: int) -> bytes:
    """A parameter block of 64-bit numbers."""
    return b"".join(value.to_bytes(8, "little") for value in values)


def boot_sector(code: bytes) -> bytes:
    """A disk whose boot sector is `code`."""
    return (code.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0")


def expected(name: str) -> re.Pattern[str]:
    """The output in `firmware/NAME/expected.txt`, in which <number> stands for any decimal number."""
    text = (SOURCES / name / "expected.txt").read_text()
    return re.compile(re.escape(text).replace("<number>", r"\d+"))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("hello", b""),
        ("ring", b""),
        ("memtouch", b""),
        ("spin", block(100_000, 3)),
        ("halt", b""),
        ("vmexit", b""),
        ("balloon", b""),
        ("smp", b""),
        ("dice", b""),
    ],
)
def test_flat_guest(run_firmware: RunFirmware, name: str, params: bytes) -> None:
    result = run_firmware(name, params)
    assert expected(name).fullmatch(result.output), result.output
    assert result.exit == "power-off"


def test_bioscheck_passes_on_our_bios(run_firmware: RunFirmware) -> None:
    result = run_firmware("bios", disk=firmware.boot_disk("bioscheck"))
    assert result.output == (SOURCES / "bioscheck" / "expected.txt").read_text()
    assert result.exit == "power-off"


def test_boot_sector_starts_a_flat_guest_with_its_parameters(run_firmware: RunFirmware) -> None:
    result = run_firmware("bios", disk=firmware.boot_disk("halt", block(1)))
    assert result.output.endswith("halt: 100 ticks a second\nhalt: second 1\nhalt: done\n")
    assert result.exit == "power-off"


def test_bios_without_a_disk(run_firmware: RunFirmware) -> None:
    result = run_firmware("bios")
    assert result.output == (SOURCES / "bios" / "expected.txt").read_text()
    assert result.exit == "halted"


def test_bios_with_a_disk_that_cannot_be_booted(run_firmware: RunFirmware) -> None:
    result = run_firmware("bios", disk=bytes(1 << 20))
    assert result.output == (
        "emuvisor BIOS: 64 MiB, hard disks: 1, floppy disks: 0\n"
        "Booting from drive 80h: no boot signature\n"
        "No bootable device. Stopped.\n"
    )
    assert result.exit == "halted"


@pytest.mark.parametrize(
    ("code", "exception", "address"),
    [
        ("31c9 f7f1", 0x00, 0x7C02),  # xor cx, cx; div cx
        ("0f0b", 0x06, 0x7C00),  # ud2
        ("cd0d", 0x0D, 0x7C02),  # int 0Dh: no IRQ 5 is in service, so it counts as an exception
    ],
)
def test_bios_reports_an_exception(
    run_firmware: RunFirmware, code: str, exception: int, address: int
) -> None:
    result = run_firmware("bios", disk=boot_sector(bytes.fromhex(code)))
    assert result.output.endswith(f"\nException {exception:02X}h at 0000:{address:04X}. Stopped.\n")
    assert result.exit == "halted"


# next: xor ah, ah; int 16h; out 0E9h, al; xchg al, ah; out 0E9h, al; cmp al, 1Ch; jne next
PRINT_KEYS = boot_sector(bytes.fromhex("30e4 cd16 e6e9 86c4 e6e9 3c1c 75f2") + POWER_OFF)


def words(data: bytes) -> list[int]:
    return [int.from_bytes(data[i : i + 2], "little") for i in range(0, len(data), 2)]


def test_typing_at_the_console_gives_keys(run_firmware: RunFirmware) -> None:
    result = run_firmware("bios", disk=PRINT_KEYS, typed=b"aA1\x7f\x03\x1b[A\x1b\t\r")
    assert words(result.debug) == [
        0x1E61,  # a
        0x1E41,  # A
        0x0231,  # 1
        0x0E08,  # backspace
        0x2E03,  # Ctrl-C
        0x4800,  # cursor up
        0x011B,  # Esc
        0x0F09,  # Tab
        0x1C0D,  # Enter
    ]
    assert result.exit == "power-off"


def test_typing_on_the_keyboard_gives_keys(run_firmware: RunFirmware) -> None:
    result = run_firmware("bios", disk=PRINT_KEYS, keys="aB7?\n")
    assert words(result.debug) == [0x1E61, 0x3042, 0x0837, 0x353F, 0x1C0D]
    assert result.exit == "power-off"


def test_moving_the_cursor_moves_the_terminals(run_firmware: RunFirmware) -> None:
    # mov ah, 2; mov bh, 0; mov dx, 0205h; int 10h; mov ax, 0E41h; int 10h, twice
    code = bytes.fromhex("b402 b700 ba0502 cd10 b8410e cd10 b8420e cd10") + POWER_OFF
    result = run_firmware("bios", disk=boot_sector(code))
    assert result.output.endswith("Booting from drive 80h\n\x1b[03;06HAB")


def test_long_lines_wrap_and_the_screen_scrolls(run_firmware: RunFirmware) -> None:
    # mov cx, 2500; next: mov ax, 0E2Eh; int 10h; loop next
    code = bytes.fromhex("b9c409 b82e0e cd10 e2f9") + POWER_OFF
    result = run_firmware("bios", disk=boot_sector(code))
    lines = result.output.splitlines()[2:]
    assert lines == ["." * 80] * 31 + ["." * 20]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (block(0x1000), "memtouch: the range must lie between 1 MiB and 4 GiB and hold 8 bytes\n"),
        (block(0, 1 << 32), "memtouch: the range must lie between 1 MiB and 4 GiB and hold 8 bytes\n"),
        (block(0, 0, 4), "memtouch: the stride must be at least 8 bytes\n"),
    ],
)
def test_memtouch_refuses_bad_parameters(run_firmware: RunFirmware, params: bytes, message: str) -> None:
    result = run_firmware("memtouch", params)
    assert (result.output, result.exit, result.code) == (message, "debug-exit", 2 << 1 | 1)
