"""An uplink through a TAP interface: the host's kernel is a station of the network.

What the kernel does with it, an address, a bridge or routes, is set up outside. An interface that exists already can be
used by the user whom it belongs to (`ip tuntap add dev NAME mode tap user USER`); making one needs CAP_NET_ADMIN. One
that was made here goes when it is closed.
"""

import errno
import fcntl
import os
import select
import struct
import threading
from contextlib import suppress
from pathlib import Path

from emuvisor.bus.ethernet import Link, Offload
from emuvisor.errors import HostError
from emuvisor.net.frames import ETHERNET_HEADER
from emuvisor.net.inbox import Inbox
from emuvisor.net.port import Port

__all__ = ["Tap"]

DEVICE = Path("/dev/net/tun")
# linux/if_tun.h: _IOW('T', 202, int), and flags.
TUNSETIFF = 0x4004_54CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
MAX_NAME = 15
"""IFNAMSIZ, without the final zero."""
_IFREQ = struct.Struct("16sH22x")
"""struct ifreq: the interface's name and its flags."""

PORT_MAC = bytes.fromhex("525500000001")
"""Where the switch keeps the port; what comes out of the interface has addresses of its own."""
FRAMES_PER_TURN = 256
"""Of the host's; then the guests' are looked at."""
MAX_FRAME = 0xFFFF + ETHERNET_HEADER


class Tap:
    """A `Station` for a trusted port, joined to the host's interface `name` (at most 15 bytes, no "/").

    The interface is opened, or made, at once. Raises HostError when that cannot be.
    """

    accepts = 0
    mac = PORT_MAC

    def __init__(self, name: str, device: Path = DEVICE) -> None:
        self.name = name
        self._port: Link | None = None
        self._thread: threading.Thread | None = None
        self._descriptor = _open(name, device)
        self._inbox = Inbox()

    def start(self, port: Link) -> None:
        """Plug into `port` and begin."""
        self._port = port
        self._thread = threading.Thread(target=self._run, name=f"tap {self.name}", daemon=True)
        self._thread.start()
        port.attach(self)

    def joined(self, name: str, port: Port) -> None:
        """Nothing to do: whoever serves DHCP behind the interface gives addresses."""

    def left(self, name: str, port: Port) -> None:
        """Nothing to do."""

    def receive(self, frame: bytes, _offload: Offload | None, /) -> bool:
        """A frame for the host; False if there are too many already."""
        return self._inbox.put(frame)

    def link_changed(self) -> None:
        """Nothing to do: the port drops what is sent while the link is down."""

    def close(self) -> None:
        """End the thread and let go of the interface."""
        self._inbox.end(self._thread)
        self._shut()

    def _run(self) -> None:
        inbox = self._inbox
        poller = select.poll()
        poller.register(inbox.descriptor, select.POLLIN)
        poller.register(self._descriptor, select.POLLIN)
        try:
            while not inbox.closing:
                ready = dict(poller.poll(None if inbox.may_sleep() else 0))
                inbox.awake(woken=inbox.descriptor in ready)
                self._to_host()
                if self._descriptor in ready:
                    self._from_host()
        finally:
            self._shut()

    def _to_host(self) -> None:
        for frame in self._inbox.frames():
            # The interface is down, is full, or does not like the frame: lost, as on any wire.
            with suppress(OSError):
                os.write(self._descriptor, frame)

    def _from_host(self) -> None:
        assert self._port is not None
        for _ in range(FRAMES_PER_TURN):
            try:
                frame = os.read(self._descriptor, MAX_FRAME)
            except OSError:
                return  # nothing more, or the interface has been deleted
            self._port.send(frame)

    def _shut(self) -> None:
        if self._inbox.close():
            os.close(self._descriptor)


def _open(name: str, device: Path) -> int:
    """A descriptor of the TAP interface `name`."""
    why = {
        errno.ENOENT: f"{device} does not exist; the kernel's module tun is not loaded",
        errno.EACCES: f"you may not open {device}",
        errno.EPERM: (
            "it does not exist or is somebody else's, and you may not make it; "
            f"root can give it to you: ip tuntap add dev {name} mode tap user $USER"
        ),
        errno.EBUSY: "another process has it",
        errno.EINVAL: "an interface of this name is no TAP interface",
    }
    if not 1 <= len(name.encode()) <= MAX_NAME:
        raise HostError(f"uplink tap:{name}: the name of an interface has 1 to {MAX_NAME} bytes")
    descriptor = -1
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, TUNSETIFF, _IFREQ.pack(name.encode(), IFF_TAP | IFF_NO_PI))
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        reason = why.get(error.errno or 0, error.strerror)
        raise HostError(f"uplink tap:{name}: {reason}") from None
    return descriptor
