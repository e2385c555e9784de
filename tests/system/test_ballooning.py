"""Memory that a guest does not need goes to the host, and comes back: virtio-balloon with Debian's driver.

On the virtual clock, where the guest's waits take no time.
"""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from compatibility import Compatibility
from guests import command, power_off, reach_shell
from virtio_guests import NAMES, TRANSPORTS, check_health, kernel, until

from emuvisor.errors import StateError
from emuvisor.host import Guest, Host
from emuvisor.images.cache import Image
from emuvisor.machine.choices import BoardName, RingLayout
from emuvisor.machine.config import DiskConfig, GuestConfig
from emuvisor.units import KIB, MIB, PAGE_SIZE

pytestmark = pytest.mark.system

MEMORY = 256 * MIB
DISK_SIZE = 112 * MIB
LARGE = 176 * MIB
"""A balloon that leaves the guest so little that it has to give up what it has cached."""
WORK = 48 * MIB
"""More than such a balloon leaves."""
NUMBERS = 100_000
FREED = 96 * MIB
PLACES = (("pc", "split"), ("microvm", "packed"))


@pytest.fixture
def disk(tmp_path: Path) -> DiskConfig:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(DISK_SIZE)
    return DiskConfig(path, bus="virtio")


def boot(
    host: Host,
    image: Image,
    *,
    board: BoardName,
    ring: RingLayout = "split",
    append: str = "",
    **devices: Any,
) -> Guest:
    guest = host.create(
        GuestConfig(
            board=board,
            ring=ring,
            memory=MEMORY,
            kernel=kernel(image, append),
            balloon=True,
            **devices,
        )
    )
    guest.start()
    reach_shell(guest)
    return guest


def frames(size: int) -> int:
    return size // PAGE_SIZE


def inflate(guest: Guest, size: int) -> None:
    """Set the balloon, and wait until the guest has followed."""
    guest.set_balloon(size)
    until(guest, lambda: guest.balloon.actual_pages == frames(size), f"balloon of {size} bytes")


def settle(guest: Guest) -> int:
    """Frames that the guest has when it has reported all that is free: Linux does that 2 s after the last change."""
    command(guest, "sleep 5")
    return guest.host.pool.used


def check_work(guest: Guest) -> None:
    """Much memory holds what is written to it."""
    numbers = "".join(f"{i}\n" for i in range(1, NUMBERS + 1)).encode()
    copies = WORK // len(numbers)
    command(guest, f"seq {NUMBERS} > /tmp/part; for i in $(seq {copies}); do cat /tmp/part; done > /tmp/work")
    checksum = hashlib.md5(numbers * copies).hexdigest()
    assert command(guest, "md5sum < /tmp/work; rm /tmp/*") == f"{checksum}  -"


@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_in_and_out(
    host: Host, debian: Image, disk: DiskConfig, place: tuple[str, str], compatibility: Compatibility
) -> None:
    board, ring = place
    guest = boot(host, debian, board=board, ring=ring, disks=(disk,))
    check_balloon(guest)
    guest.set_balloon(LARGE)
    guest.reset()
    reach_shell(guest)
    until(guest, lambda: guest.balloon.actual_pages == frames(LARGE), "balloon after the reset")
    check_health(guest)
    power_off(guest)
    compatibility.row(
        guest=NAMES["debian"],
        boots=f"directly on {board}, a balloon on {TRANSPORTS[board]} with {ring} rings",
        checked="the page cache's frames go to the host and come back; statistics; memory pressure deflates; reset",
    )


def check_balloon(guest: Guest) -> None:
    """The page cache gives way, its frames go to the host, and the guest gets its memory back."""
    inflate(guest, 0)
    command(guest, "cat /dev/vda > /dev/null")
    cached = guest.host.pool.used
    assert cached > frames(DISK_SIZE)
    inflate(guest, LARGE)
    # All but the balloon's pages, and those hold nothing: the guest can have no more than the rest.
    assert guest.host.pool.used < frames(MEMORY - LARGE)
    # Compaction may be moving a page of the balloon: the new one goes in before the old one comes out.
    assert guest.balloon.ballooned_pages - frames(LARGE) in (0, 1)

    statistics = ask(guest)
    assert statistics["free"] <= statistics["available"] < MEMORY - LARGE < statistics["total"] < MEMORY
    assert statistics["caches"] < DISK_SIZE // 2
    assert (statistics["swap_in"], statistics["hugetlb_failures"]) == (0, 0)
    assert statistics["minor_faults"] > 0

    # The guest needs more than is left: it takes from the balloon what it lacks, and kills nobody.
    check_work(guest)
    assert guest.balloon.actual_pages < frames(LARGE)
    assert "Out of memory" not in command(guest, "dmesg")

    inflate(guest, 0)
    assert guest.balloon.ballooned_pages == 0
    check_work(guest)
    check_health(guest)


def ask(guest: Guest) -> dict[str, int]:
    """New statistics."""
    balloon = guest.balloon
    count = balloon.statistics_received
    guest.machine.call_soon(balloon.request_statistics)
    until(guest, lambda: balloon.statistics_received > count, "statistics")
    return balloon.statistics


@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_free_pages_are_reported_and_hinted_at(
    host: Host, debian: Image, place: tuple[str, str], compatibility: Compatibility
) -> None:
    board, ring = place
    guest = boot(host, debian, board=board, ring=ring)
    empty = settle(guest)
    for _ in range(2):
        command(guest, f"dd if=/dev/zero of=/tmp/full bs=64k count={FREED // (64 * KIB)} 2>/dev/null")
        full = guest.host.pool.used
        assert full - empty > frames(FREED) * 3 // 4
        command(guest, "rm /tmp/full")
        # What is in use keeps some blocks of free pages below the order that Linux reports.
        assert settle(guest) - empty < frames(FREED) // 20
    assert guest.balloon.pages_reported > 2 * frames(FREED) * 9 // 10

    # Hints are asked for: Linux holds nearly all that is free until it is told that they are done with.
    guest.machine.call_soon(guest.balloon.start_hinting)
    until(guest, lambda: guest.balloon.pages_hinted > frames(MEMORY) // 2, "hints")
    until(guest, lambda: not guest.balloon.hinting, "end of the hints")
    check_work(guest)
    check_health(guest)
    power_off(guest)
    compatibility.row(
        guest=NAMES["debian"],
        boots=f"directly on {board}, free page reporting on {TRANSPORTS[board]} with {ring} rings",
        checked="a deleted file's frames go to the host; free page hints",
    )


def test_guest_without_the_driver(host: Host, debian: Image, compatibility: Compatibility) -> None:
    guest = boot(host, debian, board="pc", append="module_blacklist=virtio_balloon")
    guest.set_balloon(64 * MIB)
    assert command(guest, "sleep 5; ls /sys/bus/virtio/drivers") == ""
    assert guest.balloon.actual_pages == 0
    with pytest.raises(StateError, match=r"^virtio-balloon: the guest has no driver that gives statistics$"):
        guest.balloon.request_statistics()
    check_work(guest)
    power_off(guest)
    compatibility.row(
        guest=NAMES["debian"],
        boots="directly on pc, a balloon, its driver not loaded",
        checked="memory works, nothing is taken",
    )
