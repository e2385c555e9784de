from typing import Any

import pytest

from emuvisor.errors import SnapshotError, StateError
from emuvisor.machine.console import HISTORY, MAX_TYPED, Console
from emuvisor.units import KIB


def test_output_is_kept_and_shown() -> None:
    console, shown = Console(), []
    console.listeners.append(shown.append)
    console.write(b"one\r\n")
    console.write(b"two")
    assert (console.text, shown, console.written) == ("one\r\ntwo", [b"one\r\n", b"two"], 8)


def test_a_flood_keeps_only_the_end() -> None:
    console = Console()
    for i in range(40):
        console.write(bytes([65 + i % 26]) * (HISTORY // 8))
    assert len(console.text) == HISTORY
    assert console.text[-1] == chr(65 + 39 % 26)
    assert console.written == 5 * HISTORY


def test_a_watched_text_is_found_once_across_writes() -> None:
    console, hits = Console(), []
    console.write(b"login: ")  # before the watch: does not count
    console.watch("login:", lambda: hits.append(console.written))
    for byte in b"\nlogin: login:":
        console.write(bytes([byte]))
    assert hits == [7 + 7]


def test_a_text_of_one_character() -> None:
    console, hits = Console(), []
    console.watch("#", lambda: hits.append(1))
    console.write(b"ab")
    console.write(b"c#d")
    assert hits == [1]


def test_unwatch() -> None:
    console, hits = Console(), []
    watch = console.watch("x", lambda: hits.append(1))
    console.unwatch(watch)
    console.unwatch(watch)
    console.write(b"x")
    assert hits == []


def test_input_waits_until_it_is_taken() -> None:
    console, taken = Console(), bytearray()

    def receive_three(data: bytes) -> int:
        taken.extend(data[:3])
        return len(data[:3])

    console.feed(b"")
    assert not console.has_input
    console.feed(b"hello")
    assert console.pump(receive_three)
    assert (bytes(taken), console.has_input) == (b"hel", True)
    assert console.pump(receive_three)
    assert (bytes(taken), console.has_input) == (b"hello", False)
    assert not console.pump(receive_three)


def test_nothing_is_lost_when_nobody_takes_it() -> None:
    console = Console()
    console.feed(b"abc")
    assert not console.pump(lambda data: 0)
    assert console.has_input


def test_what_a_guest_does_not_take_has_a_bound() -> None:
    console, taken = Console(), bytearray()
    console.feed(b"x" * (2 * MAX_TYPED))  # one text may be longer
    console.pump(lambda data: MAX_TYPED + KIB)
    with pytest.raises(StateError) as error:
        console.feed(b"y" * (KIB + 1))
    assert str(error.value) == "the guest has not taken 63 KiB that were typed; at most 64 KiB wait for it"
    console.feed(b"y" * KIB)
    state = console.save()
    other = Console()
    other.load(state)
    with pytest.raises(StateError):
        other.feed(b"z")

    def take(data: bytes) -> int:
        taken.extend(data)
        return len(data)

    other.pump(take)
    assert taken == b"x" * (MAX_TYPED - KIB) + b"y" * KIB
    other.feed(b"z" * MAX_TYPED)
    assert other.has_input


def test_the_last_line_is_printable() -> None:
    console = Console()
    assert console.last_line == ""
    console.write(b"first\r\n\x1b[1mbold\x07\xff\r\n  \r\n")
    assert console.last_line == "[1mbold\ufffd"


# ---- saved state ----


def test_a_console_goes_back() -> None:
    console = Console()
    console.write(b"boot\r\nlogin: ")
    console.searched = 6
    console.feed(b"ro")
    console.feed(b"ot\n")
    shown: list[bytes] = []
    console.listeners.append(shown.append)
    state = console.save()
    console.write(b"password: ")
    console.searched = 20
    console.pump(len)
    console.feed(b"other")
    console.load(state)
    assert (console.text, console.written, console.searched) == ("boot\r\nlogin: ", 13, 6)
    assert shown == [b"password: "]
    taken = bytearray()
    console.pump(lambda data: taken.extend(data) or len(data))  # type: ignore[func-returns-value]
    assert taken == b"root\n"
    console.load(state)
    assert console.save() == state


def test_a_text_that_began_before_the_state_is_found_behind_it() -> None:
    console, hits = Console(), []
    console.watch("login:", lambda: hits.append(console.written))
    console.write(b"xlog")
    state = console.save()
    console.write(b"ged out")
    console.load(state)
    console.write(b"in: ")
    assert hits == [8]


def test_what_was_printed_before_somebody_looked_does_not_count() -> None:
    console, hits = Console(), []
    console.write(b"log")
    state = console.save()
    console.write(b"xx")
    console.watch("login:", lambda: hits.append(1))
    console.load(state)
    console.write(b"in:")
    assert hits == []
    console.write(b"login:")
    assert hits == [1]


def test_a_watch_that_begins_earlier() -> None:
    console, hits = Console(), []
    console.write(b"#log")
    watch = console.watch("login:", lambda: hits.append(1), start=1)
    assert console.watches(watch)
    assert watch.end is None
    console.write(b"in: root")
    assert hits == [1]
    assert not console.watches(watch)
    assert watch.end == len("#login:")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"history": "abc"}, "what was printed and typed is not in the saved state"),
        ({"input": None}, "what was printed and typed is not in the saved state"),
        ({"history": bytes(HISTORY + 1)}, "what was printed and typed is not in the saved state"),
        ({"written": 2}, "saved field 'written' is 2; 3 bytes are kept"),
        ({"written": True}, "saved field 'written' is True; 3 bytes are kept"),
        ({"searched": 4}, "saved field 'searched' is 4; 3 bytes were printed"),
        ({"searched": -1}, "saved field 'searched' is -1; 3 bytes were printed"),
        ({"searched": None}, "saved field 'searched' is None; 3 bytes were printed"),
    ],
)
def test_a_state_of_no_console(changes: dict[str, Any], text: str) -> None:
    console = Console()
    console.write(b"abc")
    with pytest.raises(SnapshotError) as caught:
        console.load(console.save() | changes)
    assert str(caught.value) == f"console: {text}"
    assert console.text == "abc"
