"""Pages on their way: batches as frames have them, and what need not be sent."""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import lz4.block  # type: ignore[import-untyped]  # it has no stubs
import numpy as np
import zstandard
from numpy.typing import NDArray

from emuvisor.errors import MigrationError
from emuvisor.memory import GuestMemory
from emuvisor.memory.pool import ZERO_FRAME
from emuvisor.memory.stage2 import FRAME_MASK, FRAMED, STATE_SHIFT, STORED, FrameState, in_states
from emuvisor.migration.options import Compression, Counts
from emuvisor.units import PAGE_SIZE

__all__ = [
    "BATCH",
    "Batch",
    "PageEncoder",
    "decode_batch",
    "pages_needed_first",
    "pages_that_hold",
    "read_pages",
]

BATCH = 256
"""Pages in a frame at most."""
_HEAD = struct.Struct("<BHI")
"""How the content is compressed, pages, bytes of content before compression."""
_CODECS: dict[Compression, int] = {"none": 0, "lz4": 1, "zstd": 2}


class PageKind(IntEnum):
    """How a page is told."""

    RAW = 0
    """4096 bytes of content."""
    ZERO = 1
    COPY = 2
    """As another page is at this point: 4 bytes of content are its number."""


_CONTENT = np.array([PAGE_SIZE, 0, 4], np.int64)
"""Bytes of content by kind."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some pages: their numbers, kinds, and content one behind the other."""

    pages: NDArray[np.uint32]
    kinds: NDArray[np.uint8]
    content: bytes

    def encode(self, compression: Compression = "none") -> bytes:
        """As the payload of a frame."""
        content = self.content
        if compression == "lz4":
            content = lz4.block.compress(content, store_size=False)
        elif compression == "zstd":
            content = zstandard.ZstdCompressor(level=1).compress(content)
        if len(content) >= len(self.content):
            compression, content = "none", self.content
        head = _HEAD.pack(_CODECS[compression], len(self.pages), len(self.content))
        return b"".join((head, self.pages.astype("<u4").tobytes(), self.kinds.tobytes(), content))

    def __iter__(self) -> Iterator[tuple[int, PageKind, memoryview]]:
        """Each page's number, kind and content."""
        view = memoryview(self.content)
        ends = np.cumsum(_CONTENT[self.kinds]).tolist()
        start = 0
        for page, kind, end in zip(self.pages.tolist(), self.kinds.tolist(), ends, strict=True):
            yield page, PageKind(kind), view[start:end]
            start = end


def decode_batch(payload: bytes) -> Batch:
    """What `Batch.encode` made `payload` from. Raises MigrationError for anything else."""
    try:
        codec, count, size = _HEAD.unpack_from(payload)
        pages = np.frombuffer(payload, "<u4", count, _HEAD.size).astype(np.uint32)
        kinds = np.frombuffer(payload, np.uint8, count, _HEAD.size + 4 * count)
        packed = payload[_HEAD.size + 5 * count :]
        if count > BATCH or (kinds > max(PageKind)).any() or size != int(_CONTENT[kinds].sum()):
            raise ValueError
        content = _unpack(codec, packed, size)
    except (struct.error, ValueError, zstandard.ZstdError, lz4.block.LZ4BlockError):
        raise MigrationError("migration: the other side sent pages that cannot be read") from None
    return Batch(pages, kinds, content)


def _unpack(codec: int, packed: bytes, size: int) -> bytes:
    """The `size` bytes of content; `size` is at most what a batch can have."""
    if codec == _CODECS["lz4"]:
        content: bytes = lz4.block.decompress(packed, uncompressed_size=size)
    elif codec == _CODECS["zstd"]:
        if zstandard.get_frame_parameters(packed).content_size != size:
            raise ValueError
        content = zstandard.ZstdDecompressor().decompress(packed)
    elif codec == _CODECS["none"]:
        content = packed
    else:
        raise ValueError
    if len(content) != size:
        raise ValueError
    return content


