"""Lines of the log: what is written is read, and what is none is refused."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.errors import UsageError
from emuvisor.host.autopilot.log import AutopilotLog, Entry, Kind, decode, encode

ENTRY = Entry(7, 12.5, Kind.CHANGED, "web", "cap", "50 %", "none", "it is throttled", {"due": 80.0})


def test_what_is_written_is_read() -> None:
    assert decode(encode(ENTRY)) == ENTRY
    assert "\n" not in encode(ENTRY)


def without(**changes: object) -> str:
    return json.dumps(json.loads(encode(ENTRY)) | changes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a JSON object"),
        (without(kind="fun"), "has no 'kind' that is known"),
        (without(kind=[]), "has no 'kind' that is known"),
        (without(guest=5), "'guest' is not a text of at most 2000 characters"),
        (without(why="x" * 2001), "'why' is not a text of at most 2000 characters"),
        (without(numbers=[]), "'numbers' is not an object"),
        (without(numbers={"due": True}), "'due' is not a number"),
        (without(numbers={"due": float("nan")}), "'due' is not a number"),
        (without(time=None), "'time' is not a number"),
        (without(number=1 << 63), "'number' is not a number"),
    ],
)
def test_what_is_no_line(line: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        decode(line)
    assert str(error.value) == message


def test_nothing_reaches_into_a_terminal() -> None:
    assert decode(without(guest="\x1b[2Jx")).guest == "?[2Jx"


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    )
)
def test_hostile_lines(value: object) -> None:
    for line in (json.dumps(value), without(numbers=value), without(kind=value)):
        with suppress(UsageError):
            assert isinstance(decode(line), Entry)


def test_the_log_keeps_the_latest() -> None:
    log = AutopilotLog(print)
    assert (list(log), len(log), log.added) == ([], 0, 0)
    log.add(ENTRY)
    assert (list(log), len(log), log.added) == ([ENTRY], 1, 1)
