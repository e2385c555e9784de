from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.errors import ConfigError
from emuvisor.machine.config import (
    DiskConfig,
    FlatConfig,
    GuestConfig,
    KernelConfig,
    NicConfig,
    ShareConfig,
)
from emuvisor.machine.config_file import from_mapping, load_config, load_networks
from emuvisor.net.config import NetworkConfig
from emuvisor.net.forward import Forward

KERNEL = {"kernel": {"path": "vmlinuz"}}


def refused(data: dict, source: str = "guest.toml") -> str:
    with pytest.raises(ConfigError) as error:
        from_mapping(data, source)
    return str(error.value)


def test_everything_from_toml(tmp_path):
    (tmp_path / "guest.toml").write_text("""
        name = "debian-1"
        board = "pc"
        memory = "512M"
        cpu = "base"
        vcpus = 1
        clock = "host"
        epoch_s = 2025-06-01T12:00:00Z
        seed = 7
        serial_ports = 2
        until = "login:"
        timeout_s = 60
        cpu_weight = 300
        cpu_cap = 75
        cpu_reservation = 12.5
        cpu_limit = "100M"
        cpu_affinity = [0, 2]
        cpu_period_us = 10_000
        cpu_latency_us = 500
        option_roms = ["net.rom"]
        devices = ["my:Lamp"]
        rng = true
        balloon = true
        vsock = 3
        console_ports = ["log"]
        input = ["tablet"]
        ring = "packed"

        [kernel]
        path = "vmlinuz"
        initrd = "/abs/initrd"
        append = "quiet"
        decompressor = "guest"

        [[disks]]
        path = "a.img"
        readonly = true
        [[disks]]
        path = "b.img"
        overlay = "b.overlay"
        [[disks]]
        path = "c.iso"
        kind = "cdrom"
        [[disks]]
        path = "d.img"
        format = "qcow2"
        bus = "virtio"
        queues = 2

        [[nics]]
        [[nics]]
        network = "lab"
        mac = "52:54:00:00:00:01"
        forwards = ["tcp:8080:80"]
        queues = 2

        [[shares]]
        path = "folder"
        tag = "files"
        readonly = false
    """)
    assert load_config(tmp_path / "guest.toml") == GuestConfig(
        name="debian-1",
        board="pc",
        memory=512 << 20,
        cpu_weight=300,
        cpu_cap=75,
        cpu_reservation=12.5,
        cpu_limit=100 << 20,
        cpu_affinity=(0, 2),
        cpu_period_us=10_000,
        cpu_latency_us=500,
        cpu="base",
        vcpus=1,
        clock="host",
        epoch_s=1748779200,
        seed=7,
        kernel=KernelConfig(tmp_path / "vmlinuz", Path("/abs/initrd"), "quiet", "guest"),
        disks=(
            DiskConfig(tmp_path / "a.img", True),
            DiskConfig(tmp_path / "b.img", overlay=tmp_path / "b.overlay"),
            DiskConfig(tmp_path / "c.iso", kind="cdrom"),
            DiskConfig(tmp_path / "d.img", format="qcow2", bus="virtio", queues=2),
        ),
        nics=(NicConfig(), NicConfig("lab", "52:54:00:00:00:01", ("tcp:8080:80",), queues=2)),
        shares=(ShareConfig(tmp_path / "folder", "files", readonly=False),),
        rng=True,
        balloon=True,
        vsock=3,
        console_ports=("log",),
        input=("tablet",),
        ring="packed",
        option_roms=(tmp_path / "net.rom",),
        devices=("my:Lamp",),
        serial_ports=2,
        until="login:",
        timeout_s=60,
    )


