"""From guests' consoles to standard output."""

import io
import threading

from hypothesis import given
from hypothesis import strategies as st

from emuvisor.cli.screen import LINE_LIMIT, LinePrefixer, Outlet, Screen


def stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8")


def written(target: io.TextIOWrapper) -> bytes:
    assert isinstance(target.buffer, io.BytesIO)
    return target.buffer.getvalue()


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_lines_get_their_prefix() -> None:
    prefixer = LinePrefixer("a | ")
    assert prefixer.feed(b"one\r\ntw") == b"a | one\n"
    assert prefixer.feed(b"o\n\nthree") == b"a | two\na | \n"
    assert prefixer.finish() == b"a | three\n"
    assert prefixer.finish() == b""


def test_nothing_gets_through_that_moves_the_cursor() -> None:
    prefixer = LinePrefixer("")
    line = b"\x1b[2J\x1b[1;31mred\x1b[0m \x1b]0;title\x07\x1bc\x07\x08tab\there \xc3\xa4 \xff\n"
    assert prefixer.feed(line).decode() == "red tab\there \u00e4 \ufffd\n"


def test_a_line_without_an_end_is_broken() -> None:
    prefixer = LinePrefixer("> ")
    lines = prefixer.feed(b"x" * (2 * LINE_LIMIT + 1))
    assert lines == (b"> " + b"x" * LINE_LIMIT + b"\n") * 2
    assert prefixer.finish() == b"> x\n"


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_hostile_output_stays_on_its_lines(chunks: list[bytes]) -> None:
    prefixer = LinePrefixer("p|")
    out = b"".join(map(prefixer.feed, chunks)) + prefixer.finish()
    text = out.decode()
    assert all(line.startswith("p|") for line in text.split("\n")[:-1])
    assert all(c in "\t\n" or not ("\0" <= c < " " or "\x7f" <= c <= "\x9f") for c in text)


def test_one_guest_prints_as_it_is() -> None:
    target = stream()
    screen = Screen(target, ["a"])
    listener = screen.listener("a")
    assert listener is not None
    listener(b"\x1b[2Jno end of line")
    assert screen.show()
    assert not screen.show()
    assert written(target) == b"\x1b[2Jno end of line"


def test_several_guests_print_lines() -> None:
    target = stream()
    screen = Screen(target, ["a", "long"])
    for name, data in (("a", b"one"), ("long", b"two\n"), ("a", b" more\nrest")):
        listener = screen.listener(name)
        assert listener is not None
        listener(data)
    screen.finish("a")
    assert written(target) == b"long | two\na    | one more\na    | rest\n"


def test_colours_are_for_terminals(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.delenv("NO_COLOR", raising=False)

    def line() -> bytes:
        target = Terminal(io.BytesIO())
        screen = Screen(target, ["a", "b"])
        listener = screen.listener("b")
        assert listener is not None
        listener(b"x\n")
        screen.show()
        return written(target)

    assert line() == b"\x1b[32mb | \x1b[0mx\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert line() == b"b | x\n"


def test_no_stream_shows_nothing() -> None:
    screen = Screen(None, ["a", "b"])
    assert screen.listener("a") is None
    screen.finish("a")
    assert not screen.show()


def test_the_taker_is_woken_once_for_all_that_waits() -> None:
    outlet = Outlet()
    calls: list[str] = []
    outlet.wake = lambda: calls.append("wake")
    for data in (b"", b"a", b"b"):
        outlet.put(data)
    assert (outlet.take(), calls) == (b"ab", ["wake"])
    outlet.put(b"c")
    assert calls == ["wake", "wake"]


def test_a_full_outlet_lets_the_guest_wait() -> None:
    outlet = Outlet(limit=4)
    woken = threading.Semaphore(0)
    outlet.wake = woken.release
    data = [b"abcd", b"efgh", b"ij"]

    def guest() -> None:
        for part in data:
            outlet.put(part)

    thread = threading.Thread(target=guest)
    thread.start()
    taken = []
    while len(b"".join(taken)) < 10:
        woken.acquire()
        taken.append(outlet.take())
    thread.join()
    assert taken == data


def test_nobody_waits_for_a_closed_or_unlimited_outlet() -> None:
    outlet = Outlet(limit=1)
    outlet.put(b"full")
    with outlet.unlimited():
        outlet.put(b" and more")
    outlet.close()
    outlet.wake = lambda: 1 / 0  # type: ignore[assignment, return-value]
    outlet.put(b"lost")
    assert outlet.take() == b"full and more"
    outlet.put(b"lost")
    assert outlet.take() == b""
