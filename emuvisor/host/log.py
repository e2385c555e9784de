"""A log that others can listen to."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

__all__ = ["Log"]

T = TypeVar("T")


class Log(Generic[T]):
    """The latest `limit` entries of the log called `name`, and who hears of new ones.

    Listeners are called in the thread that adds; one that raises an exception hears no more, and `on_failure` is told.
    """

    def __init__(self, name: str, limit: int, on_failure: Callable[[str], None]) -> None:
        self.listeners: list[Callable[[T], None]] = []
        self.added = 0
        """Entries since the beginning."""
        self._name = name
        self._on_failure = on_failure
        self._entries: deque[T] = deque(maxlen=limit)

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: T) -> None:
        """Note one more."""
        self._entries.append(entry)
        self.added += 1
        for listener in tuple(self.listeners):
            try:
                listener(entry)
            except Exception as error:
                with suppress(ValueError):  # it has gone by itself
                    self.listeners.remove(listener)
                self._on_failure(f"a listener of {self._name} is dropped: {type(error).__name__}: {error}")
