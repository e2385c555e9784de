"""A tiny FUSE client: what a guest's kernel sends, over any way to the server."""

import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from struct import pack, unpack_from
from typing import NamedTuple

from emuvisor.devices.virtio.fs import protocol
from emuvisor.devices.virtio.fs.protocol import Fattr, Opcode

ROOT = 1
HEADER = 16
UID, GID = os.getuid(), os.getgid()
Send = Callable[[list[bytes], int], bytes]
"""Sends the pieces of a request, with so much room for the reply; returns the reply."""


class BytesMessage:
    """A message that lies in the test's memory, its reply in two pieces."""

    def __init__(self, request: bytes, room: int) -> None:
        self.request = request
        self.readable_length = len(request)
        self.writable_length = room
        self.reply = bytearray(room)

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        return self.request[offset:][:length]

    def readable_views(self, offset: int = 0, length: int | None = None) -> list[memoryview]:
        view = memoryview(self.request)[offset:][:length]
        return [piece for piece in (view[:7], view[7:]) if piece]

    def writable_views(self, offset: int = 0, length: int | None = None) -> list[memoryview]:
        view = memoryview(self.reply)[offset:][:length]
        return [piece for piece in (view[:20], view[20:]) if piece]


class Found(NamedTuple):
    nodeid: int
    attr: protocol.Attr


class Listed(NamedTuple):
    name: bytes
    ino: int
    cookie: int
    kind: int
    nodeid: int = 0


