"""Tells those who wait for news, in whichever thread or event loop they are, that there are some."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["Hub"]


class Hub:
    """Carries no news itself: who is woken asks for what he has not seen. So nothing is kept for one who is slow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wakers: list[Callable[[], object]] = []

    def ring(self, *_: object) -> None:
        """There is news. Any thread."""
        with self._lock:
            wakers = tuple(self._wakers)
        for wake in wakers:
            with suppress(RuntimeError):  # his event loop has just ended
                wake()

    @contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """Inside, `wake` is called when there is news."""
        with self._lock:
            self._wakers.append(wake)
        try:
            yield
        finally:
            with self._lock:
                self._wakers.remove(wake)
