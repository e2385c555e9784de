"""One request as the operations see it, and what they say about themselves."""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from emuvisor.devices.virtio.fs.handles import Handles
from emuvisor.devices.virtio.fs.inodes import Inodes
from emuvisor.devices.virtio.fs.protocol import InHeader
from emuvisor.devices.virtio.fs.refusal import refusal

__all__ = ["MAX_WRITE", "OFFSET_MAX", "Message", "Operation", "Request", "Share", "file_offset"]

MAX_WRITE = 1024 * 1024
"""Bytes of data that one READ or WRITE moves."""
OFFSET_MAX = 2**63 - 1
"""The highest position in a file (loff_t)."""


class Message(Protocol):
    """Where a request lies and where its reply goes; a virtqueue's Chain is one."""

    @property
    def readable_length(self) -> int:
        """Bytes of the request."""
        ...

    @property
    def writable_length(self) -> int:
        """Room for the reply in bytes."""
        ...

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of the request; fewer at its end."""
        ...

    def readable_views(self, offset: int = 0, length: int | None = None) -> list[memoryview]:
        """The request in place."""
        ...

    def writable_views(self, offset: int = 0, length: int | None = None) -> list[memoryview]:
        """The room for the reply in place."""
        ...


@dataclass(slots=True)
class Request:
    """A request whose header was checked.

    `arguments` are the bytes behind the header, without WRITE's data, which are `data(size)`. `room` is where the
    payload of the reply goes, for an operation that puts it there itself; `room_length` is its length.
    """

    header: InHeader
    arguments: bytes
    message: Message
    room: list[memoryview]
    room_length: int

    def data(self, offset: int, length: int) -> list[memoryview]:
        """`length` bytes of the request from `offset`, in place. Raises OSError EINVAL when it is shorter."""
        if offset + length > self.header.len:
            raise refusal(errno.EINVAL)
        return self.message.readable_views(offset, length)


@dataclass(slots=True)
class Share:
    """What the operations share: the inodes and the open files of one guest."""

    inodes: Inodes
    handles: Handles
    read_only: bool


class Operation(NamedTuple):
    """How one opcode is answered.

    `perform` returns the payload of the reply, or how many bytes of it it has put into the request's room. It raises
    OSError for an error as answer.
    """

    perform: Callable[[Request], bytes | int]
    arguments: int
    """Bytes of arguments that are read at most."""
    reply: int = 0
    """Bytes of payload that the reply always has: without room for them the operation is not performed."""
    data: int = 0
    """Bytes of payload that may come behind these, as far as there is room."""
    changes: bool = False
    """Whether the share is changed: refused when it is read-only."""


def file_offset(value: int) -> int:
    """A position in a file. Raises OSError EINVAL beyond OFFSET_MAX."""
    if value > OFFSET_MAX:
        raise refusal(errno.EINVAL)
    return value
