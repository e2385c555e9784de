"""What a guest reads of keys, the mouse and the power button, and operations from many threads at a time."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import host_guests as guests
import pytest

from emuvisor.host import Guest, GuestState, Host
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.outcome import Ending
from emuvisor.units import MIB

PATIENCE_S = 120
ROUNDS = 20

SEND_BYTES = """
a:  in al, 0x64
    test al, 1
    jz a
    in al, 0x60
    mov dx, 0x3f8
    out dx, al
    jmp a
"""
"""Every byte from keyboard and mouse goes to COM1; the controller translates to scan code set 1."""
TO_MOUSE = """
    mov al, 0xd4
    out 0x64, al
    mov al, {0}
    out 0x60, al
m{1}:
    in al, 0x64
    test al, 1
    jz m{1}
    in al, 0x60
"""
SET_SAMPLE_RATE, ENABLE = 0xF3, 0xF4
WHEEL_PLEASE = (SET_SAMPLE_RATE, 200, SET_SAMPLE_RATE, 100, SET_SAMPLE_RATE, 80)
LEFT, MIDDLE, RIGHT, WHEEL_UP, WHEEL_DOWN = (1 << n for n in range(5))

PM1_STATUS, PM1_ENABLE, POWER_BUTTON = 0x600, 0x602, 1 << 8
SMI_COMMAND, ACPI_ENABLE = 0xB2, 0xF1
LISTEN_TO_POWER_BUTTON = (
    f"mov al, {ACPI_ENABLE}; out {SMI_COMMAND}, al; mov dx, {PM1_ENABLE}; mov ax, {POWER_BUTTON}; out dx, ax;"
)
AWAIT_POWER_BUTTON = f"mov dx, {PM1_STATUS}; b: in ax, dx; test ax, {POWER_BUTTON}; jz b;"
SHOW_HI = "mov ax, 0xb800; mov es, ax; mov dword ptr es:[0], 0x07690748;"
"""At once: somebody may look between two instructions."""

Make = Callable[[str], Guest]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Make]:
    """Makes a guest on the pc board, and starts it; it says + when it is ready."""
    with Host(4 * MIB, slice_work=50_000) as host:

        def start(source: str) -> Guest:
            path = tmp_path / "guest.bin"
            path.write_bytes(guests.asm(source))
            guest = host.create(GuestConfig(memory=MIB, flat=FlatConfig(path, guests.ADDRESS)))
            guest.start()
            assert guest.expect("+", PATIENCE_S)
            return guest

        yield start


def reads(guest: Guest, codes: str, act: Callable[[], None]) -> bool:
    """Whether the guest reads `codes`, in hexadecimal, after `act`."""
    found = threading.Event()
    guest.console.watch(bytes.fromhex(codes), found.set)
    act()
    return found.wait(PATIENCE_S)


def mouse_commands(*commands: int) -> str:
    return "".join(TO_MOUSE.format(command, number) for number, command in enumerate(commands))


def test_keys(start: Make) -> None:
    guest = start(guests.say("+", SEND_BYTES))
    assert reads(guest, "1d 2e ae 9d 3b bb", lambda: guest.send_keys("ctrl-c", "f1"))
    assert reads(guest, "1e", lambda: guest.press("a"))
    assert reads(guest, "9e", lambda: guest.press("a", down=False))
    assert reads(guest, "2a 1e 9e aa 30 b0", lambda: guest.type_keys("Ab"))


def test_the_mouse(start: Make) -> None:
    guest = start(mouse_commands(ENABLE) + guests.say("+", SEND_BYTES))
    assert reads(guest, "28 03 fe", lambda: guest.point(3, 2))
    assert reads(guest, "09 00 00", lambda: guest.point(0, 0, LEFT))
    assert reads(guest, "08 00 00", lambda: guest.point(0, 0))
    assert reads(guest, "0c 00 00", lambda: guest.point(0, 0, MIDDLE))
    assert reads(guest, "0e 00 00", lambda: guest.point(0, 0, MIDDLE | RIGHT))


def test_the_wheel(start: Make) -> None:
    guest = start(mouse_commands(*WHEEL_PLEASE, ENABLE) + guests.say("+", SEND_BYTES))
    assert reads(guest, "08 00 00 ff", lambda: guest.point(0, 0, WHEEL_UP))
    assert reads(guest, "08 00 00 01", lambda: guest.point(0, 0, WHEEL_DOWN))


def test_the_power_button(start: Make) -> None:
    guest = start(LISTEN_TO_POWER_BUTTON + guests.say("+", AWAIT_POWER_BUTTON + guests.POWER_OFF))
    guest.press_power_button()
    assert guest.wait(PATIENCE_S)
    assert guest.outcome is not None
    assert guest.outcome.ending is Ending.POWER_OFF


def test_a_paused_guest_stays_paused(start: Make) -> None:
    guest = start(SHOW_HI + guests.say("+", guests.SPIN))
    guest.pause()
    work = guest.machine.vcpu.work
    guest.send_keys("a")
    assert guest.screen().text is not None
    assert (guest.state, guest.machine.vcpu.work) == (GuestState.PAUSED, work)


def test_an_idle_guest_sleeps_on(start: Make) -> None:
    guest = start(SHOW_HI + guests.say("+", guests.IDLE))
    for _ in range(ROUNDS):
        assert (guest.screen().text or [""])[0] == "Hi"
    assert guest.state is GuestState.RUNNING


def test_many_threads(start: Make) -> None:
    guest = start(SHOW_HI + guests.say("+", guests.SPIN))
    seen: list[str] = []

    def look() -> None:
        for _ in range(ROUNDS):
            seen.extend((guest.screen().text or [""])[:1])
            guest.point(1, 1)

    threads = [threading.Thread(target=look, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(ROUNDS):
        guest.pause()
        guest.resume()
        guest.reset()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in threads)
    assert len(seen) == 4 * ROUNDS
    assert set(seen) <= {"Hi", ""}
    assert guest.state is GuestState.RUNNING
