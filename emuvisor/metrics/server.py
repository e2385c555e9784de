"""The Prometheus endpoint: `GET /metrics` over HTTP."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from emuvisor.errors import EmuvisorError
from emuvisor.metrics.address import listen, parse_address
from emuvisor.metrics.exposition import exposition
from emuvisor.metrics.http import HEAD_END, MAX_HEAD, PATH, answer, response
from emuvisor.metrics.sample import HostSample
from emuvisor.serving import BackgroundServer

__all__ = ["MetricsServer"]

MAX_CLIENTS = 16
"""Connections at a time; others are turned away."""
PATIENCE_S = 5.0
"""How long one connection lasts at most, whatever the client does."""
FRESH_S = 0.25
"""For how long a page is given out again: whoever asks all the time must not keep the host busy."""


class MetricsServer(BackgroundServer):
    """Serves what `sample` returns on `address` ("127.0.0.1:9100", ":9100") from a thread of its own.

    It has to be closed. `clock` says the time in seconds. Raises UsageError for what is no address, HostError where it
    cannot listen.
    """

    def __init__(
        self,
        address: str,
        sample: Callable[[], HostSample],
        *,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sample = sample
        self._patience_s = patience_s
        self._clock = clock
        self._page = ""
        self._page_at = float("-inf")
        self._listener, self._address = listen(parse_address(address))
        super().__init__(f"metrics {self._address}")

    @property
    def url(self) -> str:
        """What Prometheus has to be told."""
        return f"http://{self._address}{PATH}"

    @property
    def port(self) -> int:
        """The TCP port that it got."""
        return self._address.port

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._connected, sock=self._listener, limit=MAX_HEAD)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._clients) >= MAX_CLIENTS:
                writer.write(response(503, f"{MAX_CLIENTS} others are being answered\n"))
                return
            self._clients.add(task)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience_s):
                    writer.write(await self._answer(reader))
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()  # until the client has it
        except OSError:
            pass  # the client's own affair
        finally:
            self._clients.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(HEAD_END)
        except asyncio.LimitOverrunError:
            return response(431, f"a request has at most {MAX_HEAD} bytes here\n")
        except asyncio.IncompleteReadError as error:
            head = error.partial
        try:
            return answer(head, self._text)
        except EmuvisorError as error:
            return response(503, f"{error}\n")

    def _text(self) -> str:
        now = self._clock()
        if now - self._page_at >= FRESH_S:
            self._page = exposition(self._sample())
            self._page_at = now
        return self._page
