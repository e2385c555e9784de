"""A configuration as plain data is read back as the same configuration."""

import json
from pathlib import Path

import pytest

from emuvisor.devices.limits import Rate
from emuvisor.machine.config import (
    DiskConfig,
    FlatConfig,
    GuestConfig,
    KernelConfig,
    NicConfig,
    ShareConfig,
)
from emuvisor.machine.config_file import from_mapping
from emuvisor.machine.config_mapping import to_mapping
from emuvisor.units import MIB

HERE = Path("/images")
CONFIGS = [
    GuestConfig(flat=FlatConfig(HERE / "flat.bin", 0x8000, "protected32")),
    GuestConfig(
        name="all",
        board="microvm",
        memory=64 * MIB,
        memory_max=128 * MIB,
        memory_limit=32 * MIB,
        cpu_cap=12.5,
        cpu_affinity=(0, 3),
        vcpus=2,
        clock="host",
        epoch_s=1,
        kernel=KernelConfig(HERE / "vmlinuz", HERE / "initrd", "quiet", "guest"),
        disks=(
            DiskConfig(HERE / "a.img", overlay="temporary", read_bytes=Rate(10), write_iops=Rate(10, 20)),
            DiskConfig(HERE / "b.qcow2", overlay=HERE / "b.overlay", total_iops=Rate(10, 20, 30)),
        ),
        nics=(NicConfig(), NicConfig("lab", "52:54:00:00:00:01", ("tcp:8080:80",), 2)),
        shares=(ShareConfig(HERE, "tag", readonly=False),),
        rng=True,
        vsock=3,
        console_ports=("agent",),
        input=("tablet",),
        until="login:",
        timeout_s=3.5,
    ),
    GuestConfig(firmware="seabios", option_roms=(HERE / "rom",), devices=("module:Class",)),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["flat", "all", "firmware"])
def test_there_and_back(config):
    mapping = json.loads(json.dumps(to_mapping(config)))
    assert from_mapping(mapping, "snapshot", Path("/elsewhere")) == config


def test_defaults_are_written_too():
    assert to_mapping(CONFIGS[0])["memory"] == 256 * MIB


def test_paths_begin_at_the_root(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    mapping = to_mapping(GuestConfig(firmware=Path("bios.bin")))
    assert mapping["firmware"] == str(tmp_path / "bios.bin")


def test_a_single_burst_without_a_burst_of_its_own():
    config = GuestConfig(disks=(DiskConfig(HERE / "a.img", read_bytes=Rate(100, once=5)),))
    assert to_mapping(config)["disks"][0]["read_bytes"] == "100:10:5"
