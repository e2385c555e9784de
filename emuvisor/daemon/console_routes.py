"""Consoles by WebSocket: binary messages, what the guest prints to the client and what is typed back."""

import asyncio
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, WebSocket
from fastapi.responses import JSONResponse

from emuvisor.daemon.dependencies import Name, ServiceOf
from emuvisor.daemon.faults import plain, status_of
from emuvisor.daemon.service import Service
from emuvisor.errors import EmuvisorError, StateError
from emuvisor.manager import ConsoleAttachment
from emuvisor.units import KIB

__all__ = ["router"]

router = APIRouter(prefix="/v1")
"""Below /v1."""

READ_S = 1.0
"""How long a thread waits at a time for what a guest prints; the daemon's end is noticed then."""
MAX_MESSAGE = 64 * KIB
NORMAL, GOING_AWAY, TRY_AGAIN_LATER = 1000, 1001, 1013
"""Codes with which a console ends (RFC 6455, section 7.4, and IANA's registry)."""
PATIENCE_S = 30.0
"""How long one who types waits for a guest that takes nothing."""
LOOK_S = 0.1


@router.websocket("/guests/{name}/console")
async def console(
    name: Name,
    websocket: WebSocket,
    service: ServiceOf,
    port: Annotated[str | None, Query(max_length=200)] = None,
) -> None:
    """The console of a guest that is switched on, or a port of its virtio console: first the last screenful, then all
    that it prints. What the client sends is typed. It ends with 1000 when the guest is off, 1013 when that takes
    nothing of what was typed for half a minute."""
    try:
        with (
            service.consoles.one(),
            await to_thread.run_sync(service.manager.console, name, port) as attachment,
        ):
            await websocket.accept()
            await _serve(websocket, service, attachment)
    except EmuvisorError as error:
        await websocket.send_denial_response(JSONResponse(plain(error), status_of(error)))


async def _serve(websocket: WebSocket, service: Service, attachment: ConsoleAttachment) -> None:
    """Until the guest is off, the client left, or the daemon ends."""
    printing = asyncio.create_task(_print(websocket, service, attachment))
    typing = asyncio.create_task(_type(websocket, attachment))
    try:
        await asyncio.wait((printing, typing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        attachment.close()  # the thread that reads comes back
        typing.cancel()
        await asyncio.gather(printing, typing, return_exceptions=True)


async def _print(websocket: WebSocket, service: Service, attachment: ConsoleAttachment) -> None:
    loop = asyncio.get_running_loop()
    while not attachment.at_end and not service.closing:
        data = await loop.run_in_executor(service.console_threads, attachment.read, READ_S)
        for start in range(0, len(data), MAX_MESSAGE):
            await websocket.send_bytes(data[start : start + MAX_MESSAGE])
    if service.closing:
        await websocket.close(GOING_AWAY, "the daemon ends")
    else:
        await websocket.close(NORMAL, "the guest is off")


async def _type(websocket: WebSocket, attachment: ConsoleAttachment) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        data = message.get("bytes") or (message.get("text") or "").encode()
        try:
            await _write(attachment, data)
        except StateError as error:
            await websocket.close(TRY_AGAIN_LATER, str(error))
            return


async def _write(attachment: ConsoleAttachment, data: bytes) -> None:
    """Type `data` as soon as there is room; who sends more waits meanwhile. Raises StateError when there is none for
    `PATIENCE_S`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE_S
    while True:
        try:
            return await to_thread.run_sync(attachment.write, data)
        except StateError:
            if loop.time() >= end:
                raise
        await asyncio.sleep(LOOK_S)
