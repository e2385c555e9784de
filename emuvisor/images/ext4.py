"""Makes ext2 and ext4 file systems in image files, from a folder's content, without root."""

from pathlib import Path
from typing import Literal

from emuvisor.images import tools

__all__ = ["BUILD_TIME_S", "ENVIRONMENT", "command", "make"]

BUILD_TIME_S = 1735689600
"""2025-01-01: the time of files in images, so that the same packages give the same bytes."""
ENVIRONMENT = {"SOURCE_DATE_EPOCH": str(BUILD_TIME_S), "E2FSPROGS_FAKE_TIME": str(BUILD_TIME_S)}
FIXED_UUID = "e0a0b0c0-0000-4000-8000-000000000001"


def make(image: Path, *, kind: Literal["ext2", "ext4"], content: Path, offset: int, size: int) -> None:
    """A file system of `size` bytes with the folder `content`, at `offset` in the file `image`.

    Raises HostError.
    """
    tools.run(command(image, kind=kind, content=content, offset=offset, size=size), environment=ENVIRONMENT)


def command(
    image: Path, *, kind: Literal["ext2", "ext4"], content: Path, offset: int, size: int
) -> list[str]:
    """The command of `make`, which wants `ENVIRONMENT`."""
    options = f"offset={offset},hash_seed={FIXED_UUID},root_owner=0:0,lazy_itable_init=0"
    return [
        *("mke2fs", "-q", "-F", "-t", kind, "-b", "4096", "-U", FIXED_UUID, "-E", options),
        *("-d", str(content), str(image), f"{size // 1024}k"),
    ]
