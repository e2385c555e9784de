"""Finding and opening the disk below an image.

The name and format are taken from the image's header and nothing else: a file's content is never probed, because a
guest writes it.
"""

import os
from pathlib import Path

from emuvisor.devices.storage.qcow2.header import Header
from emuvisor.errors import ImageError

__all__ = ["FORMATS", "MAX_CHAIN", "Chain", "backing_path", "check_backing_format"]

FORMATS = ("raw", "qcow2")
MAX_CHAIN = 64
"""Most images on top of one another."""


class Chain:
    """The images that are being opened, from the top down; each may be there once."""

    def __init__(self) -> None:
        self._files: list[tuple[int, int]] = []

    def enter(self, path: str | os.PathLike[str]) -> None:
        """The next is at `path`. Raises ImageError when it is there already, or there are too many."""
        try:
            status = Path(path).stat()
        except OSError as error:
            raise ImageError(f"{path}: cannot open the disk image: {error.strerror}") from error
        identity = status.st_dev, status.st_ino
        if identity in self._files:
            raise ImageError(f"{path}: the disk image is its own backing file")
        if len(self._files) == MAX_CHAIN:
            raise ImageError(
                f"{path}: more than {MAX_CHAIN} disk images are backing files of one another; merge some"
            )
        self._files.append(identity)


def check_backing_format(name: str, backing_format: str | None) -> None:
    """Refuse the format of a backing file of the image `name`. Raises ImageError."""
    if backing_format is None:
        raise ImageError(
            f"{name}: the qcow2 image does not say in which format its backing file is; "
            "set it with: qemu-img rebase -u -F raw|qcow2 -b BACKING IMAGE"
        )
    if backing_format not in FORMATS:
        raise ImageError(
            f"{name}: the backing file has the format {backing_format!r}; {' and '.join(FORMATS)} are supported"
        )


def backing_path(image: str | os.PathLike[str], header: Header) -> Path | None:
    """Where the backing file of `image` is, if it has one: relative names begin at the image's folder. Raises
    ImageError for a name that means something else to QEMU than a file, and for a format that is not supported."""
    name = header.backing_file
    if name is None:
        return None
    if ":" in name.split("/", 1)[0]:
        raise ImageError(
            f"{image}: the backing file {name!r} is not a plain file name, which alone is supported"
        )
    check_backing_format(str(image), header.backing_format)
    return Path(image).parent / name
