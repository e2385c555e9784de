"""JSON messages from and to bytes that nobody vouches for.

QMP has no length and no line structure: a message is over when its brackets are closed. Source: QEMU Machine Protocol
Specification; RFC 8259.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from emuvisor.qmp.errors import QmpError

__all__ = ["MAX_MESSAGE", "MAX_NESTING", "Splitter", "TooMuch", "decode", "encode"]

MAX_MESSAGE = 1 << 20
"""Bytes of one message. The longest that makes sense, a key sequence, has a few thousand."""
MAX_STRAY = 4096
"""Bytes of a line that is no message; it is looked at from its beginning whenever more of it comes."""
MAX_NESTING = 64
"""Brackets that are open at a time; QMP's own messages have five."""

_OUTSIDE = re.compile(rb'["{}\[\]\xff]')
_INSIDE = re.compile(rb'["\\\n\r\xff]')
_START = re.compile(rb"[{\[]|[^{\[\s\xff][^\n\xff]*(?:[\n\xff]|\Z)|\xff")
"""The first of a message, or a line of anything else."""
FLUSH = 0xFF
"""The byte, impossible in UTF-8, with which clients end what a former one may have left half sent."""


class TooMuch(Exception):
    """A message that is too long or too deep; where the next one begins is not known."""


class Splitter:
    """Cuts what a client sends into messages."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._depth = 0
        self._in_string = False
        self._scanned = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take `data`; yields each message that is complete, and each line that is none. Raises TooMuch."""
        self._data += data
        while (end := self._end()) is not None:
            message = bytes(self._data[:end]).strip(b" \t\r\n")
            del self._data[:end]
            self._depth = self._scanned = 0
            self._in_string = False
            yield message
        if len(self._data) > MAX_MESSAGE:
            raise TooMuch(f"JSON message size limit exceeded: {MAX_MESSAGE} bytes")

    def _end(self) -> int | None:
        """How many bytes the first message has; None when it is not complete."""
        if not self._depth and not self._begin():
            return None if self._scanned == 0 else self._scanned
        while (
            match := (_INSIDE if self._in_string else _OUTSIDE).search(self._data, self._scanned)
        ) is not None:
            self._scanned = match.end()
            mark = match[0]
            if mark[0] == FLUSH or mark in (b"\n", b"\r"):
                return self._scanned  # a string cannot go on there
            if mark == b"\\":
                if self._scanned == len(self._data):
                    self._scanned -= 1  # what is escaped comes later
                    return None
                self._scanned += 1
            elif mark == b'"':
                self._in_string = not self._in_string
            elif mark in (b"{", b"["):
                self._depth += 1
                if self._depth > MAX_NESTING:
                    raise TooMuch(f"JSON nesting depth limit exceeded: {MAX_NESTING}")
            else:
                self._depth -= 1
                if not self._depth:
                    return self._scanned
        self._scanned = len(self._data)
        return None

    def _begin(self) -> bool:
        """Whether a message begins; else `_scanned` bytes are none, if they are over."""
        match = _START.search(self._data)
        if match is None:
            self._data.clear()
            return False
        line = match[0]  # before the data moves, which the match is part of
        del self._data[: match.start()]
        if line in (b"{", b"["):
            return True
        over = line[-1] in (FLUSH, ord("\n"))
        if not over and len(line) > MAX_STRAY:
            raise TooMuch(f"JSON parse error, no message in {MAX_STRAY} bytes")
        self._scanned = len(line) if over else 0
        return False


def decode(message: bytes) -> Any:
    """What the JSON text says. Raises QmpError."""
    try:
        return json.loads(
            message.decode(),
            object_pairs_hook=_object,
            parse_float=_number,
            parse_constant=_constant,
        )
    except (ValueError, RecursionError):
        raise QmpError(f"JSON parse error, invalid text {_shown(message)}") from None


def _shown(message: bytes) -> str:
    return ascii(message[:40].decode(errors="replace")) + ("..." if len(message) > 40 else "")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def encode(message: dict[str, Any]) -> bytes:
    """The message as a line, as QEMU sends it."""
    return json.dumps(message).encode() + b"\r\n"
