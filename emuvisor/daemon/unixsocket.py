"""The daemon's Unix socket: its owner's alone, and one daemon's at a time."""

import fcntl
import os
import socket
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from emuvisor.errors import HostError, StateError, UsageError

__all__ = ["UnixSocket", "default_socket", "peer_process"]

BACKLOG = 128
PATIENCE_S = 5.0
"""With a daemon that does not answer because many others ask it."""
MAX_PATH = 107
"""Bytes that Linux has for a socket's name (unix(7))."""
_UCRED = struct.Struct("=iII")


def default_socket(store: Path | None = None) -> Path:
    """Where the daemon of this user listens: $XDG_RUNTIME_DIR/emuvisor/emuvisor.sock on Linux, or below a folder of the
    user's in /tmp where that is not set; one for a certain store listens in the folder of that."""
    if store is not None:
        return store / "emuvisor.sock"
    with warnings.catch_warnings():  # that it is not set, which is no news for who has no session
        warnings.simplefilter("ignore")
        return platformdirs.user_runtime_path("emuvisor", appauthor=False) / "emuvisor.sock"


class UnixSocket:
    """A listening socket (`listener`) at `path` with mode 0600, in a folder that is made with 0700 when there is none.

    It takes the place of one where nobody listens any more. Raises StateError naming the process when somebody does,
    UsageError for a path where a socket cannot be, HostError.
    """

    def __init__(self, path: Path) -> None:
        if len(os.fsencode(path)) > MAX_PATH:
            raise UsageError(f"{path}: a socket's path has {MAX_PATH} bytes at most")
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._identity = self._listen()
        except BaseException as error:
            self.listener.close()
            if isinstance(error, OSError):
                raise HostError(f"cannot listen on {path}: {error.strerror or error}") from None
            raise

    def _listen(self) -> tuple[int, int]:
        path = self.path
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(path.parent):
            _require_free(path)
            new = path.with_name(f".{os.getpid()}")
            new.unlink(missing_ok=True)
            self.listener.bind(str(new))
            new.chmod(0o600)  # before it listens: until then nobody can connect
            self.listener.listen(BACKLOG)
            new.rename(path)
            return _identity(path)

    def close(self) -> None:
        """Stop listening, and delete the socket if it is still this one."""
        with suppress(OSError):
            if _identity(self.path) == self._identity:
                self.path.unlink()
        self.listener.close()


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two daemons that start at once look for each other one after the other."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _require_free(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"{path} is not a socket; it stays as it is")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PATIENCE_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
        raise StateError(f"process {peer_process(probe)} listens on {path} already")


def peer_process(connection: socket.socket) -> int:
    """The number of the process at the other end of a Unix socket: for a client, that which called listen."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    process, _, _ = _UCRED.unpack(raw)
    return int(process)