def test_other_boot_sources():
    flat = from_mapping({"flat": {"path": "x", "address": 0x7C00}}, "c", Path("/f"))
    assert flat.flat == FlatConfig(Path("/f/x"), 0x7C00, "real16")
    assert from_mapping({"firmware": "bios"}, "c", Path("/f")).firmware == Path("/f/bios")
    assert from_mapping({"disks": [{"path": "d"}]}, "c", Path("/f")).disks == (DiskConfig(Path("/f/d")),)
    assert from_mapping({**KERNEL, "memory": 1 << 20}, "c").memory_map.low_end == 1 << 20


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "nothing to boot from: give one of kernel, flat, firmware and disks"),
        ({**KERNEL, "firmware": "b"},
         "kernel and firmware: a guest boots from one of kernel, flat and firmware"),
        ({**KERNEL, "memroy": "1G"}, "unknown key 'memroy' in the top-level table; did you mean 'memory'?"),
        ({"kernel": {"path": "k", "cmdline": ""}},
         "unknown key 'cmdline' in [kernel]; known keys: path, initrd, append, decompressor"),
        ({"disks": [{"path": "d"}, {"path": "e", "readonli": True}]},
         "unknown key 'readonli' in [disks[1]]; did you mean 'readonly'?"),
        ({"kernel": {}}, "kernel.path is missing"),
        ({"flat": {"path": "x"}}, "flat.address is missing"),
        ({"kernel": "vmlinuz"}, "kernel: 'vmlinuz' is not a table"),
        ({"disks": {"path": "d"}}, "disks: {'path': 'd'} is not a list of tables"),
        ({"disks": ["d"]}, "disks[0]: 'd' is not a table"),
        ({"kernel": {"path": ""}}, "kernel.path: '' is not a path"),
        ({"kernel": {"path": "k", "decompressor": "none"}},
         "kernel.decompressor: 'none' is not one of host, guest"),
        ({"flat": {"path": "x", "address": -1}}, "flat.address: -1 is negative"),
        ({"flat": {"path": "x", "address": 0, "mode": "real"}},
         "flat.mode: 'real' is not one of real16, protected32, long64"),
        ({"flat": {"path": "x", "address": "0"}}, "flat.address: '0' is not a whole number"),
        ({**KERNEL, "memory": "lots"},
         "memory: 'lots' is not a size; write a whole number with K, M, G or T, such as 256M"),
        ({**KERNEL, "memory": 1.5}, 'memory: 1.5 is not a size, such as "256M" or a number of bytes'),
        ({**KERNEL, "memory": "4K"}, "memory: 4096 bytes (4 KiB) is outside 1 MiB to 512 GiB"),
        ({**KERNEL, "vcpus": True}, "vcpus: True is not a whole number"),
        ({**KERNEL, "cpu_weight": 0}, "cpu_weight: 0 is outside 1 to 10000"),
        ({**KERNEL, "cpu_weight": 1.5}, "cpu_weight: 1.5 is not a whole number"),
        ({**KERNEL, "cpu_cap": 0}, "cpu_cap: 0 is outside 0.01 to 100"),
        ({**KERNEL, "cpu_cap": float("nan")}, "cpu_cap: nan is outside 0.01 to 100"),
        ({**KERNEL, "cpu_cap": "half"}, "cpu_cap: 'half' is not a number"),
        ({**KERNEL, "cpu_reservation": 100.5}, "cpu_reservation: 100.5 is outside 0 to 100"),
        ({**KERNEL, "cpu_reservation": 30, "cpu_cap": 20}, "cpu_reservation: 30 is more than the cap of 20"),
        ({**KERNEL, "cpu_limit": 0}, "cpu_limit: 0 is outside 1 to 1099511627776"),
        ({**KERNEL, "cpu_limit": "2T"}, "cpu_limit: 2199023255552 is outside 1 to 1099511627776"),
        ({**KERNEL, "cpu_affinity": []}, "cpu_affinity: there is no pCPU in it"),
        ({**KERNEL, "cpu_affinity": [0, 32]}, "cpu_affinity: 32 is outside 0 to 31"),
        ({**KERNEL, "cpu_affinity": [True]}, "cpu_affinity: True is not a whole number"),
        ({**KERNEL, "cpu_affinity": 1}, "cpu_affinity: 1 is not a list of whole numbers"),
        ({**KERNEL, "cpu_period_us": 1_000_001}, "cpu_period_us: 1000001 is outside 1000 to 1000000"),
        ({**KERNEL, "cpu_latency_us": 99}, "cpu_latency_us: 99 is outside 100 to 100000"),
        ({**KERNEL, "vcpus": 9}, "vcpus: 9 is outside 1 to 8"),
        ({**KERNEL, "board": "isa", "vcpus": 2}, "vcpus: the isa board has one processor, not 2"),
        ({**KERNEL, "serial_ports": 5}, "serial_ports: 5 is outside 0 to 4"),
        ({**KERNEL, "clock": "wall"}, "clock: 'wall' is not one of virtual, host"),
        ({**KERNEL, "name": "a b"}, "name: 'a b' is not 1 to 64 letters, digits, '-', '_' or '.'"),
        ({**KERNEL, "name": "x" * 65}, f"name: '{'x' * 65}' is not 1 to 64 letters, digits, '-', '_' or '.'"),
        ({**KERNEL, "until": ""}, "until: the text is empty"),
        ({**KERNEL, "timeout_s": 0}, "timeout_s: 0 is not more than 0 and at most 31536000"),
        ({**KERNEL, "timeout_s": float("nan")}, "timeout_s: nan is not more than 0 and at most 31536000"),
        ({**KERNEL, "epoch_s": -1}, "epoch_s: -1 is outside 0 to 4102444799"),
        ({**KERNEL, "epoch_s": "now"}, "epoch_s: 'now' is not seconds since 1970 or a date and time"),
        ({**KERNEL, "board": "q35"}, "board: 'q35' is not one of pc, microvm, isa"),
        ({"disks": [{"path": "d", "kind": "tape"}]}, "disks.kind: 'tape' is not one of disk, cdrom, floppy"),
        ({"disks": [{"path": "d", "readonly": True, "overlay": "temporary"}]},
         "disks.overlay: a read-only disk has none"),
        ({"disks": [{"path": "d", "kind": "cdrom", "overlay": "o"}]}, "disks.overlay: a cdrom has none"),
        ({"board": "pc", "disks": [{"path": "d"}] * 5}, "disks: the pc board has 4 hard disks and CD-ROMs at most"),
        ({"board": "pc", "disks": [{"path": "d", "kind": "floppy"}] * 3},
         "disks: the pc board has 2 floppy disks at most"),
        ({"board": "isa", "firmware": "seabios"}, "firmware: seabios needs the pc board, this is isa"),
        ({**KERNEL, "board": "isa", "option_roms": ["r"]}, "option_roms: the isa board has no bus for them"),
        ({"board": "isa", "disks": [{"path": "d", "kind": "cdrom"}]}, "disks: the isa board has no CD-ROM"),
        ({**KERNEL, "board": "microvm", "disks": [{"path": "d", "bus": "ide"}]},
         "disks: the microvm board has disks at virtio only"),
        ({"disks": [{"path": "d", "format": "vmdk"}]},
         "disks.format: 'vmdk' is not one of raw, qcow2, overlay"),
        ({"disks": [{"path": "d", "bus": "scsi"}]}, "disks.bus: 'scsi' is not one of ide, virtio"),
        ({"disks": [{"path": "d", "queues": 17}]}, "disks.queues: 17 is outside 1 to 16"),
        ({"disks": [{"path": "d", "kind": "cdrom", "bus": "virtio"}]}, "disks.bus: a cdrom is not virtio"),
        ({"disks": [{"path": "d", "kind": "floppy", "format": "qcow2"}]}, "disks.format: a floppy is not qcow2"),
        ({**KERNEL, "nics": [{"queues": 17}]}, "nics.queues: 17 is outside 1 to 16"),
        ({**KERNEL, "nics": [{"network": "my net"}]},
         "nics.network: 'my net' is not 1 to 64 letters, digits, '-', '_' or '.'"),
        ({**KERNEL, "nics": [{"mac": "52:54:00:00:00"}]},
         "nics.mac: '52:54:00:00:00' is not six pairs of hexadecimal digits with ':'"),
        ({**KERNEL, "nics": [{"mac": "01:00:5e:00:00:01"}]},
         "nics.mac: 01:00:5e:00:00:01 is a group's address, not a card's"),
        ({**KERNEL, "nics": [{"forwards": ["tcp:80"]}]},
         "forward 'tcp:80' is not of the form PROTOCOL:[HOST-ADDRESS:]HOST-PORT:[GUEST:]GUEST-PORT, "
         "such as tcp:8080:80"),
        ({**KERNEL, "shares": [{"path": "d"}]}, "shares[0].tag is missing"),
        ({**KERNEL, "shares": [{"path": "d", "tag": "t" * 37}]}, f"shares.tag: '{'t' * 37}' is not 1 to 36 bytes"),
        ({**KERNEL, "shares": [{"path": "d", "tag": "t"}] * 2}, "shares.tag: 't' is there twice"),
        ({**KERNEL, "console_ports": ["log", "log"]}, "console_ports: 'log' is there twice"),
        ({**KERNEL, "console_ports": ["a b"]},
         "console_ports: 'a b' is not 1 to 64 letters, digits, '-', '_' or '.'"),
        ({**KERNEL, "vsock": 2}, "vsock: 2 is outside 3 to 4294967294"),
        ({**KERNEL, "input": ["joystick"]}, "input: 'joystick' is not one of keyboard, mouse, tablet"),
        ({**KERNEL, "ring": "torn"}, "ring: 'torn' is not one of split, packed"),
        ({**KERNEL, "board": "isa", "rng": True}, "the isa board has no virtio devices"),
        ({**KERNEL, "input": ["mouse"] * 25}, "25 virtio devices are too many; the limit is 24"),
        ({**KERNEL, "devices": [1]}, "devices: 1 is not text"),
        ({**KERNEL, "option_roms": [""]}, "option_roms: '' is not a path"),
    ],
)  # fmt: skip
def test_refused(data, message):
    assert refused(data) == f"guest.toml: {message}"


