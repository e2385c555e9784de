"""Debian packages made by hand."""

import gzip
import io
import lzma
import tarfile

import zstandard

APPLETS = [b"[", b"[[", b"ash", b"cat", b"init", b"poweroff", b"sh"]
BUSYBOX = b"\x7fELF...\0" + b"\0".join(APPLETS) + b"\0\0more"

COMPRESSIONS = {
    "": lambda data: data,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


def module(name: str, *depends: str) -> bytes:
    return f"\x7fELF\0name={name}\0depends={','.join(depends)}\0intree=Y\0".encode()


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def ar_member(name: str, data: bytes) -> bytes:
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
    return header + data + b"\n" * (len(data) % 2)


def deb(files: dict[str, bytes], compression: str = ".xz") -> bytes:
    data = COMPRESSIONS[compression](tar(files))
    return (
        b"!<arch>\n"
        + ar_member("debian-binary", b"2.0\n")
        + ar_member("control.tar.xz", b"odd")
        + ar_member(f"data.tar{compression}", data)
    )
