"""Whatever is done to a disk in a qcow2 image, it reads as a bytearray would, and the image stays in order."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qcow2_rig import KINDS, OPERATIONS, SECTOR, SECTORS, Rig, noise

from emuvisor.devices.storage.qcow2 import reader, tables

QUICK = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


@QUICK
@given(kind=KINDS, operations=OPERATIONS)
def test_a_disk_of_its_own(
    tmp_path: Path, kind: dict[str, Any], operations: list[tuple[str, int, int]]
) -> None:
    with Rig(tmp_path / "disk.qcow2", **kind) as rig:
        for number, operation in enumerate(operations):
            rig.run(*operation, number)
        rig.verify()


@QUICK
@given(kind=KINDS, operations=OPERATIONS, length=st.sampled_from([1, 100, SECTORS, 2 * SECTORS]))
def test_a_disk_above_another(
    tmp_path: Path, kind: dict[str, Any], operations: list[tuple[str, int, int]], length: int
) -> None:
    below = noise(-1, length * SECTOR)
    with Rig(tmp_path / "disk.qcow2", below, **kind) as rig:
        for number, operation in enumerate(operations):
            rig.run(*operation, number)
        rig.verify()
    assert (tmp_path / "base.img").read_bytes() == below


def test_compressed_clusters_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MOST_UNPACKED", 3 * 4096)
    with Rig(tmp_path / "disk.qcow2", cluster_size=4096) as rig:
        for number in range(30):
            rig.run("compress", number * 8, 1, number)
        rig.verify()
        assert rig.disk.image.refcounts.end < 30


def test_more_tables_than_the_cache_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CACHE_BYTES", 4 * 512)
    with Rig(tmp_path / "disk.qcow2", cluster_size=512) as rig:  # a table covers 64 sectors
        for number in range(200):
            rig.run("write", number * 37 % SECTORS, 1, number)
            if number % 50 == 0:
                rig.disk.flush()
        rig.run("grow", 0, 2000, 0)
        for number in range(300):
            rig.run("write", number * 37 * 8, 1, number)
        for number in range(20):
            rig.run("compress", number * 100, 1, number)
        rig.verify()
