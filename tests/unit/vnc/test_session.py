"""A viewer's session, from the handshake on."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from rfb_client import Display, Viewer, rgb, session

from emuvisor.errors import StateError
from emuvisor.vnc.des import vnc_response
from emuvisor.vnc.rfb import DESKTOP_SIZE, RAW, ZRLE, PixelFormat, ProtocolError

RGB565 = PixelFormat(16, 16, False, 31, 63, 31, 11, 5, 0)
BGR233 = PixelFormat(8, 8, False, 7, 7, 3, 0, 3, 6)
HIGH_BYTES = PixelFormat(32, 24, True, 255, 255, 255, 24, 16, 8)
BIG_ENDIAN = PixelFormat(32, 24, True)
LITTLE_HIGH = PixelFormat(32, 24, False, 255, 255, 255, 8, 16, 24)
DEEP = PixelFormat(32, 32, False, 1023, 1023, 1023, 20, 10, 0)
SPREAD = PixelFormat(32, 24, False, 255, 255, 255, 24, 8, 0)

PATIENCE_S = 120

Script = Callable[[Viewer, Display], Awaitable[None]]


def play(script: Script, display: Display | None = None, *, handshake: bool = True) -> Any:
    """Let a viewer do `script` and hang up; returns what ended its session."""
    shown = display or Display()

    async def run() -> Any:
        viewer, task = await session(shown)
        async with asyncio.timeout(PATIENCE_S):
            if handshake:
                await viewer.start()
            await script(viewer, shown)
            viewer.writer.close()
            (result,) = await asyncio.gather(task, return_exceptions=True)
        return result

    return asyncio.run(run())


@pytest.mark.parametrize("version", [b"RFB 003.003\n", b"RFB 003.005\n", b"RFB 003.007\n", b"RFB 003.008\n"])
def test_every_version_starts(version: bytes) -> None:
    async def script(viewer: Viewer, display: Display) -> None:
        await viewer.start(version)
        assert (viewer.name, viewer.pixels.shape) == ("a guest", (70, 100))
        viewer.request()
        await viewer.update()
        assert (viewer.pixels == rgb(display.pixels)).all()

    assert isinstance(play(script, handshake=False), asyncio.IncompleteReadError)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"GET / HTTP/1", "the viewer does not speak RFB 3: it says b'GET / HTTP/1'"),
        (b"RFB 002.002\n", "the viewer does not speak RFB 3: it says b'RFB 002.002\\n'"),
    ],
)
def test_other_protocols_are_refused(line: bytes, message: str) -> None:
    async def script(viewer: Viewer, display: Display) -> None:
        viewer.writer.write(line)

    result = play(script, handshake=False)
    assert isinstance(result, ProtocolError)
    assert str(result) == message


def test_newer_versions_speak_3_8() -> None:
    async def script(viewer: Viewer, display: Display) -> None:
        viewer.writer.write(b"RFB 004.001\n")
        assert await viewer.reader.readexactly(14) == b"RFB 003.008\n\x01\x01"

    play(script, handshake=False)


def test_a_security_type_that_was_not_offered() -> None:
    async def script(viewer: Viewer, display: Display) -> None:
        viewer.writer.write(b"RFB 003.008\n\x02")

    assert str(play(script, handshake=False)) == "the viewer chose security type 2; 1 was offered"


async def authenticate(version: bytes, password: bytes) -> tuple[bytes, Any]:
    """What the server sends behind the response, and how the session ends."""
    async with asyncio.timeout(PATIENCE_S):
        viewer, task = await session(Display(), b"secret")
        viewer.writer.write(version)
        if version.endswith(b"3\n"):
            assert await viewer.reader.readexactly(16) == b"RFB 003.008\n\0\0\0\x02"
        else:
            viewer.writer.write(b"\x02")
            assert await viewer.reader.readexactly(14) == b"RFB 003.008\n\x01\x02"
        viewer.writer.write(vnc_response(password, await viewer.reader.readexactly(16)))
        viewer.writer.write_eof()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        answer = await viewer.reader.read()
        viewer.writer.close()
    return answer, result


@pytest.mark.parametrize("version", [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n"])
def test_the_right_password(version: bytes) -> None:
    answer, result = asyncio.run(authenticate(version, b"secret"))
    assert answer == bytes(4)
    assert isinstance(result, asyncio.IncompleteReadError)  # the viewer went before it said more


@pytest.mark.parametrize(
    ("version", "reason"),
    [(b"RFB 003.003\n", b""), (b"RFB 003.007\n", b""), (b"RFB 003.008\n", b"\0\0\0\x0ewrong password")],
)
def test_the_wrong_password(version: bytes, reason: bytes) -> None:
    answer, result = asyncio.run(authenticate(version, b"Secret"))
    assert answer == b"\0\0\0\x01" + reason
    assert str(result) == "the viewer does not know the password"


@pytest.mark.parametrize("encoding", [RAW, ZRLE])
@pytest.mark.parametrize(
    "pixel_format",
    [PixelFormat(), RGB565, BGR233, HIGH_BYTES, BIG_ENDIAN, LITTLE_HIGH, DEEP, SPREAD],
)
def test_every_pixel_format_in_every_encoding(pixel_format: PixelFormat, encoding: int) -> None:
    async def script(viewer: Viewer, display: Display) -> None:
        display.pixels[:64, :64] = (1, 2, 3)  # a tile of one colour
        viewer.set_format(pixel_format)
        viewer.set_encodings(-1000, encoding, RAW)
        viewer.request()
        assert await viewer.update() == [(0, 0, 100, 70, encoding)]
        channels = (
            (pixel_format.red_max, pixel_format.red_shift),
            (pixel_format.green_max, pixel_format.green_shift),
            (pixel_format.blue_max, pixel_format.blue_shift),
        )
        for i, (maximum, shift) in enumerate(channels):
            shown = (viewer.pixels >> shift) & maximum
            wanted = np.rint(display.pixels[..., i] * (maximum / 255))
            assert (shown == wanted).all()

    play(script)


@pytest.mark.parametrize("encoding", [RAW, ZRLE])
def test_incremental_updates_bring_the_tiles_that_changed(encoding: int) -> None:
    async def script(viewer: Viewer, display: Display) -> None:
        viewer.set_encodings(encoding)
        viewer.request()
        await viewer.update()
        display.pixels[66, 3] ^= 1
        display.pixels[0, 99] ^= 1
        viewer.request(incremental=True)
        assert await viewer.update() == [(64, 0, 36, 64, encoding), (0, 64, 64, 6, encoding)]
        assert (viewer.pixels == rgb(display.pixels)).all()
        viewer.request(incremental=True)
        viewer.request(incremental=True, width=5, height=5)
        display.pixels[:] = 0
        assert await viewer.update() == [(0, 0, 100, 64, encoding), (0, 64, 100, 6, encoding)]
        assert (viewer.pixels == 0).all()

    play(script)


def test_a_part_of_the_screen() -> None:
    async def script(viewer: Viewer, display: Display) -> None:
        viewer.request(x=10, y=20, width=30, height=40)
        assert await viewer.update() == [(10, 20, 30, 40, RAW)]
        viewer.request(incremental=True, x=90, y=60, width=500, height=500)
        assert await viewer.update() == [(90, 60, 10, 10, RAW)]  # not sent before
        viewer.request(x=100, y=70)
        assert await viewer.update() == []

    play(script)


def test_two_requests_are_answered_at_once() -> None:
    async def script(viewer: Viewer, display: Display) -> None:
        viewer.request()
        await viewer.update()
        viewer.send(">BB4HBB4H", 3, 1, 10, 10, 5, 5, 3, 0, 50, 60, 5, 5)
        assert await viewer.update() == [(10, 10, 45, 55, RAW)]

    play(script)


def test_a_new_format_is_a_new_picture() -> None:
    async def script(viewer: Viewer, display: Display) -> None:
        viewer.request()
        await viewer.update()
        viewer.set_format(RGB565)
        viewer.request(incremental=True)
        assert len(await viewer.update()) == 2  # two rows of tiles: everything

    play(script)


def test_a_viewer_that_knows_how_is_told_the_new_size() -> None:
    async def script(viewer: Viewer, display: Display) -> None:
        viewer.set_encodings(ZRLE, DESKTOP_SIZE)
        viewer.request()
        await viewer.update()
        display.pixels = np.full((30, 200, 3), 77, np.uint8)
        viewer.request(incremental=True)
        assert await viewer.update() == [(0, 0, 200, 30, DESKTOP_SIZE)]
        viewer.request(incremental=True)
        assert await viewer.update() == [(0, 0, 200, 30, ZRLE)]
        assert (viewer.pixels == 0x4D4D4D).all()

    play(script)


def test_a_viewer_that_does_not_gets_what_fits() -> None:
    async def script(viewer: Viewer, display: Display) -> None:
        viewer.request()
        await viewer.update()
        display.pixels = np.full((30, 200, 3), 77, np.uint8)
        viewer.request()
        assert await viewer.update() == [(0, 0, 100, 70, RAW)]
        assert (viewer.pixels[:30] == 0x4D4D4D).all()
        assert not viewer.pixels[30:].any()

    play(script)


def test_keys_go_in_and_are_released_when_the_viewer_goes() -> None:
    display = Display()

    async def script(viewer: Viewer, display: Display) -> None:
        viewer.key(0xFFE1, True)  # left shift
        viewer.key(ord("A"), True)
        viewer.key(ord("A"), False)
        viewer.key(0xFFE3, True)  # left control
        viewer.key(0x01000394, True)  # Greek: no such key
        viewer.key(ord("z"), False)  # was never pressed
        viewer.request()
        await viewer.update()

    play(script, display)
    assert display.log == [
        ("ShiftLeft", True), ("KeyA", True), ("KeyA", False), ("ControlLeft", True),
        ("ControlLeft", False), ("ShiftLeft", False),
    ]  # fmt: skip


def test_the_pointer_moves_by_distances() -> None:
    display = Display()

    async def script(viewer: Viewer, display: Display) -> None:
        viewer.point(50, 50)
        viewer.point(60, 45)
        viewer.point(60, 45, 1)
        viewer.point(60, 45, 1)
        viewer.request()
        await viewer.update()

    play(script, display)
    assert display.log == [(10, -5, 0), (0, 0, 1), (0, 0, 0)]


def test_a_clipboard_is_thrown_away() -> None:
    display = Display()

    async def script(viewer: Viewer, display: Display) -> None:
        viewer.send(">B3xI", 6, 100_000)
        viewer.writer.write(bytes(100_000))
        viewer.key(ord("a"), True)
        viewer.key(ord("a"), False)
        viewer.request()
        await viewer.update()

    play(script, display)
    assert display.log == [("KeyA", True), ("KeyA", False)]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"\xff", "the viewer sends a message of the unknown type 255"),
        (b"\x02\x00\x04\x01", "the viewer names 1025 encodings; at most 1024 are read"),
        (b"\x06\0\0\0\x00\x10\x00\x01", "the viewer's clipboard has 1048577 bytes; at most 1048576 are read"),
        (b"\0\0\0\0" + bytes(16), "the viewer wants a colour map; this server has true colour only"),
        (
            b"\0\0\0\0" + bytes((24, 24, 0, 1)) + bytes(12),
            "the viewer wants 24 bits per pixel; there are 8, 16 and 32",
        ),
        (
            b"\0\0\0\0" + bytes((8, 8, 0, 1, 0, 7, 0, 7, 0, 7, 6, 0, 0)) + bytes(3),
            "a channel of 0 to 7, shifted by 6, does not fit 8 bits",
        ),
        (
            b"\0\0\0\0" + bytes((32, 24, 0, 1, 0, 0, 0, 7, 0, 7, 200, 0, 0)) + bytes(3),
            "a channel of 0 to 0, shifted by 200, does not fit 32 bits",
        ),
    ],
)
def test_what_breaks_the_protocol_ends_the_session(sent: bytes, message: str) -> None:
    async def script(viewer: Viewer, display: Display) -> None:
        viewer.writer.write(sent)

    result = play(script)
    assert isinstance(result, ProtocolError)
    assert str(result) == message


def test_a_guest_that_is_gone_ends_the_session() -> None:
    class Gone(Display):
        def key(self, name: str, pressed: bool) -> None:
            raise StateError("guest 'a' is gone")

    async def script(viewer: Viewer, display: Display) -> None:
        viewer.key(ord("a"), True)
        assert await viewer.reader.read() == b""

    assert str(play(script, Gone())) == "guest 'a' is gone"


def test_an_incremental_update_waits_until_something_changes() -> None:
    class Late(Display):
        frames = 0

        def screen(self) -> Any:
            self.frames += 1
            if self.frames == 4:  # one for the handshake, one for the first update, one that is the same
                self.pixels[:] = 7
            return super().screen()

    display = Late()

    async def script(viewer: Viewer, display: Display) -> None:
        viewer.request()
        await viewer.update()
        viewer.request(incremental=True)
        assert len(await viewer.update()) == 2
        assert (viewer.pixels == 0x070707).all()

    play(script, display)
    assert display.frames == 4
