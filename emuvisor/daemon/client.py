"""The guests of a daemon, as if they were here."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emuvisor.daemon.requests import Progress, Requests, looking, record, records
from emuvisor.daemon.transport import path_of, read
from emuvisor.errors import HostError, UsageError
from emuvisor.manager.records import (
    DiskMoveRecord,
    EventRecord,
    Freed,
    GuestInfo,
    LogPart,
    MigrationStatus,
    SnapshotRecord,
    StoreFreed,
    StoreProblem,
)
from emuvisor.store.files import TEMPORARY, host_errors

if TYPE_CHECKING:
    from emuvisor.daemon.remote_console import RemoteConsole
    from emuvisor.devices.storage.formats import DiskFormat

__all__ = ["Client"]


class Client(Requests):
    """Has the methods of `emuvisor.manager.Manager`, which raise the same exceptions; see there.

    `address` is a socket's path, "unix:PATH", or "https://HOST:PORT" with a `token`; `ca` is a file of certificates by
    which that daemon is known. Raises UsageError for what is no address; a daemon that is not there is a HostError of
    the method that is called. Any thread.
    """

    # ---- guests ----

    def host(self) -> dict[str, Any]:
        """What the daemon says of itself: version, process, memory, limits."""
        answer: dict[str, Any] = self._call("GET", "host")
        return answer

    def guests(self) -> list[GuestInfo]:
        """All guests, by name."""
        return records(GuestInfo, self._call("GET", "guests"))

    def info(self, name: str) -> dict[str, Any]:
        """All that is known of a guest."""
        answer: dict[str, Any] = self._call("GET", "guests", name)
        return answer

    def create(self, definition: Mapping[str, Any], *, folder: Path | None = None) -> GuestInfo:
        """Define a guest. Relative paths start from `folder`; over TCP from the first folder that may be used there."""
        where = str((folder or Path()).absolute()) if self._is_local else None
        body = {"definition": dict(definition), "folder": where}
        return record(GuestInfo, self._call("POST", "guests", body=body))

    def definition(self, name: str) -> str:
        """Its definition, as TOML."""
        with self._transport.open("GET", path_of("guests", name, "definition")) as response:
            return read(response).decode(errors="replace")

    def start(self, name: str, *, paused: bool = False) -> None:
        """Switch it on."""
        self._call("POST", "guests", name, "start", body={"paused": paused})

    def stop(self, name: str) -> None:
        """Switch it off at once."""
        self._call("POST", "guests", name, "stop")

    def shutdown(self, name: str, timeout_s: float = 60.0) -> bool:
        """Ask it to shut down, and switch it off after `timeout_s`. True when it went by itself."""
        return bool(self._operate("guests", name, "shutdown", body={"timeout_s": timeout_s}))

    def reset(self, name: str) -> None:
        """Press the reset button."""
        self._call("POST", "guests", name, "reset")

    def pause(self, name: str) -> None:
        """Stop it where it is."""
        self._call("POST", "guests", name, "pause")

    def resume(self, name: str) -> None:
        """Let it go on."""
        self._call("POST", "guests", name, "resume")

    def save(self, name: str) -> None:
        """Put all that it is into the store, and switch it off."""
        self._operate("guests", name, "save")

    def set(self, name: str, changes: Mapping[str, Any]) -> None:
        """Change keys of its definition."""
        self._call("PATCH", "guests", name, body={"changes": dict(changes)})

    def rename(self, name: str, new: str) -> None:
        """Give it another name."""
        self._call("POST", "guests", name, "rename", body={"name": new})

    def remove(self, name: str, *, force: bool = False) -> Freed:
        """Delete it with its snapshots."""
        query = {"force": "true" if force else None}
        return record(Freed, self._call("DELETE", "guests", name, query=query))

    # ---- the store ----

    def check_store(self, *, repair: bool = False) -> list[StoreProblem]:
        """Read everything in the store; returns what is wrong."""
        return records(StoreProblem, self._operate("store", "check", body={"repair": repair}))

    def collect_garbage(self, *, everything: bool = False) -> StoreFreed:
        """Free what nobody needs."""
        return record(StoreFreed, self._operate("store", "gc", body={"everything": everything}))

    # ---- snapshots, clones, moves ----

    def snapshot(
        self,
        name: str,
        snapshot: str = "",
        *,
        comment: str = "",
        progress: Progress | None = None,
    ) -> SnapshotRecord:
        """Make a snapshot."""
        body = {"name": snapshot, "comment": comment}
        made = self._operate("guests", name, "snapshots", body=body, look=looking(progress))
        return record(SnapshotRecord, made)

    def snapshots(self, name: str) -> list[SnapshotRecord]:
        """Its snapshots."""
        return records(SnapshotRecord, self._call("GET", "guests", name, "snapshots"))

    def restore(self, name: str, snapshot: str, *, running: bool = True) -> None:
        """Put it back to where it was."""
        self._operate("guests", name, "snapshots", snapshot, "restore", body={"running": running})

    def delete_snapshot(self, name: str, snapshot: str) -> Freed:
        """Delete a snapshot."""
        return record(Freed, self._call("DELETE", "guests", name, "snapshots", snapshot))

    def clone(
        self,
        name: str,
        new: Sequence[str],
        *,
        snapshot: str | None = None,
        same_identity: bool = False,
        running: bool = True,
    ) -> list[GuestInfo]:
        """Make guests like it."""
        body = {
            "names": list(new),
            "snapshot": snapshot,
            "same_identity": same_identity,
            "running": running,
        }
        return records(GuestInfo, self._call("POST", "guests", name, "clones", body=body))

    def export(
        self,
        name: str,
        path: Path | str,
        *,
        snapshot: str | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Write it to a new file here; returns its size in bytes."""
        path, look = Path(path), looking(progress)
        if self._is_local:
            body = {"file": str(path.absolute()), "snapshot": snapshot}
            return int(self._operate("guests", name, "export", body=body, look=look))
        if os.path.lexists(path):
            raise UsageError(f"{path}: the file exists already")
        file = f"export-{secrets.token_hex(8)}"
        body = {"file": file, "snapshot": snapshot}
        try:
            size = int(self._operate("guests", name, "export", body=body, look=look))
            self._fetch(file, path)
        finally:
            self._forget(file)
        return size

    def _fetch(self, file: str, path: Path) -> None:
        new = path.with_name(path.name + TEMPORARY)
        with (
            self._transport.open("GET", path_of("exports", file)) as response,
            host_errors(path),
            new.open("wb") as out,
        ):
            shutil.copyfileobj(response, out)
            out.flush()
            if response.length:
                raise HostError(f"{path}: {response.length} bytes did not come")
        with host_errors(path):
            new.rename(path)

    def _forget(self, file: str) -> None:
        """Delete a file on the other side, if it is there."""
        if any(known["name"] == file for known in self._call("GET", "exports")):
            self._call("DELETE", "exports", file)

    def import_(
        self, path: Path | str, name: str | None = None, *, progress: Progress | None = None
    ) -> GuestInfo:
        """Make a guest of an exported one."""
        path, look = Path(path), looking(progress)
        if self._is_local:
            body = {"file": str(path.absolute()), "name": name}
            return record(GuestInfo, self._operate("imports", body=body, look=look))
        file = f"import-{secrets.token_hex(8)}"
        try:
            self._send(path, file)
            return record(GuestInfo, self._operate("imports", body={"file": file, "name": name}, look=look))
        finally:
            self._forget(file)

    def _send(self, path: Path, file: str) -> None:
        with host_errors(path), path.open("rb") as data:
            size = {"Content-Length": str(os.fstat(data.fileno()).st_size)}
            with self._transport.open("PUT", path_of("exports", file), body=data, headers=size) as answer:
                read(answer)

    def migrate(
        self,
        name: str,
        to: str,
        *,
        progress: Callable[[MigrationStatus], object] | None = None,
        **options: Any,
    ) -> MigrationStatus:
        """Move it to another host while it runs."""

        def look(_: Mapping[str, Any]) -> None:
            status = self.migration(name)
            if status is not None and progress is not None:
                progress(status)

        operation = self._operate(
            "guests",
            name,
            "migration",
            body={"to": to, **options},
            look=None if progress is None else look,
        )
        return record(MigrationStatus, operation)

    def migration(self, name: str) -> MigrationStatus | None:
        """How far its migration is; None when there was none."""
        answer = self._call("GET", "guests", name, "migration")
        return None if answer is None else record(MigrationStatus, answer)

    def cancel_migration(self, name: str) -> None:
        """Stay where it is, and where its disks are."""
        self._call("DELETE", "guests", name, "migration")

    def move_disk(
        self,
        name: str,
        disk: int | str,
        path: Path | str,
        *,
        format: "DiskFormat | None" = None,
        bytes_per_s: int | None = None,
        progress: Progress | None = None,
    ) -> DiskMoveRecord:
        """Move a disk to a new file of the daemon's host. Over TCP relative paths start from the first folder that may
        be used there."""
        where = str(Path(path).absolute()) if self._is_local else str(path)
        body = {"disk": disk, "path": where, "format": format, "bytes_per_s": bytes_per_s}
        made = self._operate("guests", name, "disk-move", body=body, look=looking(progress))
        return record(DiskMoveRecord, made)

    def receive(
        self,
        listen: str,
        *,
        ready: Callable[[str], object] | None = None,
        timeout_s: float | None = None,
        **options: Any,
    ) -> GuestInfo:
        """Take a guest that another host sends; `ready` is told where the daemon listens."""
        told = ready is None

        def look(operation: Mapping[str, Any]) -> None:
            nonlocal told
            if not told and operation.get("note"):
                told = True
                assert ready is not None
                ready(operation["note"])

        body = {"listen": listen, "timeout_s": timeout_s, **options}
        return record(GuestInfo, self._operate("receive", body=body, look=None if ready is None else look))

    # ---- what people see and type, and what happened ----

    def events(self, after: int = 0, guest: str | None = None, limit: int = 1000) -> list[EventRecord]:
        """The first events behind number `after`, at most 1000."""
        query = {"after": after, "guest": guest, "limit": limit}
        return records(EventRecord, self._call("GET", "events", query=query))

    def follow(self, after: int | None = None, guest: str | None = None) -> Iterator[EventRecord]:
        """Events as they happen: from now on, or from behind number `after`. When the connection ends it is made again,
        and none is missed or comes twice. Raises HostError when there is no daemon any more."""
        while True:
            for number, data in self._messages(after, guest):
                after = number
                if data is not None:
                    yield record(EventRecord, data)

    def logs(self, name: str, tail_bytes: int | None = None) -> bytes:
        """What it printed, or the end of that."""
        with self._transport.open("GET", path_of("guests", name, "logs"), {"tail": tail_bytes}) as response:
            return read(response)

    def log_after(self, name: str, position: int) -> LogPart:
        """What it printed behind byte `position`."""
        with self._transport.open("GET", path_of("guests", name, "logs"), {"after": position}) as response:
            end = response.headers.get("Emuvisor-Log-Position", "")
            return LogPart(int(end) if end.isdecimal() else position, read(response))

    def console(self, name: str, port: str | None = None) -> "RemoteConsole":
        """Look at its console and type on it. Raises UsageError without the package websockets."""
        try:
            from emuvisor.daemon.remote_console import connect_console  # noqa: PLC0415 - an extra's package
        except ImportError:
            raise UsageError("consoles of a daemon need emuvisor[daemon]: pip install websockets") from None
        return connect_console(self._transport, path_of("guests", name, "console"), port)

    def screenshot(self, name: str) -> bytes:
        """What its display shows, as PNG."""
        with self._transport.open("GET", path_of("guests", name, "screenshot")) as response:
            return read(response)

    def send_keys(self, name: str, keys: Sequence[str]) -> None:
        """Press and release keys of its keyboard."""
        self._call("POST", "guests", name, "keys", body={"keys": list(keys)})
