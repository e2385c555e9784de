"""What an HTTP request to the metrics endpoint is answered: a pure function from bytes to bytes (RFC 9112)."""

import re
from collections.abc import Callable

from emuvisor.metrics.exposition import CONTENT_TYPE

__all__ = ["HEAD_END", "MAX_HEAD", "PATH", "answer", "response"]

PATH = "/metrics"
MAX_HEAD = 8192
"""Bytes of a request line and headers; more is refused."""
HEAD_END = b"\r\n\r\n"
PLAIN = "text/plain; charset=utf-8"

_REQUEST_LINE = re.compile(rb"([!-~]+) (/[!-~]*) HTTP/1\.[01]")
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


def response(status: int, text: str, content_type: str = PLAIN, *, body: bool = True) -> bytes:
    """A whole response with `text`, after which the connection ends; without the text itself where `body` is False."""
    data = text.encode(errors="replace")
    allow = "Allow: GET, HEAD\r\n" if status == 405 else ""
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(data)}\r\n{allow}Connection: close\r\n\r\n"
    )
    return head.encode() + (data if body else b"")


def answer(head: bytes, page: Callable[[], str]) -> bytes:
    """The response to a request with `head`, which is its first line and headers; `page` makes the metrics' text."""
    first = head.split(b"\r\n", 1)[0]
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        return response(400, "that is no HTTP/1.1 request\n")
    method, target = match[1], match[2].split(b"?", 1)[0]
    if method not in (b"GET", b"HEAD"):
        return response(405, "only GET and HEAD are answered here\n")
    if target != PATH.encode():
        return response(404, f"the metrics are at {PATH}\n", body=method == b"GET")
    return response(200, page(), CONTENT_TYPE, body=method == b"GET")
