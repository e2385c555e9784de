"""A lab: step through the rounds of a live migration, and see how fast a guest may write.

    python examples/migration_rounds.py [PAGES]

A small guest of our own writes to PAGES pages, over and over, while it moves between two hosts of this process.
"""

import sys
import tempfile
from pathlib import Path

from emuvisor.host import Host
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.migration import Options, Source, Target
from emuvisor.units import MIB

FLAT_ADDRESS = 0x8000
FIRST = 0x1000
"""The segment in which it writes: page 10h."""


def writer(pages: int) -> bytes:
    """A program that adds to a number in each of `pages` pages, 1 to 255, and never ends."""
    return (
        bytes.fromhex("bb0000")  # again: mov bx, 0
        + bytes([0xB9, pages, 0])  # mov cx, pages
        + bytes.fromhex("b8")  # mov ax, segment
        + FIRST.to_bytes(2, "little")
        + bytes.fromhex(
            "8ed8"  # page: mov ds, ax
            "0107"  # add [bx], ax
            "050001"  # add ax, 100h
            "e2f7"  # loop page
            "ebec"  # jmp again
        )
    )


def main(pages: int) -> None:
    with tempfile.TemporaryDirectory() as folder, Host(32 * MIB) as here, Host(32 * MIB) as there:
        image = Path(folder) / "writer.bin"
        image.write_bytes(writer(pages))
        guest = here.create(GuestConfig(memory=4 * MIB, flat=FlatConfig(image, FLAT_ADDRESS)))
        guest.start()
        with Target(there) as target:
            moving = Source(guest, target.address, Options(max_rounds=6))
            while not moving.is_over:
                now = moving.step()
                print(f"{now.phase:10} {len(now.rounds)} rounds, {now.left:4} pages left", end="")
                print(f", throttled by {now.throttle} %" if now.throttle else "")
            for number, done in enumerate(now.rounds, 1):
                print(
                    f"round {number}: {done.sent} of {done.pages} pages sent, {done.bytes:,} bytes in "
                    f"{done.ns / 1e6:.1f} ms; {done.left} written meanwhile"
                )
            moved = target.receive(10)
            print(f"guest {moved.name!r} is {moved.state}: {moved.reason}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
