"""Frames between the guests of a host on the virtual clock: they arrive at a moment, and in an order, of virtual time,
whichever threads run their senders and receivers."""

from collections.abc import Callable

from emuvisor.bus.ethernet import Offload, Station
from emuvisor.net.port import Port
from emuvisor.net.statistics import Drop
from emuvisor.units import MIB

__all__ = ["VirtualFrames", "VirtualLink"]

BACKLOG_FRAMES = 1024
BACKLOG_BYTES = 4 * MIB
"""What one card may have on its way; further frames are dropped."""

_Sent = tuple[int, bytes, Offload | None]
"""When it was sent, a frame, and what is left to be done on it."""


class VirtualFrames:
    """Keeps what guests send until `deliver`."""

    def __init__(self) -> None:
        self._senders: list[VirtualLink] = []
        """Those with frames on their way."""

    def __bool__(self) -> bool:
        return bool(self._senders)

    def link(self, port: Port, now_ns: Callable[[], int]) -> "VirtualLink":
        """A cable to `port` for a guest's card. `now_ns` is asked when the guest sends, in the thread that runs it."""
        return VirtualLink(port, now_ns, self._senders.append)

    def deliver(self) -> None:
        """All frames arrive, those that were sent first before others. Only while no guest runs."""
        senders = self._senders[:]
        self._senders.clear()
        sent = [(*frame, sender.port) for sender in senders for frame in sender.take()]
        # Those of one card are in order already, and sorting keeps them so.
        for _, frame, offload, port in sorted(sent, key=lambda entry: (entry[0], entry[3].name)):
            port.send(frame, offload)


class VirtualLink:
    """A `Link` to `port` on which frames need time. `on_first` hears that one is on its way where none was."""

    def __init__(
        self, port: Port, now_ns: Callable[[], int], on_first: "Callable[[VirtualLink], None]"
    ) -> None:
        self.port = port
        self._now_ns = now_ns
        self._on_first = on_first
        self._sent: list[_Sent] = []
        self._bytes = 0

    @property
    def up(self) -> bool:
        """Whether the cable is plugged in."""
        return self.port.up

    @property
    def mtu(self) -> int:
        """The longest IP packet that passes, in bytes."""
        return self.port.mtu

    def attach(self, station: Station) -> None:
        """From now on frames go to `station`."""
        self.port.attach(station)

    def send(self, frame: bytes, offload: Offload | None = None) -> None:
        """Put a frame on the wire, unless too much is on its way. A guest can send as much as it likes at a moment."""
        if len(self._sent) >= BACKLOG_FRAMES or self._bytes + len(frame) > BACKLOG_BYTES:
            self.port.drop(Drop.CONGESTED)
            return
        if not self._sent:
            self._on_first(self)
        self._sent.append((self._now_ns(), frame, offload))
        self._bytes += len(frame)

    def take(self) -> list[_Sent]:
        """What is on its way, no longer."""
        sent, self._sent, self._bytes = self._sent, [], 0
        return sent
