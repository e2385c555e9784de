"""How fast TCP is between two guests, and between a guest and the host."""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import qemu
from benchmarks.figures import Goal
from benchmarks.guest_programs import compiled, with_programs
from benchmarks.guests import NAME, EmuvisorProcess, has_image, program
from benchmarks.harness import BenchmarkError, Contender, Context, Figures, Settings, Task
from benchmarks.process import ConsoleProcess
from benchmarks.shell import Shell, at_once, booted
from emuvisor.units import MIB

__all__ = ["Net"]

TWO_PCPUS = f"{NAME}, two pCPUs"
LAN, OUT = "lan", "out"
"""The client's networks: to the server, and to the host."""
SERVER_ADDRESS, CLIENT_ADDRESS, NETMASK = "10.9.0.1", "10.9.0.2", "255.255.255.0"
SERVER_PORT = 5000
HOST_ADDRESS = "10.0.2.2"
"""Where both user-mode networks show the host's loopback address."""
LISTENING = "listening on "
START_TIMEOUT_S = 30
LEAST = 0.5
"""Times QEMU's throughput."""
QUICK_PART = 8
MACS = {"server": "52:54:00:00:00:01", "client": "52:54:00:00:00:02", OUT: "52:54:00:00:00:03"}

SERVE = f"ifconfig eth0 {SERVER_ADDRESS} netmask {NETMASK} up && tcp serve 0.0.0.0 {SERVER_PORT}"
CONNECT = (
    f"ifconfig eth0 {CLIENT_ADDRESS} netmask {NETMASK} up && "
    "ifconfig eth1 up && udhcpc -q -n -i eth1 >/dev/null 2>&1 && echo connected"
)


@dataclass(frozen=True, slots=True)
class Job:
    """What the client's `tcp` does in a measurement: `amount` MiB, or round trips of a byte."""

    figure: str
    peer: str
    operation: str
    amount: int

    @property
    def trips(self) -> bool:
        """Whether it is about latency."""
        return self.operation == "trips"

    @property
    def units(self) -> int:
        """`tcp`'s argument."""
        return self.amount if self.trips else self.amount * MIB

    @property
    def function(self) -> str:
        """The name of the client's shell function."""
        return f"{self.operation}_{self.peer}"

    @property
    def printed(self) -> str:
        """What `tcp` prints when it has done its work; it has compared every byte."""
        return f"{self.operation} {self.units}"

    def command(self, host_port: int) -> str:
        """What the function runs."""
        address, port = (HOST_ADDRESS, host_port) if self.peer == "host" else (SERVER_ADDRESS, SERVER_PORT)
        return f"tcp {self.operation} {address} {port} {self.units}"

    @property
    def cpu_figure(self) -> str:
        """The name of the CPU time for it."""
        return f"{self.figure}: CPU time of a {'round trip' if self.trips else 'MiB'}"

    @property
    def time_figure(self) -> str:
        """The name of a round trip's time."""
        return f"{self.figure}: a round trip"


