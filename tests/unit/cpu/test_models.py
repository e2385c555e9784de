"""What CPUID says."""

import pytest

from emuvisor.cpu.models import CPU_MODELS, DEFAULT_MODEL, Leaf1Edx, cpu_model
from emuvisor.errors import ConfigError

every_model = pytest.mark.parametrize("model", CPU_MODELS.values(), ids=CPU_MODELS)
BASIC, EXTENDED = 0, 0x80000000
APIC, MTRR, ARAT = 1 << 9, 1 << 12, 1 << 2


@every_model
def test_the_limits_cover_every_leaf_that_says_something(model):
    assert model.cpuid(BASIC, 0)[0] == (0x16 if model.long_mode else 2)
    assert model.cpuid(0x17, 0) == (0, 0, 0, 0)
    assert model.cpuid(EXTENDED, 0)[0] >= 0x80000004


@every_model
def test_the_brand_is_its_name(model):
    words = [word for part in range(3) for word in model.cpuid(0x80000002 + part, 0)]
    assert (
        b"".join(word.to_bytes(4, "little") for word in words).rstrip(b"\0")
        == f"emuvisor {model.name}".encode()
    )


@every_model
def test_an_apic_is_shown_where_the_board_has_one(model):
    signature, ebx, ecx, edx = model.cpuid(1, 0)
    assert not edx & APIC
    assert model.cpuid(6, 0) == (0, 0, 0, 0)
    shown = model.with_apic()
    assert shown.cpuid(1, 0) == (signature, ebx, ecx, edx | APIC)
    assert ebx >> 24 == 0, "initial APIC ID"
    assert shown.cpuid(6, 0) == (ARAT, 0, 0, 0), "its timer never stops"
    assert (shown.name, shown.engine) == (model.name, model.engine)
    assert not model.edx & Leaf1Edx.APIC, "the model itself is as it was"


def test_mtrrs_belong_to_the_64_bit_models():
    assert {name: bool(model.cpuid(1, 0)[3] & MTRR) for name, model in CPU_MODELS.items()} == {
        "emu64": True,
        "haswell": True,
        "broadwell": True,
        "pentium3": False,
    }


def test_the_clocks_as_linux_computes_them():
    """native_calibrate_tsc: the TSC in kHz and the local APIC timer's ticks in a jiffy, here of 4 ms."""
    denominator, numerator, crystal_hz, _ = DEFAULT_MODEL.cpuid(0x15, 0)
    crystal_khz = crystal_hz // 1000
    assert crystal_khz * numerator // denominator == 1_000_000
    assert crystal_khz * 1000 // 250 == 4_000_000
    assert DEFAULT_MODEL.cpuid(0x16, 0) == (1000, 1000, 100, 0)


def test_leaf_7_has_one_subleaf():
    assert DEFAULT_MODEL.cpuid(7, 0)[1] & 0b11 == 0b11, "FSGSBASE and TSC_ADJUST"
    assert DEFAULT_MODEL.cpuid(7, 1) == (0, 0, 0, 0)


def signature(model, base):
    """By what a hypervisor is known there."""
    return b"".join(word.to_bytes(4, "little") for word in model.cpuid(base, 0)[1:])


def test_a_hypervisor_is_there():
    assert DEFAULT_MODEL.cpuid(1, 0)[2] >> 31
    assert signature(DEFAULT_MODEL, 0x40000000) == b"emuvisor\0\0\0\0"


@every_model
def test_kvms_interface_as_linux_finds_it(model):
    """hypervisor_cpuid_base looks in steps of 100h; of the features there is steal time, and no hint."""
    bases = range(0x40000000, 0x40010000, 0x100)
    found = [base for base in bases if signature(model, base) == b"KVMKVMKVM\0\0\0"]
    assert found == [0x40000100]
    assert model.cpuid(found[0], 0)[0] == found[0] + 1
    assert model.cpuid(found[0] + 1, 0) == (1 << 5, 0, 0, 0)
    assert model.cpuid(found[0] + 0x10, 0) == (0, 0, 0, 0), "the frequencies are in leaves 15H and 16H"


def test_models_by_name():
    assert cpu_model("emu64") is DEFAULT_MODEL
    with pytest.raises(ConfigError) as error:
        cpu_model("z80")
    assert str(error.value) == "no CPU model 'z80'; there are emu64, haswell, broadwell, pentium3"
