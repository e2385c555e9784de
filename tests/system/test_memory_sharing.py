"""Page sharing among Debian guests of one image, and memory that comes back unasked."""

import os
import time
from collections.abc import Sequence

import pytest
from compatibility import Compatibility
from guests import command, reach_shell
from memory_guests import Workers, check_frames
from virtio_guests import NAMES, kernel, until

from emuvisor.host import Guest, Host
from emuvisor.host.memory import SharingRung
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.images.cache import Image
from emuvisor.machine.config import GuestConfig
from emuvisor.memory.sharing import Savings, savings
from emuvisor.units import KIB, MIB, PAGE_SIZE

pytestmark = pytest.mark.system

COUNT = 10
GUEST = 128 * MIB
POOL = 1024 * MIB
"""Enough for what they use, and not for all that they could: pages are shared although none is short."""
SCANNED_PER_S = 100_000
ROUNDS = 3
"""Looks at each page: one to learn its hash, one to see that it stays, one for those that came meanwhile."""
SHARED_PER_GUEST = 5_000
"""At the least; kernel, programs and the initramfs are about 60 MiB of a guest's memory, the same in all of them."""
OWN = 256 * KIB
"""What each guest writes."""


def boot(
    host: Host, image: Image, names: Sequence[str], memory: int, *, balloon: bool = False
) -> list[Guest]:
    """Guests that sleep while they have nothing to do."""
    guests = [
        host.create(
            GuestConfig(
                name=name,
                board="microvm",
                memory=memory,
                kernel=kernel(image),
                clock="host",
                balloon=balloon,
            )
        )
        for name in names
    ]
    for guest in guests:
        guest.start()
    for guest in guests:
        reach_shell(guest)
    return guests


def found(host: Host) -> Savings:
    return savings(host.pool, [guest.memory for guest in host.guests.values()])


def scan(host: Host, guest: Guest, rounds: int) -> None:
    """Have each page that has a frame looked at `rounds` times."""
    pages = rounds * sum(guest.memory.census()["resident"] for guest in host.guests.values())
    goal = host.memory.statistics().scanned + pages * PAGE_SIZE
    host.memory.watch()
    until(guest, lambda: host.memory.statistics().scanned > goal, "scan of all guests")
    host.memory.unwatch()


def cpu_s() -> float:
    times = os.times()
    return times.user + times.system


def test_ten_guests_of_one_image(debian: Image, compatibility: Compatibility) -> None:
    began = cpu_s()
    rungs = (SharingRung(idle_pages_per_s=SCANNED_PER_S),)
    with Host(POOL, pcpus=2, memory_policy=MemoryPolicy(rungs=rungs)) as host:
        guests = boot(host, debian, [f"g{number}" for number in range(COUNT)], GUEST)
        scan(host, guests[0], ROUNDS)
        saved = found(host)
        assert saved.frames_without_zero > (COUNT - 1) * SHARED_PER_GUEST
        assert saved.zero_pages > COUNT
        assert saved.frames_without_zero > host.pool.used, "they would take more than twice as much"

        check_own_data(guests)
        report(host, saved, cpu_s() - began)
        for guest in guests:
            guest.pause()
        host.memory.stop()
        check_frames(host)
        merged = sum(guest.memory.frames_merged for guest in guests)
        assert host.memory.log.gained == {"sharing": merged}
    compatibility.row(
        guest=NAMES["debian"],
        boots="directly on microvm, ten of 128 MiB that share pages",
        checked="most of what is equal is shared; what each writes then is its own",
    )


def report(host: Host, saved: Savings, cpu: float) -> None:
    """For those who want to see it (pytest -s)."""
    numbers = host.memory.statistics()
    print(
        f"\n{COUNT} guests of {GUEST // MIB} MiB: {saved.frames} frames saved, {saved.frames_without_zero} without "
        f"pages of zeros ({saved.shared_pages} pages in {saved.shared_frames} frames); {numbers.scanned // MIB} MiB "
        f"scanned in {numbers.scan_s:.2f} s, {numbers.scan_s / cpu:.1%} of all CPU time ({cpu:.1f} s)"
    )