def test_a_card_has_an_address_of_its_guest_and_number():
    own = NicConfig()
    assert own.address("a", 0) == own.address("a", 0) == bytes.fromhex("525400") + own.address("a", 0)[3:]
    assert len({own.address(guest, number) for guest in "ab" for number in (0, 1)}) == 4
    assert NicConfig(mac="52:54:00:12:34:56").address("a", 0) == bytes.fromhex("525400123456")


def test_disks_are_connected_as_the_board_has_it():
    disks = (DiskConfig(Path("a")), DiskConfig(Path("b"), bus="virtio"), DiskConfig(Path("c"), kind="cdrom"))
    pc = GuestConfig(disks=disks)
    assert pc.virtio_disks == [disks[1]]
    assert pc.has_virtio
    assert GuestConfig(disks=disks[:2], board="microvm").virtio_disks == list(disks[:2])
    assert not GuestConfig(disks=disks[:1]).has_virtio


def test_unreadable_files(tmp_path):
    missing = tmp_path / "none.toml"
    with pytest.raises(ConfigError) as error:
        load_config(missing)
    assert str(error.value) == f"{missing}: cannot be read: No such file or directory"
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(ConfigError) as error:
        load_config(broken)
    assert str(error.value) == f"{broken}: not TOML: Invalid value (at end of document)"
    broken.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not TOML: 'utf-8' codec"):
        load_config(broken)
    broken.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError) as error:
        load_config(broken)
    assert str(error.value) == f"{broken}: larger than 1048576 bytes"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from(sorted(GuestConfig.__dataclass_fields__)) | st.text(max_size=6)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_any_mapping_is_read_or_refused_by_name(data):
    message = "fuzz: accepted"
    try:
        from_mapping(data, "fuzz")
    except ConfigError as error:
        message = str(error)
    assert message.startswith("fuzz: ")


