"""`emuvisor disk convert`."""

import argparse
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from emuvisor.cli.transfer import transfer_bar
from emuvisor.errors import UsageError
from emuvisor.units import format_size

if TYPE_CHECKING:
    from emuvisor.devices.storage.blockdevice import BlockDevice

__all__ = ["execute"]


def execute(args: argparse.Namespace) -> int:
    """Copy the disk in `args.source` into the new image `args.target`."""
    from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
    from emuvisor.devices.storage.convert import compress_disk, copy_disk, write_image
    from emuvisor.devices.storage.formats import format_of, open_image
    from emuvisor.devices.storage.imagefiles import create_image
    from emuvisor.devices.storage.qcow2.disk import Qcow2Disk

    target: Path = args.target
    form = format_of(target, args.format)
    if args.compress and form == "raw":
        raise UsageError(f"{target}: a raw image cannot be compressed; --format qcow2 can")
    if args.force and target.exists() and target.samefile(args.source):
        raise UsageError(f"{target}: an image cannot be copied over itself")

    with closing(_open_source(args)) as source, transfer_bar(target.name) as show:
        size = source.sectors * SECTOR_SIZE

        def make(path: Path) -> "BlockDevice":
            create_image(
                path,
                size,
                form,
                preallocation=args.preallocation,
                cluster_size=args.cluster_size,
                compression=args.compress or "zlib",
            )
            return open_image(path, form)

        def progress(done: int, total: int) -> None:
            show(done * SECTOR_SIZE, total * SECTOR_SIZE)

        def fill(disk: "BlockDevice") -> None:
            if args.compress:
                assert isinstance(disk, Qcow2Disk)
                compress_disk(source, disk, progress)
            else:
                copy_disk(source, disk, progress)

        write_image(target, make, fill, replace=args.force)
    taken = target.stat().st_blocks * 512
    print(f"{target}: {form}, {format_size(size)}, takes {format_size(taken)}")
    return 0


def _open_source(args: argparse.Namespace) -> "BlockDevice":
    from emuvisor.devices.storage.formats import open_image
    from emuvisor.devices.storage.overlay import OverlayDisk

    source = open_image(args.source, args.from_format, read_only=True)
    if args.overlay is None:
        return source
    try:
        return OverlayDisk(source, args.overlay)
    except BaseException:
        source.close()
        raise
