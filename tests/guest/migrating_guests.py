"""Guests, hosts and lines for the tests of migration."""

import hashlib
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from emuvisor import firmware
from emuvisor.host import Guest
from emuvisor.machine.choices import DiskBus
from emuvisor.machine.config import DiskConfig, FlatConfig, GuestConfig, NicConfig
from emuvisor.migration import Target
from emuvisor.migration.channel import LineLost
from emuvisor.migration.endpoints import connect
from emuvisor.units import MIB

ENDLESS = 0xFFFF_FFFF
SECTOR = 512


def sums(count: int) -> bytes:
    """A program that adds `count` random numbers with carry to memory, prints each, and switches off."""
    return (
        bytes.fromhex("31c0 8ed8 8ec0 66b9")  # xor ax, ax; mov ds, ax; mov es, ax; mov ecx, count
        + count.to_bytes(4, "little")
        + bytes.fromhex(
            "66bb 78563412"  # mov ebx, 12345678h
            "6669db 0d661900 6681c3 5ff36e3c"  # step: imul ebx, ebx, 19660Dh; add ebx, 3C6EF35Fh
            "6653 665f 6681e7 fc0f0000"  # push ebx; pop edi; and edi, 0FFCh
            "66119d 0070"  # adc [di+7000h], ebx
            "ba f803 88d8 ee"  # mov dx, 3f8h; mov al, bl; out dx, al
            "6649 75d8"  # dec ecx; jnz step
            "ba 0406 b80020 ef f4"  # mov dx, 604h; mov ax, 2000h; out dx, ax; hlt
        )
    )


def guest_config(folder: Path, count: int = ENDLESS, disk: DiskConfig | None = None) -> GuestConfig:
    """A PC on the virtual clock that runs `sums`."""
    image = folder / "sums.bin"
    image.write_bytes(sums(count))
    return GuestConfig(
        board="pc",
        memory=4 * MIB,
        flat=FlatConfig(image, firmware.FLAT_ADDRESS),
        disks=() if disk is None else (disk,),
    )


def with_devices(folder: Path) -> GuestConfig:
    """A PC with a disk at each bus, and a card on the network "lan"."""
    disks = []
    buses: tuple[DiskBus, ...] = ("ide", "virtio")
    for bus in buses:
        path = folder / f"{bus}.img"
        path.write_bytes(bytes(MIB))
        disks.append(DiskConfig(path, bus=bus, overlay="temporary"))
    return replace(guest_config(folder), clock="host", disks=tuple(disks), nics=(NicConfig("lan"),))


def fingerprint(guest: Guest) -> tuple[object, ...]:
    """What a guest has computed and printed, and when."""
    machine = guest.machine
    printed = hashlib.sha256(machine.console.text.encode()).hexdigest()
    return (
        machine.console.written,
        printed,
        str(guest.outcome),
        [vcpu.digest() for vcpu in machine.vcpus],
        machine.clock.now_ns(),
    )


def wait_for_doubt(target: Target) -> None:
    """Until the target has found its line gone, and knows no answer."""
    end = time.monotonic() + 30
    while not target.in_doubt.startswith("the line to the source was lost: "):
        assert time.monotonic() < end, target.in_doubt
        time.sleep(0.001)


class Cutter:
    """Connects like `endpoints.connect`; the line breaks at the `at`-th time that something is sent (or, with
    `receiving`, received) over the first connection."""

    def __init__(self, at: int, *, receiving: bool = False) -> None:
        self.at = at
        self.receiving = receiving
        self.count = 0
        self.refuses = False
        """Nobody can be reached any more."""

    def __call__(self, address: str) -> socket.socket:
        if self.refuses:
            raise LineLost("unreachable")
        sock = connect(address)
        return CutSocket(self, sock)

    def passes(self, sock: socket.socket, *, receiving: bool) -> None:
        if receiving == self.receiving:
            self.count += 1
            if self.count == self.at:
                sock.shutdown(socket.SHUT_RDWR)


class CutSocket(socket.socket):
    """A connection that a `Cutter` watches."""

    def __init__(self, cutter: Cutter, sock: socket.socket) -> None:
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self._cutter = cutter

    def sendall(self, data: bytes, *flags: int) -> None:  # type: ignore[override]
        self._cutter.passes(self, receiving=False)
        super().sendall(data, *flags)

    def recv(self, count: int, *flags: int) -> bytes:
        self._cutter.passes(self, receiving=True)
        return super().recv(count, *flags)


Dial = Callable[[str], socket.socket]
