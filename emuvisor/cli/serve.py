"""`emuvisor serve`: the options, and a daemon from its start to its end."""

import argparse
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from emuvisor.cli.autopilot_options import add_autopilot_options, autopilot
from emuvisor.cli.host_options import add_host_options, limit_backends
from emuvisor.cli.memory_options import add_memory_options
from emuvisor.cli.metrics_options import add_metrics_options
from emuvisor.cli.options import parse_size_option
from emuvisor.cli.scheduler_options import recorded_schedule
from emuvisor.errors import UsageError
from emuvisor.units import PAGE_SIZE

if TYPE_CHECKING:
    from emuvisor.cli.serve_log import ServeLog
    from emuvisor.daemon.limits import Limits
    from emuvisor.daemon.sockets import Network
    from emuvisor.manager import Manager

__all__ = ["add_to", "execute"]

DESCRIPTION = """\
Hold the guests of a store, so that they outlive terminals: 'emuvisor ls', 'emuvisor start' and the like then talk to
this process, and so does whatever speaks HTTP (docs/daemon.md). SIGTERM and SIGINT save the guests that run and end
it, and the next start lets them go on; a second signal ends it at once."""

LOOK_S = 1.0
"""How often the status line is brought up to date."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)
SIGNAL_EXIT = 128


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "serve",
        help="hold guests in the background",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(execute=execute)
    parser.add_argument(
        "--store", type=Path, metavar="DIR", help="the guests of this store (default: the user's)"
    )
    parser.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="listen there, for this user alone (default: with --store DIR/emuvisor.sock, else "
        "$XDG_RUNTIME_DIR/emuvisor/emuvisor.sock)",
    )
    parser.add_argument(
        "--qmp", type=Path, metavar="DIR", help="a socket DIR/NAME.qmp for each guest, which speaks QMP"
    )
    tcp = parser.add_argument_group("the network", "besides the socket; all of the first four are needed")
    tcp.add_argument(
        "--tcp", metavar="HOST:PORT", help="listen there too, with TLS, for those who have the token"
    )
    tcp.add_argument("--tls-cert", type=Path, metavar="FILE", help="the certificate, PEM")
    tcp.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")
    tcp.add_argument("--token-file", type=Path, metavar="FILE", help="a file with the token, mode 600")
    tcp.add_argument(
        "--images",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="clients may name kernels and disks below this folder, and no other files (repeatable)",
    )
    host = parser.add_argument_group("the host")
    add_host_options(host)
    host.add_argument(
        "--max-guests", type=int, default=1000, metavar="N", help="that can be defined (default: 1000)"
    )
    host.add_argument(
        "--max-guest-memory", type=parse_size_option, metavar="SIZE", help="that one may have (default: 512G)"
    )
    add_memory_options(parser, table=False)
    add_metrics_options(parser)
    add_autopilot_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Serve until a signal comes; returns the exit code."""
    _check_tcp(args)
    try:
        from emuvisor.cli.serve_log import ServeLog
        from emuvisor.daemon import systemd
        from emuvisor.daemon.service import Service
        from emuvisor.daemon.sockets import serve_on
        from emuvisor.daemon.unixsocket import default_socket
    except ImportError as error:
        raise UsageError(f"the daemon needs {error.name}: pip install 'emuvisor[daemon]'") from None

    with ExitStack() as stack:
        log = stack.enter_context(ServeLog())
        ended = stack.enter_context(_signals())
        manager = stack.enter_context(_manager(args, log))
        service = Service(manager, manager.store.folder / "exports", _limits(args))
        stack.callback(service.close)
        manager.listeners.append(log.event)
        manager.resume_saved()
        manager.start_marked()
        where = stack.enter_context(
            serve_on(service, args.socket or default_socket(args.store), _network(args))
        )
        if args.qmp is not None:
            stack.enter_context(_qmp(manager, args.qmp))
        log.say(f"{len(manager.guests())} guests of {manager.store.folder} at {', '.join(where)}")
        systemd.notify("READY=1")
        while not ended.wait(LOOK_S if log.has_status else None):
            log.show(manager, where)
        systemd.notify("STOPPING=1")
        service.end_streams()
        log.ending("the guests that run are saved")
    return 0


@contextmanager
def _signals() -> "Iterator[threading.Event]":
    """What the first of SIGNALS sets; the second one ends the process at once."""
    ended = threading.Event()

    def handle(number: int, _: FrameType | None) -> None:
        if ended.is_set():
            os._exit(SIGNAL_EXIT + number)
        ended.set()

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _manager(args: argparse.Namespace, log: "ServeLog") -> "Iterator[Manager]":
    """The guests of the store, on a host by the options."""
    from emuvisor.cli.guests import networks
    from emuvisor.cli.memory_options import memory_policy
    from emuvisor.cli.metrics_options import metrics
    from emuvisor.host import Host
    from emuvisor.manager import Manager
    from emuvisor.store import Store, default_folder

    policy = memory_policy(args)
    with ExitStack() as stack:
        store = stack.enter_context(Store(args.store or default_folder()))
        host = stack.enter_context(
            Host(args.pool or _default_pool(), args.pcpus, memory_policy=policy, scheduler=args.scheduler)
        )
        host.warnings.append(log.warn)
        limit_backends(host, args.backend_limit)
        for network in networks(args.networks, ()):
            host.add_network(network)
        stack.enter_context(recorded_schedule(host, args.schedule_record))
        if args.memory_record:
            from emuvisor.host.memory.recorder import MemoryRecorder

            stack.enter_context(MemoryRecorder(host, args.memory_record))
        manager = stack.enter_context(Manager(host, store, max_guests=args.max_guests))
        with metrics(args, host, log.say), autopilot(args, host, None):
            yield manager


def _default_pool() -> int:
    """Half of this machine's memory: frames are taken when guests touch them."""
    from emuvisor.memory.stage2 import MAX_FRAMES

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // PAGE_SIZE
    return min(pages // 2, MAX_FRAMES - 1) * PAGE_SIZE


def _limits(args: argparse.Namespace) -> "Limits":
    from emuvisor.daemon.limits import Limits

    return Limits() if args.max_guest_memory is None else Limits(memory=args.max_guest_memory)


def _check_tcp(args: argparse.Namespace) -> None:
    """The network is for those with TLS and a token alone. Raises UsageError."""
    needed = {
        f"--{name.replace('_', '-')}": getattr(args, name) for name in ("tls_cert", "tls_key", "token_file")
    }
    if args.tcp is None:
        given = [option for option, value in needed.items() if value is not None]
        given += ["--images"] if args.images else []
        if given:
            raise UsageError(f"{', '.join(given)} without --tcp")
        return
    missing = [option for option, value in needed.items() if value is None]
    if missing:
        raise UsageError(f"--tcp {args.tcp} needs {', '.join(missing)}: it is for those with TLS and a token")


def _network(args: argparse.Namespace) -> "Network | None":
    if args.tcp is None:
        return None
    from emuvisor.daemon.server import Tls
    from emuvisor.daemon.sockets import Network
    from emuvisor.daemon.token import read_token
    from emuvisor.metrics.address import parse_address

    address = parse_address(args.tcp)
    tls = Tls(args.tls_cert, args.tls_key)
    return Network(address.host, address.port, tls, read_token(args.token_file), tuple(args.images))


def _qmp(manager: "Manager", folder: Path) -> "AbstractContextManager[object]":
    from emuvisor.qmp.servers import QmpServers

    return QmpServers(manager, folder)
