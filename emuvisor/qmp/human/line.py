"""The words of a command line."""

from emuvisor.qmp.errors import QmpError

__all__ = ["Line"]


class Line:
    """What follows a command's name: `words`, the `format` behind its slash ("4xw"), and the `processor` that is
    meant."""

    def __init__(self, words: list[str], format: str = "", processor: int = 0) -> None:
        self._words = words
        self.format = format
        self.processor = processor

    def word(self, what: str) -> str:
        """The next word. Raises QmpError when there is none."""
        if not self._words:
            raise QmpError(f"{what} is missing")
        return self._words.pop(0)

    def optional(self) -> str | None:
        """The next word, if there is one."""
        return self._words.pop(0) if self._words else None

    def flag(self, name: str) -> bool:
        """Whether the option is the next word, which it then is no more."""
        if self._words[:1] == [name]:
            del self._words[0]
            return True
        return False

    def end(self) -> None:
        """Raises QmpError when there are words left."""
        if self._words:
            raise QmpError(f"extraneous characters at the end of line: '{' '.join(self._words)}'")

    def number(self, what: str) -> int:
        """The next word as a number, decimal or with 0x. Raises QmpError."""
        word = self.word(what)
        try:
            return int(word, 0)
        except ValueError:
            raise QmpError(f"invalid number: '{word}'") from None
