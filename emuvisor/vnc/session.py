"""One viewer: handshake, its messages, the updates that it asks for. Source: RFC 6143, section 7."""

import asyncio
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emuvisor.devices.display.screen import Screen
from emuvisor.devices.keymap import keysym_to_key
from emuvisor.vnc.damage import Rectangle, changed
from emuvisor.vnc.des import vnc_response
from emuvisor.vnc.encoding import Encoder
from emuvisor.vnc.frames import Frames
from emuvisor.vnc.rfb import (
    CHALLENGE_LENGTH,
    DESKTOP_SIZE,
    OFFERED_VERSION,
    SECURITY_FAILED,
    SECURITY_NONE,
    SECURITY_OK,
    SECURITY_VNC,
    KeyEvent,
    PointerEvent,
    ProtocolError,
    SetEncodings,
    SetPixelFormat,
    UpdateRequest,
    parse_version,
    read_message,
    reason,
    rectangle_header,
    server_init,
    update_header,
)

__all__ = ["Guest", "Session"]

HANDSHAKE_TIMEOUT_S = 20
SEND_TIMEOUT_S = 30
"""A viewer that takes nothing for so long is gone."""

# How RFB 3.3, 3.7 and 3.8 differ.
CHOOSES_SECURITY = 7
ALWAYS_HAS_RESULT = 8


@dataclass(frozen=True, slots=True)
class Guest:
    """What viewers see and move.

    `key(name, pressed)` takes the names of `devices.keymap`. `pointer(dx, dy, buttons)` takes movements in pixels, to
    the right and down, and a bit for each button that is down: left, middle, right, wheel up, wheel down.
    """

    name: str
    screen: Callable[[], Screen]
    key: Callable[[str, bool], None]
    pointer: Callable[[int, int, int], None]


