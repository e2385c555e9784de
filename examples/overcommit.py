"""Three Debian guests of 256 MiB on a host of 384 MiB: each fills most of its memory, checks it, and frees it again.

Needs `emuvisor images pull debian`. Writes overcommit.jsonl; `emuvisor memory overcommit.jsonl --chart x.svg` draws it.
"""

import sys
from pathlib import Path

from emuvisor.host import Host
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.host.memory.recorder import MemoryRecorder
from emuvisor.images.cache import find
from emuvisor.machine.config import GuestConfig, KernelConfig
from emuvisor.units import MIB

image = find("debian")
if image is None:
    sys.exit("first: emuvisor images pull debian")

FILL = (
    "mkdir /fill && mount -t tmpfs -o size=80% none /fill && "
    "dd if=/dev/urandom of=/fill/data bs=1M count=150 && md5sum /fill/data > /sum && echo fill''ed\n"
)
FREE = "md5sum -c /sum && umount /fill && echo fre''ed\n"

kernel = KernelConfig(image.kernel, image.initrd, image.append)
policy = MemoryPolicy(swap=Path("overcommit.swap"))  # random bytes cannot be compressed
with Host(memory=384 * MIB, memory_policy=policy) as host, MemoryRecorder(host, Path("overcommit.jsonl")):
    guests = [
        host.create(
            GuestConfig(
                name=name, board="microvm", memory=256 * MIB, kernel=kernel, clock="host", balloon=True
            )
        )
        for name in ("anna", "ben", "cleo")
    ]
    for guest in guests:
        guest.start()
        guest.expect("# ", 120)
    for line, done in ((FILL, "filled"), (FREE, "freed")):
        for guest in guests:
            if not guest.expect(done, 120, send=line):
                sys.exit(f"{guest.name}: {guest.state}: {guest.reason}")
    gained = sorted(host.memory.log.gained.items())

print("all sums are right")
for rung, frames in gained:
    print(f"{rung}: {frames} frames")
