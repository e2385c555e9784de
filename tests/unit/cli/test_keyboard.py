"""Typed keys, and the command keys among them."""

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.cli.keyboard import EscapeKeys, Key, Keyboard, stdin_descriptor

PREFIX = b"\x01"


@pytest.mark.parametrize(
    ("typed", "items"),
    [
        (b"ls\r", [b"ls\r"]),
        (PREFIX + b"x", [Key.LEAVE]),
        (PREFIX + b"X", [Key.LEAVE]),
        (b"ab" + PREFIX + b"hcd", [b"ab", Key.HELP, b"cd"]),
        (PREFIX + PREFIX + b"x", [PREFIX + b"x"]),
        (b"a" + PREFIX + b"zb", [b"ab"]),
        (b"\x03\x1b[A\xff\xc3\xa4", [b"\x03\x1b[A\xff\xc3\xa4"]),
        (PREFIX, []),
    ],
)
def test_keys(typed: bytes, items: list[bytes | Key]) -> None:
    assert list(EscapeKeys().feed(typed)) == items


@given(st.lists(st.binary(max_size=4) | st.sampled_from([PREFIX, b"x", b"H", PREFIX + b"x"]), max_size=20))
def test_it_does_not_matter_how_keys_arrive(chunks: list[bytes]) -> None:
    def flat(items: list[bytes | Key]) -> list[int | Key]:
        return [part for item in items for part in ([item] if isinstance(item, Key) else item)]

    keys = EscapeKeys()
    in_chunks = [item for chunk in chunks for item in keys.feed(chunk)]
    assert flat(in_chunks) == flat(list(EscapeKeys().feed(b"".join(chunks))))


@given(st.binary())
def test_all_can_be_typed_with_the_prefix_doubled(data: bytes) -> None:
    assert b"".join(map(bytes, EscapeKeys().feed(data.replace(PREFIX, PREFIX * 2)))) == data  # type: ignore[arg-type]


def test_a_pipe_has_no_command_keys_and_an_end() -> None:
    read, write = os.pipe()
    os.write(write, PREFIX + b"x")
    os.close(write)
    keyboard = Keyboard(read, terminal=False)
    assert (keyboard.read(), keyboard.at_end) == ([PREFIX + b"x"], False)
    assert (keyboard.read(), keyboard.at_end) == ([], True)
    os.close(read)


def test_a_descriptor_that_cannot_be_read_is_at_its_end() -> None:
    read, write = os.pipe()
    keyboard = Keyboard(write, terminal=True)
    assert (keyboard.read(), keyboard.at_end) == ([], True)
    os.close(read)
    os.close(write)


def test_standard_input_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stdin_descriptor() is None
    read, write = os.pipe()
    with os.fdopen(read) as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert stdin_descriptor() == read
    assert stdin_descriptor() is None  # closed
    os.close(write)
