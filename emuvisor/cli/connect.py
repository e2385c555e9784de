"""The guests that a command is about: those of the daemon when it runs, else those of the store."""

import argparse
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

from emuvisor.errors import EmuvisorError, StateError, UsageError

if TYPE_CHECKING:
    from emuvisor.daemon.client import Client
    from emuvisor.manager import Manager
    from emuvisor.store import Store

    Guests: TypeAlias = Manager | Client

__all__ = ["add_store_option", "connect", "daemon_client", "is_embedded", "listens", "open_store"]

PATIENCE_S = 2.0
"""How long a command waits for another one that has the store."""
LOOK_S = 0.05


def add_store_option(parser: argparse.ArgumentParser) -> None:
    """Add where the guests are."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="the guests of this store, or of the daemon that has it (default: ~/.local/share/emuvisor)",
    )
    where.add_argument(
        "--socket", type=Path, metavar="PATH", help="the guests of the daemon that listens there"
    )
    where.add_argument(
        "--daemon",
        metavar="https://HOST:PORT",
        help="those of the daemon on the network ('emuvisor serve --tcp'), with --daemon-token",
    )
    parser.add_argument("--daemon-token", type=Path, metavar="FILE", help="a file with that daemon's token")
    parser.add_argument(
        "--daemon-ca",
        type=Path,
        metavar="FILE",
        help="the certificate of that daemon, or who signed it (default: whom the system trusts)",
    )


@contextmanager
def connect(
    args: argparse.Namespace, guests: Sequence[str] = (), copies: int = 0, memory: int | None = None
) -> "Iterator[Guests]":
    """The daemon's guests, or a manager of the store for as long as this lasts; at its end guests that are on are
    saved. Its host has `memory`, or else enough for the guests named and for `copies` of the first.

    Raises StateError when another process has the store, HostError for a daemon that does not answer.
    """
    daemon = daemon_client(args)
    if daemon is not None:
        with daemon:
            yield daemon
        return
    from emuvisor.host import Host
    from emuvisor.manager import Manager

    with open_store(args.store) as store:
        host = Host(memory or _memory(store, guests, copies))
        host.warnings.append(lambda text: print(f"emuvisor: {text}", file=sys.stderr))
        with Manager(host, store) as manager:
            try:
                yield manager
            finally:
                # They go on when somebody says so, not with a daemon.
                for guest in manager.guests():
                    if guest.state in ("running", "paused"):
                        manager.save(guest.name)


def is_embedded(guests: "Guests") -> "TypeGuard[Manager]":
    """Whether they live in this process."""
    module = sys.modules.get("emuvisor.manager.manager")  # without it there is none; loading it takes long
    return module is not None and isinstance(guests, module.Manager)


def daemon_client(args: argparse.Namespace) -> "Client | None":
    """The daemon that the command is for; None when it is for a store. Raises UsageError for what is no address, or
    without what it needs, HostError for a file that cannot be read."""
    from emuvisor.daemon.client import Client
    from emuvisor.daemon.unixsocket import default_socket

    if args.daemon is None:
        for option in ("daemon_token", "daemon_ca"):
            if getattr(args, option) is not None:
                raise UsageError(f"--{option.replace('_', '-')} without --daemon")
        if args.socket is not None:
            return Client(args.socket)
        usual = default_socket(args.store)
        return Client(usual) if listens(usual) else None
    if not args.daemon.startswith("https://"):
        raise UsageError(f"--daemon: {args.daemon!r} is not https://HOST:PORT")
    if args.daemon_token is None:
        raise UsageError("--daemon needs --daemon-token")
    from emuvisor.cli.viewers import read_password

    return Client(args.daemon, read_password(args.daemon_token), args.daemon_ca)


def listens(path: Path) -> bool:
    """Whether a daemon of this user's, or of root's, does; a socket can be left behind by one that was killed."""
    try:
        if path.lstat().st_uid not in (os.getuid(), 0):  # in /tmp anybody can put one
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def open_store(folder: Path | None) -> "Store":
    """The store in `folder`, or the user's. Raises StateError naming the process that has it, after a while."""
    from emuvisor.store import Store, default_folder

    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return Store(folder or default_folder())
        except StateError as error:
            if time.monotonic() >= end:
                hint = "several commands at once can use the guests of 'emuvisor serve'"
                raise StateError(f"{error}; {hint}") from None
            time.sleep(LOOK_S)


def _memory(store: "Store", guests: Sequence[str], copies: int) -> int:
    """Bytes with which the guests named never run short."""
    from emuvisor.cli.guests import pool_size
    from emuvisor.manager.definitions import Definition
    from emuvisor.units import MIB

    configs = []
    for name in guests:
        try:
            configs.append(Definition.load(store, name).config)
        except EmuvisorError:  # the command itself says it better
            return 64 * MIB
    return pool_size([*configs, *configs[:1] * copies]) if configs else 64 * MIB
