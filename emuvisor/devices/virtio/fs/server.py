"""The FUSE server: one message in, its reply written in place.

Each request is done when `serve` returns, so there is nothing to interrupt. Whatever a guest sends ends in a reply
with an error of errno, or without a reply where there is no room for one.
"""

import errno
from pathlib import Path

from emuvisor.bus.device import SavedState
from emuvisor.devices.virtio.fs.attributes import Attributes
from emuvisor.devices.virtio.fs.directories import Directories
from emuvisor.devices.virtio.fs.files import Files
from emuvisor.devices.virtio.fs.handles import Handles
from emuvisor.devices.virtio.fs.inodes import Inodes
from emuvisor.devices.virtio.fs.namespace import MAX_FORGETS, Namespace
from emuvisor.devices.virtio.fs.protocol import (
    BATCH_FORGET_IN,
    FORGET_IN,
    FORGET_ONE,
    FUSE_KERNEL_MINOR_VERSION,
    FUSE_KERNEL_VERSION,
    IN_HEADER,
    INIT_IN,
    INIT_OUT,
    OUT_HEADER,
    InHeader,
    InitFlag,
    Opcode,
)
from emuvisor.devices.virtio.fs.refusal import refusal
from emuvisor.devices.virtio.fs.request import MAX_WRITE, Message, Operation, Request, Share
from emuvisor.devices.virtio.fs.scatter import behind, put
from emuvisor.errors import SnapshotError

__all__ = ["OLDEST_MINOR", "FuseServer"]

OLDEST_MINOR = 27
"""The oldest guest that is served speaks FUSE 7.27 (Linux 4.18)."""
OFFERED = (
    InitFlag.ASYNC_READ
    | InitFlag.ATOMIC_O_TRUNC
    | InitFlag.BIG_WRITES
    | InitFlag.AUTO_INVAL_DATA
    | InitFlag.DO_READDIRPLUS
    | InitFlag.READDIRPLUS_AUTO
    | InitFlag.ASYNC_DIO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.MAX_PAGES
    | InitFlag.CACHE_SYMLINKS
)
"""No write-back cache: the host sees a WRITE when the guest's program has made it."""
MAX_BACKGROUND = 64
CONGESTION_THRESHOLD = 48
TIME_GRANULARITY_NS = 1
GUEST_PAGE = 4096


