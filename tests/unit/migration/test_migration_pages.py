"""Pages on their way: what is sent, what need not be, and what a hostile source sends."""

from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.errors import MigrationError
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.memory.compressed import CompressedStore
from emuvisor.memory.stage2 import FrameState
from emuvisor.migration.options import Counts
from emuvisor.migration.pages import (
    BATCH,
    Batch,
    PageEncoder,
    PageKind,
    decode_batch,
    pages_needed_first,
    pages_that_hold,
    read_pages,
)
from emuvisor.migration.stage import Stage
from emuvisor.units import MIB, PAGE_SIZE

PAGES = 8


def staged(pool: FramePool, *numbers: int) -> Stage:
    """Of a host that has nothing but `pool`."""
    host: Any = SimpleNamespace(pool=pool)
    return Stage(host, *numbers)


def rows(values: list[int]) -> Any:
    return np.array([[value] * PAGE_SIZE for value in values], np.uint8)


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_batches(compression: Any) -> None:
    encoder = PageEncoder(Counts())
    content = rows([1, 0, 2, 1])
    content[2] = np.random.default_rng(1).integers(0, 256, PAGE_SIZE)
    batch = encoder.batch(np.array([3, 4, 5, 6]), content)
    again = decode_batch(batch.encode(compression))
    assert again.pages.tolist() == [3, 5, 6]
    assert again.kinds.tolist() == [0, 0, 2]
    assert [bytes(part) for _, _, part in again] == [
        bytes([1]) * PAGE_SIZE,
        content[2].tobytes(),
        b"\3\0\0\0",
    ]


def test_what_does_not_compress_goes_as_it_is() -> None:
    content = np.random.default_rng(2).integers(0, 256, (1, PAGE_SIZE), np.uint8)
    batch = PageEncoder(Counts()).batch(np.array([0]), content)
    assert batch.encode("lz4") == batch.encode("none")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=PAGES, max_size=PAGES), min_size=1, max_size=6))
def test_the_target_has_what_the_source_had(history: list[list[int]]) -> None:
    """Every state of a guest's pages, sent one after the other, arrives; and what is there is not sent."""
    counts, pool = Counts(), FramePool(MIB)
    encoder = PageEncoder(counts)
    stage = staged(pool, PAGES, PAGES)
    for values in history:
        stage.put(decode_batch(encoder.batch(np.arange(PAGES), rows(values)).encode()))
        assert [int(pool.frames[frame, 0]) if frame else 0 for frame in stage.frames] == values
        assert pool.used == sum(value != 0 for value in values)
        assert not len(encoder.batch(np.arange(PAGES), rows(values)).pages)
    stage.close()
    assert pool.used == 0


def test_counts() -> None:
    counts = Counts()
    encoder = PageEncoder(counts)
    for values in ([1, 1, 2], [1, 3, 0]):
        encoder.batch(np.arange(3), rows(values))
    assert (counts.sent, counts.copied, counts.zero, counts.resent, counts.unchanged) == (3, 1, 1, 1, 1)


@given(st.binary(max_size=300))
def test_any_bytes(payload: bytes) -> None:
    with suppress(MigrationError):
        assert len(decode_batch(payload).pages) <= BATCH


def test_content_that_grows_more_than_it_may() -> None:
    batch = Batch(np.arange(2, dtype=np.uint32), np.zeros(2, np.uint8), bytes(2 * PAGE_SIZE))
    for compression in ("lz4", "zstd"):
        payload = bytearray(batch.encode(compression))  # type: ignore[arg-type]
        payload[1:3] = (1).to_bytes(2, "little")
        payload[3:7] = PAGE_SIZE.to_bytes(4, "little")
        with pytest.raises(MigrationError):
            decode_batch(bytes(payload[:11] + payload[15:16] + payload[17:]))


@pytest.mark.parametrize(
    ("pages", "kind", "content", "text"),
    [
        ([PAGES], 0, bytes(PAGE_SIZE), "migration: the other side sent page 8; the guest has 8 pages"),
        ([1], 2, b"\5\0\0\0", "migration: page 1 is to be as page 5, which holds nothing"),
        ([1], 2, b"\xff\0\0\0", "migration: page 1 is to be as page 255, which holds nothing"),
    ],
)
def test_pages_that_cannot_be(pages: list[int], kind: int, content: bytes, text: str) -> None:
    stage = staged(FramePool(MIB), PAGES, PAGES)
    with pytest.raises(MigrationError) as caught:
        stage.put(Batch(np.array(pages, np.uint32), np.array([kind], np.uint8), content))
    assert str(caught.value) == text


