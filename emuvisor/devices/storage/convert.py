"""Copies one disk into another: what reads as zeros stays unwritten, and so takes no space in a new image."""

import os
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDevice
from emuvisor.devices.storage.extents import aligned_extents, data_extents, nonzero_runs
from emuvisor.devices.storage.imagefile import ImageFile, sync_directory
from emuvisor.errors import ImageError
from emuvisor.units import KIB, MIB

__all__ = ["CompressedTarget", "Progress", "compress_disk", "copy_disk", "write_image"]

CHUNK = 2 * MIB
"""Read at once."""
ZERO_GRANULE = 4 * KIB
"""The smallest run of zeros that is left out: a block of most file systems."""

Progress = Callable[[int, int], None]
"""Called with how many sectors are done, and how many there are."""

Disk = TypeVar("Disk", bound=BlockDevice)


class CompressedTarget(BlockDevice, Protocol):
    """A disk whose clusters can be stored compressed."""

    @property
    def cluster_size(self) -> int:
        """Bytes in a cluster."""
        ...

    def pack(self, data: bytes) -> bytes:
        """A cluster's content compressed. Any thread may call it."""
        ...

    def write_compressed(self, cluster: int, data: bytes, packed: bytes) -> None:
        """Store `data`, which is all of a cluster (of the disk's last one, what the disk has of it), compressed if that
        makes it smaller; `packed` is what `pack` made of it. Raises OSError."""
        ...


def copy_disk(
    source: BlockDevice, target: BlockDevice, progress: Progress = lambda _done, _all: None
) -> None:
    """Write what `source` has into `target`, which has at least as many sectors and reads as zeros.

    `target` is not flushed. Raises OSError when it cannot be written, ImageError when `source` cannot be read.
    """
    buffer = memoryview(bytearray(CHUNK))
    for lba, count in _pieces(source, ZERO_GRANULE // SECTOR_SIZE, CHUNK // SECTOR_SIZE):
        progress(lba, source.sectors)
        data = buffer[: count * SECTOR_SIZE]
        with _reading(source):
            source.read_into(lba, [data])
        for start, end in nonzero_runs(data, ZERO_GRANULE):
            target.write_from(lba + start // SECTOR_SIZE, [data[start:end]])
    progress(source.sectors, source.sectors)


def compress_disk(
    source: BlockDevice, target: CompressedTarget, progress: Progress = lambda _done, _all: None
) -> None:
    """As `copy_disk`, into compressed clusters; what does not become shorter is stored as it is.

    Threads compress while this one reads and writes: zlib and zstd let go of the interpreter.
    """
    threads = os.cpu_count() or 1
    cluster = target.cluster_size // SECTOR_SIZE
    waiting: deque[tuple[int, bytes, Future[bytes]]] = deque()

    def store() -> None:
        number, data, future = waiting.popleft()
        target.write_compressed(number, data, future.result())

    with ThreadPoolExecutor(threads) as pool:
        for lba, count in _pieces(source, cluster, max(cluster, CHUNK // SECTOR_SIZE)):
            progress(lba, source.sectors)
            with _reading(source):
                whole = source.read(lba, count)
            for start, end in nonzero_runs(whole, target.cluster_size):
                for offset in range(start, end, target.cluster_size):
                    data = whole[offset : min(offset + target.cluster_size, end)]
                    waiting.append(
                        (lba // cluster + offset // target.cluster_size, data, pool.submit(target.pack, data))
                    )
            while len(waiting) > 2 * threads * (CHUNK // target.cluster_size + 1):
                store()
        while waiting:
            store()
    progress(source.sectors, source.sectors)


def _pieces(source: BlockDevice, unit: int, most: int) -> Iterator[tuple[int, int]]:
    """(lba, count) of all sectors that may have data, in whole units, `most` at a time; all in sectors."""
    with _reading(source):
        extents = list(aligned_extents(data_extents(source, 0, source.sectors), unit, source.sectors))
    for start, end in extents:
        for lba in range(start, end, most):
            yield lba, min(most, end - lba)


@contextmanager
def _reading(source: BlockDevice) -> Iterator[None]:
    """Tells the source's errors, which become ImageError, from the target's."""
    try:
        yield
    except OSError as error:
        raise ImageError(f"{source.name}: cannot read the disk image: {error.strerror}") from error


def write_image(
    path: Path, make: Callable[[Path], Disk], fill: Callable[[Disk], None], *, replace: bool = False
) -> None:
    """An image at `path`, complete on stable storage or not there at all.

    `make` makes an empty image at the path that it is given and opens it, `fill` writes its content. Until both are
    done the file has another name in the same folder; when something fails, it is removed. With `replace` an older
    file `path` stays until then, and must not be in use. Raises ImageError, also when the host is full.
    """
    older: ImageFile | None = None
    if replace and path.exists():
        if not path.is_file():
            raise ImageError(f"{path}: only a regular file can be replaced")
        older = ImageFile(path, read_only=False)  # holds its lock meanwhile
    elif os.path.lexists(path):
        raise ImageError(f"{path}: the file exists already")
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        disk = make(unfinished)
        try:
            fill(disk)
            disk.flush()
        finally:
            disk.close()
        unfinished.replace(path)
        sync_directory(path)
    except OSError as error:
        raise ImageError(f"{path}: cannot write the image: {error.strerror}") from error
    except ImageError as error:
        raise ImageError(str(error).replace(str(unfinished), str(path))) from error
    finally:
        unfinished.unlink(missing_ok=True)
        if older is not None:
            older.close()
