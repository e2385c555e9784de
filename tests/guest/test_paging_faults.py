"""Guests whose pages are on a disk that fills up, fails, forgets and lies: one may be lost, with the reason; the others
go on, and nobody ever sees a wrong byte."""

import errno
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from paging_guests import (
    DMA_AT,
    FULL,
    GUESTS,
    SLICE,
    TOUCHED_AT,
    disk_reader,
    fill,
    finish,
    go_on,
    kept,
    memtouch,
    send_all_away,
    start_filling,
    start_together,
    wait,
)

from emuvisor.errors import PageLost
from emuvisor.host import Guest, GuestState, Host
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.host.memory.rungs import CompressionRung, PauseRung, SwapRung
from emuvisor.machine.outcome import Ending
from emuvisor.memory import FrameState
from emuvisor.memory.compressed import CompressedStore
from emuvisor.memory.pagingfile import PagingFile
from emuvisor.memory.swapfile import SwapFile
from emuvisor.units import MIB, PAGE_SIZE

POOL = 4 * MIB
NO_MEMORY = (
    r"no memory: 0 of the host's 1024 frames are available, \d+ more can be gained, and \d are needed at once"
)


class FaultyFile:
    """`file`, in the way of whose calls faults can be put."""

    def __init__(self, file: PagingFile) -> None:
        self.file = file
        self.path = file.path
        self.space: int | None = None
        """Bytes that fit; then ENOSPC."""
        self.bad: set[int] = set()
        """Pages that cannot be read."""

    def read(self, buffers: Sequence[memoryview | bytearray], offset: int) -> int:
        if self.bad & {offset // PAGE_SIZE + i for i in range(len(buffers))}:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self.file.read(buffers, offset)

    def write(self, pages: Sequence[memoryview], offset: int) -> int:
        if self.space is not None:
            pages = pages[: max(0, (self.space - offset) // PAGE_SIZE)]
            if not pages:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(pages, offset)

    def punch(self, offset: int, length: int) -> None:
        self.file.punch(offset, length)

    def close(self) -> None:
        self.file.close()


def swap_of(host: Host) -> tuple[SwapFile, FaultyFile]:
    """The host's swap file, and the file below it."""
    swap = host.memory.stores[FrameState.SWAPPED]
    assert isinstance(swap, SwapFile)
    swap._file = faulty = FaultyFile(swap._file)
    return swap, faulty


def swapping(folder: Path, **fields: Any) -> MemoryPolicy:
    rungs = (SwapRung(), PauseRung())
    return MemoryPolicy(rungs=rungs, swap=folder / "swap", period_s=0.02, sampling_s=0.02, **fields)


def alone(folder: Path) -> tuple[str, int, int]:
    """What memtouch prints that has a host of its own, the work that it does and the time that it shows."""
    with Host(16 * MIB) as host:
        guest = host.create(memtouch(folder, "alone"))
        guest.start()
        finish(host, guest)
        return result(guest)


def result(guest: Guest) -> tuple[str, int, int]:
    return guest.console.text, guest.machine.vcpu.work, guest.machine.clock.now_ns()


def starves(host: Host, why: str) -> Callable[[], bool]:
    """Whether a guest was paused, as there was no memory, and `why`."""
    text = f"{NO_MEMORY}; {re.escape(why)}"
    return lambda: any(
        event.new is GuestState.PAUSED and re.fullmatch(text, event.reason) for event in host.events
    )


# ---- no room ----


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """Guests go on as far as frames last, wait with the reason, and go on by themselves when there is room."""
    expected = alone(tmp_path)
    with Host(POOL, pcpus=2, memory_policy=swapping(tmp_path)) as host:
        swap, file = swap_of(host)
        file.space = MIB // 4  # no guest can fill its memory with that
        guests = start_filling(host, tmp_path)
        wait(host, starves(host, f"swap file {tmp_path / 'swap'}: No space left on device"), *guests)
        assert swap.statistics["write_errors"] > 0
        file.space = None
        go_on(host, *guests)
        assert [result(guest) for guest in guests] == [expected] * GUESTS
        assert (swap.trouble, swap.statistics["lost"]) == ("", 0)


def test_a_file_at_its_limit(tmp_path: Path) -> None:
    """Guests wait with the reason until others are gone."""
    expected = alone(tmp_path)
    policy = swapping(tmp_path, swap_limit=MIB // 2)
    with Host(POOL, pcpus=2, memory_policy=policy) as host:
        guests = start_filling(host, tmp_path)
        wait(host, starves(host, f"swap file {tmp_path / 'swap'}: its 512 KiB are full"), *guests)
        assert (tmp_path / "swap").stat().st_size <= MIB // 2
        for guest in guests[:2]:
            guest.delete()
        go_on(host, *guests[2:])
        assert [result(guest) for guest in guests[2:]] == [expected] * 2


# ---- lost pages ----


def flip_a_bit(path: Path, slots: Sequence[int], _file: FaultyFile) -> None:
    with path.open("r+b") as file:
        for slot in slots:
            file.seek(slot * PAGE_SIZE + 0x123)
            (byte,) = file.read(1)
            file.seek(slot * PAGE_SIZE + 0x123)
            file.write(bytes([byte ^ 0x10]))


def cut(path: Path, _slots: Sequence[int], _file: FaultyFile) -> None:
    os.truncate(path, 0)


def fail(_path: Path, slots: Sequence[int], file: FaultyFile) -> None:
    file.bad = set(slots)


CHECKSUM = r"its checksum is 0x[0-9a-f]{8}, not 0x[0-9a-f]{8}"
FAULTS: list[tuple[Callable[[Path, Sequence[int], FaultyFile], None], str]] = [
    (flip_a_bit, CHECKSUM),
    # where others have written since, the file has a hole
    (cut, rf"(the file was cut: 0 of its 4096 bytes are there|{CHECKSUM})"),
    (fail, r"it cannot be read: Input/output error"),
]
each_fault = pytest.mark.parametrize(("fault", "why"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])


def lost(path: Path, gpa: str, why: str) -> str:
    return rf"guest physical address {gpa} is lost: swap file {re.escape(str(path))}, page at offset 0x[0-9a-f]+: {why}"


def page_lost(guest: Guest) -> str:
    """What a guest that was ended for it says."""
    assert guest.outcome is not None
    assert guest.outcome.ending is Ending.PAGE_LOST
    assert (guest.state, guest.reason) == (GuestState.CRASHED, f"page-lost: {guest.outcome.message}")
    return guest.outcome.message


@each_fault
def test_a_guest_whose_pages_are_lost(
    tmp_path: Path, fault: Callable[[Path, Sequence[int], FaultyFile], None], why: str
) -> None:
    """It ends; its neighbours, of which one is swapped later on and one never, do not notice."""
    expected = alone(tmp_path)
    path = tmp_path / "swap"
    with Host(POOL, slice_work=SLICE, memory_policy=swapping(tmp_path)) as host:
        swap, file = swap_of(host)
        victim = host.create(memtouch(tmp_path, "victim", until=FULL))
        later = host.create(memtouch(tmp_path, "later", memory_limit=MIB))
        spared = host.create(memtouch(tmp_path, "spared"))
        fill(host, victim)
        fault(path, list(send_all_away(victim).values()), file)
        start_together(host, later, spared)
        victim.resume()
        finish(host, victim)
        assert re.fullmatch(lost(path, "0x[0-9a-f]+", why), page_lost(victim))
        finish(host, later, spared)
        assert [result(guest) for guest in (later, spared)] == [expected] * 2
        assert swap.statistics["loaded"] > 0, "the file is of use to the others"
        assert swap.statistics["lost"] >= 1
        for guest in (victim, later, spared):
            guest.delete()
        assert swap.pages == 0


@each_fault
def test_whoever_looks_at_a_lost_page_is_told(
    tmp_path: Path, fault: Callable[[Path, Sequence[int], FaultyFile], None], why: str
) -> None:
    """The guest itself is as it was; a reset, or a new start, does without what is lost."""
    path = tmp_path / "swap"
    with Host(POOL, memory_policy=swapping(tmp_path)) as host:
        swap, file = swap_of(host)
        guest = host.create(memtouch(tmp_path, "g", until=FULL))
        fill(host, guest)
        slots = send_all_away(guest)
        fault(path, list(slots.values()), file)
        free = host.pool.free
        for _ in range(2):
            with pytest.raises(PageLost, match=f"^{lost(path, hex(TOUCHED_AT), why)}$"):
                guest.memory.read(TOUCHED_AT + 8, 16)
        with pytest.raises(PageLost, match=f"^{lost(path, hex(TOUCHED_AT), why)}$"):
            guest.memory.write(TOUCHED_AT + 8, b"a part of it")
        assert (guest.state, host.pool.free) == (GuestState.PAUSED, free)
        guest.memory.write(TOUCHED_AT, bytes(range(256)) * 16)
        assert guest.memory.read(TOUCHED_AT, 256) == bytes(range(256)), "all of it was written anew"
        assert swap.pages == len(slots) - 1
        guest.reset()
        assert swap.pages == 0
        guest.resume()
        wait(host, lambda: guest.state is GuestState.PAUSED, guest)
        guest.resume()
        finish(host, guest)
        assert "memtouch: PASS" in guest.console.text


@each_fault
@pytest.mark.parametrize("sectors", [1, 8])
def test_a_device_that_touches_a_lost_page(
    tmp_path: Path, fault: Callable[[Path, Sequence[int], FaultyFile], None], why: str, sectors: int
) -> None:
    """A disk's DMA of a whole page needs nothing of what was there."""
    path = tmp_path / "swap"
    with Host(POOL, memory_policy=swapping(tmp_path)) as host:
        _, file = swap_of(host)
        guest = host.create(disk_reader(tmp_path, "g", sectors))
        guest.start()
        while guest.memory.read(DMA_AT, 1) != b"\1":
            pass
        guest.pause()
        page = guest.memory.evictable(1 << 20)
        guest.memory.send_away(
            FrameState.SWAPPED, [place for place in page if place[1] == DMA_AT // PAGE_SIZE]
        )
        assert list(kept(guest)) == [DMA_AT]
        fault(path, list(kept(guest).values()), file)
        guest.resume()
        if sectors == 8:
            while kept(guest):
                pass
            guest.pause()
            assert guest.memory.read(DMA_AT, 512) == (tmp_path / "g.img").read_bytes()[:512]
        else:
            finish(host, guest)
            assert re.fullmatch(lost(path, hex(DMA_AT), why), page_lost(guest))


# ---- compressed pages, and a host without memory ----


def compressing() -> MemoryPolicy:
    return MemoryPolicy(
        rungs=(CompressionRung(), PauseRung()), compression_limit=8 * MIB, period_s=0.02, sampling_s=0.02
    )


def compressed_of(host: Host) -> CompressedStore:
    host.memory._stores.state("compressed")
    store = host.memory.stores[FrameState.COMPRESSED]
    assert isinstance(store, CompressedStore)
    return store


def test_a_bit_that_flips_in_a_compressed_page(tmp_path: Path) -> None:
    expected = alone(tmp_path)
    with Host(POOL, slice_work=SLICE, memory_policy=compressing()) as host:
        store = compressed_of(host)
        victim = host.create(memtouch(tmp_path, "victim", until=FULL))
        other = host.create(memtouch(tmp_path, "other", memory_limit=MIB))
        fill(host, victim)
        for slot in send_all_away(victim, FrameState.COMPRESSED).values():
            store._arena.get(slot)[3] ^= 1
        other.start()
        victim.resume()
        finish(host, victim, other)
        assert re.fullmatch(
            r"guest physical address 0x[0-9a-f]+ is lost: page \d+ of the compression pool is damaged: "
            + CHECKSUM,
            page_lost(victim),
        )
        assert result(other) == expected
        assert store.statistics["loaded"] > 0


def test_a_host_without_memory_to_compress_and_to_expand(tmp_path: Path) -> None:
    """Both are tried again; meanwhile guests wait. Twice the pool cannot be full without a thousand pages compressed,
    and each is expanded before its guest ends: there is enough to fail."""
    expected = alone(tmp_path)
    with Host(POOL, pcpus=2, memory_policy=compressing()) as host:
        store = compressed_of(host)
        failures = {"compress": 200, "expand": 20}

        def scarce(name: str, work: Callable[[memoryview], bytes]) -> Callable[[memoryview], bytes]:
            def attempt(data: memoryview) -> bytes:
                if failures[name]:
                    failures[name] -= 1
                    raise MemoryError
                return work(data)

            return attempt

        store._compress = scarce("compress", store._compress)
        store._expand = scarce("expand", store._expand)
        guests = start_filling(host, tmp_path)
        go_on(host, *guests)
        assert [result(guest) for guest in guests] == [expected] * GUESTS
        assert failures == {"compress": 0, "expand": 0}
        assert store.statistics["lost"] == 0
    assert host.pool.used == 0
