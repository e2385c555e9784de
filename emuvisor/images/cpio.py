"""Writes cpio archives in the "newc" format, which Linux unpacks as its initramfs.

The same entries give the same bytes: no times, inode numbers by position (Linux documentation,
`driver-api/early-userspace/buffer-format`).
"""

import stat

__all__ = ["CpioWriter"]

MAGIC = "070701"
TRAILER = "TRAILER!!!"
ALIGNMENT = 4


class CpioWriter:
    """Collects entries; parent directories are added where they are missing.

    Paths have no leading slash. `mode` are the permission bits. Adding a path twice is a ValueError.
    """

    def __init__(self) -> None:
        self._out = bytearray()
        self._names: set[str] = set()

    def directory(self, path: str, mode: int = 0o755) -> None:
        """A directory; one that is there already is left as it is."""
        if path not in self._names:
            self._add(path, stat.S_IFDIR | mode)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """A regular file."""
        self._add(path, stat.S_IFREG | mode, data)

    def symlink(self, path: str, target: str) -> None:
        """A symbolic link to `target`."""
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """A character device node."""
        self._add(path, stat.S_IFCHR | mode, device=(major, minor))

    def finish(self) -> bytes:
        """The archive with its end mark."""
        self._entry(TRAILER, 0, 0, b"", (0, 0))
        return bytes(self._out)

    def _add(self, path: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        if path in self._names or not path or path.startswith("/"):
            raise ValueError(f"{path!r} is empty, absolute or already in the archive")
        parent = path.rpartition("/")[0]
        if parent:
            self.directory(parent)
        self._names.add(path)
        self._entry(path, len(self._names), mode, data, device)

    def _entry(self, path: str, inode: int, mode: int, data: bytes, device: tuple[int, int]) -> None:
        name = path.encode() + b"\0"
        links, owner, mtime, check = 1, 0, 0, 0
        numbers = [inode, mode, owner, owner, links, mtime, len(data), 0, 0, *device, len(name), check]
        self._out += (MAGIC + "".join(f"{n:08X}" for n in numbers)).encode() + name
        self._pad()
        self._out += data
        self._pad()

    def _pad(self) -> None:
        self._out += bytes(-len(self._out) % ALIGNMENT)
