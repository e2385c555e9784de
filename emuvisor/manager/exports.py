"""A guest as one file, on its way out and in: its definition, and all files that this names."""

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDevice
from emuvisor.devices.storage.convert import copy_disk, write_image
from emuvisor.devices.storage.formats import open_image
from emuvisor.devices.storage.imagefiles import create_image
from emuvisor.errors import ConfigError, StateError, UsageError
from emuvisor.host.snapshots.contents import Contents
from emuvisor.host.snapshots.disks import restored_disks
from emuvisor.machine.disks import open_disk
from emuvisor.manager.archive import BLOCK, Member, members, write_end, write_header
from emuvisor.manager.clones import Clones
from emuvisor.manager.core import ON
from emuvisor.manager.definitions import Definition
from emuvisor.manager.entry import Entry
from emuvisor.manager.parts import named_files, portable, refuse_local, replace_files
from emuvisor.manager.records import GuestInfo
from emuvisor.store.files import host_errors
from emuvisor.store.names import check_name
from emuvisor.units import MIB

__all__ = ["FORMAT", "Exports"]

FORMAT = 1
MANIFEST = "export.json"
MAX_MANIFEST = MIB
MAX_FILES = 64
CHUNK = MIB
SPARE = 16 * MIB
"""Bytes that an import leaves free on the store's file system."""
IMPORTING = ".importing"
"""Suffix of a file that is not whole yet."""
_QCOW2_MAGIC = b"QFI\xfb"
_QCOW2_DATA_FILE = 1 << 2
"""Incompatible feature: the data are in another file."""

Progress = Callable[[int, int], object]
"""Hears how many bytes are done, and of how many."""


@dataclass(frozen=True, slots=True)
class _File:
    size: int
    sha256: str