class FuseServer:
    """Serves the folder `root` to one guest.

    Raises OSError when `root` is no directory that this user may open.
    """

    def __init__(self, root: Path, *, read_only: bool) -> None:
        self._share = Share(Inodes(root), Handles(), read_only)
        self.minor: int | None = None
        """The minor version agreed with the guest; None before INIT."""
        namespace = Namespace(self._share)
        self._operations: dict[int, Operation] = {
            Opcode.INIT: Operation(self._init, INIT_IN.size, INIT_OUT.size),
            Opcode.DESTROY: Operation(self._destroy, 0),
            **namespace.operations,
            **Attributes(self._share).operations,
            **Files(self._share).operations,
            **Directories(self._share).operations,
        }
        self._forgets = {
            Opcode.FORGET: (namespace.forget, FORGET_IN.size),
            Opcode.BATCH_FORGET: (
                namespace.batch_forget,
                BATCH_FORGET_IN.size + MAX_FORGETS * FORGET_ONE.size,
            ),
        }

    def serve(self, message: Message) -> int:
        """Perform the request of `message` and write its reply there; how many bytes that has, 0 for none.

        Raises what the message's memory raises, and then nothing has been done.
        """
        try:
            header = IN_HEADER.parse(message.read(0, IN_HEADER.size))
        except OSError:
            return 0  # without a header there is nobody to reply to
        if header.opcode == Opcode.INTERRUPT:
            return 0
        if header.opcode in self._forgets:
            self._forget(header, message)
            return 0
        if message.writable_length < OUT_HEADER.size:
            return 0
        operation = self._operations.get(header.opcode, _UNKNOWN)
        # Taken first: the guest's pages may be missing, and an operation must not be done twice.
        reply = message.writable_views(
            0, min(message.writable_length, OUT_HEADER.size + operation.reply + operation.data)
        )
        error = 0
        payload: bytes | int = b""
        try:
            payload = self._perform(operation, header, message, reply)
        except OSError as refused:
            error = _answer(refused)
        if isinstance(payload, bytes):
            length = OUT_HEADER.size + len(payload)
            put(reply, OUT_HEADER.pack(length, -error, header.unique) + payload)
        else:
            length = OUT_HEADER.size + payload
            put(reply, OUT_HEADER.pack(length, 0, header.unique))
        return length

    def _perform(
        self, operation: Operation, header: InHeader, message: Message, reply: list[memoryview]
    ) -> bytes | int:
        if not IN_HEADER.size <= header.len <= message.readable_length:
            raise refusal(errno.EINVAL)
        if self.minor is None and header.opcode != Opcode.INIT:
            raise refusal(errno.EIO)
        room_length = min(message.writable_length - OUT_HEADER.size, operation.reply + operation.data)
        if room_length < operation.reply:
            raise refusal(errno.EINVAL)
        if operation.changes and self._share.read_only:
            raise refusal(errno.EROFS)
        payload = operation.perform(
            Request(
                header=header,
                arguments=_arguments(header, message, operation.arguments),
                message=message,
                room=behind(reply, OUT_HEADER.size),
                room_length=room_length,
            )
        )
        if isinstance(payload, bytes) and len(payload) > room_length:  # the target of a link
            raise refusal(errno.EINVAL)
        return payload

    def _forget(self, header: InHeader, message: Message) -> None:
        perform, length = self._forgets[Opcode(header.opcode)]
        try:
            perform(header, _arguments(header, message, length))
        except OSError:
            return  # lists fewer than it announced, and has no reply to say so

    def _init(self, request: Request) -> bytes:
        """INIT: agree on a version. A mount after another without DESTROY begins anew."""
        asked = INIT_IN.parse(request.arguments)
        self.forget_all()
        if asked.major > FUSE_KERNEL_VERSION:
            # The guest is to ask again with this major version.
            return INIT_OUT.pack(FUSE_KERNEL_VERSION, FUSE_KERNEL_MINOR_VERSION, 0, 0, 0, 0, 0, 0, 0)
        if asked.major < FUSE_KERNEL_VERSION or asked.minor < OLDEST_MINOR:
            raise refusal(errno.EPROTO)
        self.minor = min(asked.minor, FUSE_KERNEL_MINOR_VERSION)
        return INIT_OUT.pack(
            FUSE_KERNEL_VERSION,
            FUSE_KERNEL_MINOR_VERSION,
            min(asked.max_readahead, MAX_WRITE),
            asked.flags & OFFERED,
            MAX_BACKGROUND,
            CONGESTION_THRESHOLD,
            MAX_WRITE,
            TIME_GRANULARITY_NS,
            MAX_WRITE // GUEST_PAGE,
        )

    def _destroy(self, request: Request) -> bytes:
        self.forget_all()
        return b""

    def forget_all(self) -> None:
        """Back to before INIT: close all that the guest had open."""
        self._share.handles.clear()
        self._share.inodes.clear()
        self.minor = None

    def close(self) -> None:
        """Give all descriptors back. Requests are answered with ESTALE from now on."""
        self.forget_all()
        self._share.inodes.close()

    def save(self) -> SavedState:
        """What the guest knows, as plain data: names below the folder, no descriptors."""
        return {"minor": self.minor, **self._share.inodes.save(), **self._share.handles.save()}

    def load(self, state: SavedState) -> None:
        """What `save` gave, found again in the folder as it is now: ESTALE and EBADF for what is not there any more.

        Raises SnapshotError.
        """
        minor = state.get("minor")
        if minor is not None and not (
            type(minor) is int and OLDEST_MINOR <= minor <= FUSE_KERNEL_MINOR_VERSION
        ):
            raise SnapshotError(
                f"virtio-fs: saved field 'minor' is {minor!r}; expected None or an integer from {OLDEST_MINOR} to "
                f"{FUSE_KERNEL_MINOR_VERSION}"
            )
        self.forget_all()
        self._share.inodes.load(state)
        self._share.handles.load(state, self._share.inodes)
        self.minor = minor


def _arguments(header: InHeader, message: Message, length: int) -> bytes:
    return message.read(IN_HEADER.size, min(header.len - IN_HEADER.size, length))


def _unknown(_request: Request) -> bytes:
    raise refusal(errno.ENOSYS)


_UNKNOWN = Operation(_unknown, 0)


def _answer(error: OSError) -> int:
    """The number that the guest sees: that this process has used up its descriptors is not its program's fault."""
    number = error.errno or errno.EIO
    return errno.ENFILE if number == errno.EMFILE else number
