"""The other end of RFB: what a viewer does, in a few lines."""

import asyncio
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emuvisor.devices.display.screen import Screen
from emuvisor.vnc.frames import Frames
from emuvisor.vnc.rfb import DESKTOP_SIZE, RAW, ZRLE, PixelFormat
from emuvisor.vnc.session import Guest, Session

TILE = 64


class Display:
    """A screen to look at, and a record of what was typed and pointed at."""

    def __init__(self, width: int = 100, height: int = 70) -> None:
        self.pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
        self.log: list[tuple[Any, ...]] = []

    def screen(self) -> Screen:
        height, width, _ = self.pixels.shape
        return Screen(width, height, self.pixels.copy())

    def guest(self) -> Guest:
        return Guest("a guest", self.screen, self.key, self.pointer)

    def key(self, name: str, pressed: bool) -> None:
        self.log.append((name, pressed))

    def pointer(self, dx: int, dy: int, buttons: int) -> None:
        self.log.append((dx, dy, buttons))


class Viewer:
    """A viewer's side of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.format = PixelFormat()
        self.pixels: NDArray[np.uint32] = np.zeros((0, 0), np.uint32)
        self.name = ""
        self._inflate = zlib.decompressobj()

    async def read(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(layout, await self.reader.readexactly(struct.calcsize(layout)))

    def send(self, layout: str, *values: Any) -> None:
        self.writer.write(struct.pack(layout, *values))

    async def start(self, version: bytes = b"RFB 003.008\n") -> None:
        """The handshake without a password."""
        assert await self.reader.readexactly(12) == b"RFB 003.008\n"
        self.writer.write(version)
        if version in (b"RFB 003.008\n", b"RFB 003.007\n"):
            assert await self.reader.readexactly(2) == b"\x01\x01"
            self.send(">B", 1)
            if version.endswith(b"8\n"):
                assert await self.read(">I") == (0,)
        else:
            assert await self.read(">I") == (1,)
        await self.init()

    async def init(self) -> None:
        self.send(">B", 1)
        width, height = await self.read(">HH")
        assert PixelFormat.unpack(await self.reader.readexactly(16)) == PixelFormat()
        (length,) = await self.read(">I")
        self.name = (await self.reader.readexactly(length)).decode()
        self.pixels = np.zeros((height, width), np.uint32)

    def set_format(self, format: PixelFormat) -> None:
        self.format = format
        self.writer.write(b"\0\0\0\0" + format.pack())

    def set_encodings(self, *encodings: int) -> None:
        self.send(f">BxH{len(encodings)}i", 2, len(encodings), *encodings)

    def request(
        self, incremental: bool = False, x: int = 0, y: int = 0, width: int = 0xFFFF, height: int = 0xFFFF
    ) -> None:
        self.send(">BB4H", 3, incremental, x, y, width, height)

    def key(self, keysym: int, pressed: bool) -> None:
        self.send(">BBxxI", 4, pressed, keysym)

    def point(self, x: int, y: int, buttons: int = 0) -> None:
        self.send(">BBHH", 5, buttons, x, y)

    async def update(self) -> list[tuple[int, int, int, int, int]]:
        """Take an update; its rectangles with their encodings."""
        kind, count = await self.read(">BxH")
        assert kind == 0
        rectangles = []
        for _ in range(count):
            x, y, width, height, encoding = await self.read(">4Hi")
            rectangles.append((x, y, width, height, encoding))
            if encoding == DESKTOP_SIZE:
                self.pixels = np.zeros((height, width), np.uint32)
            elif encoding == RAW:
                data = await self.reader.readexactly(width * height * self.format.bits // 8)
                self.pixels[y : y + height, x : x + width] = np.frombuffer(data, self._type).reshape(
                    height, width
                )
            else:
                assert encoding == ZRLE
                (length,) = await self.read(">I")
                data = self._inflate.decompress(await self.reader.readexactly(length))
                self._put_tiles(data, x, y, width, height)
        return rectangles

    @property
    def _type(self) -> np.dtype[Any]:
        return np.dtype(f"{'>' if self.format.big_endian else '<'}u{self.format.bits // 8}")

    def _put_tiles(self, data: bytes, x: int, y: int, width: int, height: int) -> None:
        place = 0
        size = self.format.bits // 8
        compact = self.format.compact_bytes or slice(0, size)
        used = compact.stop - compact.start
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                lines, columns = min(TILE, height - top), min(TILE, width - left)
                solid = data[place]
                assert solid in (0, 1)
                count = 1 if solid else lines * columns
                raw = np.frombuffer(data, np.uint8, count * used, place + 1).reshape(count, used)
                place += 1 + count * used
                whole = np.zeros((count, size), np.uint8)
                whole[:, compact] = raw
                values = whole.view(self._type).astype(np.uint32)
                tile = np.broadcast_to(values, (lines * columns, 1)).reshape(lines, columns)
                self.pixels[y + top : y + top + lines, x + left : x + left + columns] = tile
        assert place == len(data)


def rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """`pixels` in the server's own format."""
    red, green, blue = (pixels[..., i].astype(np.uint32) for i in range(3))
    return red << 16 | green << 8 | blue


async def connect(
    server_side: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any],
) -> tuple[Viewer, asyncio.Task[Any]]:
    """A viewer, connected to what `server_side` makes of the other end."""
    import socket

    ours, theirs = socket.socketpair()
    task = asyncio.create_task(_serve(theirs, server_side))
    return Viewer(*await asyncio.open_connection(sock=ours)), task


async def _serve(end: Any, server_side: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> None:
    reader, writer = await asyncio.open_connection(sock=end)
    try:
        await server_side(reader, writer)
    finally:
        writer.transport.abort()


async def session(display: Display, password: bytes | None = None) -> tuple[Viewer, asyncio.Task[Any]]:
    """A viewer in a session on `display`, before the handshake."""
    frames = Frames(display.screen)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Session(reader, writer, guest=display.guest(), frames=frames, password=password).run()

    return await connect(serve)
