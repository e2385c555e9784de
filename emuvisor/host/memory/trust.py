"""Whether a balloon does what it is asked to: its driver belongs to the guest, and may be dead, refuse or lie.

Only what the host itself counts is believed: pages in the state BALLOONED. A page that the guest says it gave and goes
on using is counted as resident, so that a lie looks the same as a refusal: the balloon stays smaller than its target.
"""

from dataclasses import dataclass, replace

from emuvisor.host.memory.use import GuestUse

__all__ = ["BAN", "PATIENCE", "BalloonRecord"]

PATIENCE = 30
"""Periods after which a quarter of what was asked for must be there."""
PROGRESS = 4
BAN = 300
"""Periods for which a balloon that failed is not relied on; twice as many each further time."""
MAX_OFFENCES = 6
SLACK_PAGES, SLACK_PART = 64, 50
"""A balloon follows its target to 64 pages, or a fiftieth: drivers work in batches."""


@dataclass(frozen=True, slots=True)
class BalloonRecord:
    """What was seen of one guest's balloon."""

    start: int = 0
    """Pages in it when the present trial began."""
    asked: int = 0
    """The least target during the trial: the host may change its mind, and that is not the guest's fault."""
    periods: int = 0
    """How long the trial has lasted; 0 when there is none."""
    banned: int = 0
    """Periods for which it is not relied on."""
    offences: int = 0
    verdict: str = ""

    def after(self, guest: GuestUse) -> "BalloonRecord":
        """With one more look at `guest`."""
        if self.banned > 1:
            return replace(self, banned=self.banned - 1)
        if self.banned:
            return BalloonRecord(offences=self.offences)
        missing = guest.balloon_target - guest.ballooned
        if not guest.balloon or missing <= max(SLACK_PAGES, guest.balloon_target // SLACK_PART):
            return BalloonRecord(offences=self.offences)
        if not (guest.runs or guest.ran):
            return self
        if not self.periods:
            return replace(self, start=guest.ballooned, asked=guest.balloon_target, periods=1)
        trial = replace(self, asked=min(self.asked, guest.balloon_target), periods=self.periods + 1)
        if trial.periods <= PATIENCE:
            return trial
        if (guest.ballooned - trial.start) * PROGRESS >= trial.asked - trial.start:
            return BalloonRecord(offences=self.offences)
        return BalloonRecord(
            banned=BAN << min(self.offences, MAX_OFFENCES),
            offences=self.offences + 1,
            verdict=trial._verdict(guest),
        )

    def _verdict(self, guest: GuestUse) -> str:
        if guest.balloon_actual >= self.asked:
            return f"its balloon lies: it claims {guest.balloon_actual} pages, and holds {guest.ballooned}"
        return (
            f"its balloon does not follow: it was asked for {self.asked} pages, and holds {guest.ballooned}"
        )
