"""The text that Prometheus gets, compared whole."""

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from metrics_samples import DISK, NIC, guest, host

from emuvisor.devices.virtio.net.device import CardDrop
from emuvisor.metrics.exposition import exposition
from emuvisor.net.statistics import Drop
from emuvisor.units import MIB

LINE = re.compile(
    r'[a-z_]+(\{[a-z]+="([^"\\\n]|\\[\\"n])*"(,[a-z]+="([^"\\\n]|\\[\\"n])*")*\})? -?[0-9.e+-]+', re.ASCII
)


def test_the_whole_text() -> None:
    web = guest(
        "web",
        weight=200,
        cap=12.5,
        cpu_ns=1_500_000_000,
        waited_ns=250_000_000,
        retired=123456,
        guest_ns=2_000_000_000,
        slices=42,
        exits={"port_read": 7, "halt": 3},
        console_bytes=77,
        disks=[DISK | {"reads": 5, "read_bytes": 20480, "errors": 1}],
        nics=[
            NIC
            | {
                "sent_frames": 2,
                "sent_bytes": 120,
                "sent_dropped": {Drop.SOURCE_MAC: 4},
                "received_dropped": {Drop.NOT_TAKEN: 1},
                "card_dropped": {CardDrop.LIMITED: 5},
            }
        ],
        memory={"resident": 5 * MIB, "swapped": 4096, "active": MIB, "swapped_in": 8192},
    )
    sample = host(
        web, guest("db", state="paused"), free=80 * MIB, savings={"sharing": 4096}, scanned=5, scan_s=0.25
    )
    assert exposition(sample) == (Path(__file__).parent / "exposition.txt").read_text()


def test_latencies_are_summaries() -> None:
    latency = {"count": 4, "total_ns": 6000, "p50_ns": 1000, "p90_ns": 2000, "p99_ns": 3000}
    disk = DISK | {"name": "/a.img", "latency": {"read": latency}}
    lines = exposition(host(guest(disks=[disk], nics=[NIC | {"latency": {"sent": latency}}]))).splitlines()
    assert [line for line in lines if "disk_latency" in line and line[0] != "#"] == [
        'emuvisor_guest_disk_latency_seconds{quantile="0.5",guest="web",disk="/a.img",kind="read"} 1e-06',
        'emuvisor_guest_disk_latency_seconds{quantile="0.9",guest="web",disk="/a.img",kind="read"} 2e-06',
        'emuvisor_guest_disk_latency_seconds{quantile="0.99",guest="web",disk="/a.img",kind="read"} 3e-06',
        'emuvisor_guest_disk_latency_seconds_sum{guest="web",disk="/a.img",kind="read"} 6e-06',
        'emuvisor_guest_disk_latency_seconds_count{guest="web",disk="/a.img",kind="read"} 4',
    ]
    assert sum("emuvisor_guest_network_latency_seconds" in line for line in lines) == 7


def test_without_guests_there_is_the_host() -> None:
    names = re.findall(r"# TYPE (\S+)", exposition(host()))
    assert names
    assert all(name.startswith("emuvisor_host_") for name in names)


def test_names_are_escaped() -> None:
    text = exposition(host(guest('a"b\\c\nd{}=,é\ud800')))
    assert r'emuvisor_guest_cpu_seconds_total{guest="a\"b\\c\nd{}=,é' + '\ud800"} 0.0' in text.split("\n")


@given(st.text(max_size=30))
def test_every_line_is_well_formed_whatever_guests_are_called(name: str) -> None:
    lines = exposition(host(guest(name))).removesuffix("\n").split("\n")
    assert [line for line in lines if not line.startswith("# ") and not LINE.fullmatch(line)] == []


def test_names_follow_the_conventions() -> None:
    text = exposition(host(guest(disks=[DISK], nics=[NIC], weight=1, cap=1)))
    for name, kind in re.findall(r"# TYPE (\S+) (\S+)", text):
        assert (kind == "counter") == name.endswith("_total"), name
        assert text.count(f"# TYPE {name} ") == text.count(f"# HELP {name} ") == 1
