"""The Prometheus endpoint: `GET /metrics` over HTTP."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from emuvisor.errors import EmuvisorError
from emuvisor.metrics.address import listen, parse_address
from emuvisor.metrics.exposition import exposition
from emuvisor.metrics.http import HEAD_END, MAX_HEAD, PATH, answer, response
from emuvisor.metrics.sample import HostSample

__all__ = ["MetricsServer"]

MAX_CLIENTS = 16
"""Connections at a time; others are turned away."""
PATIENCE_S = 5.0
"""How long one connection lasts at most, whatever the client does."""
FRESH_S = 0.25
"""For how long a page is given out again: whoever asks all the time must not keep the host busy."""


class MetricsServer:
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
        self._clients: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"metrics {self._address}", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What Prometheus has to be told."""
        return f"http://{self._address}{PATH}"

    @property
    def port(self) -> int:
        """The TCP port that it got."""
        return self._address.port

    def close(self) -> None:
        """Drop all clients and stop listening."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._listener, limit=MAX_HEAD)
        await self._closing.wait()
        server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

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
