"""Guests that move to another host while they run, and those that come."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from emuvisor.errors import EmuvisorError, MigrationError, StateError, UsageError
from emuvisor.host import Guest, GuestState
from emuvisor.host.states import require
from emuvisor.machine.config import GuestConfig
from emuvisor.manager.core import ON
from emuvisor.manager.definitions import Definition
from emuvisor.manager.disk_moves import DiskMoves
from emuvisor.manager.lives import Life
from emuvisor.manager.records import GuestInfo, MigrationStatus
from emuvisor.migration import (
    Certificates,
    Insecure,
    Options,
    Phase,
    Progress,
    Security,
    Source,
    Target,
    Token,
)
from emuvisor.store.names import check_name

__all__ = ["Moves"]

LOOK_S = 0.05
"""How often one who waits for a guest's last pages looks."""
_SECURITY = ("token", "certificate", "key", "ca", "peer")


class Moves(DiskMoves):
    """The part of the manager for migrations.

    Their options are those of `emuvisor.migration.Options`, and who may take part: `token`, or the files `certificate`,
    `key` and `ca` with the `peer`'s name in its certificate; without, a Unix socket or loopback only.
    """

    def migrate(
        self,
        name: str,
        to: str,
        *,
        progress: Callable[[MigrationStatus], object] | None = None,
        **options: Any,
    ) -> MigrationStatus:
        """Move a guest that is on to the host that receives at `to` ("tcp:HOST:PORT", "unix:PATH"), and wait for the
        end. Here it is off then, and its definition stays.

        Raises UsageError for impossible options, StateError when it is off, MigrationError when it did not move: it
        goes on here then, unless the message says otherwise.
        """
        security, rest = _security(options)
        with self._locked(name) as entry:
            require(name, entry.life.state, ON, "migrate")
            entry.require_idle("migrate")
            source = Source(self.guest(name), _address(to), Options.of(rest), security)
            entry.busy = "it is migrated"
            entry.source = source

        def told(now: Progress) -> None:
            if progress is not None:
                progress(_status(now, to))

        try:
            source.run(told)
        finally:
            entry.busy = ""
            if source.progress.phase in (Phase.MOVED, Phase.LOST):  # the host's guest is gone
                with entry.lock:
                    self._let_go(entry)
                    self._enter(entry, GuestState.DEFINED, f"migrated to {to}")
        status = _status(source.progress, to)
        self._journal.post(name, "migrated", {"to": to, "downtime_ms": status.downtime_ms})
        return status

    def migration(self, name: str) -> MigrationStatus | None:
        """How far a guest's migration is, or how the last one ended; None when there was none since the manager is
        there. Raises UsageError when there is no such guest."""
        source = self._entry(name).source
        return None if source is None else _status(source.progress, source.address)

    def cancel_migration(self, name: str) -> None:
        """Let a guest stay here, or the disk that is moved where it is; `migrate` or `move_disk` says so. Raises
        StateError when nothing of it is being migrated."""
        entry = self._entry(name)
        if (move := entry.disk_move) is not None:
            move.cancel()
            return
        source = entry.source
        if source is None or source.is_over:
            raise StateError(f"guest {name!r} is not being migrated")
        source.cancel()

    def receive(
        self,
        listen: str,
        *,
        ready: Callable[[str], object] | None = None,
        timeout_s: float | None = None,
        **options: Any,
    ) -> GuestInfo:
        """Wait at `listen` ("tcp:HOST:PORT", "unix:PATH") for a guest of another host, and define it; returns when it
        runs here and nothing of it is elsewhere. `ready` is told where it listens.

        Raises UsageError for impossible options, MigrationError when none has come in `timeout_s`, or one did not.
        """
        security, rest = _security(options)
        if rest:
            raise UsageError(f"receive: there is no option {min(rest)!r}; there are: {', '.join(_SECURITY)}")
        with Target(self.host, _address(listen), security, admit=self._admit) as target:
            if ready is not None:
                ready(target.address)
            try:
                guest = target.receive(timeout_s)
            except MigrationError:
                while target.in_doubt:  # whoever asks is answered for so long
                    time.sleep(LOOK_S)
                raise
            info = self._welcome(guest)
            while target.missing and guest.state is not GuestState.GONE:
                time.sleep(LOOK_S)
        return info

    def _admit(self, config: GuestConfig) -> None:
        name = check_name("guest", config.name)
        if name in self._entries:
            raise StateError(f"there is a guest {name!r} already")
        self._require_room(1)
        self._add_networks(config)

    def _welcome(self, guest: Guest) -> GuestInfo:
        """Define a guest that came, and runs already."""
        try:
            size = guest.contract.size
            current = None if size == guest.config.memory else size
            definition = Definition(guest.config, current_memory=current)
            self._add(definition, "imported", source="migration")
        except EmuvisorError:
            guest.delete()
            raise
        with self._locked(guest.name) as entry:
            with self.host.lock:  # it does not end meanwhile
                self._adopt(entry, guest)
                entry.life = Life(guest.state, "migrated to here")
            if guest.state in ON:
                self._mark_on(entry)
            else:
                self._let_go(entry)
            self._journal.post(guest.name, str(guest.state), {"old": "defined", "reason": "migrated to here"})
            return self._describe(entry, 0)


def _address(text: str) -> str:
    """As the migration has it. Raises UsageError."""
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return str(Path(rest).absolute())
    return rest if kind == "tcp" else text


def _security(options: Mapping[str, Any]) -> tuple[Security, dict[str, Any]]:
    """Who may take part, and the other options. Raises UsageError."""
    given = {key: options[key] for key in _SECURITY if options.get(key) is not None}
    rest = {key: value for key, value in options.items() if key not in _SECURITY}
    for key, value in given.items():
        if not isinstance(value, str):
            raise UsageError(f"migration: {key} is {value!r}; a text is wanted")
    if not given:
        return Insecure(), rest
    if "token" in given:
        if len(given) > 1:
            raise UsageError("migration: a token goes without certificates")
        return Token(given["token"]), rest
    if missing := [key for key in ("certificate", "key", "ca") if key not in given]:
        raise UsageError(f"migration: {missing[0]} is missing; certificate, key and ca go together")
    certificate, key_file, ca = (Path(given[key]) for key in ("certificate", "key", "ca"))
    return Certificates(certificate, key_file, ca, given.get("peer")), rest


def _status(now: Progress, to: str) -> MigrationStatus:
    last = now.rounds[-1] if now.rounds else None
    return MigrationStatus(
        guest=now.guest,
        to=to,
        phase=str(now.phase),
        round=len(now.rounds),
        total=now.pages,
        sent=max(0, now.pages - now.left),
        remaining=now.left,
        bytes_sent=now.bytes_sent,
        bytes_per_s=0.0 if last is None or not last.ns else last.bytes * 1e9 / last.ns,
        downtime_ms=None if now.downtime_ns is None else now.downtime_ns / 1e6,
        error=now.reason,
    )
