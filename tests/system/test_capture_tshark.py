"""The real tshark reads what a network's capture has written."""

import json
import shutil
import subprocess
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from struct import pack
from typing import Any

import pytest

from emuvisor.bus.ethernet import CHECKSUM, TSO4, Offload
from emuvisor.net.config import NetworkConfig
from emuvisor.net.network import Network

pytestmark = pytest.mark.system

MAC_A, MAC_B = bytes.fromhex("525400000001"), bytes.fromhex("525400000002")
IP_A, IP_B = IPv4Address("10.0.2.15"), IPv4Address("10.0.2.16")
FIRST_NS = 1_700_000_000_123_456_789
STEP_NS = 1_001
TCP_HEADER_AT, TCP_CHECKSUM = 34, 16
FIELDS = (
    "frame.interface_name",
    "frame.time_epoch",
    "frame.packet_flags_direction",
    "frame.len",
    "_ws.malformed",
    "ip.src",
    "ip.checksum.status",
    "tcp.seq_raw",
    "tcp.checksum.status",
    "tcp.len",
    "arp.src.proto_ipv4",
)
GOOD = "1"
INBOUND, OUTBOUND = 1, 2


def tshark(path: Path) -> list[dict[str, str]]:
    """The fields of each packet."""
    program = shutil.which("tshark")
    if program is None:
        pytest.skip("no tshark on this machine; on Debian: apt-get install tshark")
    options = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-T", "json"]
    fields = [argument for field in FIELDS for argument in ("-e", field)]
    done = subprocess.run(
        [program, "-n", "-r", path, *options, *fields], capture_output=True, text=True, check=True
    )
    assert "cut short" not in done.stderr
    assert "damaged" not in done.stderr
    packets: list[dict[str, Any]] = json.loads(done.stdout)
    return [{key: value[0] for key, value in packet["_source"]["layers"].items()} for packet in packets]


def ticking() -> Callable[[], int]:
    times = iter(range(FIRST_NS, FIRST_NS + 1000 * STEP_NS, STEP_NS))
    return lambda: next(times)


def arp() -> bytes:
    body = pack(">HHBBH", 1, 0x0800, 6, 4, 1) + MAC_A + IP_A.packed + bytes(6) + IP_B.packed
    return b"\xff" * 6 + MAC_A + b"\x08\x06" + body


def long_tcp(payload: bytes) -> bytes:
    """Checksums left to the card, as is the rest of what segmentation changes."""
    tcp = pack(">HHIIBBHHH", 1000, 2000, 5000, 1, 0x50, 0x18, 512, 0, 0) + payload
    ip = pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 1, 0x4000, 64, 6, 0, IP_A.packed, IP_B.packed)
    return MAC_B + MAC_A + b"\x08\x00" + ip + tcp


def test_tshark_reads_packets_times_names_and_directions(tmp_path: Path) -> None:
    network = Network(NetworkConfig("lan"), wall_ns=ticking())
    web, database = network.port("web nic0", MAC_A), network.port("database", MAC_B)
    web.connect(lambda frame: True)
    database.connect(lambda frame: True)
    everything = network.capture(tmp_path / "all.pcapng")
    one = network.capture(tmp_path / "one.pcapng", port="database")
    web.send(arp())
    web.send(long_tcp(bytes(2500)), Offload(CHECKSUM | TSO4, TCP_HEADER_AT, TCP_CHECKSUM, 1000))
    everything.close()
    one.close()

    packets = tshark(everything.path)
    assert [packet["frame.interface_name"] for packet in packets] == ["web nic0"] * 4
    assert [int(packet["frame.packet_flags_direction"], 0) for packet in packets] == [OUTBOUND] * 4
    assert [int(packet["frame.len"]) for packet in packets] == [42, 1054, 1054, 554]
    assert packets[0]["arp.src.proto_ipv4"] == str(IP_A)
    assert packets[0]["frame.time_epoch"] in ("1700000000.123456789", "2023-11-14T22:13:20.123456789Z")
    assert [packet["tcp.seq_raw"] for packet in packets[1:]] == ["5000", "6000", "7000"]
    assert {packet["tcp.checksum.status"] for packet in packets[1:]} == {GOOD}
    assert {packet["ip.checksum.status"] for packet in packets[1:]} == {GOOD}
    assert not any("_ws.malformed" in packet for packet in packets)

    packets = tshark(one.path)
    assert [packet["frame.interface_name"] for packet in packets] == ["database"] * 4
    assert [int(packet["frame.packet_flags_direction"], 0) for packet in packets] == [INBOUND] * 4
