"""Events as server-sent events (the HTML standard, section 9.2)."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi.responses import StreamingResponse

from emuvisor.daemon.operations import Operation
from emuvisor.daemon.service import Service

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["EventStream"]

PART = 200
"""Events that are asked for at a time."""
ALIVE_S = 15.0
"""After which one who has no news is told so; that he went away is noticed then."""
PROGRESS_S = 0.5
"""How often operations that run are looked at."""


class EventStream(StreamingResponse):
    """The events of `guest`, or of all, behind number `after`, or from now on, and changes of operations.

    Events are asked for when they can be sent, so that a slow client costs no memory. When there are as many streams
    as may be, answering raises TooManyRequests.
    """

    def __init__(self, service: Service, after: int | None, guest: str | None) -> None:
        self._service = service
        self._after = after
        self._guest = guest
        self._news = asyncio.Event()
        self._seen: dict[str, Operation] = {}
        super().__init__(
            self._messages(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer, as ASGI has it."""
        with self._service.streams.one(), self._service.news() as self._news:
            await super().__call__(scope, receive, send)

    async def _messages(self) -> AsyncIterator[str]:
        service = self._service
        after = service.manager.last_event if self._after is None else self._after
        self._seen = {operation.id: operation for operation in service.operations.all()}
        yield f"id: {after}\n\n"  # from where to go on when the connection ends before the first event
        while not service.closing:
            self._news.clear()
            records = await asyncio.to_thread(service.manager.events, after, self._guest, PART)
            for record in records:
                after = record.number
                yield f"id: {record.number}\n" + _message(asdict(record))
            for operation in self._changed_operations():
                yield "event: operation\n" + _message(asdict(operation))
            if len(records) < PART and not await self._wait():
                yield ": nothing new\n\n"

    async def _wait(self) -> bool:
        """Until there may be something to say. False when it is time to say that there is nothing."""
        runs = any(operation.state == "running" for operation in self._service.operations.all())
        with suppress(TimeoutError):
            async with asyncio.timeout(PROGRESS_S if runs else ALIVE_S):
                await self._news.wait()
        return runs or self._news.is_set()

    def _changed_operations(self) -> list[Operation]:
        present = self._service.operations.all()
        changed = [
            operation
            for operation in present
            if self._seen.get(operation.id) != operation and self._guest in (None, operation.guest)
        ]
        self._seen = {operation.id: operation for operation in present}
        return changed


def _message(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
