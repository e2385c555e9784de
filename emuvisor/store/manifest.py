"""The file of a snapshot: what it is, the devices' states, and where each page of memory is.

    header     "emuvsnap", version (u32), bytes of the metadata (u32) and of the states (u64), packs (u32), pages (u32)
    metadata   JSON: id, name, ancestors, created, comment, disks, emuvisor, bytes
    states     plain.py's JSON, one zstd frame
    packs      16 bytes for each: the names of those that the pages are in
    frames     u32 for each page: its guest frame number, ascending
    places     u32 for each page: pack (number in this file) times 2^16, and the page's number in it
    hash       BLAKE2b-256 of all before it

All numbers are little-endian. Frames that are not named are zeros.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import numpy as np
import zstandard
from numpy.typing import NDArray

from emuvisor.errors import SnapshotError
from emuvisor.store import plain
from emuvisor.store.pack import HASH_SIZE, UID_SIZE
from emuvisor.store.packs import PLACE_BITS
from emuvisor.units import GIB, MIB

__all__ = ["SUFFIX", "Manifest", "Metadata", "compress_states", "digest_of", "parse"]

SUFFIX = ".snapshot"
VERSION = 1
MAX_PACKS = 1 << 16
MAX_STATES = 1 * GIB
"""Bytes of the states, expanded: what a damaged file can make the host take at most."""
_HEADER = struct.Struct("<8sIIQII")
_MAGIC = b"emuvsnap"
MAX_METADATA = 1 * MIB
"""Bytes of the metadata: a comment, ids of ancestors, names of disks."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What people want to know of a snapshot."""

    id: str
    """128 random bits in hexadecimal: it stays when guests get other names."""
    name: str
    created: float
    """Seconds since 1970."""
    comment: str = ""
    ancestors: tuple[str, ...] = ()
    """The ids of its parent, its parent's parent and so on: the tree holds together when one of them is deleted."""
    disks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By drive, the files among the store's disks that its content is in: overlays, the upper ones first."""
    emuvisor: str = ""
    """The version that wrote it."""
    bytes: int = 0
    """Bytes that its pages take in packs, those that it shares with others too."""

    @classmethod
    def from_plain(cls, data: Any) -> Self:
        """What `as_plain` made `data` from. Raises TypeError for anything else: it may come from a file."""
        found = cls(**data)
        texts = (found.id, found.name, found.comment, found.emuvisor)
        if not (
            all(isinstance(text, str) for text in texts)
            and type(found.created) in (int, float)
            and type(found.bytes) is int
            and isinstance(found.disks, dict)
        ):
            raise TypeError("metadata of a wrong kind")
        disks = {drive: _strings(layers) for drive, layers in found.disks.items()}
        return replace(found, ancestors=_strings(found.ancestors), disks=disks)

    def as_plain(self) -> dict[str, Any]:
        """It as plain data."""
        disks = {drive: list(layers) for drive, layers in self.disks.items()}
        return {**asdict(self), "ancestors": list(self.ancestors), "disks": disks}


def _strings(items: object) -> tuple[str, ...]:
    if not (isinstance(items, list) and all(isinstance(item, str) for item in items)):
        raise TypeError("no list of strings")
    return tuple(items)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A snapshot's file, read. `frames` and `places` belong together."""

    metadata: Metadata
    states: bytes
    """Compressed."""
    packs: Sequence[str]
    frames: NDArray[np.uint32]
    places: NDArray[np.uint32]

    def encode(self) -> bytes:
        """The whole file. Raises SnapshotError for one in more than 65,536 packs, or with too much metadata."""
        if len(self.packs) > MAX_PACKS:
            raise SnapshotError(
                f"snapshot {self.metadata.name!r} is in {len(self.packs)} packs; it can be in {MAX_PACKS}"
            )
        metadata = plain.encode(self.metadata.as_plain())
        if len(metadata) > MAX_METADATA:
            raise SnapshotError(
                f"snapshot {self.metadata.name!r} has metadata of {len(metadata)} bytes; it can have {MAX_METADATA}"
            )
        sizes = (len(metadata), len(self.states), len(self.packs), len(self.frames))
        parts = (
            _HEADER.pack(_MAGIC, VERSION, *sizes),
            metadata,
            self.states,
            b"".join(bytes.fromhex(uid) for uid in self.packs),
            self.frames.astype("<u4").tobytes(),
            self.places.astype("<u4").tobytes(),
        )
        whole = b"".join(parts)
        return whole + blake2b(whole, digest_size=HASH_SIZE).digest()

    def expand_states(self) -> Any:
        """The devices' states. Raises SnapshotError when they are damaged."""
        try:
            size = zstandard.frame_content_size(self.states)
            if not 0 <= size <= MAX_STATES:
                raise SnapshotError(f"saved states of {size} bytes are too long; they can have {MAX_STATES}")
            return plain.decode(zstandard.ZstdDecompressor().decompress(self.states))
        except zstandard.ZstdError as error:
            raise SnapshotError(f"saved states are damaged: {error}") from None


def compress_states(states: Any) -> bytes:
    """What `Manifest.states` is for `states`. Raises SnapshotError for what is not plain data."""
    return zstandard.ZstdCompressor(level=3).compress(plain.encode(states))


def digest_of(data: bytes) -> bytes:
    """The hash at the end of a snapshot's file: which one it is."""
    return data[-HASH_SIZE:]


def parse(path: Path, data: bytes) -> Manifest:
    """A manifest from the content `data` of the file `path`. Raises SnapshotError when it is damaged, or of another
    version."""
    magic = data[: len(_MAGIC)]
    if magic != _MAGIC:
        raise SnapshotError(f"{path} is {'damaged: it is empty' if not data else 'no snapshot'}")
    if len(data) < _HEADER.size + HASH_SIZE:
        raise SnapshotError(f"{path} is damaged: it is cut")
    _, version, metadata_size, states_size, packs, pages = _HEADER.unpack_from(data)
    if version != VERSION:
        raise SnapshotError(f"{path} is a snapshot of version {version}; this emuvisor reads {VERSION}")
    body = memoryview(data)[:-HASH_SIZE]
    at = np.cumsum(
        [_HEADER.size, metadata_size, states_size, packs * UID_SIZE, pages * 4, pages * 4], dtype=object
    )
    if at[-1] != len(body):
        raise SnapshotError(
            f"{path} is damaged: it has {len(data)} bytes and should have {at[-1] + HASH_SIZE}"
        )
    if blake2b(body, digest_size=HASH_SIZE).digest() != digest_of(data):
        raise SnapshotError(f"{path} is damaged: its content does not match its hash")
    uids = bytes(body[at[2] : at[3]])
    frames = np.frombuffer(body, "<u4", pages, at[3])
    places = np.frombuffer(body, "<u4", pages, at[4])
    if pages and ((np.diff(frames.astype(np.int64)) <= 0).any() or places.max() >> PLACE_BITS >= packs):
        raise SnapshotError(f"{path} is damaged: its map of pages is of no memory")
    return Manifest(
        _metadata(path, bytes(body[at[0] : at[1]])),
        bytes(body[at[1] : at[2]]),
        [uids[i : i + UID_SIZE].hex() for i in range(0, len(uids), UID_SIZE)],
        frames,
        places,
    )


def _metadata(path: Path, text: bytes) -> Metadata:
    if len(text) > MAX_METADATA:
        raise SnapshotError(f"{path} is damaged: metadata of {len(text)} bytes")
    try:
        return Metadata.from_plain(plain.decode(text))
    except (TypeError, SnapshotError):
        raise SnapshotError(f"{path} is damaged: its metadata cannot be read") from None
