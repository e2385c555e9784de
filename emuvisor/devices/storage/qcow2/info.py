"""What an image says of itself."""

import os
from dataclasses import dataclass

from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.qcow2.header import AUTOCLEAR, COMPATIBLE, CORRUPT, DIRTY, INCOMPATIBLE
from emuvisor.devices.storage.qcow2.image import read_header
from emuvisor.devices.storage.qcow2.snapshots import Snapshot, read_snapshots
from emuvisor.errors import ImageError

__all__ = ["Qcow2Info", "info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Qcow2Info:
    """A qcow2 image. Sizes are in bytes."""

    path: str
    version: int
    size: int
    """Of the virtual disk."""
    file_size: int
    allocated: int
    """What the file takes on the host's file system."""
    cluster_size: int
    refcount_bits: int
    compression: str
    backing_file: str | None
    """As the image names it."""
    backing_format: str | None
    dirty: bool
    """Its refcounts may be out of date; they are made anew when it is opened for writing."""
    corrupt: bool
    features: tuple[str, ...]
    """Names of the features that are set."""
    snapshots: tuple[Snapshot, ...]


def info(path: str | os.PathLike[str]) -> Qcow2Info:
    """Look at the qcow2 image at `path`, also at one that is in use for reading. Raises ImageError."""
    file = ImageFile(path, read_only=True, kind="qcow2 image")
    try:
        header = read_header(file)
        masks = {
            INCOMPATIBLE: header.incompatible_features,
            COMPATIBLE: header.compatible_features,
            AUTOCLEAR: header.autoclear_features,
        }
        names = header.feature_names()
        features = tuple(
            names.get((kind, bit), f"unknown feature {kind}.{bit}")
            for kind, mask in masks.items()
            for bit in range(mask.bit_length())
            if mask >> bit & 1
        )
        return Qcow2Info(
            path=str(path),
            version=header.version,
            size=header.size,
            file_size=file.size,
            allocated=file.allocated,
            cluster_size=header.cluster_size,
            refcount_bits=header.refcount_bits,
            compression=header.compression,
            backing_file=header.backing_file,
            backing_format=header.backing_format,
            dirty=bool(header.incompatible_features & DIRTY),
            corrupt=bool(header.incompatible_features & CORRUPT),
            features=features,
            snapshots=tuple(read_snapshots(file, header)),
        )
    except OSError as error:
        raise ImageError(f"{path}: cannot read the qcow2 image: {error.strerror}") from error
    finally:
        file.close()
