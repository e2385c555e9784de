"""Names and reasons from elsewhere, safe to show."""

__all__ = ["plain"]


def plain(text: str) -> str:
    """`text` in one line, with a replacement character for each one that is not printable: no control characters, no
    escape sequences, nothing that turns the direction of writing."""
    one_line = " ".join(text.split("\n"))
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in one_line)
