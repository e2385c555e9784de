"""One client: greeting, negotiation, requests and their answers, and the events in between.

Source: QEMU Machine Protocol Specification. Out-of-band execution is not offered: commands take no longer than what
they do to the guest.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from emuvisor.errors import EmuvisorError
from emuvisor.qmp.catalog import COMMANDS, NEGOTIATION
from emuvisor.qmp.errors import ErrorClass, QmpError
from emuvisor.qmp.messages import Splitter, TooMuch, decode, encode
from emuvisor.qmp.monitor import Monitor, Then
from emuvisor.qmp.version import VERSION

__all__ = ["MAX_PENDING", "Session"]

GREETING = {"QMP": {"version": VERSION, "capabilities": []}}
CHUNK = 1 << 16
MAX_PENDING = 1 << 20
"""Bytes that wait for a client that does not read; then it is dropped."""
MEMBERS = ("execute", "arguments", "id")


class Session:
    """Serves the client behind `reader` and `writer`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, monitor: Monitor) -> None:
        self._reader = reader
        self._writer = writer
        self._monitor = monitor
        self._negotiated = False

    async def run(self) -> None:
        """Serve the client until it hangs up, or sends what has no end. Raises OSError: its own affair."""
        self._write(encode(GREETING))
        splitter = Splitter()
        try:
            while data := await self._reader.read(CHUNK):
                for message in splitter.feed(data):
                    await self._answer(message)
        except TooMuch as error:
            self._write(encode(_failure(QmpError(str(error)))))
            await self._writer.drain()

    def tell(self, event: bytes) -> None:
        """Send an event, once the client has negotiated."""
        if self._negotiated:
            self._write(event)

    def _write(self, line: bytes) -> None:
        self._writer.write(line)
        if self._writer.transport.get_write_buffer_size() > MAX_PENDING:
            self._writer.transport.abort()

    async def _answer(self, message: bytes) -> None:
        request, then = None, None
        try:
            request = decode(message)
            answer = await self._execute(*self._parse(request))
            if isinstance(answer, Then):
                answer, then = answer.answer, answer.action
            reply = {"return": answer}
        except QmpError as error:
            reply = _failure(error)
        if isinstance(request, dict) and "id" in request:
            reply["id"] = request["id"]
        self._write(encode(reply))
        await self._writer.drain()
        if then is not None:
            await self._in_thread(then)

    def _parse(self, request: object) -> tuple[str, dict[str, Any]]:
        """The name and the arguments of a command. Raises QmpError."""
        if not isinstance(request, dict):
            raise QmpError("QMP input must be a JSON object")
        for member in request:
            if member not in MEMBERS:
                raise QmpError(f"QMP input member '{member}' is unexpected")
        name, arguments = request.get("execute"), request.get("arguments", {})
        if name is None:
            raise QmpError("QMP input lacks member 'execute'")
        if not isinstance(name, str):
            raise QmpError("QMP input member 'execute' must be a string")
        if not isinstance(arguments, dict):
            raise QmpError("QMP input member 'arguments' must be an object")
        return name, arguments

    async def _execute(self, name: str, arguments: dict[str, Any]) -> Any:
        if not self._negotiated:
            if name != NEGOTIATION:
                text = f"Expecting capabilities negotiation with '{NEGOTIATION}'"
                raise QmpError(text, ErrorClass.COMMAND_NOT_FOUND)
            _negotiate(**arguments)
            self._negotiated = True
            return {}
        if name == NEGOTIATION:
            text = "Capabilities negotiation is already complete, command ignored"
            raise QmpError(text, ErrorClass.COMMAND_NOT_FOUND)
        return await self._in_thread(lambda: COMMANDS.run(self._monitor, name, arguments))

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        """Call `function`, which may wait for the guest, so that the others' events go on. Raises QmpError."""

        def call() -> Any:
            self._monitor.ready.wait()
            with self._monitor.lock:
                return function()

        try:
            return await asyncio.to_thread(call)
        except EmuvisorError as error:
            raise QmpError(str(error)) from None


def _negotiate(enable: object = None, **others: object) -> None:
    for key in others:
        raise QmpError(f"Parameter '{key}' is unexpected")
    if enable is None:
        return
    if not isinstance(enable, list):
        raise QmpError("Invalid parameter type for 'enable', expected: array")
    for capability in enable:
        raise QmpError(f"Capability {capability} not available")


def _failure(error: QmpError) -> dict[str, Any]:
    return {"error": {"class": str(error.error_class), "desc": str(error)}}
