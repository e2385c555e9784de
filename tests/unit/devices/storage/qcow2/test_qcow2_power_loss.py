"""The host stops at any moment: the image is in order but for leaked clusters, and has all that was flushed."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qcow2_rig import KINDS, OPERATIONS, SECTOR, Rig, noise

from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.qcow2.check import check
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.scatter import Buffers

FLUSH = (-1, b"")


class Recorder:
    """Everything that reaches the host's file, in order: (offset, bytes), and FLUSH."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[int, bytes]] = []
        write, write_from, flush, discard = (
            ImageFile.write,
            ImageFile.write_from,
            ImageFile.flush,
            ImageFile.discard,
        )

        def recorded_write(file: ImageFile, offset: int, data: bytes | memoryview) -> None:
            self.events.append((offset, bytes(data)))
            write(file, offset, data)

        def recorded_write_from(file: ImageFile, offset: int, views: Buffers) -> None:
            self.events.append((offset, b"".join(views)))
            write_from(file, offset, views)

        def recorded_flush(file: ImageFile) -> None:
            self.events.append(FLUSH)
            flush(file)

        def recorded_discard(file: ImageFile, offset: int, length: int) -> None:
            self.events.append((offset, bytes(length)))
            discard(file, offset, length)

        monkeypatch.setattr(ImageFile, "write", recorded_write)
        monkeypatch.setattr(ImageFile, "write_from", recorded_write_from)
        monkeypatch.setattr(ImageFile, "flush", recorded_flush)
        monkeypatch.setattr(ImageFile, "discard", recorded_discard)

    def after_power_loss(self, image: bytes, moment: int, chance: random.Random) -> bytes:
        """What is on the disk when the power fails after `moment` events: all before the last flush, and of the rest
        any sectors in any order."""
        disk = bytearray(image)
        past = self.events[:moment]
        flushed = max((index for index, event in enumerate(past) if event == FLUSH), default=0)
        for index, (offset, data) in enumerate(past):
            for start in range(0, len(data), SECTOR):
                if index < flushed or chance.random() < 0.5:
                    piece = data[start : start + SECTOR]
                    disk.extend(bytes(max(0, offset + start + len(piece) - len(disk))))
                    disk[offset + start : offset + start + len(piece)] = piece
        return bytes(disk)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(kind=KINDS, operations=OPERATIONS, seed=st.integers(0, 1000), based=st.booleans())
def test_nothing_that_was_flushed_is_lost(
    tmp_path: Path, kind: dict[str, Any], operations: list[tuple[str, int, int]], seed: int, based: bool
) -> None:
    chance = random.Random(seed)
    path, after = tmp_path / "disk.qcow2", tmp_path / "after.qcow2"
    with Rig(path, noise(1, 39 * SECTOR) if based else b"", **kind) as rig:
        image = path.read_bytes()
        flushed = [(0, bytes(rig.model))]
        touched: list[tuple[int, int, int]] = []
        """(events before, start, end) of what each operation may change."""
        with pytest.MonkeyPatch.context() as patch:
            recorder = Recorder(patch)
            for number, (operation, lba, count) in enumerate(operations):
                if operation in ("reopen", "grow", "shrink"):
                    continue
                size = rig.disk.cluster_size
                reach = size if operation == "compress" else count * SECTOR
                start = lba * SECTOR // size * size if operation == "compress" else lba * SECTOR
                touched.append((len(recorder.events), start, start + reach))
                rig.run(operation, lba, count, number)
                if operation == "flush":
                    flushed.append((len(recorder.events), bytes(rig.model)))
            rig.disk.flush()
            flushed.append((len(recorder.events), bytes(rig.model)))
        for moment in {len(recorder.events), *(chance.randint(0, len(recorder.events)) for _ in range(4))}:
            after.write_bytes(recorder.after_power_loss(image, moment, chance))
            report = check(after)
            assert report.corruptions == 0, report
            since, expected = max(entry for entry in flushed if entry[0] <= moment)
            with Qcow2Disk(after) as disk:
                found = disk.read(0, disk.sectors)
            unsure = bytearray(len(expected))
            for when, start, end in touched:
                if since <= when <= moment:
                    unsure[start:end] = b"\1" * (min(end, len(unsure)) - start)
            for start in range(0, len(expected), SECTOR):
                if not unsure[start]:
                    assert found[start : start + SECTOR] == expected[start : start + SECTOR]