def read_pages(memory: GuestMemory, pages: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The content of `pages` (numbers as `GuestMemory.sets` counts them, ascending), a row for each; what has none is
    zeros. Pages in stores are read where they are, and take no frame. The guest is on no pCPU meanwhile.

    Raises PageLost.
    """
    content = np.zeros((len(pages), PAGE_SIZE), np.uint8)
    at = 0
    for part in memory.sets:
        low, high = np.searchsorted(pages, (at, at + len(part.entries)))
        entries = part.entries[pages[low:high] - at]
        at += len(part.entries)
        framed = low + np.flatnonzero(in_states(entries, FRAMED))
        content[framed] = memory.pool.frames[entries[framed - low] & np.uint32(FRAME_MASK)]
        for index in np.flatnonzero(in_states(entries, STORED)).tolist():
            value = int(entries[index])
            store = memory.stores[FrameState(value >> STATE_SHIFT)]
            store.load(value & FRAME_MASK, memoryview(content[low + index]))
    return content


def pages_that_hold(memory: GuestMemory) -> NDArray[np.int64]:
    """The pages that may hold something else than zeros, ascending."""
    parts, at = [], 0
    for part in memory.sets:
        entries = part.entries
        framed = in_states(entries, FRAMED) & (entries & np.uint32(FRAME_MASK) != ZERO_FRAME)
        parts.append(at + np.flatnonzero(framed | in_states(entries, STORED)))
        at += len(entries)
    return np.concatenate(parts)


def pages_needed_first(memory: GuestMemory) -> NDArray[np.int64]:
    """The pages that cannot be without a frame when a guest begins (see `MemoryLoader.finish`): of devices, ROM, and
    where RAM and ROM have the same addresses. Ascending."""
    parts, at = [], 0
    for number, part in enumerate(memory.sets):
        fixed = in_states(part.entries, (FrameState.ROM,))
        if part.movable or number >= len(memory.slots):
            fixed[:] = True
        for shadow in memory.shadows:
            first = shadow.hidden.first - part.first
            fixed[max(0, first) : max(0, first + len(shadow.hidden.entries))] = True
        parts.append(at + np.flatnonzero(fixed))
        at += len(part.entries)
    return np.concatenate(parts)


def _holds(content: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which rows are not all zeros."""
    return np.asarray(content.view(np.uint64).any(axis=1), np.bool_)


class PageEncoder:
    """Makes batches of pages, and knows what the other side has: zeros at first."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._digests: dict[int, bytes] = {}
        """Of each page that holds something on the other side."""
        self._holders: dict[bytes, int] = {}
        """The page that was last sent with such content."""

    @property
    def known(self) -> NDArray[np.int64]:
        """Pages that hold something on the other side, ascending."""
        return np.sort(np.fromiter(self._digests, np.int64, len(self._digests)))

    def batch(self, pages: NDArray[np.int64], content: NDArray[np.uint8]) -> Batch:
        """What has to be sent so that the other side has `content` (a row each) in `pages`."""
        numbers: list[int] = []
        kinds: list[int] = []
        parts: list[bytes] = []
        filled: list[bool] = _holds(content).tolist()
        for page, row, holds in zip(pages.tolist(), content, filled, strict=True):
            digest = hashlib.blake2b(row, digest_size=16).digest() if holds else b""
            before = self._digests.get(page, b"")
            if digest == before:
                self._counts.unchanged += before != b""
                continue
            kind, part = self._told(digest, row)
            self._counts.resent += before != b"" and kind is PageKind.RAW
            self._remember(page, digest)
            numbers.append(page)
            kinds.append(kind)
            parts.append(part)
        return Batch(np.array(numbers, np.uint32), np.array(kinds, np.uint8), b"".join(parts))

    def _told(self, digest: bytes, row: NDArray[np.uint8]) -> tuple[PageKind, bytes]:
        """How the page is told, and its content."""
        if not digest:
            self._counts.zero += 1
            return PageKind.ZERO, b""
        holder = self._holders.get(digest)
        if holder is not None and self._digests.get(holder) == digest:
            self._counts.copied += 1
            return PageKind.COPY, struct.pack("<I", holder)
        self._counts.sent += 1
        return PageKind.RAW, row.tobytes()

    def _remember(self, page: int, digest: bytes) -> None:
        if digest:
            self._digests[page] = digest
            self._holders[digest] = page
        else:
            del self._digests[page]

    def plain_batch(self, pages: NDArray[np.int64], content: NDArray[np.uint8]) -> Batch:
        """All of `content` as it is: the guest runs on the other side, and nobody knows what other pages hold."""
        filled = _holds(content)
        kinds = np.where(filled, np.uint8(PageKind.RAW), np.uint8(PageKind.ZERO))
        self._counts.sent += int(filled.sum())
        self._counts.zero += int(len(filled) - filled.sum())
        return Batch(pages.astype(np.uint32), kinds, content[filled].tobytes())
