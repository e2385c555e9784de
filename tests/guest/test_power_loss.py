"""What a guest flushed survives a loss of power, whichever of the later writes reached the storage, in whatever order.

The host's storage is imitated below the system calls: what was not followed by fdatasync may be there or not, each
sector by itself, in any of the versions that it had; the file may have any length that it had. Power fails at any call.
"""

import itertools
import os
import random
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from durability import FORMATS, KINDS, SECTOR, SECTORS, Format, Medium, Step, content, perform
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emuvisor import holes
from emuvisor.devices.storage.blockdevice import BlockDevice


class PowerLoss(Exception):
    """No system call works any more."""


class HostStorage:
    """The file at `path` on storage that keeps what was synced, and fails after `calls` calls, of which only syncs
    count if `syncs` is set: between two of them most can go wrong."""

    def __init__(self, path: Path, calls: int, syncs: bool, patch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.calls = calls
        self.syncs = syncs
        self.file = path.stat()
        self.cached = bytearray(path.read_bytes())
        self.stored = bytes(self.cached)
        self.versions: dict[int, list[bytes]] = {}
        """Contents that each sector had since the last sync, the oldest first."""
        self.sizes = [len(self.cached)]
        for name in ("pwrite", "pwritev", "ftruncate"):
            patch.setattr(os, name, self._watched(getattr(os, name), getattr(self, f"_{name}")))
        for name in ("fdatasync", "fsync"):
            patch.setattr(os, name, self._watched(lambda fd: 0, self._sync))  # imitated: that is quicker
        patch.setattr(holes, "_fallocate", self._watched(holes._fallocate, self._fallocate))

    def _watched(self, call: Callable[..., int], note: Callable[..., None]) -> Callable[..., int]:
        def watched(fd: int, *arguments: object) -> int:
            if os.path.samestat(os.fstat(fd), self.file):
                counts = note == self._sync or not self.syncs
                if not self.calls and counts:
                    raise PowerLoss
                self.calls -= counts
                note(*arguments)
            return call(fd, *arguments)

        return watched

    def _pwrite(self, data: bytes, offset: int) -> None:
        self._put(offset, bytes(data))

    def _pwritev(self, views: list[memoryview], offset: int) -> None:
        self._put(offset, b"".join(views))

    def _put(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        self._grow(end)
        self.cached[offset:end] = data
        for sector in range(offset // SECTOR, -(-end // SECTOR)):
            versions = self.versions.setdefault(sector, [])
            versions.append(bytes(self.cached[sector * SECTOR : (sector + 1) * SECTOR]))

    def _grow(self, size: int) -> None:
        if size > len(self.cached):
            self._ftruncate(size)

    def _ftruncate(self, size: int) -> None:
        del self.cached[size:]
        self.cached.extend(bytes(size - len(self.cached)))
        self.sizes.append(size)

    def _fallocate(self, mode: int, offset: int, length: int) -> None:
        if mode & (holes.FALLOC_FL_PUNCH_HOLE | holes.FALLOC_FL_ZERO_RANGE):
            self._put(offset, bytes(max(0, min(length, len(self.cached) - offset))))
        else:
            self._grow(offset + length)

    def _sync(self) -> None:
        self.stored = bytes(self.cached)
        self.versions.clear()
        self.sizes = [len(self.cached)]

    def come_back(self, rng: random.Random) -> None:
        """Put into the file what is there when power is back."""
        size = rng.choice(self.sizes)
        data = bytearray(self.stored[:size].ljust(size, b"\0"))
        for sector, versions in self.versions.items():
            place = sector * SECTOR
            old = bytes(data[place : place + SECTOR])
            version = rng.choice([old, versions[-1], *versions])
            data[place : place + SECTOR] = version[: len(old)]
        self.path.write_bytes(data)


steps = st.tuples(st.sampled_from(KINDS), st.integers(0, SECTORS - 1), st.sampled_from((1, 3, 8, 40)))
moments = st.tuples(st.integers(0, 40), st.just(False)) | st.tuples(st.integers(0, 5), st.just(True))
outages = st.tuples(st.lists(steps, min_size=1, max_size=14), moments, st.integers(0, 1 << 32))
"""What the guest does, after how many calls or syncs power fails, and what of it is there afterwards."""


def use_until_power_fails(disk: BlockDevice, medium: Medium, todo: list[Step]) -> None:
    """Do the steps, as far as that goes."""
    for step in todo:
        if step.kind != "flush":
            medium.apply(step)
        try:
            perform(disk, step)
        except PowerLoss:
            return
        if step.kind == "flush":
            medium.apply(step)
    medium.check(content(disk), crashed=False)


@pytest.fixture(params=FORMATS)
def template(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Format, Path]:
    """A format, and a folder with a new image of it."""
    form = FORMATS[request.param]
    folder = tmp_path / "template"
    folder.mkdir()
    form.create(folder)
    return form, folder


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(outages, min_size=1, max_size=3))
def test_what_was_flushed_survives(
    template: tuple[Format, Path], history: list[tuple[list[tuple[str, int, int]], tuple[int, bool], int]]
) -> None:
    form, new = template
    number = itertools.count(1)
    with TemporaryDirectory(dir=new.parent) as name:
        folder = Path(name)
        for file in new.iterdir():
            shutil.copyfile(file, folder / file.name)
        for todo, moment, seed in history:
            with closing(form.open(folder)) as disk:
                medium = Medium(content(disk))
            with pytest.MonkeyPatch.context() as patch:
                storage = HostStorage(folder / form.file, *moment, patch)
                with suppress(PowerLoss), closing(form.open(folder)) as disk:
                    use_until_power_fails(
                        disk,
                        medium,
                        [
                            Step(kind, lba, min(count, SECTORS - lba), next(number))
                            for kind, lba, count in todo
                        ],
                    )
            storage.come_back(random.Random(seed))
            with closing(form.open(folder)) as disk:
                medium.check(content(disk))
            form.verify(folder)
