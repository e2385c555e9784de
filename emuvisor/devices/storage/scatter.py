"""Lists of buffers: data that lies in pieces, as preadv(2) and pwritev(2) move it without putting it together."""

import os
from collections.abc import Callable, Sequence

__all__ = ["Buffers", "part", "total_length", "transfer"]

Buffers = Sequence[memoryview]
"""Pieces of bytes (format "B") in order, together the data."""

MOST_BUFFERS = os.sysconf("SC_IOV_MAX")
"""Buffers that one system call takes."""


def total_length(views: Buffers) -> int:
    """Bytes in all of `views`."""
    return sum(map(len, views))


def part(views: Buffers, start: int, end: int) -> list[memoryview]:
    """The bytes from `start` up to `end` of what `views` are together; no copies."""
    pieces = []
    for view in views:
        length = len(view)
        if start < length and end > 0:
            pieces.append(view[max(0, start) : end])
        start -= length
        end -= length
        if end <= 0:
            break
    return pieces


def transfer(call: Callable[[int, Buffers, int], int], fd: int, offset: int, views: Buffers) -> int:
    """Move all of `views` between the file `fd` and memory by `call`, os.preadv or os.pwritev, again where it stops
    early. Returns how many bytes were moved: fewer than there are only when the file ends. Raises OSError."""
    wanted = total_length(views)
    done = 0
    left = views
    while done < wanted:
        moved = call(fd, left if len(left) <= MOST_BUFFERS else left[:MOST_BUFFERS], offset + done)
        if not moved:
            break
        done += moved
        if done < wanted:
            left = part(left, moved, wanted)
    return done
