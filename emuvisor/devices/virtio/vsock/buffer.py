"""Bytes on their way through a socket."""

from collections import deque

__all__ = ["Buffer"]


class Buffer:
    """Bytes in order. With `messages` it knows where messages end, and `take` does not go beyond an end."""

    def __init__(self, *, messages: bool) -> None:
        self._messages = messages
        self._data = bytearray()
        self._ends: deque[int] = deque()
        """Bytes of each whole message that is still here, the first one's less what was taken of it."""
        self._open = 0
        """Bytes behind the last end."""

    def __len__(self) -> int:
        return len(self._data)

    @property
    def readable(self) -> bool:
        """Whether there is something to take: of messages, a whole one."""
        return bool(self._ends) if self._messages else bool(self._data)

    def put(self, data: bytes | memoryview, end: bool = False) -> None:
        """Add `data`; `end` says that a message ends behind it."""
        self._data += data
        if self._messages:
            self._open += len(data)
            if end:
                self._ends.append(self._open)
                self._open = 0

    def take(self, limit: int) -> tuple[bytes, bool]:
        """At most `limit` bytes, and whether a message ends behind them. Call it only if `readable`."""
        end = False
        if self._messages:
            end = self._ends[0] <= limit
            if end:
                limit = self._ends.popleft()
            else:
                self._ends[0] -= limit
        taken = bytes(self._data[:limit])
        del self._data[:limit]
        return taken, end

    def next_length(self) -> int:
        """Bytes that `take` gives at most: of messages, those of the first one. Call it only if `readable`."""
        return self._ends[0] if self._messages else len(self._data)

    def clear(self) -> None:
        """Forget everything."""
        self._data.clear()
        self._ends.clear()
        self._open = 0
