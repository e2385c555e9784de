"""Checking an image, and repairing what can be: its reference counts."""

import os
from dataclasses import dataclass

import numpy as np

from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.qcow2.entries import decode_table
from emuvisor.devices.storage.qcow2.header import CORRUPT, DIRTY, Header
from emuvisor.devices.storage.qcow2.image import read_header
from emuvisor.devices.storage.qcow2.rebuild import rebuild_refcounts
from emuvisor.devices.storage.qcow2.scan import Scan
from emuvisor.devices.storage.qcow2.widths import unpack
from emuvisor.errors import ImageError

__all__ = ["CheckReport", "check"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What `check` found. Clusters are counted; `messages` has the first problems as sentences, leaks apart."""

    path: str
    corruptions: int
    """Wrong refcounts, overlaps, entries that cannot be right: what can cost data."""
    leaks: int
    """Clusters that the file has and nothing uses: they cost space only."""
    messages: tuple[str, ...]
    allocated_clusters: int
    """Clusters of the virtual disk that the image has."""
    compressed_clusters: int
    total_clusters: int
    """Clusters of the virtual disk."""
    repaired: bool
    """Whether something was repaired; the numbers are those of afterwards."""

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.corruptions and not self.leaks


def check(path: str | os.PathLike[str], repair: bool = False) -> CheckReport:
    """Check the qcow2 image at `path` (its backing file is not looked at); with `repair`, make the reference counts
    right and give leaked clusters back to the host.

    Raises ImageError for a file that is no qcow2 image, is in use, has snapshots or bitmaps that cannot be right, or
    cannot be read or written.
    """
    file = ImageFile(path, read_only=not repair, kind="qcow2 image")
    try:
        header = read_header(file)
        report = _look(file, header, repaired=False)
        if repair and not (report.clean and not header.incompatible_features & (DIRTY | CORRUPT)):
            report = _look(file, rebuild_refcounts(file, header), repaired=True)
        return report
    except OSError as error:
        raise ImageError(f"{path}: cannot check the qcow2 image: {error.strerror}") from error
    finally:
        file.close()


def _look(file: ImageFile, header: Header, *, repaired: bool) -> CheckReport:
    scan = Scan(file, header)
    problems = scan.problems
    blocks = _count_refcount_structure(file, header, scan)
    scan.overlaps()
    flags = scan.wrong_copied_flags(repair=False)
    if flags:
        problems.add(f"{flags} entries have a wrong COPIED flag", flags)
    leaks = _compare(file, header, scan, blocks)
    if header.incompatible_features & CORRUPT:
        problems.add("it is marked as corrupt")
    return CheckReport(
        path=str(file.path),
        corruptions=problems.count,
        leaks=leaks,
        messages=tuple(problems.messages),
        allocated_clusters=scan.data_clusters,
        compressed_clusters=scan.compressed_clusters,
        total_clusters=header.clusters,
        repaired=repaired,
    )


def _count_refcount_structure(file: ImageFile, header: Header, scan: Scan) -> dict[int, int]:
    """Count the refcount table and its blocks as uses; returns the offsets of the blocks that can be right."""
    size = header.cluster_size
    offset, clusters = header.refcount_table_offset, header.refcount_table_clusters
    scan.references.add_run(offset // size, clusters)
    table = np.asarray(decode_table(file.read(offset, clusters * size)))
    blocks = {}
    for number in np.flatnonzero(table).tolist():
        place = int(table[number])
        if place % size or place + size > file.size:
            scan.problems.add(f"entry {number} of the refcount table is misaligned or outside the file")
        else:
            blocks[number] = place
            scan.references.add_run(place // size, 1)
    return blocks


def _compare(file: ImageFile, header: Header, scan: Scan, blocks: dict[int, int]) -> int:
    """Compare the refcounts in the file with the uses that were found; returns how many clusters are leaked."""
    per_block = header.refcounts_per_block
    leaks = 0
    uncounted = np.setdiff1d(np.unique(scan.references.used() // per_block), np.fromiter(blocks, np.int64))
    for number in uncounted.tolist():
        uncounted_uses = np.count_nonzero(
            scan.references.between(number * per_block, (number + 1) * per_block)
        )
        scan.problems.add(
            f"refcount block {number} is missing: {uncounted_uses} used clusters are not counted",
            int(uncounted_uses),
        )
    seen: set[int] = set()
    for number, place in blocks.items():
        if place in seen:
            continue
        seen.add(place)
        stored = unpack(file.read(place, header.cluster_size), header.refcount_order).astype(np.uint64)
        uses = scan.references.between(number * per_block, (number + 1) * per_block).astype(np.uint64)
        leaks += int(np.count_nonzero(stored > uses))
        for index in np.flatnonzero(stored < uses).tolist():
            cluster = number * per_block + index
            scan.problems.add(
                f"cluster {cluster} is used {uses[index]} times; its refcount is {stored[index]}"
            )
    return leaks
