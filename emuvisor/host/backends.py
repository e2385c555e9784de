"""What guests' disks have in common: file systems of the host with limits, which guests divide by weight."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emuvisor.devices.fair_share import FairShare, Flow
from emuvisor.devices.limits import Rate
from emuvisor.errors import UsageError
from emuvisor.machine.boards.wiring import Drive

__all__ = ["Backends"]


@dataclass(slots=True)
class _User:
    """A guest's hard disk."""

    device: int
    """The file system that it takes its space from (`st_dev`)."""
    drive: Drive
    shares: int
    flow: Flow | None = None
    """What it is to the backend, while that is limited."""


class Backends:
    """The backends of a host, and the disks that use them.

    Only guests on the host's clock take part: one on the virtual clock repeats exactly, so nothing that others do may
    reach it. Called under the host's lock.
    """

    def __init__(self) -> None:
        self._backends: dict[int, FairShare] = {}
        self._users: dict[str, list[_User]] = {}
        """By guest."""

    def set_limit(self, path: Path, bytes_rate: Rate | None, operations: Rate | None) -> list[str]:
        """Limit the file system that `path` is on, all guests together; None is no limit. Returns the guests that have
        disks there: each must `connect` again. Raises UsageError for a path that there is not."""
        try:
            device = path.stat().st_dev
        except OSError as error:
            raise UsageError(f"{path}: {os.strerror(error.errno or 0)}") from None
        self._backends.setdefault(device, FairShare()).change(bytes_rate, operations)
        return [guest for guest, users in self._users.items() if any(user.device == device for user in users)]

    def add(self, guest: str, drives: Sequence[tuple[Drive, int]]) -> None:
        """A guest has been made, with these disks and their shares. Raises OSError."""
        self._users[guest] = [
            _User(drive.image.host_path.stat().st_dev, drive, shares)
            for drive, shares in drives
            if drive.image is not None
        ]
        self.connect(guest)

    def connect(self, guest: str) -> None:
        """Let the guest's disks, which does not run now, have the limits as they are."""
        for user in self._users.get(guest, []):
            backend = self._backends.get(user.device)
            if backend is None:
                continue
            if backend.limited and user.flow is None:
                user.flow = backend.join(user.shares)
            elif not backend.limited and user.flow is not None:
                backend.leave(user.flow)
                user.flow = None
            user.drive.meter.throttle.share = user.flow

    def set_shares(self, guest: str, drive: Drive, shares: int) -> None:
        """Another weight of a disk from now on, within its limits."""
        for user in self._users.get(guest, []):
            if user.drive is drive:
                user.shares = shares
                if user.flow is not None:
                    user.flow.backend.set_shares(user.flow, shares)

    def shares(self, guest: str, drive: Drive, default: int) -> int:
        """The present weight of a disk; `default` for one that takes no part."""
        return next((user.shares for user in self._users.get(guest, []) if user.drive is drive), default)

    def moved(self, guest: str, drive: Drive, device: int) -> None:
        """The guest's disk, which does not run now, is on the file system `device` from now on."""
        for user in self._users.get(guest, []):
            if user.drive is drive and user.device != device:
                if user.flow is not None:
                    user.flow.backend.leave(user.flow)
                    user.flow = drive.meter.throttle.share = None
                user.device = device
        self.connect(guest)

    def remove(self, guest: str) -> None:
        """The guest is gone."""
        for user in self._users.pop(guest, []):
            if user.flow is not None:
                user.flow.backend.leave(user.flow)
