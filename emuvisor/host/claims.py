"""What a guest's configuration claims of its host."""

from emuvisor.host.memory.contract import MemoryContract
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.machine.config import GuestConfig

__all__ = ["contract_of", "cpu_claim_of"]


def contract_of(config: GuestConfig) -> MemoryContract:
    """What `config` claims of the host's memory. Raises UsageError for numbers that contradict each other."""
    return MemoryContract(
        size=config.memory,
        reservation=config.memory_reservation,
        limit=config.memory_limit,
        shares=config.memory_shares,
        priority=config.memory_priority,
    )


def cpu_claim_of(config: GuestConfig) -> CpuClaim:
    """What `config` claims of the host's pCPUs. Raises UsageError for impossible numbers."""
    return CpuClaim(
        weight=config.cpu_weight,
        cap=config.cpu_cap,
        reservation=config.cpu_reservation,
        limit=config.cpu_limit,
        affinity=None if config.cpu_affinity is None else frozenset(config.cpu_affinity),
        period_us=config.cpu_period_us,
        latency_us=config.cpu_latency_us,
    )
