"""Statistics as lines of JSON, and looking again and again."""

import io
import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from memory_samples import host as host_memory
from metrics_samples import DISK, guest, host, statistics

from emuvisor.errors import UsageError
from emuvisor.metrics import HostSample
from emuvisor.metrics.json_lines import JsonLines
from emuvisor.metrics.sampler import Sampler


def test_a_line_for_each_sample() -> None:
    stream = io.StringIO()
    write = JsonLines(stream, pytest.fail)
    write(host(guest(cpu_ns=0)))
    write(
        host(guest(cpu_ns=123_456_789, weight=5, cap=1.5, disks=[DISK | {"reads": 3}]), seconds=1.5, free=7)
    )
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (first["time"], first["seconds"], second["time"], second["seconds"]) == (
        *(1767225600, 0, 1767225601.5, 1.5),
    )
    assert second["host"] == {
        "pcpus": 2,
        "cpu": {"used": 8.23, "ready": 0, "throttled": 0, "stolen": 0},
        "memory": host_memory(free=7).as_dict(),
    }
    (web,) = second["guests"]
    assert list(web) == [
        *(
            "name",
            "state",
            "reason",
            "cpu",
            "code",
            "exits",
            "disk",
            "disk_latency",
            "network",
            "memory",
            "weight",
        ),
        *("cap", "score", "last_line", "totals"),
    ]
    assert web["disk"] == {"reads": 2, "writes": 0, "read_bytes": 0, "written_bytes": 0}
    assert (web["name"], web["weight"], web["cap"], web["totals"]["cpu_ns"]) == ("web", 5, 1.5, 123_456_789)
    assert web["totals"] == statistics(cpu_ns=123_456_789, disks=[DISK | {"reads": 3}]).as_dict()


def test_hostile_names_and_lines_stay_in_their_line() -> None:
    stream = io.StringIO()
    JsonLines(stream, pytest.fail)(host(guest('a"\n\u2028\ud800', last_line="\n{}")))
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["guests"][0]["name"] == 'a"\n\u2028\ud800'
    assert line.isascii()


def test_writing_ends_when_it_fails() -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    errors: list[OSError] = []
    write = JsonLines(Full(), errors.append)
    write(host())
    write(host())
    assert [error.strerror for error in errors] == ["No space left on device"]


def fake_host() -> Any:
    return SimpleNamespace(all_guests=list, pcpus=3, memory=SimpleNamespace(statistics=host_memory))


def test_the_sampler_looks_at_once_again_and_at_the_end() -> None:
    samples: list[HostSample] = []
    enough = threading.Event()

    def take(sample: HostSample) -> None:
        samples.append(sample)
        if len(samples) == 3:
            enough.set()

    with Sampler(fake_host(), take, period_s=0.01):
        assert enough.wait(30)
    assert len(samples) >= 4
    assert sorted(sample.clock_ns for sample in samples) == [sample.clock_ns for sample in samples]
    assert {sample.pcpus for sample in samples} == {3}


def test_an_impossible_period() -> None:
    with pytest.raises(UsageError) as error:
        Sampler(fake_host(), print, 0.001)
    assert str(error.value) == "a sample every 0.001 s is impossible; it is 0.01 s at least"
