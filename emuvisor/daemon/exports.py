"""The folder of exported guests, in which the daemon's clients name files and nothing else."""

import asyncio
import os
from collections.abc import AsyncIterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from emuvisor.daemon.faults import NotFound, TooLarge
from emuvisor.errors import StateError
from emuvisor.store.files import TEMPORARY, host_errors
from emuvisor.store.names import check_name

__all__ = ["ExportFile", "Exports"]


@dataclass(frozen=True, slots=True)
class ExportFile:
    """A file that can be imported or fetched; `bytes` long."""

    name: str
    bytes: int


class Exports:
    """`folder` is made, with mode 0700, when the first file comes. Raises HostError when the host refuses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Where the file `name` is to be. Raises UsageError for a name that could leave the folder."""
        return self.folder / check_name("file", name)

    def new(self, name: str) -> Path:
        """As `path`; the folder is there then."""
        path = self.path(name)
        with host_errors(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def existing(self, name: str) -> Path:
        """Where the file `name` is. Raises NotFound."""
        path = self.path(name)
        if not path.is_file():
            raise NotFound(f"there is no exported file {name!r}")
        return path

    def all(self) -> list[ExportFile]:
        """What is there, sorted by name; not what is still being written."""
        with host_errors(self.folder):
            found = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
            return [
                ExportFile(path.name, path.stat().st_size)
                for path in found
                if path.is_file() and path.suffix != TEMPORARY
            ]

    def delete(self, name: str) -> int:
        """Delete a file; returns its size. Raises NotFound."""
        path = self.existing(name)
        with host_errors(path):
            size = path.stat().st_size
            path.unlink()
        return size

    def open(self, name: str) -> BinaryIO:
        """A file, to be read. Raises NotFound."""
        path = self.existing(name)
        with host_errors(path):
            return path.open("rb")

    async def receive(self, name: str, parts: AsyncIterable[bytes], limit: int) -> ExportFile:
        """Keep what comes as `name`, once it is all there. Raises TooLarge beyond `limit` bytes, StateError when there
        is such a file."""
        path = self.new(name)
        if path.exists():
            raise StateError(f"there is an exported file {name!r} already")
        new = path.with_name(f"{name}.{os.urandom(4).hex()}{TEMPORARY}")
        size = 0
        with host_errors(new):
            try:
                with new.open("xb") as file:
                    async for part in parts:
                        size += len(part)
                        if size > limit:
                            raise TooLarge(f"{name}: more than {limit} bytes")
                        file.write(part)
                    file.flush()
                    await asyncio.to_thread(os.fsync, file.fileno())
                new.rename(path)
            finally:
                new.unlink(missing_ok=True)
        return ExportFile(name, size)
