"""Clones: guests that go on from another one's checkpoint, in the same host. docs/clones.md."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

from emuvisor.host.garbage import no_garbage
from emuvisor.host.states import GuestState
from emuvisor.machine.config import USER_NETWORK, DiskConfig, GuestConfig, NicConfig

if TYPE_CHECKING:
    from emuvisor.devices.storage.layered import Frozen
    from emuvisor.host.checkpoint import Checkpoint
    from emuvisor.host.guest import Guest
    from emuvisor.host.host import Host

__all__ = ["clone_config", "make_clones"]


def make_clones(
    host: "Host", checkpoint: "Checkpoint", names: Sequence[str], *, same_identity: bool, running: bool
) -> list["Guest"]:
    """A clone of `checkpoint` for each of `names`, as `Host.clone` says. When all are made, they begin to run.

    Raises as `Host.clone`; then none is left.
    """
    made: list[Guest] = []
    with no_garbage(), host.memory.gathered():
        try:
            for name in names:
                made.append(_make_clone(host, checkpoint, name, same_identity))
        except BaseException:
            for guest in made:
                guest.delete()
            raise
        if running:
            _resume(host, made)
    return made


def _resume(host: "Host", guests: Sequence["Guest"]) -> None:
    """Let them run, all at once: what the first ones would wait while the others are queued, the scheduler would count
    as time that they have had, and a crowd takes minutes to make up for that."""
    with host.lock:
        for guest in guests:
            if guest.state is GuestState.PAUSED and not guest.loading:  # unless somebody uses it already
                host.make_runnable(guest, "resumed")


def _make_clone(host: "Host", checkpoint: "Checkpoint", name: str, same_identity: bool) -> "Guest":
    """A paused one."""
    checkpoint.check(name, checkpoint.config)
    config = clone_config(host, checkpoint.config, name, checkpoint.disks, same_identity=same_identity)
    guest = host.create(config, frozen=checkpoint.disks)

    def take_over() -> None:
        with host.lock:  # nobody closes the checkpoint meanwhile
            checkpoint.put_into(name, guest.machine)
        if not same_identity:
            guest.machine.begin_generation()

    try:
        guest.enter(take_over, running=False, reason=f"cloned from guest {checkpoint.guest!r}")
    except BaseException:
        guest.delete()
        raise
    for number, nic in enumerate(checkpoint.config.nics):
        if nic.network == USER_NETWORK:  # its own: it can go on with the address that its kernel knows
            host.networks.tolerate(name, number, nic.address(checkpoint.config.known_as, number))
    return guest


def clone_config(
    host: "Host", source: GuestConfig, name: str, disks: "Sequence[Frozen | None]", *, same_identity: bool
) -> GuestConfig:
    """The configuration of a clone called `name` of a guest with configuration `source` and these frozen `disks`.
    Raises ConfigError for a name that is none."""
    nics = source.nics
    if same_identity:
        nics = tuple(replace(nic, forwards=()) for nic in nics)
    else:
        nics = tuple(
            replace(nic, forwards=(), mac=_new_address(host, nic, name, number))
            for number, nic in enumerate(nics)
        )
    return replace(
        source,
        name=name,
        identity=source.known_as if same_identity else None,
        nics=nics,
        disks=tuple(map(_disk, source.disks, disks)),
        firmware_variables=None,
    )


def _disk(disk: DiskConfig, frozen: "Frozen | None") -> DiskConfig:
    """As the clone has it: what it writes is forgotten with it."""
    if frozen is None or disk.kind != "disk":
        return disk
    return replace(disk, overlay="temporary")


def _new_address(host: "Host", nic: NicConfig, name: str, number: int) -> str:
    """A MAC address for card `number` of guest `name`, made of its name, that nobody on its network has."""
    taken = set() if nic.network == USER_NETWORK else host.networks.addresses(nic.network)
    own = replace(nic, mac=None)
    addresses = (own.address(f"{name}+{attempt}" if attempt else name, number) for attempt in count())
    return next(address for address in addresses if address not in taken).hex(":")