class Exports(Clones):
    """The part of the manager for exports."""

    def export(
        self,
        name: str,
        path: Path | str,
        *,
        snapshot: str | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Write a guest to the new file `path`: a tar file of its definition, its disks as qcow2 images without bases,
        and the other files that it names. What is of this host only is left out: shared folders, devices of the user's,
        forwarded ports. Of a guest that is on it has what is on its disks now, as after a loss of power; or with
        `snapshot` what was on them then. The memory is not in it. Returns the bytes written.

        Raises UsageError when there is such a file or no such guest, ImageError, HostError.
        """
        path = Path(path)
        if os.path.lexists(path):
            raise UsageError(f"{path}: the file exists already")
        entry = self._entry(name)
        with (
            entry.working("export", "it is exported"),
            host_errors(path),
            tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as work,
        ):
            data = self._definition(entry).plain()
            files = named_files(data)
            with self._disks_of_moment(entry, snapshot) as disks:
                for number, disk in disks.items():
                    files[f"disk{number}"] = str(_flatten(disk, Path(work) / f"disk{number}"))
            left_out = portable(data)
            replace_files(data, lambda what, _: what)
            whole = Path(work) / "whole"
            size = _write(whole, data, {what: Path(file) for what, file in files.items()}, left_out, progress)
            whole.rename(path)
        self._journal.post(name, "exported", {"file": str(path), "bytes": size, "left_out": left_out})
        return size

    @contextmanager
    def _disks_of_moment(self, entry: Entry, snapshot: str | None) -> Iterator[dict[int, BlockDevice]]:
        """What is, or in a snapshot was, on the guest's hard disks, by number; nobody changes it meanwhile."""
        configs = self._definition(entry).config.disks
        with ExitStack() as undo:
            frozen: Sequence[BlockDevice | None] = [None] * len(configs)
            if snapshot is not None:
                info = self._info(entry.name, snapshot)
                with self.store.open_snapshot(entry.name, snapshot) as opened:
                    was = Contents.from_plain(opened.states())
                configs = restored_disks(was.config.disks, was.disks, info.metadata, self.store, None)
            elif entry.life.state in ON:
                frozen = undo.enter_context(self.guest(entry.name).checkpoint()).disks
            disks: dict[int, BlockDevice] = {}
            for number, config in enumerate(configs):
                if config.kind == "disk":
                    now = frozen[number]
                    disks[number] = undo.enter_context(closing(open_disk(config))) if now is None else now
            yield disks

    def import_(
        self, path: Path | str, name: str | None = None, *, progress: Progress | None = None
    ) -> GuestInfo:
        """Define a guest by what `export` wrote, as `name` or as it was called; its files go to the store.

        Everything in the file is looked at as if an enemy had made it. Raises UsageError naming the file for anything
        that is no export or does not fit on the store's file system, StateError when there is such a guest, HostError.
        """
        path = Path(path)
        with host_errors(path), path.open("rb") as file, ExitStack() as undo:
            try:
                archive = _Archive(file, os.fstat(file.fileno()).st_size)
                definition = archive.definition(name)
                guest = check_name("guest", definition.config.name)
                if guest in self._entries:
                    raise StateError(f"there is a guest {guest!r} already")
                self._require_room(1)
                archive.require_space(shutil.disk_usage(self.store.folder).free - SPARE)
                placed = self._place(archive, guest, undo, progress)
            except (UsageError, ConfigError) as error:
                if isinstance(error, StateError):
                    raise
                raise UsageError(f"{path}: {error}") from None
            data = definition.plain()
            replace_files(data, lambda what, _: placed[what])
            info = self._add(Definition.parse(data, str(path)), "imported", file=str(path))
            undo.pop_all()
        return info

    def _place(
        self, archive: "_Archive", guest: str, undo: ExitStack, progress: Progress | None
    ) -> dict[str, Path]:
        """Put the archive's files into the store; `undo` deletes them."""
        there = set(self.store.disks())
        placed = {}
        for what in archive.files:
            names = (f"{guest[:40]}.{what}{f'.{n}' if n else ''}" for n in count())
            target = self.store.disk_path(next(name for name in names if name not in there))
            unfinished = target.with_name(f"{target.name}{IMPORTING}")
            undo.callback(unfinished.unlink, missing_ok=True)
            archive.extract(what, unfinished, progress)
            unfinished.rename(target)
            undo.callback(target.unlink, missing_ok=True)
            placed[what] = target
        self._files.sync_folder(self.store.disk_path("x").parent)
        return placed


def _flatten(disk: BlockDevice, path: Path) -> Path:
    """All that `disk` has as one image."""
    size = disk.sectors * SECTOR_SIZE

    def make(unfinished: Path) -> BlockDevice:
        create_image(unfinished, size, "qcow2")
        return open_image(unfinished, "qcow2")

    write_image(path, make, lambda target: copy_disk(disk, target))
    return path


def _write(
    path: Path,
    definition: dict[str, Any],
    files: Mapping[str, Path],
    left_out: list[str],
    progress: Progress | None,
) -> int:
    """Write the archive; returns its size."""
    described = {what: _File(file.stat().st_size, _hash(file)) for what, file in files.items()}
    total = sum(about.size for about in described.values())
    plain = {what: asdict(about) for what, about in described.items()}
    manifest = {"format": FORMAT, "definition": definition, "files": plain, "left_out": left_out}
    text = json.dumps(manifest, indent=2).encode()
    done = 0
    with path.open("xb") as out:
        os.fchmod(out.fileno(), 0o600)
        write_header(out, MANIFEST, len(text))
        out.write(text + bytes(-len(text) % BLOCK))
        for what, file in files.items():
            size = described[what].size
            write_header(out, what, size)
            with file.open("rb") as source:
                for chunk in _chunks(source, size):
                    out.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
            out.write(bytes(-size % BLOCK))
        write_end(out)
        out.flush()
        os.fsync(out.fileno())
        return out.tell()


def _chunks(source: BinaryIO, size: int) -> Iterator[bytes]:
    """`size` bytes of `source`. Raises UsageError when there are fewer."""
    while size:
        chunk = source.read(min(CHUNK, size))
        if not chunk:
            raise UsageError("it is cut off")
        size -= len(chunk)
        yield chunk


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Archive:
    """What is in an export of `size` bytes. Raises UsageError, ConfigError."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        found = members(file, size, MAX_FILES)
        first = next(found, None)
        if first is None or first.name != MANIFEST or first.size > MAX_MANIFEST:
            raise UsageError("it is no export of a guest")
        file.seek(first.start)
        manifest = _parse(file.read(first.size))
        self._data: dict[str, Any] = manifest["definition"]
        self.files = {what: _described(what, about) for what, about in manifest["files"].items()}
        self._members: dict[str, Member] = {member.name: member for member in found}
        self._done = 0
        if set(self._members) != set(self.files):
            raise UsageError("the files in it are not those that it says it has")
        for what, member in self._members.items():
            if member.size != self.files[what].size:
                raise UsageError(f"{what!r} has {member.size} bytes, not {self.files[what].size}")

    def definition(self, name: str | None) -> Definition:
        """The guest, whose files are called by what they are; named `name`, if that is given."""
        definition = Definition.parse(self._data, "its definition")
        refuse_local(self._data)
        named = named_files(self._data)
        if {what: what for what in self.files} != named:
            raise UsageError("its definition names files that are not in it")
        for number, disk in enumerate(definition.config.disks):
            if disk.overlay is not None:
                raise UsageError(f"disk{number} has an overlay, which no export has")
            if disk.kind == "disk" and disk.format != "qcow2":
                raise UsageError(f"disk{number} is no qcow2 image")
            if disk.kind == "disk":
                self._require_whole(f"disk{number}")
        if name is None:
            return definition
        return replace(definition, config=replace(definition.config, name=name))

    def _require_whole(self, what: str) -> None:
        """A qcow2 image can name other files of the host: such are refused (docs/interop/qcow2.txt of QEMU)."""
        self._file.seek(self._members[what].start)
        header = self._file.read(min(104, self._members[what].size))
        if len(header) < 72 or header[:4] != _QCOW2_MAGIC:
            raise UsageError(f"{what} is no qcow2 image")
        version, backing = int.from_bytes(header[4:8], "big"), int.from_bytes(header[8:16], "big")
        features = int.from_bytes(header[72:80], "big") if version >= 3 else 0
        if backing or features & _QCOW2_DATA_FILE:
            raise UsageError(f"{what} is made of other files, which no export has")

    def require_space(self, free: int) -> None:
        """Raises UsageError when the files take more than `free` bytes."""
        total = sum(about.size for about in self.files.values())
        if total > free:
            raise UsageError(
                f"its files have {total} bytes; the store's file system has room for {max(0, free)}"
            )

    def extract(self, what: str, path: Path, progress: Progress | None) -> None:
        """Write a file of it to the new file `path`; it is on the disk then. Raises OSError too."""
        about, digest = self.files[what], hashlib.sha256()
        total = sum(file.size for file in self.files.values())
        self._file.seek(self._members[what].start)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as out:
            for chunk in _chunks(self._file, about.size):
                digest.update(chunk)
                out.write(chunk)
                self._done += len(chunk)
                if progress is not None:
                    progress(self._done, total)
            out.flush()
            os.fsync(out.fileno())
        if not secrets.compare_digest(digest.hexdigest(), about.sha256):
            raise UsageError(f"{what!r} is damaged: its hash is another one")


def _parse(text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f"{MANIFEST} is no JSON") from None
    if not isinstance(data, dict):
        raise UsageError("it is no export of a guest")
    if data.get("format") != FORMAT:
        raise UsageError(f"it is an export of format {data.get('format')!r:.40}; this version reads {FORMAT}")
    for key in ("definition", "files"):
        if not isinstance(data.get(key), dict):
            raise UsageError(f"{MANIFEST} has no {key}")
    return data


def _described(what: str, about: Any) -> _File:
    if isinstance(about, dict):
        size, digest = about.get("size"), about.get("sha256")
        if type(size) is int and size >= 0 and isinstance(digest, str) and digest.isascii():
            return _File(size, digest)
    raise UsageError(f"{MANIFEST} does not say how large {what!r:.40} is")
