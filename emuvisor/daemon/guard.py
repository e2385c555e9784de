"""Stands before the application: who has no token gets nothing, and nobody gets too much."""

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from emuvisor.daemon.faults import SlowBody, TooLarge, TooManyRequests, plain, status_of
from emuvisor.daemon.limits import Limits
from emuvisor.daemon.token import authorized
from emuvisor.errors import UsageError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard"]

UPLOAD = "PUT"
"""The method of requests whose body the application reads part by part."""


class Guard:
    """An ASGI application around `app`. With a `token`, who does not have it gets 401 whatever he asks.

    Bodies are read here, so that a large one (413) or a slow one (408) never reaches the application. A request
    counts until its answer begins.
    """

    def __init__(self, app: "ASGIApp", limits: Limits, token: str | None) -> None:
        self._app = app
        self._limits = limits
        self._token = token
        self._requests = 0

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if self._token is not None and not authorized(_header(scope, b"authorization"), self._token):
            error = UsageError("the token is missing or wrong: send 'Authorization: Bearer TOKEN'")
            return await _refuse(scope, receive, send, HTTPStatus.UNAUTHORIZED, error)
        if scope["type"] == "websocket":
            return await self._app(scope, receive, send)
        if self._requests >= self._limits.requests:
            error_ = TooManyRequests(f"{self._requests} requests are being answered; try again")
            return await _refuse(scope, receive, send, status_of(error_), error_)
        await self._answer(scope, receive, send)
        return None

    async def _answer(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        counted, left = True, False
        self._requests += 1

        def release() -> None:
            nonlocal counted
            self._requests -= counted
            counted = False

        async def sending(message: "Message") -> None:
            nonlocal left
            if message["type"] == "http.response.start":
                release()
            try:
                async with asyncio.timeout(self._limits.idle_s):
                    await send(message)
            except TimeoutError:
                left = True  # one that does not read
                raise

        try:
            if scope["method"] != UPLOAD:
                receive = await self._with_body(scope, receive)
            await self._app(scope, receive, sending)
        except (TooLarge, SlowBody) as error:
            await _refuse(scope, receive, send, status_of(error), error)
        except TimeoutError:
            if not left:
                raise
        finally:
            release()

    async def _with_body(self, scope: "Scope", receive: "Receive") -> "Receive":
        """What gives the whole body at once, and then what `receive` gives."""
        limit = self._limits.body
        declared = _header(scope, b"content-length") or b"0"
        error = TooLarge(f"the request's body has more than {limit} bytes")
        if declared.isdigit() and int(declared) > limit:
            raise error
        body = bytearray()
        first: list[Message] = []
        try:
            async with asyncio.timeout(self._limits.body_s):
                while not first:
                    message = await receive()
                    if message["type"] != "http.request":
                        first.append(message)
                        break
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise error
                    if not message.get("more_body", False):
                        first.append({"type": "http.request", "body": bytes(body), "more_body": False})
        except TimeoutError:
            raise SlowBody(f"the request's body was not there in {self._limits.body_s:g} seconds") from None

        async def replay() -> "Message":
            return first.pop() if first else await receive()

        return replay


def _header(scope: "Scope", name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)


async def _refuse(
    scope: "Scope", receive: "Receive", send: "Send", status: HTTPStatus, error: Exception
) -> None:
    body = json.dumps(plain(error)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status is HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    kind = "http"
    if scope["type"] == "websocket":
        await receive()  # that it wants to connect
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
        kind = "websocket.http"
    else:
        headers.append((b"connection", b"close"))  # what is left of the body is not read
    await send({"type": f"{kind}.response.start", "status": int(status), "headers": headers})
    await send({"type": f"{kind}.response.body", "body": body})
