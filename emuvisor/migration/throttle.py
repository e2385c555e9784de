"""Taking pCPU time from a guest that writes faster than its pages can be sent."""

from emuvisor.host.guest import Guest
from emuvisor.host.scheduler.claim import WHOLE

__all__ = ["CpuThrottle"]

LEAST_CAP = 1.0
"""Per cent of a pCPU."""


class CpuThrottle:
    """Lowers the cap of `guest`, never below what it has reserved, and gives it back."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._cap: float | None = None
        """What it had."""
        self.percent = 0
        """What is taken at present."""

    def set(self, percent: int) -> None:
        """Take so much. Raises StateError for a guest that is gone."""
        if percent == self.percent:
            return
        claim = self._guest.cpu_claim
        if not self.percent:
            self._cap = claim.cap
        whole = self._cap or WHOLE
        self._guest.set_cpu(cap=max(LEAST_CAP, claim.reservation, whole * (100 - percent) / 100))
        self.percent = percent

    def end(self) -> None:
        """Give it back."""
        if self.percent:
            self.percent = 0
            self._guest.set_cpu(cap=self._cap or WHOLE)
