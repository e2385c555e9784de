"""The format of recordings: what is written is read again, and what is not one is refused with file and line."""

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_samples import decision, guest, host, sample

from emuvisor.errors import UsageError
from emuvisor.host.memory import recording
from emuvisor.host.memory.decisions import Decision
from emuvisor.host.memory.recording import End, Header, Item, RecordingReader, Sample, decode, encode
from emuvisor.host.memory.statistics import GuestMemoryStatistics, HostMemoryStatistics

HEADER = Header(time=1.0, period_s=0.25)
EMPTY = sample(2.0)

NAMES = st.text(st.characters(categories=("L", "N", "P")), max_size=20)
COUNTS = st.integers(0, 1 << 50)
SIGNED = st.integers(-(1 << 50), 1 << 50)
REALS = st.floats(0, 1e12)
TIMES = st.floats(0, 1e12)
GUESTS = st.builds(
    GuestMemoryStatistics,
    **{field.name: COUNTS for field in dataclasses.fields(GuestMemoryStatistics)}
    | {"name": NAMES, "priority": SIGNED, "limit": st.none() | COUNTS, "active": st.none() | COUNTS},
)
HOSTS = st.builds(
    HostMemoryStatistics,
    **{field.name: COUNTS for field in dataclasses.fields(HostMemoryStatistics)}
    | {"state": NAMES, "pool": st.integers(1, 1 << 50), "overcommit": REALS, "scan_s": REALS}
    | {"savings": st.dictionaries(NAMES, SIGNED, max_size=3)},
)
ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.builds(Header, TIMES, REALS),
    st.builds(Sample, TIMES, HOSTS, st.lists(GUESTS, max_size=3, unique_by=lambda g: g.name).map(tuple)),
    st.builds(
        Decision, TIMES, NAMES, NAMES, SIGNED, NAMES,
        st.dictionaries(NAMES, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    ),
    st.builds(End, TIMES),
)  # fmt: skip


@given(ITEMS)
def test_what_is_written_is_read_again(item: Item) -> None:
    line = encode(item)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == item


def test_numbers_that_json_does_not_have() -> None:
    line = encode(decision(numbers={"price": math.inf, "pages": 2.0}))
    assert json.loads(line)["numbers"] == {"price": None, "pages": 2.0}
    again = decode(line)
    assert isinstance(again, Decision)
    assert math.isnan(again.numbers["price"])


def test_what_would_reach_into_a_terminal_is_taken_out() -> None:
    item = decode(encode(decision(guest="a\x1b[2J", why="b\n\ud800")))
    assert isinstance(item, Decision)
    assert (item.guest, item.why) == ("a?[2J", "b??")


def test_a_field_that_is_not_known_is_passed_over() -> None:
    values = json.loads(encode(EMPTY))
    values["host"]["weather"] = "fine"
    assert decode(json.dumps(values | {"mood": 1}).encode()) == EMPTY


def changed(item: Item, **fields: Any) -> bytes:
    return json.dumps(json.loads(encode(item)) | fields).encode()


def of_host(**fields: Any) -> bytes:
    return changed(EMPTY, host=host().as_dict() | fields)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"1" * 5_000, "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"{}", "has no 'kind' that is known"),
        (b'{"kind": []}', "has no 'kind' that is known"),
        (changed(HEADER, version=2), "is a recording of a version other than 1"),
        (changed(HEADER, period_s=-1), "'period_s' is not a number from 0 on"),
        (b'{"kind": "end"}', "'time' is not a number"),
        (b'{"kind": "end", "time": NaN}', "'time' is not a number from 0 on"),
        (b'{"kind": "end", "time": true}', "'time' is not a number"),
        (changed(EMPTY, guests={}), "'guests' is not a list"),
        (changed(EMPTY, guests=[1]), "'guests[0]' is not an object"),
        (
            changed(EMPTY, guests=[guest("a").as_dict(), guest("b").as_dict() | {"swapped": "much"}]),
            "'guests[1].swapped' is not a whole number from 0 on",
        ),
        (changed(EMPTY, guests=[guest().as_dict()] * 2), "'guests' has a name twice"),
        (changed(EMPTY, host=None), "'host' is not an object"),
        (of_host(pool=0), "'host.pool' is 0"),
        (of_host(free=-1), "'host.free' is not a whole number from 0 on"),
        (of_host(free=1 << 63), "'host.free' is not a whole number from 0 on"),
        (of_host(state=3), "'host.state' is not a text of at most 2000 characters"),
        (of_host(savings=[]), "'host.savings' is not an object"),
        (of_host(savings={"swap": 1.5}), "'host.savings' is not a whole number"),
        (changed(decision(), why="x" * 2001), "'why' is not a text of at most 2000 characters"),
        (changed(decision(), numbers=1), "'numbers' is not an object"),
        (changed(decision(), numbers={"a": "b"}), "'numbers' has something that is not a number"),
        (changed(decision(), numbers={"a": 10**400}), "'numbers' has a number that is too large"),
    ],
)
def test_what_is_no_line_of_a_recording(line: bytes, message: str) -> None:
    with pytest.raises(UsageError) as error:
        decode(line)
    assert str(error.value) == message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def lines_gone_wrong(draw: st.DrawFn) -> bytes:
    """A line with a value anywhere in it exchanged for another."""
    values = json.loads(encode(draw(ITEMS)))
    place = values
    while True:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not (isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans())):
            place[key] = draw(VALUES)
            return json.dumps(values).encode()
        place = place[key]


