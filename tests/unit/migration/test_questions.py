"""Where the target can ask the source, and who gets no answer."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from emuvisor.errors import MigrationError
from emuvisor.migration.calling import call
from emuvisor.migration.channel import Channel
from emuvisor.migration.endpoints import Gone, connect, listen
from emuvisor.migration.greeting import Hello
from emuvisor.migration.questions import Questions
from emuvisor.migration.security import Insecure

KEY = bytes(range(32))


@pytest.fixture
def questions() -> Iterator[Questions]:
    made = Questions(listen("127.0.0.1:0"), Insecure(), KEY, "1", lambda: "undecided")
    yield made
    made.close()


def ask(address: str, hello: Hello, key: bytes = KEY) -> Channel:
    return call(address, Insecure(), hello, key, role="target", timeout_s=10)


def answer(questions: Questions) -> object:
    channel = ask(questions.address, Hello("ask", "1"))
    try:
        return channel.receive_message("answer")["state"]
    finally:
        channel.close()


def test_who_knows_the_key_is_answered(questions: Questions) -> None:
    assert answer(questions) == "undecided"


@pytest.mark.parametrize("hello", [Hello("ask", "2"), Hello("connect", "1"), Hello("migrate", "1")])
def test_nobody_is_answered_about_anything_else(questions: Questions, hello: Hello) -> None:
    with pytest.raises(MigrationError, match=r"^migration: there is no such migration here$"):
        ask(questions.address, hello)
    assert answer(questions) == "undecided"


def test_nobody_is_answered_without_the_key(questions: Questions) -> None:
    with pytest.raises(MigrationError, match=r"^migration: the other side does not know the token$"):
        ask(questions.address, Hello("ask", "1"), b"wrong")
    connect(questions.address).close()
    assert answer(questions) == "undecided"


def test_when_it_ends_nobody_listens(questions: Questions) -> None:
    questions.close()
    with pytest.raises(Gone):
        ask(questions.address, Hello("ask", "1"))


def test_where_others_can_reach_it(tmp_path: Path) -> None:
    """Beside the end of the line that is here."""
    listener = listen("[::1]:0") if socket.has_ipv6 else listen("127.0.0.1:0")
    path = tmp_path / "target"
    unix = listen(str(path))
    for address, start in (
        (f"[::1]:{listener.getsockname()[1]}", "[::1]:"),
        (str(path), f"{path}."),
    ):
        line = connect(address)
        made = Questions.beside(
            line, address, security=Insecure(), key=KEY, migration="1", answer=lambda: "committed"
        )
        assert made is not None
        assert made.address.startswith(start)
        assert answer(made) == "committed"
        made.close()
        line.close()
    here, there = socket.socketpair()
    assert (
        Questions.beside(
            here, "nowhere:1", security=Insecure(), key=KEY, migration="1", answer=lambda: "committed"
        )
        is None
    )
    for sock in (here, there, listener, unix):
        sock.close()