def test_number_too_long_to_print():
    assert refused({**KERNEL, "vcpus": 16**5000}).startswith("guest.toml: Exceeds the limit")


NETWORKS = """
    [[networks]]
    name = "lab"

    [[networks]]
    name = "out"
    uplink = "user"
    subnet = "192.168.7.0/24"
    subnet6 = "none"
    forwards = ["tcp:8080:web:80"]
    names = { server = "192.168.7.2" }
    anti_spoofing = false
    mtu = 9000
    restrict = true
    host_loopback = true
    bootfile = "http://192.168.7.2/boot.ipxe"

    [[networks]]
    name = "wide"
    uplink = "tap:tap0"
    subnet6 = "fd00:1::/64"
"""


def test_networks_from_toml(tmp_path):
    (tmp_path / "networks.toml").write_text(NETWORKS)
    assert load_networks(tmp_path / "networks.toml") == [
        NetworkConfig("lab"),
        NetworkConfig(
            "out",
            uplink="user",
            subnet=IPv4Network("192.168.7.0/24"),
            subnet6=None,
            forwards=(Forward("tcp", 8080, 80, guest="web"),),
            names={"server": IPv4Address("192.168.7.2")},
            anti_spoofing=False,
            mtu=9000,
            restrict=True,
            host_loopback=True,
            bootfile="http://192.168.7.2/boot.ipxe",
        ),
        NetworkConfig("wide", uplink="tap:tap0", subnet6=IPv6Network("fd00:1::/64")),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network = 1", "unknown key 'network' in the top-level table; did you mean 'networks'?"),
        ("[[networks]]", "networks[0].name is missing"),
        ('[[networks]]\nname = "a"\nsubnet = "10.0.0.0"',
         "network.subnet: 10.0.0.0/32 has a prefix length outside 8 to 27"),
        ('[[networks]]\nname = "a"\nsubnet = "ten"',
         "networks[0].subnet: 'ten' is not an IPv4 subnet, such as 10.0.2.0/24"),
        ('[[networks]]\nname = "a"\nsubnet6 = "ten"',
         "networks[0].subnet6: 'ten' is not an IPv6 subnet, such as fec0::/64, or \"none\""),
        ('[[networks]]\nname = "a"\nuplink = "user"\nnames = { b = "c" }',
         "networks[0].names.b: 'c' is not an IP address"),
        ('[[networks]]\nname = "a"\nforwards = ["icmp:1:1"]',
         "forward icmp:127.0.0.1:1:1: 'icmp' is not one of tcp, udp"),
    ],
)  # fmt: skip
def test_refused_networks(text, message, tmp_path):
    path = tmp_path / "networks.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_networks(path)
    assert str(error.value) == f"{path}: {message}"
