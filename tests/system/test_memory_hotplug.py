"""Memory that comes and goes while a guest runs: virtio-mem with Debian's driver.

On the virtual clock, where the guest's waits take no time.
"""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from compatibility import Compatibility
from guests import command, power_off, reach_shell
from virtio_guests import NAMES, TRANSPORTS, check_health, kernel, until, until_prints

from emuvisor.host import Guest, Host
from emuvisor.images.cache import Image
from emuvisor.machine.choices import BoardName, RingLayout
from emuvisor.machine.config import DiskConfig, GuestConfig
from emuvisor.units import GIB, MIB, PAGE_SIZE

pytestmark = pytest.mark.system

BOOT_MEMORY = 256 * MIB
MOST = 512 * MIB
HALF = 384 * MIB
WORK = 272 * MIB
"""More than the guest boots with."""
ASIDE = 16 * MIB
RETRIES_NS = 200 * 10**9
"""Of the guest's time: Linux's driver tries again after 50 seconds, and then after 100."""
NUMBERS = 100_000
DISK_SIZE = 16 * MIB
PLACES = (("pc", "split"), ("microvm", "packed"))
IN_LINUX = "System RAM (virtio_mem)"
MOVABLE = "memhp_default_state=online_movable"
"""New memory is for what can be moved out of it: it can be unplugged again."""
FOR_ALL = "memhp_default_state=online_kernel"
"""The kernel itself uses it, too, and first."""


def boot(
    host: Host,
    image: Image,
    board: BoardName,
    ring: RingLayout = "split",
    append: str = MOVABLE,
    **devices: Any,
) -> Guest:
    guest = host.create(
        GuestConfig(
            board=board,
            ring=ring,
            memory=BOOT_MEMORY,
            memory_max=MOST,
            kernel=kernel(image, append),
            **devices,
        )
    )
    guest.start()
    reach_shell(guest)
    return guest


def total(guest: Guest) -> int:
    """Bytes of memory that the guest's kernel manages."""
    return int(command(guest, "awk '/^MemTotal/ {print $2}' /proc/meminfo")) << 10


def resize(guest: Guest, size: int) -> None:
    """Ask for `size`, and wait until the guest's driver has followed and Linux has its memory."""
    guest.resize(size)
    wanted = size - BOOT_MEMORY
    until(guest, lambda: guest.memory_device.plugged_size == wanted, f"{wanted} bytes plugged")
    # Linux brings what was plugged online a little later, block by block of 128 MiB.
    until_prints(
        guest, "grep -cx online /sys/devices/system/memory/memory*/state | wc -l", str(size // (128 * MIB))
    )


def set_aside(guest: Guest, size: int) -> None:
    """Have the guest's balloon hold `size` bytes of its memory."""
    guest.set_balloon(size)
    until(guest, lambda: guest.balloon.ballooned_pages == size // PAGE_SIZE, f"{size} bytes in the balloon")


def check_work(guest: Guest) -> None:
    """Files of more than the guest booted with hold what was written."""
    numbers = "".join(f"{i}\n" for i in range(1, NUMBERS + 1)).encode()
    copies = WORK // len(numbers)
    command(guest, f"mount -o remount,size={WORK + MIB} /tmp; seq {NUMBERS} > /dev/shm/part")
    command(guest, f"for i in $(seq {copies}); do cat /dev/shm/part; done > /tmp/work; rm /dev/shm/part")
    checksum = hashlib.md5(numbers * copies).hexdigest()
    assert command(guest, "md5sum < /tmp/work") == f"{checksum}  -"


@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_in_and_out(
    host: Host, debian: Image, place: tuple[BoardName, RingLayout], compatibility: Compatibility
) -> None:
    guest = boot(host, debian, *place)
    small, used = total(guest), host.pool.used
    resize(guest, MOST)
    assert total(guest) - small == MOST - BOOT_MEMORY
    assert f"{4 * GIB:x}-{4 * GIB + MOST - BOOT_MEMORY - 1:x}" in command(
        guest, f"grep '{IN_LINUX}' /proc/iomem"
    )
    assert (host.pool.used - used) * PAGE_SIZE < 16 * MIB, "only what Linux keeps about each page is touched"

    check_work(guest)
    assert host.pool.used - used > WORK // PAGE_SIZE * 9 // 10
    command(guest, "rm /tmp/work")

    for size in (HALF, BOOT_MEMORY):
        resize(guest, size)
        assert total(guest) - small == size - BOOT_MEMORY
        assert guest.memory_statistics().configured == size
    # What is left can only be in the memory that it booted with.
    assert host.pool.used < BOOT_MEMORY // PAGE_SIZE
    assert guest.memory.census()["hole"] >= (MOST - BOOT_MEMORY) // PAGE_SIZE
    assert IN_LINUX not in command(guest, "cat /proc/iomem")

    # Plugged once more and in use, a reset takes all away; the driver of the next boot plugs it again.
    resize(guest, MOST)
    guest.pause()
    guest.reset()
    assert guest.memory_device.plugged_size == 0
    guest.resume()
    reach_shell(guest)
    resize(guest, MOST)
    assert total(guest) - small == MOST - BOOT_MEMORY
    check_health(guest)
    power_off(guest)
    board, ring = place
    compatibility.row(
        guest=NAMES["debian"],
        boots=f"directly on {board}, virtio-mem on {TRANSPORTS[board]} with {ring} rings",
        checked="hot-add to twice its memory, files in it, hot-remove in two steps, frames go back; reset",
    )


def test_what_is_in_use_stays(host: Host, debian: Image) -> None:
    """Linux cannot give memory back that programs need: the rest of what was asked for stays claimed.

    Its driver leaves the kernel no memory to start a program with. So none runs until it has some again: what the
    balloon has kept, and no request that the driver could spend it for.
    """
    guest = boot(host, debian, "microvm", balloon=True)
    set_aside(guest, ASIDE)
    resize(guest, MOST)
    check_work(guest)
    asked = guest.machine.clock.now_ns()
    guest.resize(BOOT_MEMORY)
    until(guest, lambda: guest.machine.clock.now_ns() > asked + RETRIES_NS, "time for the driver to retry")
    guest.pause()
    kept = guest.memory_device.plugged_size
    assert WORK - BOOT_MEMORY < kept < MOST - BOOT_MEMORY
    assert guest.memory_statistics().configured == BOOT_MEMORY + kept
    guest.resize(BOOT_MEMORY + kept)
    guest.resume()
    set_aside(guest, 0)
    assert "Out of memory" not in command(guest, "dmesg")
    numbers = command(guest, f"tail -c {len(str(NUMBERS)) + 1} /tmp/work; rm /tmp/work")
    assert numbers == str(NUMBERS)
    resize(guest, BOOT_MEMORY)
    check_health(guest)
    power_off(guest)


def test_ide_reads_into_plugged_memory(host: Host, debian: Image, tmp_path: Path) -> None:
    """Its DMA has 32 bits of address: Linux bounces what lies above 4 GiB, as the ACPI tables had it prepared to."""
    image = tmp_path / "disk.img"
    content = b"".join(i.to_bytes(4, "little") for i in range(DISK_SIZE // 4))
    image.write_bytes(content)
    guest = boot(host, debian, "pc", append=FOR_ALL, disks=(DiskConfig(image, readonly=True, bus="ide"),))
    resize(guest, MOST)
    assert command(guest, "md5sum < /dev/sda") == f"{hashlib.md5(content).hexdigest()}  -"
    power_off(guest)
