"""A token bucket over a clock that is an argument."""

__all__ = ["TokenBucket"]


class TokenBucket:
    """Fills by `rate` tokens (above 0) per nanosecond up to `burst`. It may be overdrawn: the debt is paid first.

    It begins at `now_ns` with `level` tokens: with none of them, no more than the rate has been given at any time
    since. What is above `burst` is there once and is not filled up again. Whole numbers stay exact; who needs that for
    a rate in seconds counts in billionths of a token.

    Source: J. Turner, "New Directions in Communications (or Which Way to the Information Age?)", IEEE Communications
    Magazine 24(10), 1986.
    """

    __slots__ = ("_at_ns", "_level", "burst", "rate")

    def __init__(self, rate: float, burst: float, now_ns: int, level: float = 0) -> None:
        self.rate = rate
        self.burst = burst
        self._level = level
        self._at_ns = now_ns

    def level(self, now_ns: int) -> float:
        """Tokens in it; less than 0 while it is overdrawn."""
        if now_ns > self._at_ns:
            if self._level < self.burst:
                self._level = min(self.burst, self._level + self.rate * (now_ns - self._at_ns))
            self._at_ns = now_ns
        return self._level

    def take(self, tokens: float, now_ns: int) -> None:
        """Take `tokens` out, whether they are there or not."""
        self._level = self.level(now_ns) - tokens

    def put_back(self, level: float, now_ns: int) -> None:
        """Hold `level` tokens at `now_ns`, whatever has happened: the clock may have gone back."""
        self._level = level
        self._at_ns = now_ns

    def forgive(self) -> None:
        """Forget the debt."""
        self._level = max(0, self._level)

    def change(self, rate: float, burst: float, now_ns: int) -> None:
        """Another rate and burst from now on; the tokens that are there stay, up to the new burst."""
        level = self.level(now_ns)
        self.rate, self.burst = rate, burst
        self._level = min(level, burst)

    def when(self, level: float, now_ns: int) -> int:
        """When there are `level` tokens (at most `burst`) if nobody takes any; `now_ns` at the earliest."""
        missing = min(level, self.burst) - self.level(now_ns)
        return now_ns if missing <= 0 else now_ns - int(-missing // self.rate)
