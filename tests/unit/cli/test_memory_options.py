"""The options of `emuvisor run` for memory."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import emuvisor
from emuvisor.cli import guests, main
from emuvisor.cli.entry import build_parser
from emuvisor.cli.memory_options import memory_policy
from emuvisor.errors import EmuvisorError
from emuvisor.host.memory.decisions import Decision
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.host.memory.recording import End, Header, RecordingReader, Sample
from emuvisor.units import GIB, KIB, MIB

Capture = pytest.CaptureFixture[str]
Program = Callable[[str], Path]
STYLE = re.compile(r"\x1b\[[0-9;]*m")
ALL_RUNGS = ["sharing", "balloon", "compression", "swap", "pause"]


def policy(*argv: str) -> MemoryPolicy:
    return memory_policy(build_parser().parse_args(["run", *argv]))


def test_nothing_said_is_the_default() -> None:
    default = policy()
    assert (default.overcommit, default.swap, default.swap_limit) == (None, None, None)
    assert (default.compression_limit, default.compression) == (None, "lz4")
    assert [rung.name for rung in default.rungs] == ALL_RUNGS


def test_everything_said() -> None:
    chosen = policy(
        *("--overcommit", "1.5", "--swap", "a.swap,1G", "--compression", "zstd:64M"),
        *("--no-sharing", "--no-balloon"),
    )
    assert (chosen.overcommit, chosen.swap, chosen.swap_limit) == (1.5, Path("a.swap"), GIB)
    assert (chosen.compression_limit, chosen.compression) == (64 * MIB, "zstd")
    assert [rung.name for rung in chosen.rungs] == ["compression", "swap", "pause"]


@pytest.mark.parametrize(
    ("value", "limit", "algorithm"),
    [("64K", 64 * KIB, "lz4"), ("0", 0, "lz4"), ("lz4:1G", GIB, "lz4"), ("zstd:1M", MIB, "zstd")],
)
def test_compression(value: str, limit: int, algorithm: str) -> None:
    chosen = policy("--compression", value)
    assert (chosen.compression_limit, chosen.compression) == (limit, algorithm)


def test_a_swap_file_without_a_size() -> None:
    assert policy("--swap", "a.swap").swap == Path("a.swap")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--overcommit", "0", "'0' is not a number above 0, such as 1.5"),
        ("--overcommit", "inf", "'inf' is not a number above 0, such as 1.5"),
        ("--overcommit", "twice", "'twice' is not a number above 0, such as 1.5"),
        ("--swap", ",1G", "',1G' is not FILE[,SIZE], such as swap.bin,1G"),
        ("--swap", "a,b", "'a,b' is not FILE[,SIZE], such as swap.bin,1G"),
        ("--compression", "lz5:1M", "'lz5:1M' is not SIZE, 0, lz4:SIZE or zstd:SIZE, such as zstd:64M"),
        ("--compression", ":1M", "':1M' is not SIZE, 0, lz4:SIZE or zstd:SIZE, such as zstd:64M"),
        ("--compression", "zstd", "'zstd' is not SIZE, 0, lz4:SIZE or zstd:SIZE, such as zstd:64M"),
    ],
)
def test_what_cannot_be_parsed(option: str, value: str, message: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        policy(option, value)
    assert capsys.readouterr().err.splitlines()[-1] == f"emuvisor run: error: argument {option}: {message}"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--compression", "1K"],
            "1024 bytes for compressed pages are impossible; it is 0, or 64 KiB at least",
        ),
        (["--compression", "zstd:0"], "--compression zstd:0: that is no compression; write --compression 0"),
        (["--swap", "a,1K"], "a swap file of 1024 bytes is impossible; it has 4 KiB at least"),
    ],
)
def test_sizes_that_are_impossible(argv: list[str], message: str) -> None:
    with pytest.raises(EmuvisorError) as error:
        policy(*argv)
    assert str(error.value) == message


# ---- for each guest ----


def test_a_guests_part(tmp_path: Path) -> None:
    options = ["--reservation", "16M", "--limit", "32M", "--shares", "2000", "--priority", "-5"]
    file = tmp_path / "guest.toml"
    file.write_text('memory = "64M"\nmemory_shares = 500\n[flat]\npath = "a.bin"\naddress = 0x8000\n')
    for boot in (["--flat", "a.bin@0x8000"], ["--config", str(file)]):
        args = build_parser().parse_args(["run", *boot, *options])
        (config,) = guests.configs(args, "virtual")
        assert (config.memory_reservation, config.memory_limit) == (16 * MIB, 32 * MIB)
        assert (config.memory_shares, config.memory_priority) == (2000, -5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reservation", "32M"], "memory_reservation: 33554432 is outside 0 to 16777216"),
        (
            ["--reservation", "8M", "--limit", "4M"],
            "memory_limit: 4194304 is less than a page of 4096 bytes or than the reservation of 8388608",
        ),
        (["--shares", "0"], "memory_shares: 0 is outside 1 to 1000000"),
        (["--priority", "101"], "memory_priority: 101 is outside -100 to 100"),
        (
            ["--pool", "8M", "--reservation", "12M"],
            "guest 'guest': a reservation of 12 MiB cannot be promised: 0 B of the host's 8 MiB are reserved by 0 "
            "guests, 8 MiB are left",
        ),
        (
            ["--pool", "8M", "--overcommit", "1.5"],
            "guest 'guest': a size of 16 MiB is too much: 0 guests have 0 B, and the host's 8 MiB may be "
            "overcommitted 1.5 times, to 12 MiB; 12 MiB are left",
        ),
    ],
)
def test_what_a_guest_cannot_be_promised(
    options: list[str], message: str, program: Program, capsys: Capture
) -> None:
    assert main(["run", "--flat", f"{program('hello')}@0x8000", "--memory", "16M", *options]) == 2
    assert capsys.readouterr() == ("", f"emuvisor: error: {message}\n")


def test_a_guest_ends_at_its_limit(program: Program, capsys: Capture) -> None:
    options = ["--memory", "16M", "--limit", "2M", "--compression", "0", "--no-sharing"]
    assert main(["run", "--flat", f"{program('memtouch')}@0x8000", *options]) == 4
    message = "emuvisor: guest: no-memory: it holds its limit of 2 MiB; --limit gives it more\n"
    assert capsys.readouterr().err == message


# ---- recording and table ----


def test_a_run_is_recorded(program: Program, tmp_path: Path, capsys: Capture) -> None:
    """A guest of 8 MiB in 2: all of it is explained, in the recording and in the document."""
    file, swap = tmp_path / "recording", tmp_path / "swap"
    options = [
        "--memory",
        "16M",
        "--pool",
        "2M",
        "--swap",
        f"{swap},16M",
        "--compression",
        "zstd:1M",
        "--json",
    ]
    argv = ["run", "--flat", f"{program('memtouch')}@0x8000", *options, "--memory-record", str(file)]
    assert main(argv) == 0
    assert not swap.exists()
    with RecordingReader(file) as reader:
        items = list(reader.read())
    assert isinstance(items[0], Header)
    assert isinstance(items[-1], End)
    (guest,) = [item for item in items if isinstance(item, Sample)][-1].guests
    assert guest.compressed > MIB
    gained: dict[str, int] = {}
    for item in items:
        if isinstance(item, Decision):
            gained[item.rung] = gained.get(item.rung, 0) + item.frames
    document = json.loads(capsys.readouterr().out)
    host = document["host"]["memory"]
    # The recording goes on for a moment after the guest's end.
    assert gained["compression"] >= host["gained"]["compression"] > 1000
    assert host["pool"] == 2 * MIB
    memory = document["guests"][0]["memory"]
    assert (memory["configured"], memory["limit"]) == (16 * MIB, None)
    assert memory["compressed"] > MIB


def test_a_recording_that_cannot_be_written(program: Program, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "none" / "recording"
    assert main(["run", "--flat", f"{program('hello')}@0x8000", "--memory-record", str(file)]) == 2
    message = f"emuvisor: error: {file}: cannot be written: No such file or directory\n"
    assert capsys.readouterr() == ("", message)


class Terminal(io.TextIOWrapper):
    """Standard output, as a terminal; `text` is what it was given."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        return self.bytes.getvalue().decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 100 columns, which nobody writes to yet."""
    terminal = Terminal()
    for name, value in {"COLUMNS": "100", "LINES": "40", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    return terminal


def test_the_table_below_what_a_guest_prints(
    program: Program, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["run", "--flat", f"{program('hello')}@0x8000", "--memory", "16M", "--memory-table"]) == 0
    text = terminal.text
    assert "hello: done, powering off\n" in text
    heading = "guest size reserved limit active resident shared zero balloon compressed swapped in flight"
    assert heading in STYLE.sub("", text)
    assert (
        "the guests were at most 0.94 x the host" in text.splitlines()[-1]
    )  # whose pool has 1 MiB for its ROM


def test_the_table_on_standard_error(
    program: Program, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only that is a terminal, what guests print goes by it."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(["run", "--flat", f"{program('aaa')}@0x8000", "--memory", "16M", "--memory-table"]) == 0
    assert isinstance(out.buffer, io.BytesIO)
    assert out.buffer.getvalue() == b"AAA\n"
    assert "state high" in terminal.text
    assert "AAA" not in terminal.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json"], "--memory-table with --json: one of them is shown"),
        (["--display", "text"], "--memory-table with --display: one of them is shown"),
        (
            [],
            "--memory-table needs a terminal; --memory-record FILE keeps the numbers for 'emuvisor memory FILE'",
        ),
    ],
)
def test_no_place_for_a_table(options: list[str], message: str, program: Program, capsys: Capture) -> None:
    assert main(["run", "--flat", f"{program('hello')}@0x8000", "--memory-table", *options]) == 2
    assert capsys.readouterr() == ("", f"emuvisor: error: {message}\n")


def test_a_terminal_that_is_the_guests_console(
    program: Program, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr("emuvisor.cli.keyboard.stdin_descriptor", lambda: 0)
    assert main(["run", "--flat", f"{program('hello')}@0x8000", "--memory-table"]) == 2
    assert capsys.readouterr().err == (
        "emuvisor: error: --memory-table: the guest's console has the terminal; use --memory-record FILE, and "
        "'emuvisor memory --follow FILE' in another one\n"
    )


def test_a_run_without_such_options_does_without_their_modules(program: Program) -> None:
    """They would make it start later."""
    code = (
        "import sys; sys.stdin = None; from emuvisor.cli import main\n"
        f"main(['run', '--flat', '{program('aaa')}@0x8000', '--memory', '16M'])\n"
        "unwanted = ('rich', 'matplotlib', 'emuvisor.memory.sharing', 'emuvisor.host.memory.recording')\n"
        "print([name for name in unwanted if name in sys.modules])"
    )
    folder = Path(emuvisor.__file__).parent.parent
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert (result.stdout, result.stderr) == ("AAA[]\n", "")
