"""Who may use an image file: one who writes it, or many who read it.

The locks are flock(2)'s: the kernel keeps them, they belong to the open file and vanish with it, however its process
ends, and they bind only programs that ask for them.
"""

import fcntl
import os

from emuvisor.errors import ImageError

__all__ = ["lock_image"]


def lock_image(fd: int, path: str | os.PathLike[str], *, exclusive: bool, kind: str = "disk image") -> None:
    """Lock the open file `fd` until it is closed: for one writer (`exclusive`), or as one of many readers.

    `path` and `kind` are what messages call it. Raises ImageError when somebody else uses the file in a way that
    excludes this, and when the host cannot lock it.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        use = "in use by" if exclusive else "being written by"
        raise ImageError(f"{path}: the {kind} is {use} another guest or program") from error
    except OSError as error:
        raise ImageError(f"{path}: cannot lock the {kind}: {error.strerror}") from error
