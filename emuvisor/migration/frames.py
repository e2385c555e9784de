"""The frames of the migration protocol: a length, a kind, and as many bytes.

Everything that a peer sends is checked here for its size before it is kept, and for its form before it is used.
docs/migration.md has the whole format.
"""

import struct
from enum import IntEnum
from typing import Any

import zstandard

from emuvisor.errors import MigrationError, SnapshotError
from emuvisor.store.plain import decode, encode
from emuvisor.units import KIB, MIB

__all__ = [
    "HEADER",
    "MAX_GREETING",
    "FrameKind",
    "Message",
    "check_header",
    "message_frame",
    "parse_message",
    "words_of",
]

HEADER = struct.Struct(">IB")
"""Bytes that follow, and their kind."""
MAX_GREETING = 64 * KIB
"""Bytes of a frame from a peer that has not shown who it is."""
MAX_MESSAGE = 64 * MIB
"""Bytes of a message that has been unpacked."""
MAX_ITEMS = 1 << 20
"""In its lists and dicts, or nearly: as Python's objects, small ones take thirty times what they take as text."""
MAX_WORDS = 1000
"""Characters of a reason that are believed."""
PACKED_FROM = 4 * KIB
"""Longer messages are compressed."""

Message = dict[str, Any]
"""Plain data with its kind as "type"."""


class FrameKind(IntEnum):
    """What a frame holds."""

    MESSAGE = 1
    """JSON (`emuvisor.store.plain`)."""
    PACKED = 2
    """A message, compressed with zstd; the content size is in its frame header."""
    PAGES = 3
    DISK = 4


_LONGEST = {
    FrameKind.MESSAGE: MAX_GREETING,
    FrameKind.PACKED: 16 * MIB,
    FrameKind.PAGES: 2 * MIB,
    FrameKind.DISK: 2 * MIB,
}


def check_header(header: bytes, known: bool) -> tuple[FrameKind, int]:
    """The kind and the length of the frame that begins with `header`. Raises MigrationError for one that must not be;
    a peer that is not yet `known` may send plain messages only."""
    length, kind = HEADER.unpack(header)
    if kind not in _LONGEST or (not known and kind != FrameKind.MESSAGE):
        raise MigrationError(f"migration: the other side sent a frame of kind {kind}, which cannot be here")
    if length > _LONGEST[FrameKind(kind)]:
        raise MigrationError(
            f"migration: the other side sent a frame of {length} bytes; {_LONGEST[FrameKind(kind)]} are allowed"
        )
    return FrameKind(kind), length


def frame(kind: FrameKind, payload: bytes) -> bytes:
    """`payload` as it goes over the line."""
    return HEADER.pack(len(payload), kind) + payload


def message_frame(message: Message) -> bytes:
    """`message` as it goes over the line."""
    text = encode(message)
    if len(text) < PACKED_FROM:
        return frame(FrameKind.MESSAGE, text)
    return frame(FrameKind.PACKED, zstandard.ZstdCompressor(level=1).compress(text))


def words_of(message: Message) -> str:
    """The reason that the other side gives, fit to be printed."""
    words = str(message.get("reason"))[:MAX_WORDS]
    return "".join(letter if letter.isprintable() else "?" for letter in words)


def parse_message(kind: FrameKind, payload: bytes) -> Message:
    """The message in a frame. Raises MigrationError for anything else."""
    try:
        if kind is FrameKind.PACKED:
            size = zstandard.get_frame_parameters(payload).content_size
            if not 0 < size <= MAX_MESSAGE:
                raise MigrationError(
                    f"migration: the other side sent a message of {size} bytes; {MAX_MESSAGE} are allowed"
                )
            payload = zstandard.ZstdDecompressor().decompress(payload, max_output_size=MAX_MESSAGE)
        elif kind is not FrameKind.MESSAGE:
            raise MigrationError(f"migration: the other side sent {kind.name.lower()} in place of a message")
        items = sum(payload.count(mark) for mark in (b",", b"[", b"{"))
        if items > MAX_ITEMS:
            raise MigrationError(
                f"migration: the other side sent a message of {items} items; {MAX_ITEMS} are allowed"
            )
        message = decode(payload)
    except (zstandard.ZstdError, SnapshotError) as error:
        raise MigrationError(
            f"migration: the other side sent a message that cannot be read: {error}"
        ) from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise MigrationError("migration: the other side sent a message without a type")
    return message
