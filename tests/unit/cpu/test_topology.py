"""What CPUID says to each of several processors."""

import pytest

from emuvisor.cpu.models import CPU_MODELS, DEFAULT_MODEL
from emuvisor.cpu.topology import processor_cpuid

HTT = 1 << 28


def test_a_single_processor_answers_as_its_model():
    cpuid = processor_cpuid(DEFAULT_MODEL, 0, 1)
    for leaf in (0, 1, 4, 0xB, 0x80000008):
        assert cpuid(leaf, 1) == DEFAULT_MODEL.cpuid(leaf, 1)


@pytest.mark.parametrize("name", CPU_MODELS)
def test_each_has_its_apic_id_and_all_know_how_many_there_are(name):
    model = CPU_MODELS[name]
    eax, ebx, ecx, edx = model.cpuid(1, 0)
    for number in range(3):
        assert processor_cpuid(model, number, 3)(1, 0) == (eax, ebx | number << 24 | 4 << 16, ecx, edx | HTT)


def test_the_extended_topology():
    """Linux's detect_extended_topology: threads have no ID bits, the cores of the package have two."""
    cpuid = processor_cpuid(DEFAULT_MODEL, 2, 3)
    assert cpuid(0xB, 0) == (0, 1, 1 << 8, 2)
    assert cpuid(0xB, 1) == (2, 3, 2 << 8 | 1, 2)
    assert cpuid(0xB, 2) == (0, 0, 2, 2)
    assert cpuid(0xB, 0x1FF) == (0, 0, 0xFF, 2)


@pytest.mark.parametrize(("count", "bits"), [(2, 1), (4, 2), (5, 3), (8, 3)])
def test_id_bits_hold_every_id(count, bits):
    cpuid = processor_cpuid(DEFAULT_MODEL, count - 1, count)
    assert cpuid(0xB, 1)[:2] == (bits, count)
    assert cpuid(4, 0)[0] >> 26 == (1 << bits) - 1
    assert cpuid(1, 0)[1] >> 16 & 0xFF == 1 << bits


def test_caches_are_a_cores_own():
    cpuid = processor_cpuid(DEFAULT_MODEL, 0, 2)
    for subleaf, kind in enumerate((1, 2)):
        eax, ebx, ecx, edx = cpuid(4, subleaf)
        assert (eax & 0x1F, eax >> 5 & 7, eax >> 8 & 1, eax >> 14 & 0xFFF) == (kind, 1, 1, 0)
        ways, partitions, line, sets = (ebx >> 22) + 1, (ebx >> 12 & 0x3FF) + 1, (ebx & 0xFFF) + 1, ecx + 1
        assert ways * partitions * line * sets == 32 * 1024
        assert edx == 0
    assert cpuid(4, 2) == (0, 0, 0, 0)


def test_other_leaves_are_the_models():
    cpuid = processor_cpuid(DEFAULT_MODEL, 1, 2)
    for leaf in (0, 7, 0x15, 0x40000000, 0x80000001, 0x12345678):
        assert cpuid(leaf, 0) == DEFAULT_MODEL.cpuid(leaf, 0)


def test_a_model_without_the_leaves_does_not_show_them():
    model = CPU_MODELS["pentium3"]
    cpuid = processor_cpuid(model, 1, 2)
    assert cpuid(4, 0) == cpuid(0xB, 0) == (0, 0, 0, 0)
