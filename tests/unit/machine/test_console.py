from emuvisor.machine.console import HISTORY, Console


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


def test_the_last_line_is_printable() -> None:
    console = Console()
    assert console.last_line == ""
    console.write(b"first\r\n\x1b[1mbold\x07\xff\r\n  \r\n")
    assert console.last_line == "[1mbold\ufffd"
