"""What a terminal sends for keys, as keys of a PC's keyboard (ECMA-48 and xterm's control sequences)."""

import re
from collections.abc import Iterator

__all__ = ["chords"]

_ESCAPE = "\x1b"
_NAMED = {"\r": "ret", "\n": "ret", "\t": "tab", "\x7f": "backspace", "\b": "backspace", _ESCAPE: "esc"}
_FINAL = {"A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end",
          "P": "f1", "Q": "f2", "R": "f3", "S": "f4"}  # fmt: skip
_NUMBERED = {"1": "home", "2": "insert", "3": "delete", "4": "end", "5": "pgup", "6": "pgdn",
             "11": "f1", "12": "f2", "13": "f3", "14": "f4", "15": "f5", "17": "f6", "18": "f7", "19": "f8",
             "20": "f9", "21": "f10", "23": "f11", "24": "f12"}  # fmt: skip
_SEQUENCE = re.compile(r"\x1b(?:[\[O](?P<final>[A-DFHPQRS])|\[(?P<number>\d{1,2})~)")
_FIRST_LETTER = 0x60
_LAST_CONTROL = 0x1A


def chords(text: str) -> Iterator[tuple[str, bool]]:
    """The keys behind `text`: each a chord for `send_keys` (and True), or a character to be typed (and False)."""
    at = 0
    while at < len(text):
        match = _SEQUENCE.match(text, at)
        if match is not None:
            at = match.end()
            key = _FINAL.get(match["final"] or "") or _NUMBERED.get(match["number"] or "")
            if key is not None:
                yield key, True
            continue
        character = text[at]
        at += 1
        if character in _NAMED:
            yield _NAMED[character], True
        elif ord(character) <= _LAST_CONTROL and character != "\0":
            yield f"ctrl-{chr(ord(character) + _FIRST_LETTER)}", True
        elif character.isascii() and character.isprintable():
            yield character, False
