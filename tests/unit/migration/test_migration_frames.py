"""What a peer sends is believed in no length and no form."""

from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.errors import MigrationError
from emuvisor.migration.frames import (
    HEADER,
    FrameKind,
    check_header,
    message_frame,
    parse_message,
    words_of,
)


def unframe(data: bytes) -> tuple[FrameKind, bytes]:
    kind, length = check_header(data[: HEADER.size], True)
    payload = data[HEADER.size :]
    assert len(payload) == length
    return kind, payload


@pytest.mark.parametrize("size", [10, 10_000])
def test_messages(size: int) -> None:
    message = {"type": "offer", "key": bytes(range(10)) * size, "pages": 5}
    kind, payload = unframe(message_frame(message))
    assert kind is (FrameKind.MESSAGE if size == 10 else FrameKind.PACKED)
    assert parse_message(kind, payload) == message


@pytest.mark.parametrize(
    ("header", "known", "text"),
    [
        (HEADER.pack(1, 9), True, "migration: the other side sent a frame of kind 9, which cannot be here"),
        (HEADER.pack(1, 3), False, "migration: the other side sent a frame of kind 3, which cannot be here"),
        (
            HEADER.pack(1 << 20, 1),
            True,
            "migration: the other side sent a frame of 1048576 bytes; 65536 are allowed",
        ),
    ],
)
def test_headers_that_are_refused(header: bytes, known: bool, text: str) -> None:
    with pytest.raises(MigrationError) as caught:
        check_header(header, known)
    assert str(caught.value) == text


def test_a_message_that_grows_too_much_is_not_unpacked() -> None:
    packed = zstandard.ZstdCompressor().compress(bytes(65 << 20))
    with pytest.raises(MigrationError) as caught:
        parse_message(FrameKind.PACKED, packed)
    assert (
        str(caught.value)
        == "migration: the other side sent a message of 68157440 bytes; 67108864 are allowed"
    )


def test_a_message_of_too_many_things_is_not_unpacked() -> None:
    """Empty lists take thirty times as much as objects than as text."""
    packed = zstandard.ZstdCompressor().compress(b'{"type": [' + b"[]," * (1 << 20) + b"0]}")
    with pytest.raises(MigrationError) as caught:
        parse_message(FrameKind.PACKED, packed)
    assert (
        str(caught.value) == "migration: the other side sent a message of 2097154 items; 1048576 are allowed"
    )


def test_reasons_are_fit_to_be_printed() -> None:
    assert words_of({"reason": "no \x1b[2J room\n" + "!" * 2000}) == "no ?[2J room?" + "!" * 987
    assert words_of({"reason": [None]}) == "[None]"


@pytest.mark.parametrize(
    ("kind", "payload", "text"),
    [
        (FrameKind.PAGES, b"", "migration: the other side sent pages in place of a message"),
        (FrameKind.MESSAGE, b"[]", "migration: the other side sent a message without a type"),
        (FrameKind.MESSAGE, b'{"type": 3}', "migration: the other side sent a message without a type"),
    ],
)
def test_what_is_no_message(kind: FrameKind, payload: bytes, text: str) -> None:
    with pytest.raises(MigrationError) as caught:
        parse_message(kind, payload)
    assert str(caught.value) == text


@given(st.sampled_from([FrameKind.MESSAGE, FrameKind.PACKED]), st.binary(max_size=200))
def test_any_bytes(kind: FrameKind, payload: bytes) -> None:
    with suppress(MigrationError):
        assert isinstance(parse_message(kind, payload)["type"], str)
