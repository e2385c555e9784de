"""Files of our own that are laid over a root file system, as a tar archive; the same entries give the same bytes."""

import io
import tarfile
from collections.abc import Mapping

__all__ = ["archive"]


def archive(files: Mapping[str, str], links: Mapping[str, str], mtime: int) -> bytes:
    """A tar archive of `files` (path to text) and symbolic `links` (path to target), owned by root.

    Paths have no leading slash.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, text in files.items():
            data = text.encode()
            info = tarfile.TarInfo(path)
            info.size, info.mode, info.mtime = len(data), 0o644, mtime
            tar.addfile(info, io.BytesIO(data))
        for path, target in links.items():
            info = tarfile.TarInfo(path)
            info.type, info.linkname, info.mtime = tarfile.SYMTYPE, target, mtime
            tar.addfile(info)
    return buffer.getvalue()