def check_own_data(guests: Sequence[Guest]) -> None:
    """Guests that share write at once: the same first, which is shared too, and then each its own name into each page
    of it. Nobody finds another's."""
    work = Workers()
    names = [guest.name for guest in guests]
    same = f"yes same | head -c {OWN} > /tmp/data"
    assert work.all(guests, f"{same}; grep -c '^same$' /tmp/data") == [str(-(-OWN // len("same\n")))] * len(
        guests
    )
    scan(guests[0].host, guests[0], 2)
    step = OWN // PAGE_SIZE
    write = f"for i in $(seq 0 {step - 1}); do echo @ | dd of=/tmp/data bs={PAGE_SIZE} seek=$i conv=notrunc 2>/dev/null"
    for guest in guests:
        work.begin(
            guest, f"{write.replace('@', guest.name)}; done; grep -o 'g[0-9]*$' /tmp/data | sort | uniq -c"
        )
    counts = [work.end(guest).split() for guest in guests]
    assert counts == [[str(step), name] for name in names]


def test_pages_of_zeros_that_a_guest_wrote(debian: Image) -> None:
    size = 64 * MIB
    rungs = (SharingRung(idle_pages_per_s=SCANNED_PER_S),)
    with Host(128 * MIB, memory_policy=MemoryPolicy(rungs=rungs)) as host:
        (guest,) = boot(host, debian, ["g"], 256 * MIB)
        before, taken = host.pool.used, guest.memory.frames_taken
        command(guest, f"dd if=/dev/zero of=/tmp/zeros bs=64k count={size // (64 * KIB)} 2>/dev/null")
        # Some of it had frames already: what the boot left.
        assert guest.memory.frames_taken - taken > size // PAGE_SIZE // 2
        scan(host, guest, 2)
        # The disk cache of one page may be given to another use meanwhile; nearly all are found at once.
        assert guest.memory_statistics().zero > size * 9 // 10
        assert host.pool.used - before < size // PAGE_SIZE // 8
        assert command(guest, "tr -d '\\0' < /tmp/zeros | wc -c; wc -c < /tmp/zeros").split() == [
            "0",
            str(size),
        ]
        # They are the guest's to write: some of them now, and only those cost a frame.
        zero = guest.memory_statistics().zero
        command(
            guest, "yes full | dd of=/tmp/zeros bs=4k count=1024 conv=notrunc iflag=fullblock 2>/dev/null"
        )
        assert guest.memory_statistics().zero <= zero - 1024 * PAGE_SIZE
        assert command(guest, "grep -ac full /tmp/zeros") == str(1024 * PAGE_SIZE // 5 + 1)


def test_memory_that_a_guest_frees_comes_back(debian: Image) -> None:
    """Nothing is short, nobody asks, and the log says nothing but what the guest reported."""
    size = 96 * MIB
    with Host(512 * MIB) as host:
        (guest,) = boot(host, debian, ["g"], 256 * MIB, balloon=True)
        command(guest, f"dd if=/dev/zero of=/tmp/full bs=64k count={size // (64 * KIB)} 2>/dev/null")
        full, enough = host.pool.used, size // PAGE_SIZE * 3 // 4
        command(guest, "rm /tmp/full")
        until(guest, lambda: full - host.pool.used > enough, "frames from the guest")
        assert guest.balloon.actual_pages == 0
        assert host.memory.statistics().state == "high"
        guest.pause()  # it goes on reporting
        host.memory.stop()
        host.memory.step(time.monotonic())
        assert set(host.memory.log.gained) == {"reporting"}
        assert host.memory.log.gained["reporting"] == guest.memory.frames_discarded > enough
