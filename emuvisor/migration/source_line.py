"""The source's line to the target: made, lost and made again; and where the target can ask in between."""

import secrets
from collections.abc import Callable

from emuvisor.migration.calling import Dial, call
from emuvisor.migration.channel import Channel, LineLost
from emuvisor.migration.endpoints import Gone
from emuvisor.migration.frames import Message
from emuvisor.migration.greeting import Hello, UnknownMigration
from emuvisor.migration.questions import Questions
from emuvisor.migration.security import Security, Token

__all__ = ["NobodyToSay", "SourceLine"]


class NobodyToSay(LineLost):
    """Somebody answers who has not shown that he is the target, and knows nothing of the guest."""


class SourceLine:
    """To the target at `address`. `answer` says what the source has decided, to a target that asks in a thread."""

    def __init__(
        self, address: str, security: Security, answer: Callable[[], str], *, timeout_s: float, dial: Dial
    ) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._security = security
        self._answer = answer
        self._dial = dial
        self._id = secrets.token_hex(16)
        self._key = secrets.token_bytes(32)
        """What both sides show when they connect again."""
        self.channel: Channel | None = None
        """None: there is none at present."""
        self._questions: Questions | None = None
        self._bytes_before = 0
        """Sent over lines that are gone."""

    @property
    def bytes_sent(self) -> int:
        """Over all lines."""
        return self._bytes_before + (0 if self.channel is None else self.channel.bytes_sent)

    def connect(self) -> tuple[Channel, Message]:
        """To a target that knows nothing yet: the line, and what of an offer is about it. Raises as `call`."""
        self.channel = channel = self._call("migrate", self._security.key())
        self._questions = Questions.beside(
            channel.socket,
            self.address,
            security=self._security,
            key=self._key,
            migration=self._id,
            answer=self._answer,
        )
        ask = None if self._questions is None else self._questions.address
        return channel, {"key": self._key, "ask": ask}

    def connect_again(self) -> Channel:
        """To the target that has the guest, or some of it. Raises Gone when its process has ended, NobodyToSay when
        nobody can know that, and otherwise as `call`."""
        try:
            self.channel = self._call("connect", self._key)
        except UnknownMigration:
            if isinstance(self._security, Token):
                raise NobodyToSay(
                    "the target answers, but knows nothing of this guest; an operator has to decide"
                ) from None
            raise Gone("another process is there") from None
        return self.channel

    def _call(self, purpose: str, key: bytes | None) -> Channel:
        hello = Hello(purpose, self._id)
        return call(
            self.address,
            self._security,
            hello,
            key,
            role="source",
            timeout_s=self.timeout_s,
            dial=self._dial,
        )

    def drop(self) -> None:
        """Give the present one up."""
        if self.channel is not None:
            self._bytes_before += self.channel.bytes_sent
            self.channel.close()
            self.channel = None

    def close(self) -> None:
        """It is over: the target need not ask any more."""
        self.drop()
        if self._questions is not None:
            self._questions.close()
