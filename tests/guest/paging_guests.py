"""Firmware guests on a host that swaps, and what can be done to their pages."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emuvisor import firmware
from emuvisor.host import Guest, GuestState, Host
from emuvisor.machine.config import DiskConfig, FlatConfig, GuestConfig
from emuvisor.machine.outcome import Ending
from emuvisor.memory import FrameState
from emuvisor.memory.stage2 import FRAME_MASK, STATE_SHIFT
from emuvisor.units import MIB, PAGE_SHIFT, PAGE_SIZE

PATIENCE_S = 180
TOUCHED_AT = 0x100000
"""Where memtouch's pages begin."""
TOUCHED = 2 * MIB
SLICE = 4_000
"""Short enough that guests take turns while they fill memory."""
DMA_AT = 0x70000
"""Where the disk reader's sectors go."""
GUESTS = 4
"""That fill their memory together."""
FULL = "wrote"
"""What memtouch prints when it has filled its memory for the first time."""
ENDED = (GuestState.DEFINED, GuestState.CRASHED)
_ENTRY = b"\xea\x00\x00\x00\x08".ljust(16, b"\0")
"""jmp 0800h:0, over the parameter block."""
_READER_AT = 0x8000


def memtouch(folder: Path, name: str, passes: int = 4, **fields: Any) -> GuestConfig:
    """A guest that fills memory and reads it back, `passes` times, and then says PASS."""
    block = struct.pack("<4Q", TOUCHED_AT, TOUCHED, PAGE_SIZE, passes)
    path = folder / f"{name}.bin"
    path.write_bytes(_ENTRY + block.ljust(firmware.PARAMETERS_SIZE, b"\0") + firmware.image("memtouch"))
    flat = FlatConfig(path, firmware.PARAMETERS - len(_ENTRY))
    return GuestConfig(name=name, board="isa", memory=4 * MIB, flat=flat, **fields)


def disk_reader(folder: Path, name: str, sectors: int, **fields: Any) -> GuestConfig:
    """A guest that reads the first `sectors` sectors of its disk to `DMA_AT`, again and again, by DMA: no instruction
    of its own touches them."""
    code = (
        b"\xba\x02\x51\xb8"
        + sectors.to_bytes(2, "little")
        + b"\xef"  # mov dx, COUNT; mov ax, sectors; out dx, ax
        b"\xba\x0c\x51\x66\xb8"
        + DMA_AT.to_bytes(4, "little")
        + b"\x66\xef"  # mov dx, BUFFER; mov eax, ..; out
        b"\xba\x00\x51\xb8\x80\x01\xef"  # mov dx, DRIVE; mov ax, 0180h: the first hard disk, READ; out dx, ax
        b"\xeb\xf6"  # jmp back to the READ
    )
    path, disk = folder / f"{name}.bin", folder / f"{name}.img"
    path.write_bytes(code)
    disk.write_bytes(bytes(i % 251 + 1 for i in range(16 * 512)))
    return GuestConfig(
        name=name,
        board="isa",
        memory=4 * MIB,
        flat=FlatConfig(path, _READER_AT),
        disks=(DiskConfig(disk),),
        **fields,
    )


def finish(host: Host, *guests: Guest) -> None:
    """Wait until all have ended."""
    wait(host, lambda: all(guest.state in ENDED for guest in guests), *guests)


def wait(host: Host, condition: Callable[[], bool], *guests: Guest) -> None:
    """Wait until `condition` is true, which changes with a guest's state."""
    with host.lock:
        done = host.changed.wait_for(condition, PATIENCE_S)
    assert done, [(guest.name, guest.state, guest.reason) for guest in guests]


def start_together(host: Host, *guests: Guest) -> None:
    """None runs before all do."""
    with host.lock:
        for guest in guests:
            guest.start()


def is_full(guest: Guest) -> bool:
    """Whether it has filled its memory and stopped, as `until` says: a guest that starves is paused, too."""
    outcome = guest.outcome
    return guest.state is GuestState.PAUSED and outcome is not None and outcome.ending is Ending.UNTIL


def fill(host: Host, guest: Guest) -> None:
    """Start a guest that stops when its memory is full."""
    guest.start()
    wait(host, lambda: is_full(guest), guest)


def start_filling(host: Host, folder: Path) -> list[Guest]:
    """Start guests that stop when their memory is full: who is quicker does not give back what the others lack."""
    guests = [host.create(memtouch(folder, f"g{i}", until=FULL)) for i in range(GUESTS)]
    start_together(host, *guests)
    return guests


def go_on(host: Host, *guests: Guest) -> None:
    """Once all are full, let them read what they wrote, to their end. One after the other: together they would take
    each other's pages all the time."""
    wait(host, lambda: all(map(is_full, guests)), *guests)
    for guest in guests:
        guest.resume()
        finish(host, guest)


def kept(guest: Guest, state: FrameState = FrameState.SWAPPED) -> dict[int, int]:
    """The slots of the store in which the guest's pages are, by guest physical address."""
    return {
        slot.first + index << PAGE_SHIFT: int(value) & FRAME_MASK
        for slot in guest.memory.slots
        for index, value in enumerate(slot.entries.tolist())
        if value >> STATE_SHIFT == state
    }


def send_all_away(guest: Guest, state: FrameState = FrameState.SWAPPED) -> dict[int, int]:
    """Put all that can go of a guest that does not run into a store; returns what `kept` does."""
    guest.memory.send_away(state, guest.memory.evictable(1 << 20))
    return kept(guest, state)
