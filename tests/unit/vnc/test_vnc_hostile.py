"""Whatever bytes a viewer sends, its session ends in one of the ways that sessions end, and the display is intact."""

import asyncio
import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rfb_client import Display

from emuvisor.vnc.damage import Rectangle, changed
from emuvisor.vnc.frames import Frames
from emuvisor.vnc.rfb import ProtocolError
from emuvisor.vnc.session import Session

u8, u16, u32 = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1)


def message(layout: str, *parts: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    return st.tuples(*parts).map(lambda values: struct.pack(layout, *values))


def encodings(numbers: list[int]) -> bytes:
    return struct.pack(f">BxH{len(numbers)}i", 2, len(numbers), *numbers)


fitting = st.tuples(
    st.sampled_from([8, 16, 32]), u8, st.integers(0, 1), st.integers(0, 7), st.integers(0, 5)
).map(lambda f: struct.pack(">B3xBBBBHHHBBB3x", 0, f[0], f[1], f[2], 1, f[3], f[3], f[3], f[4], f[4], f[4]))
messages = (
    st.binary(max_size=20)
    | fitting
    | st.lists(st.sampled_from([0, 16, -223]) | st.integers(-(2**31), 2**31 - 1), max_size=5).map(encodings)
    | message(
        ">B3xBBBBHHHBBB3x", st.just(0), st.sampled_from([8, 16, 32]), u8, u8, u8, u16, u16, u16, u8, u8, u8
    )
    | message(">BB4H", st.just(3), u8, u16, u16, u16, u16)
    | message(">BBxxI", st.just(4), u8, u32 | st.sampled_from([0x61, 0xFFE1]))
    | message(">BBHH", st.just(5), u8, u16, u16)
    | message(">B3xI", st.just(6), u32 | st.integers(0, 10))
)
handshakes = st.sampled_from([b"RFB 003.008\n\x01\x01", b"RFB 003.003\n\x01"]) | st.binary(max_size=15)


class Sink:
    """A connection that swallows what it is sent."""

    def __init__(self) -> None:
        self.length = 0

    def write(self, data: bytes) -> None:
        self.length += len(data)

    async def drain(self) -> None:
        pass


async def serve(data: bytes, password: bytes | None) -> tuple[Display, int]:
    display = Display(70, 10)
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    sink = Sink()
    frames = Frames(display.screen)
    session = Session(reader, sink, guest=display.guest(), frames=frames, password=password)  # type: ignore[arg-type]
    try:
        await session.run()
    except (ProtocolError, EOFError):
        return display, sink.length
    raise AssertionError("a session ends by what the viewer does")


@settings(max_examples=120, deadline=None)
@given(handshakes, st.lists(messages, max_size=8), st.sampled_from([None, None, b"secret"]))
def test_any_bytes(handshake: bytes, sent: list[bytes], password: bytes | None) -> None:
    display, length = asyncio.run(serve(handshake + b"".join(sent), password))
    held = set()
    for event in display.log:
        if len(event) == 2:
            (held.add if event[1] else held.discard)(event[0])
    assert not held
    assert length < 10_000


@given(st.data(), st.integers(1, 200), st.integers(1, 200))
def test_what_differs_is_inside_the_rectangles_and_they_inside_what_was_asked(
    data: st.DataObject, width: int, height: int
) -> None:
    before = np.zeros((height, width, 3), np.uint8)
    after = before.copy()
    for x, y in data.draw(
        st.lists(st.tuples(st.integers(0, width - 1), st.integers(0, height - 1)), max_size=5)
    ):
        after[y, x, 1] = 1
    within = Rectangle(*data.draw(st.tuples(u8, u8, u8, u8))).clipped(width, height)
    for part in changed(before, after, within):
        assert within.x <= part.x < part.x + part.width <= within.x + within.width
        assert within.y <= part.y < part.y + part.height <= within.y + within.height
        assert part.of(after).any()
        part.of(after)[:] = 0
    assert not within.of(after).any()
