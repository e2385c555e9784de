"""What a guest claims of its host goes along as it is now, not as it was when the guest was made."""

from dataclasses import fields, replace
from typing import Any

from emuvisor.host.guest import Guest
from emuvisor.machine.config import GuestConfig

__all__ = ["ask_for_size", "present_config"]


def present_config(guest: Guest) -> GuestConfig:
    """The configuration of `guest` with its present claims to pCPUs and memory, and the present limits of its disks and
    network cards. A reservation above the memory that it boots with is cut down to that."""
    cpu, memory, config = guest.cpu_claim, guest.contract, guest.config
    backends = guest.host.backends
    cards = () if guest.machine.virtio is None else guest.machine.virtio.nics
    limit = memory.limit
    return replace(
        config,
        cpu_weight=cpu.weight,
        cpu_cap=cpu.cap,
        cpu_reservation=cpu.reservation,
        cpu_limit=cpu.limit,
        cpu_affinity=None if cpu.affinity is None else tuple(sorted(cpu.affinity)),
        cpu_period_us=cpu.period_us,
        cpu_latency_us=cpu.latency_us,
        memory_reservation=min(memory.reservation, config.memory),
        memory_limit=None if limit is None or limit >= memory.size else limit,
        memory_shares=memory.shares,
        memory_priority=memory.priority,
        disks=tuple(
            replace(
                disk,
                shares=backends.shares(guest.name, drive, disk.shares),
                **_rates(drive.meter.throttle.limits),
            )
            if drive.kind == "disk"
            else disk
            for disk, drive in zip(config.disks, guest.machine.drives, strict=True)
        ),
        nics=tuple(
            replace(nic, **_rates(card.meter.throttle.limits))
            for nic, card in zip(config.nics, cards, strict=True)
        ),
    )


def _rates(limits: Any) -> dict[str, Any]:
    return {f.name: getattr(limits, f.name) for f in fields(limits)}


def ask_for_size(guest: Guest) -> None:
    """The host promises `guest` the size that it was asked to have where it comes from. Raises AdmissionError."""
    device = None if guest.machine.virtio is None else guest.machine.virtio.mem
    if device is not None:
        guest.claim_size(guest.config.memory + device.requested_size)
