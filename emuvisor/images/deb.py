"""Reads files out of Debian packages, without dpkg: ar archives with a `data.tar` inside (deb(5))."""

import io
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import zstandard

from emuvisor.errors import ImageError

__all__ = ["read_package"]

AR_MAGIC = b"!<arch>\n"
AR_HEADER_SIZE = 60
AR_HEADER_END = b"`\n"
AR_NAME = slice(0, 16)
AR_SIZE = slice(48, 58)
DAMAGED = (tarfile.TarError, lzma.LZMAError, zlib.error, zstandard.ZstdError, OSError, EOFError, ValueError)


def read_package(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The regular files of package `path` whose names (as "boot/vmlinuz", no leading "./") are `wanted`.

    Raises ImageError for a file that is not a Debian package or is damaged.
    """
    name, data = _data_archive(path)
    found = {}
    try:
        with _open_tar(name, data) as tar:
            for member in tar:
                member_name = member.name.removeprefix("./")
                if member.isreg() and wanted(member_name):
                    content = tar.extractfile(member)
                    assert content is not None  # a regular file has content
                    found[member_name] = content.read()
    except DAMAGED as error:
        raise ImageError(f"{path.name}: {name}: damaged: {error}") from None
    return found


def _data_archive(path: Path) -> tuple[str, bytes]:
    """Name and content of the package's `data.tar` member."""
    raw = path.read_bytes()
    if not raw.startswith(AR_MAGIC):
        raise ImageError(f"{path.name}: not a Debian package: no ar archive")
    offset = len(AR_MAGIC)
    while offset < len(raw):
        header = raw[offset : offset + AR_HEADER_SIZE]
        size_text = header[AR_SIZE].strip()
        if not header.endswith(AR_HEADER_END) or not size_text.isdigit():
            raise ImageError(f"{path.name}: damaged ar header at {offset:#x}")
        size = int(size_text)
        offset += AR_HEADER_SIZE
        name = header[AR_NAME].decode(errors="replace").rstrip(" /")
        if name.startswith("data.tar"):
            if offset + size > len(raw):
                raise ImageError(
                    f"{path.name}: truncated: {name} has {size} bytes, {len(raw) - offset} are there"
                )
            return name, raw[offset : offset + size]
        offset += size + size % 2
    raise ImageError(f"{path.name}: not a Debian package: no data.tar in it")


def _open_tar(name: str, data: bytes) -> tarfile.TarFile:
    file = io.BytesIO(data)
    if name.endswith(".zst"):
        stream = zstandard.ZstdDecompressor().stream_reader(file)
        return tarfile.open(fileobj=stream, mode="r|")
    return tarfile.open(fileobj=file, mode="r:*")
