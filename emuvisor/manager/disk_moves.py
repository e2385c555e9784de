"""Disks of guests that move to other files: storage migration alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from emuvisor.devices.storage.formats import DiskFormat
from emuvisor.errors import EmuvisorError
from emuvisor.host import Guest, GuestState
from emuvisor.host.disk_moving import DiskMove
from emuvisor.host.states import require
from emuvisor.manager.core import ON
from emuvisor.manager.entry import Entry
from emuvisor.manager.exports import Exports
from emuvisor.manager.records import DiskMoveRecord

__all__ = ["DiskMoves"]

LOOK_S = 0.02
"""How often one who ends a move looks whether it has ended."""


class DiskMoves(Exports):
    """The part of the manager for moves of disks."""

    def move_disk(
        self,
        name: str,
        disk: int | str,
        path: Path | str,
        *,
        format: DiskFormat | None = None,
        bytes_per_s: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> DiskMoveRecord:
        """Move a hard disk of a guest that is on or off, `disk` by its number or name, to the new file `path`, and wait
        for the end; a guest that runs goes on writing to it. `format` and `bytes_per_s` are those of
        `emuvisor.host.disk_moving.DiskMove`; `progress` hears how many bytes are copied, and of how many. From the
        moment on at which the guest uses the new file its definition names that. The old one is deleted when it is the
        store's and nobody else needs it; files of the user's stay.

        Raises UsageError for a disk that there is not or that cannot be written, StateError for a saved guest, whose
        state goes with the old file, and when it was cancelled or the guest switched off; ImageError when the new file
        cannot be made, HostError. Then the disk is where it was.
        """
        entry = self._entry(name)
        with self._moving(entry):
            with self._with_disks(entry) as guest:
                move = DiskMove(
                    guest,
                    disk,
                    path,
                    format,
                    progress=progress,
                    bytes_per_s=bytes_per_s,
                    keep=lambda move: self._keep_disk(entry, move),
                    lock=entry.lock,
                )
                entry.disk_move = move
                before = self._own_disks(entry)
                moved = move.run()
            self._delete_disks(before)
            self._journal.post(name, "disk-moved", {"disk": move.number, "path": str(moved.path)})
        return DiskMoveRecord(
            guest=name,
            disk=move.number,
            path=str(moved.path),
            format=moved.format,
            copied=moved.copied,
            passes=moved.passes,
            stop_ms=moved.stop_ns / 1e6,
        )

    @contextmanager
    def _moving(self, entry: Entry) -> Iterator[None]:
        """Around a move. Raises StateError when something else goes on."""
        with self._locked(entry.name):
            require(entry.name, entry.life.state, (*ON, GuestState.DEFINED, GuestState.CRASHED), "move-disk")
            entry.require_idle("a disk's move")
            entry.disk_moving.acquire()  # it is free, or will be in a moment
            entry.busy = "a disk of it is moved"
        try:
            yield
        finally:
            with entry.lock:
                entry.busy, entry.disk_move = "", None
            entry.disk_moving.release()

    @contextmanager
    def _with_disks(self, entry: Entry) -> Iterator[Guest]:
        """The host's guest; for one that is off, one that only has its disks open."""
        if entry.guest is not None:
            yield entry.guest
            return
        config = replace(self._definition(entry).config, nics=(), shares=(), devices=())
        guest = self.host.create(config)
        try:
            yield guest
        finally:
            guest.delete()

    def _keep_disk(self, entry: Entry, move: DiskMove) -> None:
        """From now on the disk is the new file, whatever happens to this process. Raises HostError."""
        before = self._definition(entry)
        disks = list(before.config.disks)
        disks[move.number] = replace(disks[move.number], path=move.path, format=move.format, overlay=None)
        try:
            self._keep_definition(entry, replace(before, config=replace(before.config, disks=tuple(disks))))
        except BaseException:
            with suppress(EmuvisorError):  # the text may have been replaced already
                self._keep_definition(entry, before)
            raise

    def _end_disk_move(self, entry: Entry) -> None:
        """Cancel a move that goes on, and return when it has ended."""
        while not entry.disk_moving.acquire(timeout=LOOK_S):
            if (move := entry.disk_move) is not None:
                move.cancel()
        entry.disk_moving.release()
