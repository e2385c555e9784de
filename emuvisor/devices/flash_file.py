"""The file that keeps a flash chip's content."""

from pathlib import Path

from emuvisor.errors import ImageError

__all__ = ["FlashFile"]


class FlashFile:
    """The file at `path`, made with `initial` as its content if there is none.

    `data` is what it held. Each write opens the file anew: there are few, and nobody has to close it. Raises
    ImageError when it cannot be read or made, and for a file of another size than `initial`.
    """

    def __init__(self, path: Path, initial: bytes) -> None:
        self.path = path
        try:
            if not path.exists():
                path.write_bytes(initial)
            size = path.stat().st_size
            if size != len(initial):
                raise ImageError(
                    f"{path}: {size} bytes; the firmware keeps its variables in a file of {len(initial)} bytes"
                )
            self.data = path.read_bytes()
        except OSError as error:
            raise ImageError(f"{path}: cannot be used for UEFI variables: {error.strerror}") from None

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`. Raises OSError."""
        with self.path.open("r+b", buffering=0) as file:
            file.seek(offset)
            file.write(data)
