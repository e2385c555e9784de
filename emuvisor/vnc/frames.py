"""The screen as viewers share it: taken only while somebody waits for it, and not more often than is of use."""

import asyncio
from collections.abc import Callable

import numpy as np

from emuvisor.devices.display.screen import Screen

__all__ = ["Frames"]

SHORTEST_S = 1 / 30
LONGEST_S = 1 / 8
"""Time between two frames: while the screen moves, and while it has not for a while."""
SLOWER = 1.5


class Frames:
    """Numbered frames of what `screen()` gives, which may take its time: it is called in another thread."""

    def __init__(self, screen: Callable[[], Screen]) -> None:
        self._take = screen
        self._lock = asyncio.Lock()
        self._number = 0
        self._screen: Screen | None = None
        self._interval_s = SHORTEST_S
        self._next_s = 0.0

    def hurry(self) -> None:
        """Somebody typed: the screen will move."""
        self._interval_s = SHORTEST_S

    async def newer(self, number: int) -> tuple[int, Screen]:
        """A frame behind frame `number` (0: any), and its own number; it may look the same, but is never an old one."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            if self._screen is None or self._number <= number or loop.time() >= self._next_s:
                await asyncio.sleep(self._next_s - loop.time())
                screen = await asyncio.to_thread(self._take)
                still = self._screen is not None and np.array_equal(screen.pixels, self._screen.pixels)
                self._interval_s = min(self._interval_s * SLOWER, LONGEST_S) if still else SHORTEST_S
                self._next_s = loop.time() + self._interval_s
                self._screen = screen
                self._number += 1
            return self._number, self._screen
