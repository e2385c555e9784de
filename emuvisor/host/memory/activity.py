"""Working sets: how many pages a guest uses, from how many it touched between one look and the next.

Waldspurger, OSDI 2002, section 5.3: a slow moving average gives a stable figure, a fast one follows a working
set that grows, and the newest count one that grew just now. The estimate is the largest of the three, so that it rises
at once and falls slowly: calling memory idle that is in use costs the guest much, the reverse costs others a while.
"""

from dataclasses import dataclass

__all__ = ["Activity"]

_SLOW, _FAST = 1 / 16, 1 / 4


@dataclass(frozen=True, slots=True)
class Activity:
    """Three estimates of a guest's working set, in pages."""

    slow: float
    fast: float
    current: int

    @classmethod
    def first(cls, accessed: int) -> "Activity":
        """After the first count."""
        return cls(accessed, accessed, accessed)

    def after(self, accessed: int) -> "Activity":
        """With one more count of pages that were touched."""
        return Activity(
            self.slow + _SLOW * (accessed - self.slow), self.fast + _FAST * (accessed - self.fast), accessed
        )

    @property
    def pages(self) -> int:
        """The working set."""
        return round(max(self.slow, self.fast, self.current))
