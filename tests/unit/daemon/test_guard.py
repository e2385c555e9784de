"""The guard, as an ASGI server sees it."""

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from emuvisor.daemon.guard import Guard
from emuvisor.daemon.limits import Limits

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

TOKEN = "0123456789abcdef"


async def never(scope: "Scope", receive: "Receive", send: "Send") -> None:
    raise AssertionError("it was let in")


def run(guard: Guard, scope: dict[str, Any], *messages: dict[str, Any]) -> "list[Message]":
    """What the guard sends when it is sent `messages`."""
    coming, sent = list(messages), []

    async def receive() -> "Message":
        return coming.pop(0)

    async def send(message: "Message") -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    return sent


def test_a_websocket_without_a_token() -> None:
    guard = Guard(never, Limits(), TOKEN)
    scope: dict[str, Any] = {"type": "websocket", "headers": [], "path": "/"}
    connect = {"type": "websocket.connect"}
    assert run(guard, scope, connect) == [{"type": "websocket.close", "code": 1008}]
    start, body = run(guard, {**scope, "extensions": {"websocket.http.response": {}}}, connect)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    assert b"the token is missing or wrong" in body["body"]


def test_what_the_application_waits_for_in_vain_is_its_own_error() -> None:
    async def late(scope: "Scope", receive: "Receive", send: "Send") -> None:
        assert await receive() == {"type": "http.request", "body": b"ab", "more_body": False}
        assert await receive() == {"type": "http.disconnect"}
        raise TimeoutError

    guard = Guard(late, Limits(), None)
    parts = [{"type": "http.request", "body": part, "more_body": part == b"a"} for part in (b"a", b"b")]
    scope = {"type": "http", "method": "POST", "headers": [(b"content-length", b"2")]}
    with pytest.raises(TimeoutError):
        run(guard, scope, *parts, {"type": "http.disconnect"})


def test_one_that_does_not_take_the_answer_is_left() -> None:
    async def talk(scope: "Scope", receive: "Receive", send: "Send") -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def stuck(message: "Message") -> None:
        await asyncio.Event().wait()

    async def receive() -> "Message":
        return {"type": "http.disconnect"}

    guard = Guard(talk, Limits(idle_s=0.01), None)
    asyncio.run(guard({"type": "http", "method": "GET", "headers": []}, receive, stuck))
