"""The beginning of each connection: which version is spoken, and who the other side is.

The side that listens speaks first. Who connects says what for: to "migrate" a guest, to go on with a migration after
the line was lost ("connect"), or to "ask" the source what it has decided. The first is authenticated by the token, if
there is one; the others by a key that the source has made for the migration.
"""

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from emuvisor.errors import MigrationError
from emuvisor.migration.channel import Channel
from emuvisor.migration.frames import Message, words_of
from emuvisor.migration.security import proof

__all__ = ["PROTOCOL", "VERSIONS", "Hello", "UnknownMigration", "be_greeted", "greet"]

PROTOCOL = "emuvisor-migration"
VERSIONS = (1, 1)
"""The oldest and the newest that is spoken."""
PURPOSES = ("migrate", "connect", "ask")
MAX_ID = 64
_UNKNOWN = "migration: there is no such migration here"


class UnknownMigration(MigrationError):
    """The other side knows nothing of this migration."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What somebody connects for."""

    purpose: str
    migration: str
    """Its identity, made by the source."""


def greet(
    channel: Channel,
    role: str,
    find_key: Callable[[Hello], bytes | None],
    *,
    versions: tuple[int, int] = VERSIONS,
) -> Hello:
    """As the side that listens. `role` is the own one, "source" or "target"; `find_key` gives what the other side has
    to prove that it knows, None for nothing, and raises UnknownMigration.

    Raises LineLost, and MigrationError for a peer that is not to be talked to; it is told why.
    """
    nonce = secrets.token_bytes(16)
    channel.send({"type": "greeting", "protocol": PROTOCOL, "versions": list(versions), "nonce": nonce})
    message = channel.receive_message("plain", "hello")  # or why not, as when there is no common version
    if message["type"] == "plain":
        message = channel.receive_message("hello")
    try:
        hello = _hello(message, versions)
        key = find_key(hello)
        shown = message.get("proof")
        binding = channel.binding
        if key is not None and not (
            isinstance(shown, bytes) and hmac.compare_digest(shown, proof(key, _other(role), nonce, binding))
        ):
            raise MigrationError("migration: the other side does not know the token")
    except MigrationError as error:
        channel.send({"type": "refused", "reason": str(error)})
        raise
    channel.known = True
    answer = b"" if key is None else proof(key, role, nonce, binding)
    channel.send({"type": "welcome", "proof": answer})
    return hello


def _other(role: str) -> str:
    return "source" if role == "target" else "target"


def _hello(message: Message, versions: tuple[int, int]) -> Hello:
    version, purpose, migration = (message.get(name) for name in ("version", "purpose", "migration"))
    if type(version) is not int or not versions[0] <= version <= versions[1]:
        raise MigrationError(_versions_text(f"{version!r:.20}", _span(versions)))
    if purpose not in PURPOSES or not isinstance(migration, str) or not 0 < len(migration) <= MAX_ID:
        raise MigrationError("migration: the other side does not say what it wants")
    return Hello(purpose, migration)


def _span(versions: tuple[int, int]) -> str:
    low, high = versions
    return str(low) if low == high else f"{low} to {high}"


def _versions_text(connecting: str, listening: str) -> str:
    return f"migration: the side that connects speaks version {connecting} of the protocol, the other one {listening}"


def be_greeted(channel: Channel, role: str, hello: Hello, key: bytes | None) -> None:
    """As the side that connects. Raises LineLost, UnknownMigration, and MigrationError when the other side refuses, is
    not who it must be, or speaks no common version; then both say the same."""
    message = channel.receive_message("greeting")
    nonce, versions = message.get("nonce"), message.get("versions")
    if message.get("protocol") != PROTOCOL or not isinstance(nonce, bytes):
        raise MigrationError("migration: the other side is no emuvisor that takes guests")
    match versions:
        case [int(low), int(high)]:
            version = min(high, VERSIONS[1])
        case _:
            raise MigrationError("migration: the other side is no emuvisor that takes guests")
    if version < max(low, VERSIONS[0]):
        reason = _versions_text(_span(VERSIONS), _span((low, high)))
        channel.send({"type": "refused", "reason": reason})
        raise MigrationError(reason)
    shown = b"" if key is None else proof(key, role, nonce, channel.binding)
    channel.send(
        {
            "type": "hello",
            "version": version,
            "purpose": hello.purpose,
            "migration": hello.migration,
            "proof": shown,
        }
    )
    answer = channel.receive_message("welcome", "refused")
    if answer["type"] == "refused":
        reason = words_of(answer)
        raise (UnknownMigration if reason == _UNKNOWN else MigrationError)(reason)
    theirs = answer.get("proof")
    if key is not None and not (
        isinstance(theirs, bytes)
        and hmac.compare_digest(theirs, proof(key, _other(role), nonce, channel.binding))
    ):
        raise MigrationError("migration: the other side does not know the token")
    channel.known = True


def unknown() -> UnknownMigration:
    """There is no such migration here."""
    return UnknownMigration(_UNKNOWN)
