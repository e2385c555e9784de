"""Three Debian guests of 384 MiB on a host of 576 MiB: each fills its memory while another's is still full.

All find in it what they put there, no matter where the host kept it meanwhile, and the log says where that was.
"""

import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from compatibility import Compatibility
from guests import command, reach_shell
from memory_guests import FOLDER, Data, Ledger, Workers, check_frames, worker
from virtio_guests import NAMES, check_health

from emuvisor.host import Guest, Host
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.images.cache import Image
from emuvisor.memory import FrameState
from emuvisor.units import MIB, PAGE_SIZE

pytestmark = pytest.mark.system

POOL = 576 * MIB
GUEST = 384 * MIB
DATA = 288 * MIB
"""Two guests that hold this much at a time are more than the pool."""
COMPRESSION = 16 * MIB
"""Without balloons; too little for all that has to leave, so that there must be swapping too."""
NAMES_OF_GUESTS = ("a", "b", "c")
FILE = f"{FOLDER}/data"
FILL = f"dd if=/dev/vda of={FILE} bs=1M iflag=direct 2>/dev/null"
CHECK = f"md5sum < {FILE}"
DELETE = f"rm {FILE}"
TROUBLE = re.compile(
    r"out of memory|oom-kill|stall|lockup|hung task|I/O error|segfault|bad page", re.IGNORECASE
)
PLACES = {"with balloons": "", "without balloons": "module_blacklist=virtio_balloon"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Data]:
    folder = tmp_path_factory.mktemp("data")
    return [Data.make(folder / name, DATA, seed) for seed, name in enumerate(NAMES_OF_GUESTS)]


@pytest.mark.parametrize("place", PLACES)
def test_guests_of_twice_the_memory(
    debian: Image, tmp_path: Path, data: list[Data], place: str, compatibility: Compatibility
) -> None:
    compression = None if place == "with balloons" else COMPRESSION
    policy = MemoryPolicy(overcommit=2, swap=tmp_path / "swap", compression_limit=compression)
    with Host(POOL, pcpus=2, memory_policy=policy) as host:
        ledger = Ledger(host)
        guests = [
            worker(host, debian, name, own, memory=GUEST, append=PLACES[place])
            for name, own in zip(NAMES_OF_GUESTS, data, strict=True)
        ]
        for guest in guests:
            guest.start()
        for guest in guests:
            reach_shell(guest)
            assert command(guest, f"mkdir {FOLDER}; mount -t tmpfs -o size=90% work {FOLDER}") == ""
        fill_in_turn(guests, data)
        for guest in guests:
            assert not TROUBLE.search(command(guest, "dmesg")), guest.name
            if place == "with balloons":
                check_health(guest)
            guest.pause()
        host.memory.stop()
        host.memory.step(time.monotonic())  # what balloons gave back since the last look
        check_frames(host)
        check_log(host, ledger, place)
    assert host.pool.used == 0
    assert not (tmp_path / "swap").exists()
    compatibility.row(
        guest=NAMES["debian"],
        boots=f"directly on microvm, three of 384 MiB on a host of 576 MiB {place}",
        checked="memory filled, checked and freed in turn; checksums; no frame beyond the pool; the memory log",
    )


def fill_in_turn(guests: Sequence[Guest], data: Sequence[Data]) -> None:
    """Each guest fills its memory and checks it while the one before checks what it has, and then gives it up."""
    work = Workers()
    before: tuple[Guest, str] | None = None
    for guest, own in zip(guests, data, strict=True):
        right = f"{own.checksum}  -"
        work.begin(guest, f"{FILL}; {CHECK}")
        if before is not None:
            work.begin(before[0], f"{CHECK}; {DELETE}")
            assert work.end(before[0]) == before[1], before[0].name
        assert work.end(guest) == right, guest.name
        before = guest, right
    assert before is not None
    assert work.all([before[0]], f"{CHECK}; {DELETE}") == [before[1]]


def check_log(host: Host, ledger: Ledger, place: str) -> None:
    """The log has every frame that left a guest, and why."""
    assert ledger.most_used <= host.pool.limit
    moved = [decision for decision in host.memory.log if decision.frames]
    assert all(decision.why for decision in moved)
    assert {decision.guest for decision in moved} == set(NAMES_OF_GUESTS)

    gained = host.memory.log.gained
    rungs = {rung: sum(n for (_, of), n in ledger.moved.items() if of == rung) for rung in gained}
    assert gained == rungs
    memories = [guest.memory for guest in host.guests.values()]
    stores = host.memory.stores
    assert gained["sharing"] == sum(memory.frames_merged for memory in memories) > 0
    assert gained["compression"] == stores[FrameState.COMPRESSED].statistics["stored"] > 0
    assert gained.get("swap", 0) == stores[FrameState.SWAPPED].statistics["stored"]
    # Those who filled their memory first had most of it taken away: it was more than all the pool had left.
    assert gained["compression"] + gained.get("swap", 0) > (2 * DATA - POOL) // PAGE_SIZE
    if place == "without balloons":
        assert gained["swap"] > 0
        assert "reporting" not in gained
        assert "balloon" not in gained
    else:
        # What a guest deletes it reports, unless the host has it already.
        assert gained["reporting"] > DATA // PAGE_SIZE
        assert gained.get("balloon", 0) == sum(memory.census()["ballooned"] for memory in memories)
    for store in stores.values():
        assert store.used_bytes <= store.limit_bytes
        assert store.statistics["lost"] == 0
