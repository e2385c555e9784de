"""Guests with virtio devices, for the system tests."""

import threading
import time
from collections.abc import Callable

from guests import command, tail

from emuvisor.devices.virtio.features import Status
from emuvisor.host import Guest, GuestState
from emuvisor.images.cache import Image
from emuvisor.machine.config import KernelConfig

UNTIL_S = 240
LOOK_S = 0.01
NAMES = {"debian": "Debian cloud kernel (amd64)", "debian-i386": "Debian 686 kernel (i386)"}
"""How the compatibility table calls the images."""
TRANSPORTS = {"pc": "PCI", "microvm": "mmio"}
WORKING = Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK


def kernel(image: Image, append: str = "") -> KernelConfig:
    """The image's kernel and initramfs."""
    return KernelConfig(image.kernel, image.initrd, f"{image.append} {append}".strip())  # type: ignore[arg-type]


def until(guest: Guest, condition: Callable[[], bool], what: str, timeout_s: float = UNTIL_S) -> None:
    """Wait while the running guest makes `condition` true; fail with `what` was waited for."""
    pause = threading.Event()
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"no {what}\n{tail(guest)}"
        assert guest.state is GuestState.RUNNING, f"{guest.state}: {guest.reason}\n{tail(guest)}"
        pause.wait(LOOK_S)


def until_prints(guest: Guest, line: str, text: str, timeout_s: float = UNTIL_S) -> None:
    """Repeat `line` in the guest's shell until it prints `text`."""
    until(guest, lambda: text in command(guest, line), f"{text!r} from {line!r}", timeout_s)


def check_health(guest: Guest) -> None:
    """Every device has a driver, and none of them gave up."""
    assert guest.machine.virtio is not None
    for device in guest.machine.virtio.devices:
        assert (device.name, device.failure) == (device.name, None)
        assert (device.name, device.status) == (device.name, WORKING)
