"""A machine's `call_soon` that keeps what other threads ask for until a test says that the guest's turn has come."""

from collections import deque
from collections.abc import Callable


class Soon:
    def __init__(self) -> None:
        self.asked: deque[Callable[[], None]] = deque()

    def __call__(self, function: Callable[[], None]) -> None:
        self.asked.append(function)

    def run(self) -> int:
        """Everything that was asked for, also by what runs; returns how many calls that was."""
        done = 0
        while self.asked:
            self.asked.popleft()()
            done += 1
        return done
