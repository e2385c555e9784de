"""A file of pages: each one compressed, with its hash. It is written once, and read by number of page.

    header   "emuvpack", version (u32), 4 bytes of 0, 16 random bytes that name the pack
    pages    one behind the other, each one zstd frame, or 4096 bytes as they are when zstd gains nothing
    ends     u32 for each page: where it ends, counted from the end of the header
    hashes   32 bytes for each page
    footer   number of pages (u32), 4 bytes of 0, BLAKE2b-256 of the header, ends and hashes, "emuvpend"

All numbers are little-endian. A page of no bytes is one that was deleted; the others keep their numbers.
"""

import os
import struct
import threading
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import numpy as np
import zstandard
from numpy.typing import NDArray

from emuvisor.errors import PageLost, SnapshotError
from emuvisor.store.files import TEMPORARY, HostFiles
from emuvisor.units import MIB, PAGE_SIZE

__all__ = [
    "HASH_SIZE",
    "MAX_PAGES",
    "SUFFIX",
    "UID_SIZE",
    "Hashes",
    "Pack",
    "PackWriter",
    "hash_page",
    "new_uid",
    "rewrite",
]

SUFFIX = ".pack"
VERSION = 1
HASH_SIZE = 32
UID_SIZE = 16
MAX_PAGES = 16384
"""Pages of a pack at most: 64 MiB of memory. Less to write again when most of it is dead, more files when smaller."""
LEVEL = -3
"""zstd's level. On pages of Debian guests 0.7 GB/s; level 1 saves a fifth of the space at a third of the speed."""
_HEADER = struct.Struct("<8sI4x16s")
_FOOTER = struct.Struct("<I4x32s8s")
_MAGIC = b"emuvpack"
_END = b"emuvpend"
_ENTRY = 4 + HASH_SIZE
_WRITE_BYTES = 4 * MIB

Hashes = NDArray[np.uint8]
"""32 bytes in each row."""


def hash_page(page: memoryview | bytes) -> bytes:
    """BLAKE2b-256 of a page's content: what the store knows it by."""
    return blake2b(page, digest_size=HASH_SIZE).digest()


def new_uid() -> str:
    """A name for a pack or snapshot that no other one has: 128 random bits in hexadecimal."""
    return os.urandom(UID_SIZE).hex()


