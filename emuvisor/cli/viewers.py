"""Other ways to a guest than its console: its screen by VNC, and its monitor by QMP."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from emuvisor.errors import HostError, UsageError

if TYPE_CHECKING:
    from emuvisor.host import Guest
    from emuvisor.qmp import QmpServer
    from emuvisor.vnc.server import VncServer

__all__ = ["qmp_server", "read_password", "vnc_server"]

MAX_PASSWORD_FILE = 1024


def read_password(path: Path) -> str:
    """The first line of the file. Raises HostError when it cannot be read, UsageError when it is empty."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            password = file.readline(MAX_PASSWORD_FILE).rstrip("\r\n")
    except OSError as error:
        raise HostError(f"{path}: cannot be read: {error.strerror}") from None
    if not password:
        raise UsageError(f"{path}: the first line is empty; it should be the password")
    return password


def vnc_server(
    guest: "Guest", address: str, password_file: Path | None
) -> "AbstractContextManager[VncServer]":
    """A VNC server for the guest's screen, which says on standard error where it listens."""
    from emuvisor.vnc.server import VncServer

    guest.screen()  # says so now when the board has no display
    password = None if password_file is None else read_password(password_file)
    server = VncServer(
        address,
        screen=guest.screen,
        key=guest.press,
        pointer=guest.point,
        password=password,
        name=guest.name,
    )
    print(f"emuvisor: {guest.name}: VNC on {server.address}", file=sys.stderr)
    return server


def qmp_server(guest: "Guest", address: str) -> "AbstractContextManager[QmpServer]":
    """A QMP server for the guest, which is started then; it says on standard error where it listens."""
    from emuvisor.qmp import PlainGuest, QmpServer

    server = QmpServer(PlainGuest(guest), address, waits=True)
    print(f"emuvisor: {guest.name}: QMP on {server.address}", file=sys.stderr)
    return server
