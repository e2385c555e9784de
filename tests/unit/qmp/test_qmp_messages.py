"""Messages out of bytes."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.qmp.errors import QmpError
from emuvisor.qmp.messages import MAX_MESSAGE, MAX_NESTING, MAX_STRAY, Splitter, TooMuch, decode, encode

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
messages = st.lists(json_values, max_size=3) | st.dictionaries(st.text(), json_values, max_size=3)


def split(*pieces: bytes) -> list[bytes]:
    splitter = Splitter()
    return [message for piece in pieces for message in splitter.feed(piece)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(messages, st.sampled_from(["", "\n", " \r\n\t"]), st.booleans()), max_size=4),
    st.integers(1, 20),
)
def test_messages_come_out_as_they_went_in(items: list[tuple[Any, str, bool]], step: int) -> None:
    data = b"".join(
        (json.dumps(value, ensure_ascii=ascii_only) + space).encode("utf-8", "surrogatepass")
        for value, space, ascii_only in items
    )
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    assert [decode(message) for message in split(*pieces)] == [value for value, _, _ in items]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(max_size=30) | st.sampled_from([b"{", b'"', b"\\", b"[", b"}", b"\n"]), max_size=12)
)
def test_garbage_harms_nothing_but_itself(pieces: list[bytes]) -> None:
    for message in split(*pieces):
        with suppress(QmpError):
            decode(message)
    # What is behind the byte that ends everything is heard again, once the line is over.
    assert split(*pieces, b"\xff\n", b'{"a": 1}')[-1] == b'{"a": 1}'


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"hello\n{}", [b"hello", b"{}"]),
        (b"   \n\n", []),
        (b"\n   x\n{}", [b"x", b"{}"]),
        (b"hello", []),
        (b'{"a": "\n{}', [b'{"a": "', b"{}"]),
        (b'{"a": "}{\\""}', [b'{"a": "}{\\""}']),
        (b"{]{}", [b"{]", b"{}"]),
        (b"}\n", [b"}"]),
        (b'{"a":\xff{}', [b'{"a":\xff', b"{}"]),
    ],
)
def test_where_messages_end(data: bytes, found: list[bytes]) -> None:
    assert split(data) == found
    assert split(*(bytes((byte,)) for byte in data)) == found


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"{" * (MAX_NESTING + 1), f"JSON nesting depth limit exceeded: {MAX_NESTING}"),
        (b"{" + b" " * MAX_MESSAGE, f"JSON message size limit exceeded: {MAX_MESSAGE} bytes"),
        (b"x" * (MAX_STRAY + 1), f"JSON parse error, no message in {MAX_STRAY} bytes"),
    ],
)
def test_what_has_no_end(data: bytes, text: str) -> None:
    with pytest.raises(TooMuch) as error:
        split(data)
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b'{"a": nan}', "'{\"a\": nan}'"),
        (b"[NaN]", "'[NaN]'"),
        (b"[1e999]", "'[1e999]'"),
        (b'{"a": 1, "a": 2}', '\'{"a": 1, "a": 2}\''),
        (b"\xff", "'\\ufffd'"),
        (b"[" + b"1" * 5000 + b"]", "'[" + "1" * 39 + "'..."),
    ],
)
def test_no_json(data: bytes, shown: str) -> None:
    with pytest.raises(QmpError) as error:
        decode(data)
    assert str(error.value) == f"JSON parse error, invalid text {shown}"


def test_lines_go_out() -> None:
    assert encode({"a": "\ud800é\n"}) == b'{"a": "\\ud800\\u00e9\\n"}\r\n'
