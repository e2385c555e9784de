"""Debian guests on a host that is too small for them: their data, their work, and what a host's books must say."""

import hashlib
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from guests import expect
from virtio_guests import kernel

from emuvisor.host import Guest, Host
from emuvisor.host.memory.decisions import Decision
from emuvisor.images.cache import Image
from emuvisor.machine.config import DiskConfig, GuestConfig
from emuvisor.memory.stage2 import FRAME_MASK, FRAMED, in_states
from emuvisor.units import MIB, PAGE_SIZE

WORK_S = 480
"""What a step of the guests' work may take, however busy the machine is."""
FOLDER = "/work"


@dataclass(frozen=True)
class Data:
    """Reproducible pages in a file: half do not compress, a quarter repeat 64 bytes, a quarter are mostly zeros."""

    path: Path
    checksum: str
    size: int

    @classmethod
    def make(cls, path: Path, size: int, seed: int) -> "Data":
        """`size` bytes (whole MiB) in `path`; each seed's are other pages."""
        chosen = random.Random(seed)
        digest = hashlib.md5(usedforsecurity=False)
        with path.open("wb") as file:
            for _ in range(size // MIB):
                pages = []
                for page in range(MIB // PAGE_SIZE):
                    dense = (PAGE_SIZE, PAGE_SIZE, 64, 512)[page % 4]
                    seen = chosen.randbytes(dense)
                    pages.append(seen * (PAGE_SIZE // dense) if dense == 64 else seen.ljust(PAGE_SIZE, b"\0"))
                piece = b"".join(pages)
                digest.update(piece)
                file.write(piece)
        return cls(path, digest.hexdigest(), size)

    def disk(self) -> DiskConfig:
        """It, as a guest's disk."""
        return DiskConfig(self.path, bus="virtio", readonly=True)


def worker(
    host: Host, image: Image, name: str, data: Data, *, memory: int = 512 * MIB, append: str = ""
) -> Guest:
    """A guest, not started, with a balloon and `data` on its disk. It follows the host's clock, as people's do."""
    return host.create(
        GuestConfig(
            name=name,
            board="microvm",
            memory=memory,
            kernel=kernel(image, append),
            clock="host",
            balloon=True,
            disks=(data.disk(),),
        )
    )


class Workers:
    """Guests that are given work at the same time: a line each for the shell, and later what it printed."""

    def __init__(self) -> None:
        self._from: dict[Guest, int] = {}

    def begin(self, guest: Guest, line: str) -> None:
        """Have `guest` do `line`; it has done before what it was given."""
        self._from[guest] = len(guest.console.text)
        guest.type(f"echo '<be''gin>'; {line}; echo '<e''nd>'\n")

    def end(self, guest: Guest) -> str:
        """Wait until `guest` has done what it was given; returns what that printed."""
        expect(guest, "<end>", WORK_S)
        text = guest.console.text[self._from.pop(guest) :].replace("\r", "")
        return text.rpartition("<begin>\n")[2].partition("<end>")[0].strip()

    def all(self, guests: Iterable[Guest], line: str) -> list[str]:
        """Have all `guests` do `line` at once."""
        guests = list(guests)
        for guest in guests:
            self.begin(guest, line)
        return [self.end(guest) for guest in guests]


@dataclass
class Ledger:
    """Listens to the log of a host's memory manager: what guests gave and got by each rung, and whether the pool
    held."""

    host: Host
    moved: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Frames by guest and rung."""
    most_used: int = 0
    """Frames in use, the most at any decision."""

    def __post_init__(self) -> None:
        self.host.memory.log.listeners.append(self._decided)

    def _decided(self, decision: Decision) -> None:
        self.moved[decision.guest, decision.rung] += decision.frames
        self.most_used = max(self.most_used, self.host.pool.used)


def check_frames(host: Host) -> None:
    """Each frame of the pool has as many references as pages show it, and those are all that are in use. Nobody may be
    at work: guests are paused, the memory manager has stopped."""
    shown = np.zeros(len(host.pool.references), np.int64)
    for guest in host.guests.values():
        memory = guest.memory
        for entries in [
            *(s.entries for s in memory.slots),
            *(shadow.hidden.entries for shadow in memory.shadows),
        ]:
            frames = entries[in_states(entries, FRAMED)] & np.uint32(FRAME_MASK)
            shown += np.bincount(frames, minlength=len(shown))
    shown[host.pool.zero_frame] = 0
    wrong = np.flatnonzero(shown != host.pool.references)
    assert not len(wrong), (
        f"frames {wrong[:10]}: shown {shown[wrong[:10]]}, {host.pool.references[wrong[:10]]}"
    )
    assert np.count_nonzero(shown) == host.pool.used <= host.pool.limit