class FuseClient:
    def __init__(self, send: Send, *, uid: int = UID, gid: int = GID) -> None:
        self.send = send
        self.uid, self.gid = uid, gid
        self._unique = itertools.count(100)

    def call(
        self, opcode: int, nodeid: int, body: bytes = b"", *, data: bytes = b"", room: int = 4096
    ) -> bytes:
        """The payload of the reply; raises OSError for an error. Checks the reply's header."""
        unique = next(self._unique)
        length = protocol.IN_HEADER.size + len(body) + len(data)
        header = protocol.IN_HEADER.pack(length, opcode, unique, nodeid, self.uid, self.gid, 1)
        reply = self.send([header + body, data], HEADER + room)
        size, error, answered = unpack_from("<IiQ", reply)
        assert (size, answered) == (len(reply), unique)
        if error:
            assert error < 0
            assert size == HEADER
            raise OSError(-error, os.strerror(-error))
        return reply[HEADER:]

    def tell(self, opcode: int, nodeid: int, body: bytes) -> None:
        """A request without a reply."""
        length = protocol.IN_HEADER.size + len(body)
        assert self.send([protocol.IN_HEADER.pack(length, opcode, 1, nodeid, 0, 0, 0) + body], 0) == b""

    def init(self, major: int = 7, minor: int = 31, flags: int = 0xFFFF_FFFF) -> protocol.InitOut:
        reply = self.call(Opcode.INIT, 0, pack("<4I", major, minor, 1 << 17, flags))
        assert len(reply) == 64
        return protocol.INIT_OUT.parse(reply)

    def destroy(self) -> None:
        self.call(Opcode.DESTROY, 0)

    def _found(self, reply: bytes) -> Found:
        assert len(reply) == 128
        out = protocol.ENTRY_OUT.parse(reply)
        assert (out.generation, out.entry_valid, out.attr_valid) == (0, 1, 1)
        return Found(out.nodeid, protocol.ATTR.parse(reply, 40))

    def lookup(self, name: bytes, parent: int = ROOT) -> Found:
        return self._found(self.call(Opcode.LOOKUP, parent, name + b"\0"))

    def walk(self, path: str) -> Found:
        """Resolve a path as a guest's kernel does, without following links."""
        found = Found(ROOT, self.getattr(ROOT))
        for name in path.split("/"):
            found = self.lookup(os.fsencode(name), found.nodeid)
        return found

    def forget(self, nodeid: int, lookups: int = 1) -> None:
        self.tell(Opcode.FORGET, nodeid, pack("<Q", lookups))

    def batch_forget(self, *nodes: tuple[int, int], announced: int | None = None) -> None:
        count = len(nodes) if announced is None else announced
        self.tell(
            Opcode.BATCH_FORGET, 0, pack("<II", count, 0) + b"".join(pack("<QQ", *node) for node in nodes)
        )

    def getattr(self, nodeid: int, fh: int | None = None) -> protocol.Attr:
        reply = self.call(Opcode.GETATTR, nodeid, pack("<IIQ", fh is not None, 0, fh or 0))
        assert len(reply) == 104
        assert protocol.ATTR_OUT.parse(reply) == (1, 0)
        return protocol.ATTR.parse(reply, 16)

    def setattr(
        self,
        nodeid: int,
        *,
        valid: int = 0,
        mode: int | None = None,
        size: int | None = None,
        fh: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        atime: tuple[int, int] | None = None,
        mtime: tuple[int, int] | None = None,
    ) -> protocol.Attr:
        for value, bit in (
            (mode, Fattr.MODE),
            (size, Fattr.SIZE),
            (fh, Fattr.FH),
            (uid, Fattr.UID),
            (gid, Fattr.GID),
            (atime, Fattr.ATIME),
            (mtime, Fattr.MTIME),
        ):
            valid |= bit if value is not None else 0
        atime, mtime = atime or (0, 0), mtime or (0, 0)
        body = protocol.SETATTR_IN.pack(
            valid,
            fh or 0,
            size or 0,
            0,
            atime[0],
            mtime[0],
            0,
            atime[1],
            mtime[1],
            0,
            mode or 0,
            uid or 0,
            gid or 0,
        )
        return protocol.ATTR.parse(self.call(Opcode.SETATTR, nodeid, body), 16)

    def readlink(self, nodeid: int) -> bytes:
        return self.call(Opcode.READLINK, nodeid)

    def symlink(self, name: bytes, target: bytes, parent: int = ROOT) -> Found:
        return self._found(self.call(Opcode.SYMLINK, parent, name + b"\0" + target + b"\0"))

    def mknod(self, name: bytes, mode: int, parent: int = ROOT) -> Found:
        return self._found(self.call(Opcode.MKNOD, parent, pack("<4I", mode, 0, 0, 0) + name + b"\0"))

    def mkdir(self, name: bytes, mode: int = 0o755, parent: int = ROOT) -> Found:
        return self._found(self.call(Opcode.MKDIR, parent, pack("<2I", mode, 0) + name + b"\0"))

    def unlink(self, name: bytes, parent: int = ROOT) -> None:
        self.call(Opcode.UNLINK, parent, name + b"\0")

    def rmdir(self, name: bytes, parent: int = ROOT) -> None:
        self.call(Opcode.RMDIR, parent, name + b"\0")

    def rename(
        self, old: bytes, new: bytes, *, parent: int = ROOT, to: int = ROOT, flags: int | None = None
    ) -> None:
        names = old + b"\0" + new + b"\0"
        if flags is None:
            self.call(Opcode.RENAME, parent, pack("<Q", to) + names)
        else:
            self.call(Opcode.RENAME2, parent, pack("<QII", to, flags, 0) + names)

    def link(self, nodeid: int, name: bytes, parent: int = ROOT) -> Found:
        return self._found(self.call(Opcode.LINK, parent, pack("<Q", nodeid) + name + b"\0"))

    def open(self, nodeid: int, flags: int = os.O_RDONLY) -> int:
        return protocol.OPEN_OUT.parse(self.call(Opcode.OPEN, nodeid, pack("<II", flags, 0))).fh

    def create(
        self, name: bytes, flags: int = os.O_RDWR, mode: int = 0o644, parent: int = ROOT
    ) -> tuple[Found, int]:
        reply = self.call(Opcode.CREATE, parent, pack("<4I", flags, mode, 0, 0) + name + b"\0")
        return self._found(reply[:128]), protocol.OPEN_OUT.parse(reply, 128).fh

    def read(self, fh: int, offset: int, size: int, *, room: int | None = None) -> bytes:
        body = protocol.READ_IN.pack(fh, offset, size)
        return self.call(Opcode.READ, 0, body, room=size if room is None else room)

    def write(self, fh: int, offset: int, data: bytes, *, size: int | None = None, flags: int = 0) -> int:
        body = protocol.WRITE_IN.pack(fh, offset, len(data) if size is None else size, flags)
        return protocol.WRITE_OUT.parse(self.call(Opcode.WRITE, 0, body, data=data)).size

    def flush(self, fh: int) -> None:
        self.call(Opcode.FLUSH, 0, protocol.FLUSH_IN.pack(fh))

    def release(self, fh: int) -> None:
        self.call(Opcode.RELEASE, 0, protocol.RELEASE_IN.pack(fh))

    def fsync(self, fh: int, flags: int = 0) -> None:
        self.call(Opcode.FSYNC, 0, protocol.FSYNC_IN.pack(fh, flags))

    def lseek(self, fh: int, offset: int, whence: int) -> int:
        return protocol.LSEEK_OUT.parse(
            self.call(Opcode.LSEEK, 0, protocol.LSEEK_IN.pack(fh, offset, whence))
        ).offset

    def fallocate(self, fh: int, offset: int, length: int, mode: int = 0) -> None:
        self.call(Opcode.FALLOCATE, 0, protocol.FALLOCATE_IN.pack(fh, offset, length, mode))

    def copy(self, fh: int, offset: int, to: int, to_offset: int, length: int, *, flags: int = 0) -> int:
        body = protocol.COPY_FILE_RANGE_IN.pack(fh, offset, 0, to, to_offset, length, flags)
        return protocol.WRITE_OUT.parse(self.call(Opcode.COPY_FILE_RANGE, 0, body)).size

    def access(self, nodeid: int, mask: int) -> None:
        self.call(Opcode.ACCESS, nodeid, pack("<II", mask, 0))

    def statfs(self, nodeid: int = ROOT) -> protocol.StatfsOut:
        reply = self.call(Opcode.STATFS, nodeid)
        assert len(reply) == 80
        return protocol.STATFS_OUT.parse(reply)

    def opendir(self, nodeid: int = ROOT) -> int:
        return protocol.OPEN_OUT.parse(self.call(Opcode.OPENDIR, nodeid, pack("<II", 0, 0))).fh

    def releasedir(self, fh: int) -> None:
        self.call(Opcode.RELEASEDIR, 0, protocol.RELEASE_IN.pack(fh))

    def fsyncdir(self, fh: int, flags: int = 0) -> None:
        self.call(Opcode.FSYNCDIR, 0, protocol.FSYNC_IN.pack(fh, flags))

    def readdir(self, fh: int, offset: int = 0, size: int = 4096, *, plus: bool = False) -> list[Listed]:
        """One portion of the listing."""
        opcode = Opcode.READDIRPLUS if plus else Opcode.READDIR
        data = self.call(opcode, 0, protocol.READ_IN.pack(fh, offset, size), room=size)
        extra = 128 if plus else 0
        listed = []
        while data:
            nodeid = unpack_from("<Q", data)[0] if plus else 0
            entry = protocol.DIRENT.parse(data, extra)
            start = extra + 24
            name = data[start : start + entry.namelen]
            assert len(name) == entry.namelen
            listed.append(Listed(name, entry.ino, entry.off, entry.type, nodeid))
            data = data[start + (entry.namelen + 7 & ~7) :]
        return listed

    def listing(self, fh: int, size: int = 4096, *, plus: bool = False) -> Iterator[Listed]:
        """The whole directory, portion by portion, asked for as they are needed."""
        offset = 0
        while portion := self.readdir(fh, offset, size, plus=plus):
            for entry in portion:
                yield entry
                offset = entry.cookie

    def names(self, nodeid: int = ROOT, *, plus: bool = False, size: int = 4096) -> list[bytes]:
        fh = self.opendir(nodeid)
        names = sorted(entry.name for entry in self.listing(fh, size, plus=plus))
        self.releasedir(fh)
        assert names[:2] == [b".", b".."]
        return names[2:]

    def remove_tree(self, name: bytes, parent: int = ROOT) -> None:
        """`rm -r`."""
        found = self.lookup(name, parent)
        if not stat.S_ISDIR(found.attr.mode):
            self.unlink(name, parent)
            return
        fh = self.opendir(found.nodeid)
        for entry in self.listing(fh, 512):
            if entry.name not in (b".", b".."):
                self.remove_tree(entry.name, found.nodeid)
        self.releasedir(fh)
        self.rmdir(name, parent)
        self.forget(found.nodeid)


class Refused:
    """`with refused(errno.EINVAL): ...`"""

    def __init__(self, number: int) -> None:
        self.number = number

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        found = error.errno if isinstance(error, OSError) else None
        if error is not None and found is None:
            return False
        assert found == self.number, f"expected {errno.errorcode[self.number]}, got {error!r}"
        return True


refused = Refused


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def open_descriptors() -> set[str]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(f"{link.name} {link.readlink()}")
    return {entry for entry in found if "/proc/" not in entry}
