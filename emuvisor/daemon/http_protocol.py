"""uvicorn's HTTP connection, with a limit on how long a request's header may take."""

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

__all__ = ["make_protocol"]


def make_protocol(header_s: Callable[[], float]) -> type[asyncio.Protocol]:
    """The class of connections that are closed when a request's header is not whole after `header_s()` seconds.

    uvicorn itself waits for ever for the first one, and for the rest of one that has begun.
    """

    class Protocol(H11Protocol):
        """A connection."""

        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None:
            super().__init__(config, server_state, app_state, _loop)
            self._deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """Somebody connected."""
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            """A part of a request came."""
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            """It ended."""
            super().connection_lost(exc)
            self._unwatch()

        def _watch(self) -> None:
            """A header that is not whole has a deadline."""
            if self.conn.their_state is not h11.IDLE:
                self._unwatch()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(header_s(), self.transport.abort)

        def _unwatch(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return Protocol
