"""What requests are answered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.metrics.http import answer


def page() -> str:
    return "a 1\n"


def status(head: bytes) -> bytes:
    return answer(head, page).split(b"\r\n")[0]


def test_the_metrics() -> None:
    assert answer(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", page) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        b"Content-Length: 4\r\nConnection: close\r\n\r\na 1\n"
    )


def test_head_gets_no_text() -> None:
    response = answer(b"HEAD /metrics HTTP/1.0\r\n\r\n", page)
    assert response.endswith(b"Content-Length: 4\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("head", "line"),
    [
        (b"GET /metrics?format=text HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 Not Found"),
        (b"GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed"),
        (b"GET /metrics HTTP/2.0\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"GET /metrics\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"GET metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\x00", b"HTTP/1.1 400 Bad Request"),
        (b"", b"HTTP/1.1 400 Bad Request"),
    ],
)
def test_status(head: bytes, line: bytes) -> None:
    assert status(head) == line


def test_what_is_allowed_is_said() -> None:
    assert answer(b"PUT /metrics HTTP/1.1\r\n\r\n", page) == (
        b"HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 36\r\nAllow: GET, HEAD\r\nConnection: close\r\n\r\n"
        b"only GET and HEAD are answered here\n"
    )


def test_text_that_is_no_utf_8() -> None:
    assert answer(b"GET /metrics HTTP/1.1\r\n\r\n", lambda: "\ud800").endswith(b"\r\n\r\n?")


@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            b"".join,
            st.lists(
                st.sampled_from(
                    [
                        b"GET",
                        b"HEAD",
                        b" ",
                        b"/",
                        b"/metrics",
                        b"?",
                        b"HTTP/1.1",
                        b"\r",
                        b"\n",
                        b"\0",
                        b"\xff",
                    ]
                )
            ),
        ),
    )
)
def test_whatever_comes_is_answered(head: bytes) -> None:
    first, _, rest = answer(head, page).partition(b"\r\n")
    assert first.split(b" ")[1] in (b"200", b"400", b"404", b"405")
    headers, _, body = rest.partition(b"\r\n\r\n")
    if not head.startswith(b"HEAD "):
        assert f"Content-Length: {len(body)}".encode() in headers.split(b"\r\n")
