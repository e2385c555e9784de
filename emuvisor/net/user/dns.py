"""DNS messages (RFC 1035): queries are read, answers with addresses are written.

Own code instead of a library: a server that answers one question with addresses needs no more than a header, one name
and fixed-size records. It follows no compression pointers at all, which is where DNS parsers go wrong.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

__all__ = ["MAX_MESSAGE", "Code", "Query", "RecordType", "answer", "parse", "refuse", "truncated"]

_HEADER = struct.Struct("!HHHHHH")
"""Identifier, flags, and the numbers of questions, answers, authorities and additional records."""
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHHIH")
"""Name, type, class, time to live, and length of the data."""
FLAG_RESPONSE = 0x8000
OPCODE = 0x7800
FLAG_TRUNCATED = 0x0200
FLAG_RECURSION_DESIRED = 0x0100
FLAG_RECURSION_AVAILABLE = 0x0080
CLASS_INTERNET = 1
MAX_NAME = 255
MAX_MESSAGE = 512
"""Bytes of an answer over UDP without extensions (section 4.2.1)."""
QUESTION_NAME = 0xC000 | _HEADER.size
"""A pointer to the name in the question (section 4.1.4)."""
TTL_SECONDS = 30
"""The host's resolver does not tell; short, because asking it again costs little."""
_LABEL = re.compile(rb"[A-Za-z0-9_-]{1,63}")


class RecordType(IntEnum):
    """Types that are answered here."""

    A = 1
    AAAA = 28


class Code(IntEnum):
    """Response codes (RFC 1035, section 4.1.1)."""

    NO_ERROR = 0
    FORMAT_ERROR = 1
    SERVER_FAILURE = 2
    NAME_ERROR = 3
    NOT_IMPLEMENTED = 4
    REFUSED = 5


@dataclass(frozen=True, slots=True)
class Query:
    """One question. `name` is in small letters, without a final dot, and made of letters, digits, '-' and '_' only."""

    identifier: int
    recursion_desired: bool
    name: str
    type: int
    question: bytes
    """As it came, for the answer."""


def parse(message: bytes) -> Query | Code | None:
    """The query in `message`, the code to refuse it with, or None for what is no query at all."""
    if len(message) < _HEADER.size:
        return None
    identifier, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
    if flags & FLAG_RESPONSE:
        return None
    if flags & OPCODE:
        return Code.NOT_IMPLEMENTED
    if questions != 1 or answers:
        return Code.FORMAT_ERROR
    labels = []
    position = _HEADER.size
    while position < len(message) and message[position]:
        length = message[position]
        labels.append(message[position + 1 : position + 1 + length])
        position += 1 + length
        if not _LABEL.fullmatch(labels[-1]) or len(labels[-1]) != length:
            return Code.FORMAT_ERROR  # a length above 63, which is a pointer or nothing, ends here too
    end = position + 1 + _QUESTION.size
    if end > len(message) or position + 1 - _HEADER.size > MAX_NAME or not labels:
        return Code.FORMAT_ERROR
    kind, internet = _QUESTION.unpack_from(message, position + 1)
    if internet != CLASS_INTERNET:
        return Code.NOT_IMPLEMENTED
    return Query(
        identifier=identifier,
        recursion_desired=bool(flags & FLAG_RECURSION_DESIRED),
        name=b".".join(labels).decode().lower(),
        type=kind,
        question=message[_HEADER.size : end],
    )


def answer(
    query: Query, addresses: Sequence[IPv4Address | IPv6Address] = (), code: Code = Code.NO_ERROR
) -> bytes:
    """The answer with those `addresses` that are of the asked type, as many as fit."""
    wanted = [
        address
        for address in addresses
        if query.type == (RecordType.A if address.version == 4 else RecordType.AAAA)
    ]
    records = b""
    count = 0
    for address in wanted:
        data = address.packed
        record = _RECORD.pack(QUESTION_NAME, query.type, CLASS_INTERNET, TTL_SECONDS, len(data)) + data
        if _HEADER.size + len(query.question) + len(records) + len(record) > MAX_MESSAGE:
            break  # the client needs one that works, not all
        records += record
        count += 1
    flags = FLAG_RESPONSE | FLAG_RECURSION_AVAILABLE | code
    if query.recursion_desired:
        flags |= FLAG_RECURSION_DESIRED
    return _HEADER.pack(query.identifier, flags, 1, count, 0, 0) + query.question + records


def refuse(message: bytes, code: Code) -> bytes:
    """An answer with `code` to a message of which only the header, of 12 bytes, can be relied on."""
    identifier, flags, *_ = _HEADER.unpack_from(message)
    return _HEADER.pack(
        identifier, FLAG_RESPONSE | flags & (OPCODE | FLAG_RECURSION_DESIRED) | code, 0, 0, 0, 0
    )


def truncated(query: Query) -> bytes:
    """An answer that says that the whole one is too long for a datagram; the client asks again over TCP."""
    flags = FLAG_RESPONSE | FLAG_TRUNCATED | FLAG_RECURSION_DESIRED | FLAG_RECURSION_AVAILABLE
    return _HEADER.pack(query.identifier, flags, 1, 0, 0, 0) + query.question
