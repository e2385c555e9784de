"""Debian guests with network cards, and a web server on the host's loopback for them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from guests import command, reach_shell

from emuvisor.host import Guest, Host
from emuvisor.images.cache import Image
from emuvisor.machine.choices import BoardName, ClockMode, RingLayout
from emuvisor.machine.config import GuestConfig, KernelConfig, NicConfig
from emuvisor.units import MIB

GATEWAY, GATEWAY6 = "10.0.2.2", "fec0::2"
SUM_PORT = 5001


def create(
    host: Host,
    image: Image,
    name: str,
    *nics: NicConfig,
    board: BoardName = "pc",
    ring: RingLayout = "split",
    clock: ClockMode = "host",
) -> Guest:
    """A guest that is not started; as it has a card, `clock` is that of `host`."""
    kernel = image.kernel
    assert kernel is not None
    return host.create(
        GuestConfig(
            name=name,
            board=board,
            ring=ring,
            clock=clock,
            memory=128 * MIB,
            nics=nics,
            kernel=KernelConfig(kernel, image.initrd, image.append),
        )
    )


def boot(*guests: Guest) -> None:
    """Start all, then wait for each one's shell."""
    for guest in guests:
        guest.start()
    for guest in guests:
        reach_shell(guest)


def set_address(guest: Guest, address: str, card: str = "eth0") -> None:
    """By hand; `address` is an IPv4 one of a /24."""
    assert command(guest, f"ip addr flush dev {card}; ip link set {card} up") == ""
    assert command(guest, f"ip addr add {address}/24 dev {card}") == ""


def lease(guest: Guest) -> str:
    """Ask DHCP, by busybox's client; returns the address."""
    said = command(guest, "udhcpc -i eth0 -n -q -f -t 20 2>&1")
    assert " obtained from 10.0.2.2, lease time " in said, said
    return said.partition("lease of ")[2].partition(" ")[0]


def answers(guest: Guest, address: str, options: str = "", wait_s: int = 30) -> bool:
    """Whether `address` answers the guest's ping."""
    said = command(
        guest, f"ping -c 1 -W {wait_s} {options} {address} >/dev/null && echo heard || echo silent"
    )
    return said == "heard"


def is_silent(guest: Guest, address: str, options: str = "") -> bool:
    """Whether `address` answers nothing to the guest's ping for two seconds."""
    return not answers(guest, address, options, wait_s=2)


def serve_sums(guest: Guest) -> None:
    """Answer who sends to SUM_PORT with the SHA-256 of what came."""
    command(
        guest, f"nc -ll -p {SUM_PORT} -e sha256sum & until netstat -ltn | grep -q :{SUM_PORT}; do :; done"
    )


def transfer(guest: Guest, address: str, chunks: int = 64) -> None:
    """Send `chunks` of 64 KiB by TCP to a guest that `serve_sums`, which must receive them unharmed."""
    command(guest, f"dd if=/dev/urandom of=/tmp/sent bs=64k count={chunks} 2>/dev/null")
    sent = command(guest, "sha256sum < /tmp/sent")
    assert command(guest, f"nc {address} {SUM_PORT} < /tmp/sent") == sent
    assert command(guest, "wc -c < /tmp/sent; rm /tmp/sent") == str(chunks << 16)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def web_server(folder: Path) -> Iterator[int]:
    """Serves the files in `folder` on the host's loopback; gives the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()
