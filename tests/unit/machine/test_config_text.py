"""A configuration as TOML reads back as the same."""

import tomllib
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emuvisor.devices.limits import Rate
from emuvisor.errors import ConfigError
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
from emuvisor.machine.config_text import to_toml
from emuvisor.machine.loaders.flat import FlatMode
from emuvisor.units import GIB, MIB, PAGE_SIZE

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
NAME = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)
PATH = TEXT.map(lambda text: Path("/somewhere") / text.replace("/", "|"))
RATE = st.none() | st.builds(Rate, st.integers(1, 1 << 40), st.integers(1, 1 << 40))
OPTIONAL_NUMBER = st.none() | st.integers(1, 1 << 40)
DISK = st.builds(
    DiskConfig,
    path=PATH,
    overlay=st.none() | PATH | st.just("temporary"),
    bus=st.sampled_from([None, "virtio"]),
    queues=st.integers(1, 16),
    read_bytes=RATE,
    total_iops=RATE,
)
NIC = st.builds(
    NicConfig, network=NAME, forwards=st.just(("tcp:8080:80",)), queues=st.integers(1, 4), in_bytes=RATE
)
BOOT = st.one_of(
    st.builds(dict, kernel=st.builds(KernelConfig, PATH, st.none() | PATH, TEXT)),
    st.builds(
        dict, flat=st.builds(FlatConfig, PATH, st.integers(0, 1 << 30), st.sampled_from(get_args(FlatMode)))
    ),
    st.builds(dict, firmware=st.sampled_from(["seabios", "ovmf"]) | PATH),
)
GUEST = st.builds(
    lambda boot, memory, reserved, **rest: GuestConfig(
        memory=memory * PAGE_SIZE, memory_reservation=min(reserved, memory * PAGE_SIZE), **boot, **rest
    ),
    BOOT,
    st.integers(256, 1 << 20),
    st.integers(0, GIB),
    name=NAME,
    cpu_weight=st.integers(1, 10_000),
    cpu_cap=st.none() | st.floats(1, 100),
    cpu_limit=OPTIONAL_NUMBER,
    cpu_affinity=st.none() | st.lists(st.integers(0, 31), min_size=1, max_size=3).map(tuple),
    vcpus=st.integers(1, 8),
    clock=st.sampled_from(["virtual", "host"]),
    seed=st.integers(-(1 << 70), 1 << 70),
    disks=st.lists(DISK, max_size=2).map(tuple),
    nics=st.lists(NIC, max_size=2).map(tuple),
    shares=st.just(()) | st.just((ShareConfig(Path("/srv"), "tag", False),)),
    rng=st.booleans(),
    until=st.none() | TEXT,
    timeout_s=st.none() | st.floats(0.001, 1e6),
)


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=60)
@given(GUEST)
def test_round_trip(config):
    text = to_toml(to_mapping(config))
    assert from_mapping(tomllib.loads(text), "it") == config


def test_it_reads_well():
    config = GuestConfig(
        name="web",
        memory=512 * MIB,
        memory_limit=3 * MIB + PAGE_SIZE,
        rng=True,
        kernel=KernelConfig(Path("/boot/vmlinuz"), append='a="b"'),
        disks=(DiskConfig(Path("/d")), DiskConfig(Path("/e"), readonly=True)),
    )
    plain = to_mapping(config)
    brief = {
        key: plain[key]
        for key in ("name", "memory", "memory_limit", "rng", "cpu_cap", "kernel")
        if key in plain
    }
    brief["disks"] = [{"path": "/d"}, {"path": "/e", "readonly": True}]
    assert to_toml(brief) == (
        'name = "web"\nmemory = "512M"\nmemory_limit = 3149824\nrng = true\n\n'
        '[kernel]\npath = "/boot/vmlinuz"\nappend = "a=\\"b\\""\ndecompressor = "host"\n\n'
        '[[disks]]\npath = "/d"\n\n[[disks]]\npath = "/e"\nreadonly = true\n'
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("\udc80", "key: '\\udc80' is no UTF-8 and cannot be in a definition"),
        (b"x", "key: b'x' cannot be in a definition"),
        (None, "key: None cannot be in a definition"),
    ],
)
def test_what_toml_cannot_have(value, message):
    with pytest.raises(ConfigError) as error:
        to_toml({"key": value})
    assert str(error.value) == message
