"""A guest that goes on from a snapshot: it runs at once, and its pages come when they are touched."""

import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from emuvisor.errors import ConfigError, SnapshotError, UsageError
from emuvisor.host.guest import Guest
from emuvisor.host.host import Host
from emuvisor.host.snapshots.contents import Contents
from emuvisor.host.snapshots.disks import restored_disks
from emuvisor.machine.choices import ClockMode
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.machine import Machine
from emuvisor.machine.machine_state import load_machine
from emuvisor.memory import FrameState
from emuvisor.memory.saved_layout import Layout, MemoryLoader
from emuvisor.memory.stage2 import entry
from emuvisor.net.forward import Forward
from emuvisor.store.lazy import LazyPages
from emuvisor.store.snapshot import Snapshot
from emuvisor.store.store import Store

__all__ = ["restore_guest"]

_SAVED = np.uint32(entry(FrameState.SAVED))


def restore_guest(
    host: Host,
    store: Store,
    guest_name: str,
    snapshot_name: str,
    *,
    name: str | None = None,
    running: bool = True,
    clock: ClockMode | None = None,
    network: str | None = None,
    same_identity: bool | None = None,
    overlay: Callable[[int], Path] | None = None,
) -> Guest:
    """A guest on `host` that goes on where `guest_name` was when snapshot `snapshot_name` in `store` was taken;
    `running`, or paused. It is called `name`, or as it was.

    It takes a frame for a page when it touches it; until it has all of them, or is gone, the snapshot cannot be deleted
    and the store must stay open. `clock` and `network` take the place of the guest's kind of clock and of the
    network of all its cards. With `same_identity`, which is so unless it gets another name, it has the source's MAC
    addresses and generation ID. Ports of the host's that are taken are not forwarded; `host.warnings` hears of it.

    What it writes to its disks is forgotten with it, or with `overlay` goes to a new overlay file for each: what that
    says for disk number such of the configuration. `Guest.config` says which files they are.

    Raises SnapshotError, naming the snapshot, when that is not there or damaged or this host cannot have such a guest;
    UsageError when its name is taken or a network is not there, AdmissionError, ImageError for a disk that is not
    there; HostError. In all cases nothing is left of the guest.
    """
    what = f"snapshot {guest_name}/{snapshot_name}"
    with ExitStack() as undo:
        snapshot = undo.enter_context(store.open_snapshot(guest_name, snapshot_name))
        try:
            contents = Contents.from_plain(snapshot.states())
            described = contents.config.disks, contents.disks
            disks = restored_disks(*described, snapshot.metadata, store, overlay)
        except (SnapshotError, ConfigError) as error:
            raise SnapshotError(f"{what}: {error}") from None
        source = replace(contents.config, disks=disks)
        if clock is not None:
            source = replace(source, clock=clock)
        new = name is not None and name != source.name
        keeps = not new if same_identity is None else same_identity
        config = _renamed(host, source, name or source.name, network, keeps=keeps)
        guest = host.create(config)
        undo.callback(guest.delete)

        def load() -> None:
            with host.processors.preparing(guest.machine.model):
                _load(guest.machine, contents, snapshot, host.memory.saved_pages())
            if not keeps:
                guest.machine.begin_generation()

        try:
            guest.enter(load, running=running, reason=f"restored from {what}")
        except SnapshotError as error:
            raise SnapshotError(f"{what}: {error}") from None
        undo.pop_all()
        if not len(snapshot.frames):
            snapshot.close()
        return guest


def _renamed(host: Host, source: GuestConfig, name: str, network: str | None, *, keeps: bool) -> GuestConfig:
    """The configuration of the new guest; whether it `keeps` the identity of the one that was saved."""
    nics = []
    for nic in source.nics:
        free = tuple(text for text in nic.forwards if _is_free(Forward.parse(text)))
        for text in nic.forwards:
            if text not in free:
                host.warn(f"guest {name!r}: forward {text} is left out: the host's port is taken")
        mac = nic.mac if keeps else None
        nics.append(replace(nic, network=network or nic.network, mac=mac, forwards=free))
    identity = source.known_as if keeps and name != source.known_as else None
    variables = source.firmware_variables if name == source.name else None  # the other one's file
    return replace(source, name=name, nics=tuple(nics), identity=identity, firmware_variables=variables)


def _is_free(forward: Forward) -> bool:
    """Whether somebody could listen there now."""
    kind = socket.SOCK_STREAM if forward.protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if forward.host_address.version == 6 else socket.AF_INET
    with closing(socket.socket(family, kind)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(forward.host_address), forward.host_port))
        except OSError:
            return False
    return True


def _load(machine: Machine, contents: Contents, snapshot: Snapshot, lazy: LazyPages) -> None:
    """Let `machine`, which was made by the configuration in `contents`, be where `snapshot` was taken."""
    loader = MemoryLoader(machine.memory, Layout.from_plain(contents.memory, machine.memory))
    if len(snapshot.frames):
        try:
            first = lazy.attach(snapshot)
        except UsageError as error:
            raise SnapshotError(str(error)) from None
        slots = np.arange(first, first + len(snapshot.frames), dtype=np.uint32)
        try:
            loader.place(snapshot.frames, _SAVED | slots)
        except SnapshotError:
            lazy.free(slots.tolist())
            raise
        loader.finish()
    load_machine(machine, contents.machine)
