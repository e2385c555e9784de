"""What the system tests do with a guest at its console and its screen."""

import re
import threading
import time

from emuvisor.host import Guest, GuestState, Host
from emuvisor.images.cache import Image
from emuvisor.machine.choices import FirmwareName
from emuvisor.machine.config import DiskConfig, GuestConfig
from emuvisor.machine.outcome import Ending
from emuvisor.units import MIB

# However busy the machine is: on an idle one the slowest of all takes a tenth of that.
BOOT_S = 360
COMMAND_S = 180
SCREEN_S = 360
LOOK_S = 0.2
BOOTED = "EMUVISOR-BOOT-OK"


def boot_disks(
    host: Host, *disks: DiskConfig, memory: int = 256 * MIB, firmware: FirmwareName = "seabios"
) -> Guest:
    """A running PC that boots from `disks` by its firmware."""
    guest = host.create(GuestConfig(board="pc", firmware=firmware, memory=memory, disks=disks))
    guest.start()
    return guest


def disk(image: Image) -> DiskConfig:
    """The image's hard disk; what the guest writes is forgotten."""
    return DiskConfig(image.path / "disk.img", overlay="temporary")


def cdrom(image: Image) -> DiskConfig:
    return DiskConfig(image.path / "cd.iso", kind="cdrom")


def floppy(image: Image) -> DiskConfig:
    return DiskConfig(image.path / "floppy.img", kind="floppy", readonly=True)


def expect(guest: Guest, text: str, timeout_s: float = BOOT_S, send: str = "") -> None:
    """Fail with the end of the console unless `text` is printed."""
    assert guest.expect(text, timeout_s, send), f"no {text!r}\n{tail(guest)}"


def reach_shell(guest: Guest) -> None:
    """Wait for the `debian` images' shell; its answer shows that it works."""
    expect(guest, BOOTED)
    command(guest, "dmesg -n 1")  # no message of the kernel's gets into what commands print
    assert command(guest, "echo $((6 * 7))") == "42"


def command(guest: Guest, line: str, timeout_s: float = COMMAND_S) -> str:
    """What `line` prints in the guest's shell."""
    # The shell echoes the line: the marks in it are not those that it prints.
    expect(guest, "<end>", timeout_s, send=f"echo '<be''gin>'; {line}; echo '<e''nd>'\n")
    output = guest.console.text.replace("\r", "").rpartition("<begin>\n")[2]
    return output.partition("<end>")[0].strip()


def power_off(guest: Guest) -> None:
    """By the shell's command."""
    guest.type("poweroff\n")
    wait_for_power_off(guest)


def wait_for_power_off(guest: Guest, timeout_s: float = COMMAND_S) -> None:
    assert guest.wait(timeout_s), tail(guest)
    assert guest.outcome is not None
    assert (guest.outcome.ending, guest.state) == (Ending.POWER_OFF, GuestState.DEFINED)


def see(guest: Guest, pattern: str, timeout_s: float = SCREEN_S) -> list[str]:
    """The lines of the text screen as soon as `pattern` (a regular expression) is found on it.

    Fails with what is seen instead.
    """
    pause = threading.Event()
    end = time.monotonic() + timeout_s
    while True:
        lines = guest.screen().text
        if lines is not None and re.search(pattern, "\n".join(lines), re.MULTILINE):
            return lines
        shown = "a picture" if lines is None else "\n".join(lines)
        assert time.monotonic() < end, f"no {pattern!r} on the screen\n{shown}\n{tail(guest)}"
        assert guest.state is GuestState.RUNNING, f"{guest.state}: {guest.reason}\n{shown}\n{tail(guest)}"
        pause.wait(LOOK_S)


def shown(lines: list[str]) -> str:
    """The screen without the empty lines at its end."""
    return "\n".join(line.rstrip() for line in lines).rstrip("\n")


def tail(guest: Guest) -> str:
    return guest.console.text[-2000:]
