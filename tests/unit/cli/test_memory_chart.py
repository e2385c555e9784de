"""`emuvisor memory --chart`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from memory_samples import guest, sample

from emuvisor.cli import main, memory_chart
from emuvisor.cli.memory_chart import BANDS, draw
from emuvisor.errors import HostError, UsageError
from emuvisor.host.memory.recording import Header, Sample, encode
from emuvisor.units import GIB, MIB

Capture = pytest.CaptureFixture[str]
PNG = b"\x89PNG\r\n\x1a\n"
SIZE_FIELD = slice(16, 24)

RUN = (
    sample(100.0, guest("apple"), guest("pear")),
    sample(
        101.0, guest("apple", resident=30 * MIB, active=20 * MIB, limit=48 * MIB), state="soft", free=9 * MIB
    ),
    sample(102.0, guest("apple", resident=9 * MIB, swapped=30 * MIB, reservation=MIB), state="low", free=MIB),
    sample(103.0, guest("pear"), state="hard", free=2 * MIB),
)


def svg(samples: Sequence[Sample], folder: Path) -> str:
    draw(samples, folder / "chart.svg")
    return (folder / "chart.svg").read_text()


def colours(text: str) -> set[str]:
    return {colour for colour in BANDS.values() if f"fill: {colour}" in text}


def words(text: str) -> set[str]:
    return {element.text or "" for element in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}text")}


def test_everything_is_in_it(tmp_path: Path) -> None:
    text = svg(RUN, tmp_path)
    assert {
        *("apple, 64 MiB", "pear, 64 MiB", "host, free of 96 MiB", "MiB", "seconds", "state"),
        *(
            "resident",
            "shared",
            "zero",
            "ballooned",
            "compressed",
            "swapped",
            "active",
            "limit",
            "reservation",
        ),
        *BANDS,
    } <= words(text)
    assert colours(text) == set(BANDS.values())
    assert all(kind.colour in text for kind in memory_chart.KINDS)


def test_the_same_recording_gives_the_same_file(tmp_path: Path) -> None:
    first = svg(RUN, tmp_path)
    assert svg(RUN, tmp_path) == first
    assert "<dc:date>" not in first


def test_only_states_that_were_entered_have_bands(tmp_path: Path) -> None:
    text = svg(RUN[:2], tmp_path)
    assert {"high", "soft", "hard", "low"} & words(text) == {"high", "soft"}
    assert BANDS["low"] not in text


def test_a_png_has_a_height_for_each_guest(tmp_path: Path) -> None:
    heights = []
    for count in (1, 4):
        path = tmp_path / "chart.png"
        draw([sample(1.0, *(guest(f"guest{number}") for number in range(count)))], path)
        data = path.read_bytes()
        assert data.startswith(PNG)
        width, height = (int.from_bytes(data[SIZE_FIELD][start:][:4], "big") for start in (0, 4))
        assert width == memory_chart.WIDTH * memory_chart.DPI
        heights.append(height)
    assert heights[1] - heights[0] == pytest.approx(3 * memory_chart.GUEST_HEIGHT * memory_chart.DPI, abs=1)


def test_large_guests_and_strange_recordings(tmp_path: Path) -> None:
    """Time that goes back, names with TeX's signs, no guest at all, a state that nobody knows."""
    strange = [
        sample(9.0, guest("$x_1^2$", configured=8 * GIB, resident=GIB), pool=16 * GIB),
        sample(3.0, pool=16 * GIB, state="odd"),
    ]
    text = svg(strange, tmp_path)
    assert {"$x_1^2$, 8 GiB", "GiB"} <= words(text)
    assert "host, free of 96 MiB" in words(svg([sample(1.0)], tmp_path))


def test_a_long_recording_is_thinned_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = [sample(float(number), guest("a", resident=number)) for number in range(1001)]
    whole = svg(long, tmp_path)
    monkeypatch.setattr(memory_chart, "MAX_POINTS", 10)
    thin = svg(long, tmp_path)
    assert len(thin) < len(whole) / 2
    assert "1000" in words(thin) & words(whole)  # to the last sample


def test_too_many_guests(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        draw([sample(1.0, *(guest(f"guest{number}") for number in range(25)))], tmp_path / "chart.svg")
    assert str(error.value) == "a chart has room for 24 guests, and there are 25; --guest picks one"


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "none" / "chart.png"
    with pytest.raises(HostError) as error:
        draw(RUN, path)
    assert str(error.value) == f"{path}: cannot be written: No such file or directory"


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError) as error:
        draw(RUN, tmp_path / "chart.svg")
    assert str(error.value) == "a chart needs matplotlib: pip install 'emuvisor[charts]'"


def test_the_command(tmp_path: Path, capsys: Capture) -> None:
    recording, chart = tmp_path / "recording", tmp_path / "chart.svg"
    recording.write_bytes(b"".join(map(encode, (Header(time=1.0, period_s=0.25), *RUN))))
    assert main(["memory", str(recording), "--chart", str(chart), "--guest", "pear"]) == 0
    assert capsys.readouterr() == ("", "")
    found = words(chart.read_text())
    assert "pear, 64 MiB" in found
    assert "apple, 64 MiB" not in found


def test_a_chart_of_another_kind(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["memory", "recording", "--chart", "chart.pdf"])
    message = "emuvisor memory: error: argument --chart: 'chart.pdf' ends in neither .svg nor .png"
    assert capsys.readouterr().err.splitlines()[-1] == message
