"""Changes are tried: those that were not worth it are taken back.

The autopilot's rules are guesses about guests that it does not know. Whether one was right shows in the periods that
follow: the objective must not have fallen, and the guest that the change was made for must fare better. Load shifts
meanwhile, too, so that a good change is taken back now and then; that costs less than keeping a bad one, as it is
proposed again when its ban is over.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from emuvisor.host.autopilot.moves import Move
from emuvisor.host.autopilot.score import score, wants
from emuvisor.host.autopilot.view import HostView

__all__ = ["Need", "Proposal", "Trial", "Verdict"]

TOLERANCE = 2.0
"""By so much the objective, or a score, differs from period to period without any reason."""


@dataclass(frozen=True, slots=True)
class Need:
    """Guest `guest` lacks something that changes of `kind` may give it."""

    guest: str
    kind: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """`moves` belong together, in this order: what one guest gets another one gives before."""

    need: Need
    moves: tuple[Move, ...]
    loss_ns: int
    """What the guest loses in a period for want of it."""
    tried: bool = True
    """Whether it is judged; what goes back to where it was is not."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`proposal` is taken back, because of `why`."""

    proposal: Proposal
    why: str

    @property
    def moves(self) -> list[Move]:
        """The way back, in this order."""
        return [move.inverse(self.why) for move in reversed(self.proposal.moves)]


@dataclass(frozen=True, slots=True)
class Trial:
    """Proposals that were carried out in one period, and what came of them so far."""

    proposals: tuple[Proposal, ...]
    value: float
    """The objective, in the periods before."""
    scores: Mapping[str, float]
    """Of the guests that wanted something before."""
    values_since: tuple[float, ...] = ()
    scores_since: tuple[Mapping[str, float], ...] = ()

    @classmethod
    def begin(cls, proposals: tuple[Proposal, ...], value: float, view: HostView) -> "Trial":
        """They are being carried out; `view` is of the last period without them."""
        return cls(proposals, value, _scores(view))

    def after(self, value: float, view: HostView) -> "Trial":
        """One more period with them."""
        values, scores = (*self.values_since, value), (*self.scores_since, _scores(view))
        return replace(self, values_since=values, scores_since=scores)

    def without(self, proposal: Proposal) -> "Trial":
        """That one could not be carried out."""
        return replace(self, proposals=tuple(p for p in self.proposals if p is not proposal))

    @property
    def periods(self) -> int:
        """How long it has been going on."""
        return len(self.values_since)

    def judge(self) -> list[Verdict]:
        """Which of them were not worth it. The first period is not counted: what moves takes its time.

        When others want something than before, the objective says nothing about the changes; then, and when it stayed
        where it was, the guests' own scores do.
        """
        value = fmean(self.values_since[1:])
        shifted = any(scores.keys() != self.scores.keys() for scores in self.scores_since)
        if not shifted and value > self.value + TOLERANCE:
            return []
        if not shifted and value < self.value - TOLERANCE:
            why = f"the objective fell from {self.value:.0f} to {value:.0f}"
            return [Verdict(proposal, why) for proposal in self.proposals]
        useless = []
        for proposal in self.proposals:
            name = proposal.need.guest
            since = [scores[name] for scores in self.scores_since[1:] if name in scores]
            if name in self.scores and since and fmean(since) <= self.scores[name]:
                why = f"the score of {name} went from {self.scores[name]:.0f} to {fmean(since):.0f}"
                useless.append(Verdict(proposal, why))
        return useless


def _scores(view: HostView) -> Mapping[str, float]:
    return {guest.name: score(guest) for guest in view.guests if wants(view, guest)}