def jobs(quick: bool) -> list[Job]:
    """All measurements."""
    part = QUICK_PART if quick else 1
    return [
        Job("guest to host", "host", "send", 64 // part),
        Job("host to guest", "host", "receive", 64 // part),
        Job("round trips, guest and host", "host", "trips", 3000 // part),
        Job("guest to guest", "guest", "send", 32 // part),
        Job("round trips, two guests", "guest", "trips", 1600 // part),
    ]


@dataclass(frozen=True, slots=True)
class EmuvisorPair:
    """Two guests of one process."""

    settings: Settings
    pcpus: int = 1
    name: str = field(default=NAME)

    def argv(self) -> list[str]:
        """The command line; the client's console is on standard input and output."""
        return program("network", json.dumps(self.configuration()))

    def configuration(self) -> dict[str, Any]:
        """What programs/network.py takes."""
        lan = {"network": LAN}
        return {
            "pcpus": self.pcpus,
            "networks": [{"name": LAN}, {"name": OUT, "uplink": "user", "host_loopback": True}],
            "server": self._guest("server", [{**lan, "mac": MACS["server"]}]),
            "client": self._guest(
                "client", [{**lan, "mac": MACS["client"]}, {"network": OUT, "mac": MACS[OUT]}]
            ),
            "serve": SERVE,
            "serving": LISTENING,
        }

    def _guest(self, name: str, nics: list[dict[str, str]]) -> dict[str, Any]:
        return EmuvisorProcess(self.settings, devices={"name": name, "nics": nics}).configuration()


@dataclass(frozen=True, slots=True)
class Pair:
    """A client at its shell; `helpers` are the processes of its server, if that has one of its own."""

    client: Shell
    helpers: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The contender's."""
        return self.client.name

    def measured(self, job: Job) -> Figures:
        """Do the job once."""
        cost = self.client.cost(job.function, job.printed, self.helpers)
        cpu_us = cost.cpu_s / job.amount * 1e6
        if job.trips:
            return {
                job.figure: job.amount / cost.seconds,
                job.time_figure: cost.seconds / job.amount * 1e6,
                job.cpu_figure: cpu_us,
            }
        return {job.figure: job.units / 1e6 / cost.seconds, job.cpu_figure: cpu_us}


class Net:
    """Each contender boots two guests: a server, and a client that has a card to it and one to the host."""

    name = "net"
    measures = "a TCP connection between two Debian guests or to the host, and the host's CPU time for it"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """A task for each job."""
        if not has_image(context, self.name):
            yield []
            return
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            tcp = compiled(context, "tcp", folder, self.name)
            if tcp is None:
                yield []
                return
            image = context.settings.image
            assert image is not None
            settings = replace(context.settings, image=with_programs(image, {"tcp": tcp}, folder))
            work = jobs(settings.quick)
            port = _serve_on_host(stack, tcp)
            functions = {"connect_all": CONNECT, **{job.function: job.command(port) for job in work}}
            pairs = _pairs(stack, context, settings, folder, functions)
            for pair in pairs:
                pair.client.time("connect_all", "connected")
            context.note(
                "Throughput is of one connection, whose bytes the receiver compares; a round trip is a byte each "
                "way. The host's end is a program of its own, behind the user-mode network (libslirp in both). "
                "emuvisor's two guests are in one process and on one switch, on one pCPU or two; QEMU's are two "
                "processes, joined by a Unix socket (-netdev stream). CPU time is that of these processes, "
                "both guests together. "
                'emuvisor runs with clock="host".'
            )
            yield [_task(job, pairs) for job in work]


def _serve_on_host(stack: ExitStack, tcp: Path) -> int:
    """Start the host's end; the port at which it listens."""
    process = stack.enter_context(ConsoleProcess("tcp serve", [str(tcp), "serve", "127.0.0.1", "0"]))
    process.expect(LISTENING, START_TIMEOUT_S)
    return int(process.expect("\n", START_TIMEOUT_S)[0])


def _task(job: Job, pairs: Sequence[Pair]) -> Task:
    # To the host goes the client alone: a second pCPU has nothing to do.
    taking_part = [pair for pair in pairs if job.peer == "guest" or pair.name != TWO_PCPUS]
    return Task(
        name=job.figure,
        unit="trips/s" if job.trips else "MB/s",
        contenders=[Contender(pair.name, partial(pair.measured, job)) for pair in taking_part],
        goals={job.figure: Goal(LEAST, qemu.NAME, NAME, at_least=True)},
        units={job.cpu_figure: "us", job.time_figure: "us"},
        against=qemu.NAME,
    )


def _pairs(
    stack: ExitStack, context: Context, settings: Settings, folder: Path, functions: dict[str, str]
) -> list[Pair]:
    starts = [partial(_emuvisor, stack, context, EmuvisorPair(settings), functions)]
    if settings.quick:
        context.notice(f"{TWO_PCPUS} is skipped in a quick run")
    elif len(os.sched_getaffinity(0)) > 1:
        starts.append(partial(_emuvisor, stack, context, EmuvisorPair(settings, 2, TWO_PCPUS), functions))
    else:
        context.notice(f"{TWO_PCPUS} is skipped: this process has one core")
    if qemu.available(context):
        starts.append(partial(_qemu, stack, context, settings, folder, functions))
    return at_once(starts)


def _emuvisor(
    stack: ExitStack, context: Context, guests: EmuvisorPair, functions: dict[str, str]
) -> Pair | None:
    client = booted(stack, context, guests, functions)
    return None if client is None else Pair(client)


def _qemu(
    stack: ExitStack, context: Context, settings: Settings, folder: Path, functions: dict[str, str]
) -> Pair | None:
    wire = folder / "lan"
    lan = card(LAN, MACS["server"], stream(wire, listens=True))
    server = booted(stack, context, qemu.Qemu(settings, options=lan), {})
    if server is None:
        return None
    try:
        server.start(SERVE, LISTENING)
    except BenchmarkError as error:
        context.notice(f"{qemu.NAME} is skipped: {error}")
        return None
    cards = [*card(LAN, MACS["client"], stream(wire, listens=False)), *card(OUT, MACS[OUT], "user")]
    client = booted(stack, context, qemu.Qemu(settings, options=cards), functions)
    return None if client is None else Pair(client, (server.pid,))


def stream(path: Path, *, listens: bool) -> str:
    """QEMU's -netdev for one end of a wire between two processes: a socket at `path`, where one of them listens.

    Of QEMU's wires without a bridge this was the quickest; -netdev dgram varied by a factor of nine between runs.
    """
    return f"stream,server={'on' if listens else 'off'},addr.type=unix,addr.path={path}"


def card(name: str, mac: str, netdev: str) -> list[str]:
    """QEMU's options for a virtio card on `netdev`, without the option ROM, which would lengthen its boot."""
    kind, *options = netdev.split(",")
    device = f"virtio-net-pci,netdev={name},mac={mac},romfile="
    return ["-netdev", ",".join([kind, f"id={name}", *options]), "-device", device]
