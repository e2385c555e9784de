"""Who may talk to whom, and what is said to those who may not."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.errors import MigrationError, UsageError
from emuvisor.migration.announce import announce
from emuvisor.migration.channel import Channel, LineLost
from emuvisor.migration.disk_blocks import DiskPlan, Sectors
from emuvisor.migration.endpoints import Gone, connect, listen, parse
from emuvisor.migration.frames import FrameKind, Message
from emuvisor.migration.greeting import Hello, be_greeted, greet, unknown
from emuvisor.migration.offer import Offer, pages_of
from emuvisor.migration.security import Certificates, Insecure, Token, secure

KEY = bytes(32)
HELLO = Hello("ask", "1")


def pair(timeout_s: float = 10.0) -> tuple[Channel, Channel]:
    here, there = socket.socketpair()
    return Channel(here, timeout_s), Channel(there, timeout_s)


def both(listening: Callable[[], object], connecting: Callable[[], object]) -> list[str]:
    """What each raises, the listening side first."""
    errors = ["", ""]

    def run(number: int, do: Callable[[], object]) -> None:
        try:
            do()
        except (MigrationError, LineLost) as error:
            errors[number] = str(error)

    other = threading.Thread(target=run, args=(0, listening))
    other.start()
    run(1, connecting)
    other.join(10)
    return errors


def say(channel: Channel, *messages: Message) -> None:
    for message in messages:
        channel.send(message)


def refuse(_: Hello) -> bytes:
    raise unknown()


@pytest.mark.parametrize(
    ("find_key", "key", "errors"),
    [
        (lambda _: KEY, KEY, ["", ""]),
        (lambda _: None, None, ["", ""]),
        (lambda _: KEY, b"wrong", ["migration: the other side does not know the token"] * 2),
        (refuse, KEY, ["migration: there is no such migration here"] * 2),
    ],
)
def test_greetings(find_key: Any, key: Any, errors: list[str]) -> None:
    here, there = pair()
    assert (
        both(lambda: greet(here, "source", find_key), lambda: be_greeted(there, "target", HELLO, key))
        == errors
    )
    assert here.known == there.known == (not errors[0])
    here.close()
    there.close()


NO_EMUVISOR = "migration: the other side is no emuvisor that takes guests"
GREETING = {"type": "greeting", "protocol": "emuvisor-migration", "versions": [1, 1], "nonce": b"1"}


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"type": "hello"}], "migration: the other side said 'hello'; expected greeting"),
        ([GREETING | {"protocol": "http"}], NO_EMUVISOR),
        ([GREETING | {"versions": "1"}], NO_EMUVISOR),
        ([GREETING | {"nonce": 1}], NO_EMUVISOR),
        (
            [GREETING | {"versions": [2, 2]}],
            "migration: the side that connects speaks version 1 of the protocol, the other one 2",
        ),
        ([GREETING, {"type": "welcome"}], "migration: the other side does not know the token"),
        ([GREETING, {"type": "refused", "reason": "no"}], "no"),
    ],
)
def test_a_side_that_listens_is_not_believed(messages: list[Message], text: str) -> None:
    here, there = pair()
    say(here, *messages)
    with pytest.raises(MigrationError) as caught:
        be_greeted(there, "source", HELLO, KEY)
    assert str(caught.value) == text
    here.close()
    there.close()


WANTS = "migration: the other side does not say what it wants"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"purpose": "rob"}, WANTS),
        ({"migration": "x" * 65}, WANTS),
        ({"migration": 5}, WANTS),
        (
            {"version": 7},
            "migration: the side that connects speaks version 7 of the protocol, the other one 1",
        ),
        ({"proof": 5}, "migration: the other side does not know the token"),
    ],
)
def test_a_side_that_connects_is_not_believed(changes: dict[str, object], text: str) -> None:
    here, there = pair()
    say(there, {"type": "hello", "version": 1, "purpose": "ask", "migration": "1", "proof": b""} | changes)
    with pytest.raises(MigrationError) as caught:
        greet(here, "target", lambda _: KEY)
    assert str(caught.value) == text
    here.close()
    there.close()


def test_who_stands_in_the_middle_of_a_token_learns_nothing() -> None:
    """A relay that speaks TLS with both sides passes everything on; both see that it is there."""
    token = Token("t" * 20)
    near, relay_near = socket.socketpair()
    relay_far, far = socket.socketpair()

    def relay() -> None:
        one = secure(relay_near, token, server=True)
        other = secure(relay_far, token, server=False)
        one.settimeout(10)
        other.settimeout(10)
        try:
            for source, sink in ((other, one), (one, other), (other, one)):
                sink.sendall(source.recv(1 << 16))
        finally:
            one.close()
            other.close()

    middle = threading.Thread(target=relay)
    middle.start()

    def at(sock: socket.socket, server: bool, do: Callable[[Channel], object]) -> None:
        channel = Channel(secure(sock, token, server=server), 10)
        try:
            do(channel)
        finally:
            channel.close()

    errors = both(
        lambda: at(far, True, lambda channel: greet(channel, "target", lambda _: token.key())),
        lambda: at(near, False, lambda channel: be_greeted(channel, "source", HELLO, token.key())),
    )
    middle.join(10)
    assert errors == ["migration: the other side does not know the token"] * 2


def test_a_peer_without_tls() -> None:
    here, there = socket.socketpair()
    there.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(MigrationError) as caught:
        secure(here, Token("t" * 20), server=True)
    assert (
        str(caught.value)
        == "migration: the side that listens wants a token, and the side that connects has none"
    )
    here.close()
    there.close()


def test_impossible_security(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        Token("short")
    assert str(caught.value) == "migration: a token has at least 20 characters, not 5"
    missing = tmp_path / "a.pem"
    with pytest.raises(UsageError) as caught:
        Certificates(missing, missing, missing)
    assert str(caught.value).startswith(f"migration: cannot use the certificates {missing}, ")

    class Far(socket.socket):
        def getpeername(self) -> tuple[str, int]:
            return "192.0.2.1", 1

    with Far() as sock, pytest.raises(UsageError) as caught:
        secure(sock, Insecure(), server=False)
    assert str(caught.value) == "migration: without a token or certificates it may not leave this machine"


# ---- lines ----


def test_a_line_that_ends_or_is_silent() -> None:
    here, there = pair(0.01)
    with pytest.raises(LineLost, match="the other side is silent"):
        here.receive()
    there.socket.sendall(b"\0\0")
    there.close()
    with pytest.raises(LineLost, match="the other side has closed the line"):
        here.receive()
    with pytest.raises(LineLost, match="Broken pipe"):
        here.send({"type": "round"})
    here.close()
    assert here.waits()


def test_the_last_words_of_a_side_that_has_left() -> None:
    here, there = pair()
    say(there, {"type": "round-done"})
    assert here.last_words() == ""
    say(there, {"type": "round-done"}, {"type": "discarded", "reason": "there is no room"})
    there.close()
    with pytest.raises(LineLost, match="Broken pipe"):
        here.send({"type": "round"})
    assert here.last_words() == "there is no room"
    assert here.last_words() == ""
    here.close()


def test_last_words_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emuvisor.migration.channel.MAX_LAST", 1)
    here, there = pair()
    say(there, {"type": "round-done"}, {"type": "discarded", "reason": "too late"})
    assert here.last_words() == ""
    here.close()
    there.close()


def test_pages_go_as_fast_as_they_may() -> None:
    now, slept = [0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += round(seconds * 1e9)

    here, there = socket.socketpair()
    channel = Channel(here, now_ns=lambda: now[0], sleep=sleep)
    channel.limit(1000)
    for _ in range(3):
        channel.send_data(FrameKind.PACKED, bytes(95))
    assert slept == pytest.approx([0.1, 0.1, 0.1])
    channel.limit(None)
    channel.send_data(FrameKind.PACKED, bytes(95))
    assert len(slept) == 3
    channel.close()
    there.close()


def test_what_goes_at_once_makes_the_rest_wait() -> None:
    now, slept = [0], []
    here, there = socket.socketpair()
    channel = Channel(here, now_ns=lambda: now[0], sleep=slept.append)
    assert channel.delay_s == 0
    channel.limit(1000)
    channel.send_data(FrameKind.PACKED, bytes(95), at_once=True)
    assert channel.delay_s == pytest.approx(0.1)
    channel.limit(1000)  # the same again forgives no debt
    now[0] = 60_000_000
    assert channel.delay_s == pytest.approx(0.04)
    assert slept == []
    channel.send_data(FrameKind.PACKED, bytes(95))
    assert slept == pytest.approx([0.14])
    channel.close()
    there.close()


def test_a_line_that_was_ended_gives_nothing_more() -> None:
    here, there = pair()
    there.send({"type": "round"})
    here.end()
    with pytest.raises(LineLost, match="the line is gone"):
        here.receive()
    here.close()
    there.close()


def test_an_openssl_without_ciphers_for_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emuvisor.migration.security._ANONYMOUS", "NO-SUCH-CIPHER")
    with pytest.raises(MigrationError) as caught:
        Token("t" * 20).context(True)
    assert (
        str(caught.value)
        == "migration: this system's OpenSSL has no TLS without certificates; use certificates"
    )


def test_a_peer_that_leaves_while_tls_begins() -> None:
    here, there = socket.socketpair()
    there.close()
    with pytest.raises((LineLost, MigrationError)):
        secure(here, Token("t" * 20), server=False)


def test_addresses(tmp_path: Path) -> None:
    assert parse("[::1]:70") == ("::1", 70)
    assert parse("/run/x") == Path("/run/x")
    for text in ("here", ":5", "a:b", "a:70000"):
        with pytest.raises(UsageError) as caught:
            parse(text)
        assert str(caught.value) == f"{text!r} is no address; write HOST:PORT or the path of a socket"
    path = tmp_path / "none"
    with pytest.raises(Gone) as gone:
        connect(str(path))
    assert str(gone.value) == f"nobody listens at {path}"
    with pytest.raises(LineLost) as lost:
        connect(str(tmp_path / ("x" * 200)))
    assert "cannot be reached" in str(lost.value)
    with pytest.raises(MigrationError) as failed:
        listen(str(tmp_path / "no" / "folder"))
    assert str(failed.value).endswith("No such file or directory")


# ---- what is offered ----

OFFER = {"config": {"memory": "4M"}, "pages": 5, "disks": [], "key": KEY, "ask": None}


@pytest.mark.parametrize(
    "changes",
    [
        {"config": 5},
        {"disks": None},
        {"disks": [["steal", 5]]},
        {"disks": [["copy", 5]]},
        {"key": b"short"},
        {"pages": "5"},
        {"ask": "x" * 300},
        {"config": {"memory": 5, "name": 7}},
    ],
)
def test_offers_that_are_none(changes: dict[str, object]) -> None:
    with pytest.raises((MigrationError, UsageError)):
        Offer.of(OFFER | changes)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["config", "pages", "disks", "key", "ask"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=40),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["memory", "disks", "nics", "name", "path"]), inner, max_size=3
                )
            ),
            max_leaves=8,
        ),
    )
)
def test_any_offer(changes: dict[str, object]) -> None:
    with suppress(MigrationError, UsageError):
        Offer.of(OFFER | changes)


@pytest.mark.parametrize("bitmap", [None, b"", bytes(3), "xx"])
def test_a_bitmap_of_another_size(bitmap: object) -> None:
    with pytest.raises(MigrationError) as caught:
        pages_of(bitmap, 9)
    assert str(caught.value) == "migration: the other side does not say which pages are missing"


@given(st.binary(max_size=600))
def test_any_sectors(payload: bytes) -> None:
    with suppress(MigrationError):
        assert Sectors.decode(payload).encode() == payload


def test_plans_of_disks() -> None:
    plan = DiskPlan("copy", 1024)
    assert DiskPlan.of(plan.as_list()) == plan


def test_networks_hear_where_a_card_is() -> None:
    heard = []

    class Cable:
        mac = bytes.fromhex("525400123456")

        def send(self, frame: bytes) -> None:
            heard.append(frame)

    announce([Cable()])
    assert heard == [
        bytes.fromhex(
            "ffffffffffff 525400123456 8035 0001 0800 06 04 0003 525400123456 00000000 525400123456"
        ).ljust(60, b"\0")
    ]
