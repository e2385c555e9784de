"""`emuvisor screenshot` with real guests."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from emuvisor.cli import main, screenshot
from emuvisor.images import cache
from emuvisor.units import PAGE_SIZE

Program = Callable[[str], Path]
Capture = pytest.CaptureFixture[str]


def shot(output: Path | str, path: Path, *options: str, memory: str = "16M") -> int:
    return main(["screenshot", str(output), "--flat", f"{path}@0x8000", "--memory", memory, *options])


def test_a_text_screen_is_printed(program: Program, capsys: Capture) -> None:
    assert shot("-", program("hi"), "--screen-shows", "HI") == 0
    out, err = capsys.readouterr()
    assert (out.rstrip("\n"), err) == ("HI", "")


def test_a_picture_of_the_same_moment_is_the_same(program: Program, tmp_path: Path, capsys: Capture) -> None:
    pictures = [tmp_path / "one.png", tmp_path / "two.png"]
    for picture in pictures:
        assert shot(picture, program("hi"), "--after", "0.03") == 0
        assert capsys.readouterr().out == f"{picture}: 720x400\n"
    first, second = (picture.read_bytes() for picture in pictures)
    assert first == second
    assert (first[:8], struct.unpack(">II", first[16:24])) == (b"\x89PNG\r\n\x1a\n", (720, 400))


def test_the_last_screen_of_a_guest_that_ends(program: Program, capsys: Capture) -> None:
    assert shot("-", program("hi-off"), "--after", "60") == 0
    assert capsys.readouterr().out.startswith("HI")


def test_an_idle_guest_will_show_nothing_else(program: Program, capsys: Capture) -> None:
    assert shot("-", program("hi-idle"), "--after", "60") == 0
    assert capsys.readouterr().out.startswith("HI")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hi", [], "say when: --after, --screen-shows or --until"),
        ("hi", ["--board", "microvm", "--after", "1"], "the microvm board has no display"),
        (
            "hi-off",
            ["--screen-shows", "HELLO"],
            "the guest ended (power-off) before its screen showed 'HELLO'",
        ),
        ("hi", ["--screen-shows", "HELLO", "--timeout", "0.05"], "the moment did not come within 0.05 s"),
    ],
)
def test_moments_that_do_not_come(
    program: Program, capsys: Capture, name: str, options: list[str], message: str
) -> None:
    assert shot("-", program(name), *options) == 2
    assert capsys.readouterr().err == f"emuvisor: error: {message}\n"


def test_more_than_one_guest(tmp_path: Path, capsys: Capture) -> None:
    argv = ["screenshot", "-", "--config", "a.toml", "--config", "b.toml", "--after", "1"]
    assert main(argv) == 2
    assert capsys.readouterr().err == "emuvisor: error: a screenshot is of one guest; there are 2 --config\n"


def test_a_picture_that_cannot_be_written(program: Program, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "none" / "x.png"
    assert shot(output, program("hi"), "--after", "0.01") == 2
    assert (
        capsys.readouterr().err
        == f"emuvisor: error: {output}: cannot be written: No such file or directory\n"
    )


def test_firmware_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path)
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(512))
    assert main(["screenshot", "-", "--disk", str(disk), "--firmware", "seabios", "--after", "1"]) == 2
    assert capsys.readouterr().err == (
        "emuvisor: error: the firmware 'seabios' is not here yet; get it with: emuvisor images pull seabios\n"
    )


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with screenshot.progress() as update:
        update("1.0 s of guest time")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "hi-idle",
            ["--screen-shows", "X"],
            "the guest halted and waits for input before its screen showed 'X'",
        ),
        ("hi-idle", ["--until", "Y"], "the guest halted and waits for input before its console printed 'Y'"),
        (
            "hi-off",
            ["--screen-shows", "X", "--until", "Y"],
            "the guest ended (power-off) before its screen showed 'X' or its console printed 'Y'",
        ),
    ],
)
def test_texts_that_never_come(
    program: Program, capsys: Capture, name: str, options: list[str], message: str
) -> None:
    assert shot("-", program(name), *options) == 2
    assert capsys.readouterr().err == f"emuvisor: error: {message}\n"


def test_an_idle_guest_on_the_host_clock(program: Program, capsys: Capture) -> None:
    assert shot("-", program("hi-idle"), "--after", "0.001", "--clock", "host") == 0
    assert capsys.readouterr().out.startswith("HI")


def test_a_guest_that_the_host_cannot_supply(
    program: Program, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emuvisor.cli.guests.pool_size", lambda _guests: 512 * PAGE_SIZE)
    assert shot("-", program("memtouch"), "--after", "1000") == 2
    assert capsys.readouterr().err == "emuvisor: error: the guest needs more memory than 512 frames\n"


def test_a_picture_is_not_printed(program: Program, capsys: Capture) -> None:
    assert shot("-", program("graphics"), "--after", "0.01") == 2
    assert (
        capsys.readouterr().err
        == "emuvisor: error: the screen is in a graphics mode; name a file for the picture\n"
    )