@given(st.binary(max_size=100) | lines_gone_wrong())
def test_whatever_a_line_says_it_is_read_or_refused(line: bytes) -> None:
    try:
        item = decode(line)
    except UsageError:
        return
    assert decode(encode(item)) == item or "null" in encode(item).decode()


# ---- reading ----


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "recording.jsonl"


@pytest.fixture
def reader(file: Path) -> Iterator[RecordingReader]:
    file.write_bytes(b"")
    with RecordingReader(file) as reader:
        yield reader


ALL: tuple[Item, ...] = (HEADER, EMPTY, decision(), sample(3.0, guest()), End(4.0))
WHOLE = b"".join(map(encode, ALL))


@given(cuts=st.lists(st.integers(0, len(WHOLE)), max_size=5).map(sorted))
def test_a_recording_is_read_in_the_pieces_in_which_it_comes(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    file = tmp_path_factory.mktemp("pieces") / "recording"
    file.write_bytes(b"")
    items: list[Item] = []
    with RecordingReader(file) as reader:
        for start, end in zip([0, *cuts], [*cuts, len(WHOLE)], strict=True):
            with file.open("ab") as more:
                more.write(WHOLE[start:end])
            items += reader.read()
            assert tuple(items) == ALL[: len(items)]
            rest = WHOLE[:end].rpartition(b"\n")[2]
            assert reader.cut_line == (len(items) + 1 if rest else None)
    assert tuple(items) == ALL


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encode(EMPTY), "line 1: is not where the beginning of a recording is"),
        (encode(HEADER) * 2, "line 2: is not where the beginning of a recording is"),
        (encode(HEADER) + encode(EMPTY) + b"\n" + encode(EMPTY), "line 3: is not JSON"),
        (b"\0" * 100 + b"\n", "line 1: is not JSON"),
    ],
)
def test_a_broken_recording(reader: RecordingReader, file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    with pytest.raises(UsageError) as error:
        list(reader.read())
    assert str(error.value) == f"{file}: {message}"


def test_a_line_without_an_end(reader: RecordingReader, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_LINE", 1000)
    monkeypatch.setattr(recording, "BLOCK", 100)
    file.write_bytes(encode(HEADER) + b"x" * 2000)
    with pytest.raises(UsageError) as error:
        list(reader.read())
    assert str(error.value) == f"{file}: line 2: is longer than 1000 bytes"


def test_a_recording_that_is_written_anew_meanwhile(reader: RecordingReader, file: Path) -> None:
    file.write_bytes(WHOLE)
    list(reader.read())
    file.write_bytes(encode(HEADER))
    with pytest.raises(UsageError) as error:
        list(reader.read())
    assert str(error.value) == f"{file}: was cut while it was read"


def test_a_recording_that_is_not_there(file: Path) -> None:
    with pytest.raises(UsageError) as error:
        RecordingReader(file)
    assert str(error.value) == f"{file}: cannot be read: No such file or directory"


def test_a_file_that_cannot_be_read(
    reader: RecordingReader, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(WHOLE)
    list(reader.read())
    file.unlink()
    with pytest.raises(UsageError) as error:
        list(reader.read())
    assert str(error.value) == f"{file}: cannot be read: No such file or directory"