class Session:
    """Serves the viewer behind `reader` and `writer`. `password` is at most 8 bytes; None lets everybody in."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        guest: Guest,
        frames: Frames,
        password: bytes | None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._guest = guest
        self._frames = frames
        self._password = password
        self._encoder = Encoder()
        self._resizes = False
        """The viewer understands that the screen's size changes."""
        self._frame = 0
        """The number of the frame that the viewer's size or last update came from."""
        self._width = 0
        self._height = 0
        self._sent: NDArray[np.uint8] | None = None
        """What the viewer shows, as far as it has asked; None: nothing that counts."""
        self._request: UpdateRequest | None = None
        self._requested = asyncio.Event()
        self._calling: asyncio.Future[None] | None = None
        """The last call to the guest."""
        self._keys: set[str] = set()
        self._pointer: PointerEvent | None = None

    async def run(self) -> None:
        """Serve the viewer until it hangs up.

        Raises ProtocolError, TimeoutError, OSError and IncompleteReadError: however it ends, it ends.
        """
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            await self._handshake()
        updates = asyncio.create_task(self._send_updates())
        messages = asyncio.create_task(self._take_messages())
        try:
            done, _ = await asyncio.wait((updates, messages), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (updates, messages):
                task.cancel()
            await asyncio.gather(updates, messages, return_exceptions=True)
            await self._let_go()

    # ---- handshake ----

    async def _handshake(self) -> None:
        self._writer.write(OFFERED_VERSION)
        minor = parse_version(await self._reader.readexactly(len(OFFERED_VERSION)))
        security = SECURITY_NONE if self._password is None else SECURITY_VNC
        if minor >= CHOOSES_SECURITY:
            self._writer.write(bytes((1, security)))
            (chosen,) = await self._reader.readexactly(1)
            if chosen != security:
                raise ProtocolError(f"the viewer chose security type {chosen}; {security} was offered")
        else:
            self._writer.write(security.to_bytes(4, "big"))
        if self._password is not None:
            await self._check(self._password, minor)
        if self._password is not None or minor >= ALWAYS_HAS_RESULT:
            self._writer.write(SECURITY_OK.to_bytes(4, "big"))
        await self._reader.readexactly(1)  # whether to share the screen: it is always shared
        self._frame, screen = await self._frames.newer(0)
        self._width, self._height = screen.width, screen.height
        self._writer.write(server_init(screen.width, screen.height, self._guest.name))
        await self._writer.drain()

    async def _check(self, password: bytes, minor: int) -> None:
        """VNC authentication: the viewer encrypts what it is sent."""
        challenge = secrets.token_bytes(CHALLENGE_LENGTH)
        self._writer.write(challenge)
        response = await self._reader.readexactly(CHALLENGE_LENGTH)
        if not hmac.compare_digest(response, vnc_response(password, challenge)):
            self._writer.write(SECURITY_FAILED.to_bytes(4, "big"))
            if minor >= ALWAYS_HAS_RESULT:
                self._writer.write(reason("wrong password"))
            await self._writer.drain()
            raise ProtocolError("the viewer does not know the password")

    # ---- what the viewer sends ----

    async def _take_messages(self) -> None:
        while True:
            message = await read_message(self._reader)
            match message:
                case SetPixelFormat():
                    self._encoder.set_format(message.format)
                    self._sent = None
                case SetEncodings():
                    self._encoder.set_encodings(message.encodings)
                    self._resizes = DESKTOP_SIZE in message.encodings
                case UpdateRequest():
                    self._request = message if self._request is None else _both(self._request, message)
                    self._requested.set()
                case KeyEvent():
                    await self._type(message)
                case PointerEvent():
                    await self._point(message)

    async def _type(self, event: KeyEvent) -> None:
        key = keysym_to_key(event.keysym)
        if key is None or (not event.pressed and key not in self._keys):
            return
        self._frames.hurry()
        if event.pressed:
            self._keys.add(key)
        await self._call(self._guest.key, key, event.pressed)
        if not event.pressed:
            self._keys.discard(key)

    async def _point(self, event: PointerEvent) -> None:
        before = self._pointer or PointerEvent(0, event.x, event.y)
        self._pointer = event
        if event != before:
            self._frames.hurry()
            dx, dy = event.x - before.x, event.y - before.y
            await self._call(self._guest.pointer, dx, dy, event.buttons)

    async def _call(self, function: Callable[..., None], *arguments: str | int) -> None:
        """Call the guest in a thread. The call goes on when the session ends meanwhile: `_let_go` waits for it."""
        self._calling = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
        await asyncio.shield(self._calling)

    async def _let_go(self) -> None:
        """The viewer is gone: release what it held down."""
        if self._calling is not None:
            await asyncio.gather(self._calling, return_exceptions=True)
        for key in sorted(self._keys):
            await asyncio.to_thread(self._guest.key, key, False)
        if self._pointer is not None and self._pointer.buttons:
            await asyncio.to_thread(self._guest.pointer, 0, 0, 0)

    # ---- what it gets ----

    async def _send_updates(self) -> None:
        while True:
            await self._requested.wait()
            self._frame, screen = await self._frames.newer(self._frame)
            update = self._update(screen)
            if update is not None:
                self._request = None
                self._requested.clear()
                self._writer.write(update)
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._writer.drain()

    def _update(self, screen: Screen) -> bytes | None:
        """The answer to the request; None while nothing has changed that it asks for."""
        request = self._request
        assert request is not None
        if self._resizes and (screen.width, screen.height) != (self._width, self._height):
            self._width, self._height = screen.width, screen.height
            self._sent = None
            return update_header(1) + rectangle_header(0, 0, self._width, self._height, DESKTOP_SIZE)
        pixels = _fitted(screen.pixels, self._width, self._height)
        wanted = Rectangle(request.x, request.y, request.width, request.height)
        wanted = wanted.clipped(self._width, self._height)
        if self._sent is None:
            self._sent = ~pixels
        if not request.incremental:
            rectangles = [] if wanted.empty else [wanted]
        else:
            rectangles = list(changed(self._sent, pixels, wanted))
            if not rectangles:
                return None
        parts = [update_header(len(rectangles))]
        for part in rectangles:
            shown = part.of(pixels)
            part.of(self._sent)[:] = shown
            parts.append(rectangle_header(part.x, part.y, part.width, part.height, self._encoder.encoding))
            parts.append(self._encoder.encode(shown))
        return b"".join(parts)


def _both(first: UpdateRequest, second: UpdateRequest) -> UpdateRequest:
    """One request for what two ask for."""
    x, y = min(first.x, second.x), min(first.y, second.y)
    right = max(first.x + first.width, second.x + second.width)
    bottom = max(first.y + first.height, second.y + second.height)
    return UpdateRequest(first.incremental and second.incremental, x, y, right - x, bottom - y)


def _fitted(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """`pixels` cut, or filled up with black, to the size that the viewer knows."""
    if pixels.shape[:2] == (height, width):
        return pixels
    fitted = np.zeros((height, width, 3), np.uint8)
    part = pixels[:height, :width]
    fitted[: part.shape[0], : part.shape[1]] = part
    return fitted
