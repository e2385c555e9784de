"""--statistics and --metrics. The host is written by hand."""

import argparse
import json
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from memory_samples import host as host_memory

from emuvisor.cli.metrics_options import add_metrics_options, metrics
from emuvisor.errors import HostError, UsageError


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_metrics_options(parser)
    return parser.parse_args(words)


def fake_host(warnings: list[str]) -> Any:
    memory = SimpleNamespace(statistics=host_memory)
    return SimpleNamespace(all_guests=list, pcpus=3, memory=memory, warn=warnings.append)


def test_nothing_is_asked_for() -> None:
    said: list[str] = []
    with metrics(options(), fake_host([]), said.append):
        assert said == []


def test_lines_go_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "statistics"
    path.write_text("what was there before")
    with metrics(options("--statistics", str(path)), fake_host([]), print):
        pass
    assert [json.loads(line)["host"]["pcpus"] for line in path.read_text().splitlines()] == [3, 3]


def test_metrics_are_served() -> None:
    said: list[str] = []
    with metrics(options("--metrics", ":0"), fake_host([]), said.append):
        (text,) = said
        assert text.startswith("metrics at http://127.0.0.1:")
        with urllib.request.urlopen(text.removeprefix("metrics at "), timeout=30) as response:
            assert b"\nemuvisor_host_pcpus 3\n" in response.read()


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with (
        pytest.raises(HostError) as error,
        metrics(options("--statistics", f"{tmp_path}/none/file"), fake_host([]), print),
    ):
        pass
    assert str(error.value) == f"{tmp_path}/none/file: cannot be written: No such file or directory"


def test_a_file_that_fills_up_is_warned_of() -> None:
    warnings: list[str] = []
    with metrics(options("--statistics", "/dev/full"), fake_host(warnings), print):
        pass
    assert warnings == ["/dev/full: the statistics end early: No space left on device"]


def test_an_address_that_is_none() -> None:
    with pytest.raises(UsageError), metrics(options("--metrics", "nowhere"), fake_host([]), print):
        pass
