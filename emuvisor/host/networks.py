"""A host's virtual networks: which there are, who is connected to them, and their ways out."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, cast

from emuvisor.errors import UsageError
from emuvisor.machine.config import USER_NETWORK, GuestConfig, NicConfig
from emuvisor.net.config import UPLINK_USER, NetworkConfig
from emuvisor.net.forward import Forward
from emuvisor.net.network import Network
from emuvisor.net.port import Port
from emuvisor.net.uplink import Uplink

if TYPE_CHECKING:
    from emuvisor.net.user.uplink import UserUplink

__all__ = ["Networks"]

UPLINK_PORT = "uplink"


@dataclass(slots=True)
class _Wired:
    """A network with its way out, if it has one."""

    network: Network
    uplink: Uplink | None = None


@dataclass(slots=True)
class _Cables:
    """What belongs to a guest."""

    plugged: list[tuple[Port, Uplink | None]] = field(default_factory=list)
    forwards: "list[tuple[UserUplink, Forward]]" = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    """Networks that exist for it alone."""


class Networks:
    """The networks by name. A guest's cards are connected as long as the guest exists; a card on the network "user"
    gets a network of its own, which goes with the guest. `now_ns` is their clock.

    Any thread but those of uplinks, which are waited for, and without the host's lock, which they may be waiting for.
    """

    def __init__(self, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._now_ns = now_ns
        self._lock = threading.RLock()
        self._wired: dict[str, _Wired] = {}
        self._cables: dict[str, _Cables] = {}

    def __getitem__(self, name: str) -> Network:
        return self._wired[name].network

    def __iter__(self) -> Iterator[str]:
        return iter(self._wired)

    def uplink(self, name: str) -> Uplink | None:
        """The way out of network `name`."""
        return self._wired[name].uplink

    def add(self, config: NetworkConfig) -> Network:
        """A network by `config`. Raises UsageError when its name is taken, HostError when its uplink cannot be."""
        with self._lock:
            if config.name in self._wired or config.name == USER_NETWORK:
                raise UsageError(f"there is a network {config.name!r} already")
            wired = _Wired(Network(config, now_ns=self._now_ns), _uplink(config))
            if wired.uplink is not None:
                port = wired.network.port(UPLINK_PORT, wired.uplink.mac, trusted=True)
                wired.uplink.start(port)
            self._wired[config.name] = wired
            return wired.network

    def connect(self, guest: GuestConfig) -> list[Port]:
        """A port for each of the guest's cards. Raises UsageError for a network that does not exist, or has not the
        uplink that a card's forwards need, HostError for a host's port that is taken; then nothing is connected."""
        with self._lock:
            if guest.name in self._cables:
                raise UsageError(f"guest {guest.name!r} is connected already")
            cables = self._cables[guest.name] = _Cables()
            try:
                for number, nic in enumerate(guest.nics):
                    self._plug(cables, guest, number, nic)
            except BaseException:
                self.disconnect(guest.name)
                raise
            return [port for port, _ in cables.plugged]

    def _plug(self, cables: _Cables, guest: GuestConfig, number: int, nic: NicConfig) -> None:
        name = nic.network
        if name == USER_NETWORK:
            name = f"{guest.name}-nic{number}"
            self.add(NetworkConfig(name, uplink=UPLINK_USER))
            cables.own.append(name)
        if name not in self._wired:
            known = ", ".join(sorted({USER_NETWORK, *self._wired}))
            raise UsageError(f"guest {guest.name!r}: there is no network {name!r}; there are: {known}")
        wired = self._wired[name]
        station = f"{guest.name}.{number}" if number else guest.name
        port = wired.network.port(station, nic.address(guest.known_as, number))
        cables.plugged.append((port, wired.uplink))
        if wired.uplink is not None:
            wired.uplink.joined(station, port)
        for text in nic.forwards:
            if wired.network.config.uplink != UPLINK_USER:
                raise UsageError(
                    f"guest {guest.name!r}: network {name!r} has no user uplink for forward {text}"
                )
            user = cast("UserUplink", wired.uplink)
            forward = user.add_forward(replace(Forward.parse(text), guest=station))
            cables.forwards.append((user, forward))

    def tolerate(self, guest: str, card: int, mac: bytes) -> None:
        """Let `guest`'s card number `card`, which has a network of its own, go on with `mac`, the address of the guest
        that it is a clone of."""
        with self._lock:
            port, uplink = self._cables[guest].plugged[card]
            if port.tolerate(mac):
                cast("UserUplink", uplink).tolerates(port, mac)

    def addresses(self, network: str) -> set[bytes]:
        """The MAC addresses of those on `network`; none where there is no such network."""
        with self._lock:
            wired = self._wired.get(network)
            return set() if wired is None else {port.mac for port in wired.network.ports}

    def forwards(self, guest: str) -> list[Forward]:
        """The guest's forwards, with the ports that they really have on the host."""
        return [forward for _, forward in self._cables[guest].forwards]

    def disconnect(self, guest: str) -> None:
        """Pull the guest's cables."""
        with self._lock:
            cables = self._cables.pop(guest, _Cables())
            for owner, forward in cables.forwards:
                owner.remove_forward(forward)
            for port, uplink in cables.plugged:
                if uplink is not None:
                    uplink.left(port.name, port)
                port.close()
            for name in cables.own:
                self.remove(name)

    def remove(self, name: str) -> None:
        """Delete a network; cards on it find nobody any more."""
        with self._lock:
            wired = self._wired.pop(name)
            if wired.uplink is not None:
                wired.uplink.close()

    def close(self) -> None:
        """Delete all networks."""
        with self._lock:
            for name in list(self._wired):
                self.remove(name)


def _uplink(config: NetworkConfig) -> Uplink | None:
    """The way out that `config` asks for; their modules are loaded by hosts that have such."""
    made: Uplink | None = None
    if config.tap is not None:
        made = import_module("emuvisor.net.tap").Tap(config.tap)
    elif config.uplink == UPLINK_USER:
        made = import_module("emuvisor.net.user.uplink").UserUplink(config)
    return made
