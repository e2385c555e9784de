"""Doing beforehand what would otherwise happen while the guest stands still."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

from emuvisor.errors import EmuvisorError
from emuvisor.host.host import Host
from emuvisor.machine.config import USER_NETWORK, DiskConfig, GuestConfig, NicConfig
from emuvisor.machine.machine import Machine
from emuvisor.machine.machine_state import load_machine, save_machine
from emuvisor.memory import FramePool
from emuvisor.net.config import NetworkConfig
from emuvisor.net.network import Network
from emuvisor.net.port import Port
from emuvisor.units import MIB

__all__ = ["rehearse"]

STAND_IN_BYTES = MIB


def rehearse(host: Host, config: GuestConfig) -> int:
    """Let this process load the modules, and `host` start the threads and make the engines, that a guest of `config`
    needs. A machine like it is built and its state loaded, twice; returns how many nanoseconds the second one took,
    which is what the guest will wait for. Empty files stand in for its disks, a network of its own for those of its
    cards. What cannot be built here shows when the guest comes: 0.

    Raises HostError when the host gives no thread.
    """
    with host.lock:
        host.start_threads()
    took_ns = 0
    with suppress(EmuvisorError, OSError, MemoryError), TemporaryDirectory(prefix="emuvisor-") as folder:
        like = _like(config, Path(folder))
        _perform(host, like)
        took_ns = _perform(host, like)
    return took_ns


def _perform(host: Host, like: GuestConfig) -> int:
    began = time.perf_counter_ns()
    with _ports(host, like) as ports:
        machine = Machine(like, FramePool(like.memory), ports)
        try:
            built_ns = time.perf_counter_ns() - began
            host.processors.prepare(machine.model)
            state = save_machine(machine)
            began = time.perf_counter_ns()
            load_machine(machine, state)
            return built_ns + time.perf_counter_ns() - began
        finally:
            machine.close()


def _like(config: GuestConfig, folder: Path) -> GuestConfig:
    """A configuration that takes nothing away from anybody."""
    cards = [nic.network == USER_NETWORK for nic in config.nics]
    card = NicConfig(USER_NETWORK if any(cards) else "rehearsal")
    return replace(
        config,
        name=f"rehearsal-{token_hex(4)}",
        disks=tuple(
            _stand_in(disk, folder / str(number))
            for number, disk in enumerate(config.disks)
            if disk.kind == "disk"
        ),
        nics=(card,) if cards else (),
        shares=(),
        firmware_variables=None,
    )


def _stand_in(disk: DiskConfig, path: Path) -> DiskConfig:
    with path.open("wb") as file:
        file.truncate(STAND_IN_BYTES)
    return replace(disk, path=path, format="raw", overlay=None if disk.overlay is None else "temporary")


@contextmanager
def _ports(host: Host, like: GuestConfig) -> Iterator[Sequence[Port]]:
    """What its card is plugged into: the real thing for a network of its own, whose way out has to be set up."""
    if any(nic.network == USER_NETWORK for nic in like.nics):
        try:
            yield host.networks.connect(like)
        finally:
            host.networks.disconnect(like.name)
    else:
        network = Network(NetworkConfig("rehearsal"))
        yield [network.port(like.name, nic.address(like.known_as, 0)) for nic in like.nics]