class Pack:
    """The pack in the file `path`, open for reading by any number of threads.

    Raises SnapshotError when it is damaged or of another version, OSError when it cannot be read. Nothing is mapped
    into memory: a file that is cut meanwhile is an error then, not a SIGBUS.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._local = threading.local()
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._fd = fd
        self.size = os.fstat(fd).st_size
        """Bytes of the file."""
        self._read_table()

    def __del__(self) -> None:
        # By the last thread that reads it: a descriptor that is closed under a reader might be another file's then.
        if self._fd >= 0:
            os.close(self._fd)

    def _read_table(self) -> None:
        if self.size < _HEADER.size + _FOOTER.size:
            raise self._damaged("it is cut")
        header = os.pread(self._fd, _HEADER.size, 0)
        magic, version, uid = _HEADER.unpack(header)
        if magic != _MAGIC:
            raise self._damaged("it is no pack")
        if version != VERSION:
            raise SnapshotError(f"{self.path} is a pack of version {version}; this emuvisor reads {VERSION}")
        count, digest, end = _FOOTER.unpack(os.pread(self._fd, _FOOTER.size, self.size - _FOOTER.size))
        start = self.size - _FOOTER.size - count * _ENTRY
        if end != _END or count > MAX_PAGES or start < _HEADER.size:
            raise self._damaged("it is cut")
        table = os.pread(self._fd, count * _ENTRY, start)
        if blake2b(header + table, digest_size=HASH_SIZE).digest() != digest:
            raise self._damaged("its table does not match its hash")
        if uid.hex() != self.path.stem:
            raise self._damaged(f"it is pack {uid.hex()}")
        self.count = int(count)
        """Pages, deleted ones among them."""
        self.hashes: Hashes = np.frombuffer(table, np.uint8, offset=count * 4).reshape(count, HASH_SIZE)
        ends = np.zeros(count + 1, np.int64)
        ends[1:] = np.frombuffer(table, np.uint32, count)
        self.lengths: NDArray[np.int64] = np.diff(ends)
        """Bytes of each page in the file; 0 of a deleted one."""
        self._starts = ends[:-1] + _HEADER.size
        if ends[-1] + _HEADER.size != start or (self.lengths < 0).any() or (self.lengths > PAGE_SIZE).any():
            raise self._damaged("its table is of no pack")

    def _damaged(self, why: str) -> SnapshotError:
        return SnapshotError(f"{self.path} is damaged: {why}")

    @property
    def uid(self) -> str:
        """Its name."""
        return self.path.stem

    def read(self, index: int, into: memoryview) -> None:
        """Put page `index` into the 4096 bytes of `into`. Raises PageLost when it is not what was stored."""
        try:
            page = self._expand(self.stored(index))
        except (OSError, zstandard.ZstdError) as error:
            raise PageLost(f"page {index} of {self.path} cannot be read: {error}") from None
        if len(page) != PAGE_SIZE:
            raise PageLost(f"page {index} of {self.path} has {len(page)} bytes; a page has {PAGE_SIZE}")
        if hash_page(page) != self.hashes[index].tobytes():
            raise PageLost(f"page {index} of {self.path} is damaged: its content does not match its hash")
        into[:] = page

    def stored(self, index: int) -> bytes:
        """Page `index` as it is in the file. Raises OSError, and PageLost when there is no such page."""
        length = int(self.lengths[index]) if index < self.count else 0
        if not length:
            raise PageLost(f"{self.path} has no page {index}")
        return os.pread(self._fd, length, int(self._starts[index]))

    def _expand(self, data: bytes) -> bytes:
        if len(data) == PAGE_SIZE:
            return data
        if (
            zstandard.frame_content_size(data) > PAGE_SIZE
        ):  # so much would be taken from the host before it is known
            raise zstandard.ZstdError("it would be longer than a page")
        local = self._local
        if not hasattr(local, "decompressor"):
            local.decompressor = zstandard.ZstdDecompressor()
        return bytes(local.decompressor.decompress(data, max_output_size=PAGE_SIZE))


class PackWriter:
    """A new pack in `folder`. It is there, whole and on the disk, after `seal`."""

    def __init__(self, folder: Path, files: HostFiles, uid: str | None = None) -> None:
        self.uid = uid or new_uid()
        self.path = folder / (self.uid + SUFFIX)
        self._new = self.path.with_name(self.path.name + TEMPORARY)
        self._files = files
        self._header = _HEADER.pack(_MAGIC, VERSION, bytes.fromhex(self.uid))
        self._waiting: list[bytes] = [self._header]
        self._waiting_bytes = 0
        self._begun = False
        """The file is this writer's."""
        self._ends: list[int] = []
        self._hashes: list[bytes] = []
        # Without the size of the content in each frame: two bytes a page, and it is known anyway.
        self._compress = zstandard.ZstdCompressor(level=LEVEL, write_content_size=False).compress

    @property
    def count(self) -> int:
        """Pages added."""
        return len(self._ends)

    @property
    def data_bytes(self) -> int:
        """Bytes of the pages in the file."""
        return self._ends[-1] if self._ends else 0

    def add(self, digest: bytes, page: memoryview | bytes) -> int:
        """Add a page of 4096 bytes with the hash `digest`; returns its length in the file. Raises OSError."""
        data = self._compress(page)
        self.add_stored(digest, data if len(data) < PAGE_SIZE else bytes(page))
        return min(len(data), PAGE_SIZE)

    def add_stored(self, digest: bytes, data: bytes) -> None:
        """Add a page as it is to be in the file; without bytes, one that is deleted. Raises OSError."""
        self._hashes.append(digest)
        self._ends.append(self.data_bytes + len(data))
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= _WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._begun and self._new.exists():  # of an attempt that the host refused
            self._files.unlink(self._new)
        self._begun = True
        self._files.append(self._new, b"".join(self._waiting))
        self._waiting.clear()
        self._waiting_bytes = 0

    def seal(self) -> None:
        """Write the table, and give the file its name. Raises OSError."""
        table = np.array(self._ends, np.uint32).tobytes() + b"".join(self._hashes)
        digest = blake2b(self._header + table, digest_size=HASH_SIZE).digest()
        self._waiting += [table, _FOOTER.pack(self.count, digest, _END)]
        self._flush()
        self._files.sync(self._new)
        self._files.rename(self._new, self.path)
        self._files.sync_folder(self.path.parent)

    def abandon(self) -> None:
        """Delete what was written. Raises OSError."""
        if self._new.exists():
            self._files.unlink(self._new)


def rewrite(pack: Pack, keep: Iterable[bool], files: HostFiles) -> int:
    """Put a pack in the place of `pack` that has only the pages to `keep`, under the same numbers; returns the bytes
    gained. Raises OSError."""
    writer = PackWriter(pack.path.parent, files, pack.uid)
    for index, kept in enumerate(keep):
        data = pack.stored(index) if kept and pack.lengths[index] else b""
        writer.add_stored(pack.hashes[index].tobytes() if data else bytes(HASH_SIZE), data)
    writer.seal()
    return pack.size - pack.path.stat().st_size
