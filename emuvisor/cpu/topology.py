"""What CPUID tells a processor about itself among others: a guest's vCPUs are the cores of one package, each with one
thread, and processor n has APIC ID n.

Source: Intel SDM volume 2, CPUID; volume 3, section 9.9.
"""

from collections.abc import Callable
from typing import NamedTuple

from emuvisor.cpu.models import CpuModel

__all__ = ["processor_cpuid"]

FEATURES, CACHES, EXTENDED_TOPOLOGY = 0x01, 0x04, 0x0B

# Leaf 01H
APIC_ID_SHIFT = 24
LOGICAL_PROCESSORS_SHIFT = 16
HTT = 1 << 28
"""EDX: the number of logical processors in EBX holds."""

# Leaf 0BH
THREADS, CORES = range(2)
"""Its sub-leaves, the smallest unit first."""
LEVEL_TYPE_SHIFT = 8
LEVEL_THREADS, LEVEL_CORES = 1, 2
NO_BITS, ONE_THREAD = 0, 1

# Leaf 04H, EAX
CACHE_LEVEL_SHIFT = 5
SELF_INITIALIZING = 1 << 8
CORES_SHIFT = 26


class Cache(NamedTuple):
    """One of a core's own caches, for guests that insist on some; there are none here."""

    kind: int
    """1: data, 2: instructions."""
    level: int
    ways: int
    sets: int


LINE = 64
CORE_CACHES = (Cache(1, 1, 8, 64), Cache(2, 1, 8, 64))
"""32 KiB each."""

Answer = tuple[int, int, int, int]


def processor_cpuid(model: CpuModel, number: int, count: int) -> Callable[[int, int], Answer]:
    """CPUID of processor `number` (from 0 on) of `count`: a function of leaf and sub-leaf with EAX, EBX, ECX, EDX.

    A single processor answers as `model` does.
    """
    if count == 1:
        return model.cpuid
    id_bits = (count - 1).bit_length()

    def features() -> Answer:
        eax, ebx, ecx, edx = model.cpuid(FEATURES, 0)
        ebx |= number << APIC_ID_SHIFT | 1 << id_bits << LOGICAL_PROCESSORS_SHIFT
        return eax, ebx, ecx, edx | HTT

    def caches(subleaf: int) -> Answer:
        if subleaf >= len(CORE_CACHES):
            return 0, 0, 0, 0
        cache = CORE_CACHES[subleaf]
        core_ids = (1 << id_bits) - 1
        eax = cache.kind | cache.level << CACHE_LEVEL_SHIFT | SELF_INITIALIZING | core_ids << CORES_SHIFT
        partitions = 1
        return eax, cache.ways - 1 << 22 | partitions - 1 << 12 | LINE - 1, cache.sets - 1, 0

    def extended_topology(subleaf: int) -> Answer:
        if subleaf == THREADS:
            return NO_BITS, ONE_THREAD, LEVEL_THREADS << LEVEL_TYPE_SHIFT | subleaf, number
        if subleaf == CORES:
            return id_bits, count, LEVEL_CORES << LEVEL_TYPE_SHIFT | subleaf, number
        return 0, 0, subleaf & 0xFF, number

    highest = model.cpuid(0, 0)[0]

    def cpuid(leaf: int, subleaf: int) -> Answer:
        if leaf > highest:
            return model.cpuid(leaf, subleaf)
        if leaf == FEATURES:
            return features()
        if leaf == CACHES:
            return caches(subleaf)
        if leaf == EXTENDED_TOPOLOGY:
            return extended_topology(subleaf)
        return model.cpuid(leaf, subleaf)

    return cpuid
