"""Pictures of guests' screens as files."""

from pathlib import Path

from emuvisor.errors import HostError

__all__ = ["keep_picture"]

MAX_PICTURES = 10_000
"""Numbers that are tried for a file's name."""


def keep_picture(folder: Path, name: str, picture: bytes) -> Path:
    """Write `picture` of the guest `name` to a new file in `folder`: NAME-1.png, NAME-2.png and so on.

    Raises HostError.
    """
    stem = "".join(char if char.isascii() and (char.isalnum() or char in "-_") else "_" for char in name)
    for number in range(1, MAX_PICTURES):
        path = folder / f"{stem}-{number}.png"
        try:
            with path.open("xb") as file:
                file.write(picture)
        except FileExistsError:
            continue
        except OSError as error:
            raise HostError(f"{path}: cannot be written: {error.strerror}") from None
        return path
    raise HostError(f"{folder}: there are {MAX_PICTURES - 1} pictures of {name!r} already")