def test_more_pages_than_the_guest_can_have() -> None:
    """They would take frames from other guests, before it is known what this one is."""
    pool = FramePool(MIB)
    stage = staged(pool, PAGES, 2)
    page = np.full((1, PAGE_SIZE), 7, np.uint8).tobytes()

    def put(number: int, kind: PageKind) -> None:
        content = page if kind is PageKind.RAW else b""
        stage.put(Batch(np.array([number], np.uint32), np.array([kind], np.uint8), content))

    put(0, PageKind.RAW)
    put(1, PageKind.RAW)
    put(1, PageKind.RAW)
    put(1, PageKind.ZERO)
    put(2, PageKind.RAW)
    with pytest.raises(MigrationError) as caught:
        put(3, PageKind.RAW)
    assert str(caught.value) == "migration: the other side sent more pages than the guest has memory for"
    stage.close()
    assert pool.used == 0


# ---- reading a guest's memory ----


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    pool = FramePool(4 * MIB)
    memory = GuestMemory(pool, [(0, MIB)])
    memory.stores[FrameState.COMPRESSED] = CompressedStore(MIB)
    memory.add_region(2 * PAGE_SIZE).write(0, b"region")
    memory.add_shadow(0xC_0000, PAGE_SIZE).load_rom(0xC_0000, b"rom")
    yield memory
    memory.close()


def test_reading_takes_no_frames(memory: GuestMemory) -> None:
    memory.write(0x3000, b"\1" * PAGE_SIZE)
    memory.write(0x5000, b"\2" * PAGE_SIZE)
    assert memory.send_away(FrameState.COMPRESSED, [(0, 3)]) == 1
    used = memory.pool.used
    pages = pages_that_hold(memory)
    assert pages.tolist() == [3, 5, 0xC0, 0x100]
    assert [bytes(row[:3]) for row in read_pages(memory, pages)] == [b"\1\1\1", b"\2\2\2", b"rom", b"reg"]
    assert memory.pool.used == used
    assert memory.census()["compressed"] == 1
    assert pages_needed_first(memory).tolist() == [0xC0, 0x100, 0x101, 0x102]


def test_written_pages_by_number(memory: GuestMemory) -> None:
    memory.start_log()
    memory.write(0x4000, b"x")
    memory.regions[0].write(PAGE_SIZE, b"y")
    memory.shadows[0].set(0xC_0000, PAGE_SIZE, read_ram=True, write_ram=True)
    assert memory.collect_pages().tolist() == [4, 0xC0, 0x101, 0x102]
    assert memory.collect_pages().tolist() == []
    memory.reset()
    assert {4, 0x101, 0x102} <= set(memory.collect_pages().tolist())
    memory.stop_log()
    assert memory.collect_pages().tolist() == []


def test_pages_that_were_put_away_for_good() -> None:
    """Balloons and holes: what came for them is given back, and what comes later, too."""
    pool = FramePool(MIB)
    stage = staged(pool, 4, 4)
    stage.put(PageEncoder(Counts()).batch(np.arange(4), rows([1, 2, 3, 4])))
    kinds = np.array([FrameState.ABSENT, FrameState.BALLOONED, FrameState.ROM, FrameState.ABSENT], np.uint8)
    placed: list[Any] = []
    loader = SimpleNamespace(place=lambda pages, entries: placed.append((pages.tolist(), entries >> 24)))
    stage.give(loader, kinds, np.array([3]))  # type: ignore[arg-type]
    assert placed[0][0] == [0, 2]
    assert placed[0][1].tolist() == [FrameState.RESIDENT, FrameState.ROM]
    assert pool.used == 2


def test_a_codec_that_there_is_not() -> None:
    payload = bytearray(Batch(np.zeros(0, np.uint32), np.zeros(0, np.uint8), b"").encode())
    payload[0] = 9
    with pytest.raises(MigrationError) as caught:
        decode_batch(bytes(payload))
    assert str(caught.value) == "migration: the other side sent pages that cannot be read"


def test_all_as_it_is() -> None:
    counts = Counts()
    batch = PageEncoder(counts).plain_batch(np.arange(3), rows([1, 0, 1]))
    assert (batch.kinds.tolist(), len(batch.content)) == ([0, 1, 0], 2 * PAGE_SIZE)
    assert (counts.sent, counts.zero) == (2, 1)
