"""Requests to a daemon: operations until their end, streams of events, and answers as records."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from emuvisor.daemon.faults import error_of
from emuvisor.daemon.transport import Address, Transport, path_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Look", "Progress", "Requests", "looking", "record", "records"]

WAIT_S = 30
"""For which a request waits for the end of an operation; then it is asked again."""
LOOK_S = 0.2
"""The same, where somebody watches it."""
QUIET_S = 60.0
"""After which a stream without a sign of life is given up; the daemon gives one every 15 seconds."""
MAX_LINE = 1 << 20

_R = TypeVar("_R", bound="DataclassInstance")
Progress = Callable[[int, int], object]
"""Is told how much is done, and of how much."""
Look = Callable[[Mapping[str, Any]], object]
"""Is shown an operation."""


class Requests:
    """What a client of the daemon at `address` stands on; see `Client`."""

    def __init__(self, address: Path | str, token: str | None = None, ca: Path | None = None) -> None:
        self._address = Address(address)
        self._transport = Transport(self._address, token, ca)

    def close(self) -> None:
        """Nothing stays open between two calls."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _is_local(self) -> bool:
        """The daemon sees the same files."""
        return self._address.path is not None

    def _call(
        self, method: str, *parts: str, body: object = None, query: Mapping[str, object] | None = None
    ) -> Any:
        return self._transport.call(method, path_of(*parts), query, body)

    def _operate(self, *parts: str, body: object = None, look: Look | None = None) -> Any:
        """Begin an operation and wait for its end; returns its result. `look` is shown how it goes on."""
        wait = {"wait": WAIT_S if look is None else LOOK_S}
        operation = self._call("POST", *parts, body=body, query=wait)
        while _field(operation, "state") == "running":
            if look is not None:
                look(operation)
            operation = self._call("GET", "operations", _field(operation, "id"), query=wait)
        if look is not None:
            look(operation)
        if _field(operation, "state") == "failed":
            raise error_of({"error": operation.get("error"), "kind": operation.get("error_kind")})
        return operation.get("result")

    def _messages(self, after: int | None, guest: str | None) -> Iterator[tuple[int, Any]]:
        """Numbers and data of one stream of server-sent events; no data where the number alone was sent."""
        query = {"after": after, "guest": guest}
        path = path_of("events", "stream")
        with self._transport.open("GET", path, query, timeout_s=QUIET_S) as response:
            number, data, is_event = 0, "", True
            while line := response.readline(MAX_LINE):
                key, _, value = line.decode(errors="replace").rstrip("\r\n").partition(": ")
                if key == "id" and value.isdecimal():
                    number = int(value)
                elif key == "event":
                    is_event = False  # an operation
                elif key == "data":
                    data = value
                elif not key:
                    if is_event and number:
                        yield number, _parsed(data) if data else None
                    data, is_event = "", True


def looking(progress: Progress | None) -> Look | None:
    """What shows an operation's progress to `progress`."""
    if progress is None:
        return None
    return lambda operation: progress(operation.get("done", 0), operation.get("total", 0))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise error_of(text) from None


def _field(data: Any, key: str) -> str:
    if not isinstance(data, dict) or not isinstance(data.get(key), str):
        raise error_of(data)
    value: str = data[key]
    return value


def record(kind: type[_R], data: Any) -> _R:
    """A record of `data`; what a newer daemon has besides is left out. Raises HostError when something is missing."""
    try:
        known = {field.name for field in fields(kind)}
        values = {key: value for key, value in data.items() if key in known}
        return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
    except (AttributeError, TypeError):
        raise error_of(data) from None


def records(kind: type[_R], data: Any) -> list[_R]:
    """A record of each item of `data`. Raises HostError for what is no list of such."""
    if not isinstance(data, list):
        raise error_of(data)
    return [record(kind, item) for item in data]
