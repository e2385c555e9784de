"""Chooses kernel modules with all that they depend on, in the order in which they load."""

import lzma
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

import zstandard

__all__ = [
    "aliases",
    "dependencies",
    "load_order",
    "module_name",
    "modules_alias",
    "modules_dep",
    "unpack_module",
]

MODULE_SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")
# modpost writes these strings into the .modinfo section of every module.
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_ALIAS = re.compile(rb"\0alias=([^\0]*)")


def module_name(path: str) -> str | None:
    """The module in the file `path`, or None: "kernel/fs/virtio-rng.ko.xz" is "virtio_rng"."""
    file = PurePosixPath(path).name
    stem, dot, _ = file.partition(".")
    return stem.replace("-", "_") if dot and file.removeprefix(stem) in MODULE_SUFFIXES else None


def unpack_module(path: str, data: bytes) -> bytes:
    """The ELF file of the module at `path`, which may be compressed."""
    if path.endswith(".xz"):
        return lzma.decompress(data)
    if path.endswith(".gz"):
        return zlib.decompress(data, 16 + zlib.MAX_WBITS)
    if path.endswith(".zst"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def dependencies(module: bytes) -> list[str]:
    """The modules that `module` (an ELF file) names as its direct dependencies."""
    match = _DEPENDS.search(module)
    text = match[1].decode(errors="replace") if match else ""
    return [name.replace("-", "_") for name in text.split(",") if name]


def aliases(module: bytes) -> list[str]:
    """The other names by which the kernel asks for `module` (an ELF file), such as "fs-iso9660"."""
    return [alias.decode(errors="replace") for alias in _ALIAS.findall(module)]


def load_order(wanted: Iterable[str], available: Mapping[str, bytes]) -> list[str]:
    """Those of the `wanted` modules that are `available` (name to ELF file), each behind its dependencies."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in available and name not in seen:
            seen.add(name)
            for other in dependencies(available[name]):
                visit(other)
            order.append(name)

    for name in wanted:
        visit(name)
    return order


def modules_dep(order: Iterable[str], available: Mapping[str, bytes], paths: Mapping[str, str]) -> str:
    """The text of `modules.dep`, which modprobe reads: each path, then those it needs, nearest first."""
    lines = []
    for name in order:
        needed = [n for n in load_order([name], available) if n != name]
        lines.append(f"{paths[name]}: {' '.join(paths[n] for n in reversed(needed))}".rstrip())
    return "".join(line + "\n" for line in lines)


def modules_alias(order: Iterable[str], available: Mapping[str, bytes]) -> str:
    """The text of `modules.alias`, which modprobe reads, too."""
    return "".join(f"alias {alias} {name}\n" for name in order for alias in aliases(available[name]))
