"""Who runs the guest: the two sides' decisions, apart from sockets and guests.

Each machine hears what happened and answers what to do, in order. The rules that make it safe, whatever is lost:
the target runs the guest only when the source has said so or its process, and so its guest, is gone; the source goes
on with it, once it has offered it, only when the target has thrown it away or its process is gone. docs/migration.md
has the table of all states and events.
"""

from enum import StrEnum

__all__ = ["Act", "Answer", "SourceState", "SourceSwitch", "TargetState", "TargetSwitch"]


class Act(StrEnum):
    """What a side has to do."""

    SEND_COMMIT = "send commit"
    SEND_ABORT = "send abort"
    SEND_BYE = "send bye"
    SEND_READY = "send ready"
    SEND_RUNNING = "send running"
    SEND_DISCARDED = "send discarded"
    CONNECT = "connect again"
    """The source: until the target is reached, or its process is gone."""
    ASK = "ask the source"
    """The target: now and then, until there is an answer or the source connects again."""
    RESUME = "resume here"
    GIVE_UP = "give up"
    """The source: the guest is at the target."""
    RUN = "run"
    DISCARD = "discard"


class Answer(StrEnum):
    """What the source says to the target's question."""

    UNDECIDED = "undecided"
    COMMITTED = "committed"
    ABORTED = "aborted"


class SourceState(StrEnum):
    """Where the source is."""

    COPYING = "copying"
    """The target cannot have everything."""
    OFFERED = "offered"
    """The target may have everything. The guest stands still."""
    ABORTING = "aborting"
    """As OFFERED, and it is not to have it."""
    COMMITTED = "committed"
    """The target may run it."""
    MOVED = "moved"
    STAYED = "stayed"


class SourceSwitch:
    """The source's side."""

    def __init__(self) -> None:
        self.state = SourceState.COPYING

    def offer(self) -> None:
        """Before the last message that the target needs is sent."""
        assert self.state is SourceState.COPYING
        self.state = SourceState.OFFERED

    def _stay(self) -> list[Act]:
        self.state = SourceState.STAYED
        return [Act.RESUME]

    def ready(self) -> list[Act]:
        """The target has everything, and waits."""
        if self.state is SourceState.ABORTING:
            return [Act.SEND_ABORT]
        if self.state in (SourceState.OFFERED, SourceState.COMMITTED):
            self.state = SourceState.COMMITTED  # the one place where it is decided that the guest moves
            return [Act.SEND_COMMIT]
        return []

    def running(self) -> list[Act]:
        """The target runs it: it was told to, or an operator there said so."""
        if self.state in (SourceState.OFFERED, SourceState.ABORTING, SourceState.COMMITTED):
            self.state = SourceState.MOVED
            return [Act.SEND_BYE, Act.GIVE_UP]
        return [Act.SEND_BYE] if self.state is SourceState.MOVED else []

    def discarded(self) -> list[Act]:
        """The target does not have it, and will not run it."""
        return [] if self.is_over else self._stay()

    def line_lost(self) -> list[Act]:
        """The connection is gone; the target may be there."""
        if self.state is SourceState.COPYING:
            return self._stay()
        return [] if self.is_over else [Act.CONNECT]

    def target_gone(self) -> list[Act]:
        """The target's process is gone, and what it had with it."""
        return [] if self.is_over else self._stay()

    def cancel(self) -> list[Act]:
        """Somebody wants the guest to stay. Too late once it is decided that it moves."""
        if self.state is SourceState.COPYING:
            return [Act.SEND_ABORT, *self._stay()]
        if self.state is SourceState.OFFERED:
            self.state = SourceState.ABORTING
            return [Act.SEND_ABORT]
        return []

    def asked(self) -> Answer:
        """The target asks."""
        if self.state in (SourceState.COMMITTED, SourceState.MOVED):
            return Answer.COMMITTED
        if self.state in (SourceState.ABORTING, SourceState.STAYED):
            return Answer.ABORTED
        return Answer.UNDECIDED

    def operator(self, here: bool) -> list[Act]:
        """Somebody who knows what the other side does ends the doubt: the guest goes on `here`, or is given up."""
        if self.is_over or self.state is SourceState.COPYING:
            return []
        if here:
            return self._stay()
        self.state = SourceState.MOVED
        return [Act.GIVE_UP]

    @property
    def is_over(self) -> bool:
        """Whether it is known where the guest is."""
        return self.state in (SourceState.MOVED, SourceState.STAYED)


class TargetState(StrEnum):
    """Where the target is."""

    RECEIVING = "receiving"
    HOLDING = "holding"
    """It has everything, and must not run it."""
    RUNNING = "running"
    DISCARDED = "discarded"


class TargetSwitch:
    """The target's side."""

    def __init__(self) -> None:
        self.state = TargetState.RECEIVING

    def loaded(self) -> list[Act]:
        """Everything is here and loaded."""
        assert self.state is TargetState.RECEIVING
        self.state = TargetState.HOLDING
        return [Act.SEND_READY]

    def failed(self) -> list[Act]:
        """It cannot be loaded."""
        return self._discard(tell=True) if self.state is TargetState.RECEIVING else []

    def _discard(self, *, tell: bool) -> list[Act]:
        self.state = TargetState.DISCARDED
        return [Act.DISCARD, Act.SEND_DISCARDED] if tell else [Act.DISCARD]

    def _run(self, *, tell: bool) -> list[Act]:
        """The source hears of it first: if this process ends, it has been said whether the guest has run here."""
        self.state = TargetState.RUNNING
        return [Act.SEND_RUNNING, Act.RUN] if tell else [Act.RUN]

    def committed(self) -> list[Act]:
        """The source says that the guest is to run here."""
        if self.state is TargetState.HOLDING:
            return self._run(tell=True)
        return self.connected()

    def aborted(self) -> list[Act]:
        """The source says that the guest stays there."""
        if self.state in (TargetState.RECEIVING, TargetState.HOLDING):
            return self._discard(tell=True)
        return self.connected()

    def line_lost(self) -> list[Act]:
        """The connection is gone; the source may be there."""
        if self.state is TargetState.RECEIVING:
            return self._discard(tell=False)
        return [Act.ASK] if self.state is TargetState.HOLDING else []

    def connected(self) -> list[Act]:
        """The source has connected again, and wants to know."""
        return {
            TargetState.RECEIVING: [],
            TargetState.HOLDING: [Act.SEND_READY],
            TargetState.RUNNING: [Act.SEND_RUNNING],
            TargetState.DISCARDED: [Act.SEND_DISCARDED],
        }[self.state]

    def answered(self, answer: Answer) -> list[Act]:
        """The source says what it has decided."""
        if self.state is not TargetState.HOLDING:
            return []
        if answer is Answer.COMMITTED:
            return self._run(tell=False)
        return self._discard(tell=False) if answer is Answer.ABORTED else [Act.ASK]

    def source_gone(self) -> list[Act]:
        """The source's process is gone, and the guest that it had with it."""
        return self._run(tell=False) if self.state is TargetState.HOLDING else []

    def operator(self, run: bool) -> list[Act]:
        """Somebody who knows what the other side does ends the doubt."""
        if self.state is not TargetState.HOLDING:
            return []
        return self._run(tell=False) if run else self._discard(tell=False)
