"""CPU models by name: what CPUID tells the guest (Intel SDM vol. 2, CPUID).

A model never shows what the engine or the machine cannot do: AVX, MONITOR, XSAVE, x2APIC, the TSC deadline timer
and MCE; nor what would mislead: enhanced REP MOVSB, which is slow here. The local APIC is the board's: `with_apic`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntFlag

from emuvisor.errors import ConfigError

__all__ = ["CPU_MODELS", "DEFAULT_MODEL", "TSC_HZ", "CpuModel", "cpu_model"]

TSC_HZ = 1_000_000_000
"""The time stamp counter counts nanoseconds of guest time."""

CRYSTAL_HZ = TSC_HZ
"""What the local APIC's timer counts at; kernels take it from leaf 15H and do not calibrate."""
HYPERVISOR_SIGNATURE = b"emuvisor\0\0\0\0"
KVM_SIGNATURE = b"KVMKVMKVM\0\0\0"
KVM_FEATURE_STEAL_TIME = 1 << 5  # CPUID.40000101H:EAX
ADDRESS_BITS = 48 << 8 | 40  # linear, physical


class Leaf1Edx(IntFlag):
    """CPUID.01H:EDX."""

    FPU = 1 << 0
    DE = 1 << 2
    PSE = 1 << 3
    TSC = 1 << 4
    MSR = 1 << 5
    PAE = 1 << 6
    CX8 = 1 << 8
    APIC = 1 << 9
    SEP = 1 << 11
    MTRR = 1 << 12
    PGE = 1 << 13
    CMOV = 1 << 15
    PAT = 1 << 16
    PSE36 = 1 << 17
    CLFLUSH = 1 << 19
    MMX = 1 << 23
    FXSR = 1 << 24
    SSE = 1 << 25
    SSE2 = 1 << 26


class Leaf1Ecx(IntFlag):
    """CPUID.01H:ECX."""

    SSE3 = 1 << 0
    PCLMULQDQ = 1 << 1
    SSSE3 = 1 << 9
    CX16 = 1 << 13
    SSE41 = 1 << 19
    SSE42 = 1 << 20
    MOVBE = 1 << 22
    POPCNT = 1 << 23
    AES = 1 << 25
    RDRAND = 1 << 30
    HYPERVISOR = 1 << 31


class Leaf7Ebx(IntFlag):
    """CPUID.(07H,0):EBX."""

    FSGSBASE = 1 << 0
    TSC_ADJUST = 1 << 1
    BMI1 = 1 << 3
    SMEP = 1 << 7
    BMI2 = 1 << 8
    ADX = 1 << 19
    SMAP = 1 << 20


class ExtendedEdx(IntFlag):
    """CPUID.80000001H:EDX."""

    SYSCALL = 1 << 11
    NX = 1 << 20
    PDPE1GB = 1 << 26
    RDTSCP = 1 << 27
    LM = 1 << 29


class ExtendedEcx(IntFlag):
    """CPUID.80000001H:ECX."""

    LAHF_LM = 1 << 0
    ABM = 1 << 5


ARAT = 1 << 2  # CPUID.06H:EAX, the local APIC's timer never stops
INVARIANT_TSC = 1 << 8  # CPUID.80000007H:EDX

_BASE_EDX = (
    Leaf1Edx.FPU | Leaf1Edx.DE | Leaf1Edx.PSE | Leaf1Edx.TSC | Leaf1Edx.MSR | Leaf1Edx.PAE | Leaf1Edx.CX8
    | Leaf1Edx.SEP | Leaf1Edx.PGE | Leaf1Edx.CMOV | Leaf1Edx.PAT | Leaf1Edx.PSE36 | Leaf1Edx.MMX
    | Leaf1Edx.FXSR | Leaf1Edx.SSE
)  # fmt: skip
_V2_ECX = (
    Leaf1Ecx.SSE3 | Leaf1Ecx.PCLMULQDQ | Leaf1Ecx.SSSE3 | Leaf1Ecx.CX16 | Leaf1Ecx.SSE41 | Leaf1Ecx.SSE42
    | Leaf1Ecx.MOVBE | Leaf1Ecx.POPCNT | Leaf1Ecx.AES | Leaf1Ecx.HYPERVISOR
)  # fmt: skip
_HASWELL_EBX = Leaf7Ebx.FSGSBASE | Leaf7Ebx.TSC_ADJUST | Leaf7Ebx.BMI1 | Leaf7Ebx.SMEP | Leaf7Ebx.BMI2
_LONG_EDX = (
    ExtendedEdx.SYSCALL | ExtendedEdx.NX | ExtendedEdx.PDPE1GB | ExtendedEdx.RDTSCP | ExtendedEdx.LM
)  # fmt: skip
_LONG_ECX = ExtendedEcx.LAHF_LM | ExtendedEcx.ABM

_ENGINE_PENTIUM3, _ENGINE_HASWELL, _ENGINE_BROADWELL = 10, 19, 20  # uc_cpu_x86


def _signature(family: int, model: int, stepping: int) -> int:
    return (model >> 4) << 16 | family << 8 | (model & 15) << 4 | stepping


@dataclass(frozen=True, slots=True)
class CpuModel:
    """A named processor. `engine` is Unicorn's number of the model whose instructions it executes."""

    name: str
    description: str
    engine: int
    signature: int
    edx: Leaf1Edx
    ecx: Leaf1Ecx
    ebx7: Leaf7Ebx
    extended_edx: ExtendedEdx
    extended_ecx: ExtendedEcx

    @property
    def long_mode(self) -> bool:
        """Whether it has 64-bit mode."""
        return bool(self.extended_edx & ExtendedEdx.LM)

    def with_apic(self) -> "CpuModel":
        """The same processor on a board with a local APIC; its initial APIC ID is 0. See `topology` for several."""
        return replace(self, edx=self.edx | Leaf1Edx.APIC)

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX, EDX of CPUID with EAX=`leaf` and ECX=`subleaf`; zeros for a leaf that does not exist."""
        answer = _LEAVES.get(leaf)
        return answer(self, subleaf) if answer is not None else (0, 0, 0, 0)


Answer = tuple[int, int, int, int]


def _words(text: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(text[i : i + 4], "little") for i in range(0, len(text), 4))


def _vendor(model: CpuModel, _subleaf: int) -> Answer:
    b, d, c = _words(b"GenuineIntel")
    return (0x16 if model.long_mode else 2), b, c, d


def _features(model: CpuModel, _subleaf: int) -> Answer:
    clflush_line = 8 << 8  # in units of 8 bytes
    return model.signature, clflush_line, int(model.ecx), int(model.edx)


def _structured(model: CpuModel, subleaf: int) -> Answer:
    return (0, int(model.ebx7), 0, 0) if subleaf == 0 else (0, 0, 0, 0)


def _thermal_and_power(model: CpuModel, _subleaf: int) -> Answer:
    return ARAT if model.edx & Leaf1Edx.APIC else 0, 0, 0, 0


def _crystal(_model: CpuModel, _subleaf: int) -> Answer:
    return 1, TSC_HZ // CRYSTAL_HZ, CRYSTAL_HZ, 0


def _frequency(_model: CpuModel, _subleaf: int) -> Answer:
    return TSC_HZ // 1_000_000, TSC_HZ // 1_000_000, 100, 0


def _hypervisor(_model: CpuModel, _subleaf: int) -> Answer:
    b, c, d = _words(HYPERVISOR_SIGNATURE)
    return 0x40000000, b, c, d


def _kvm(_model: CpuModel, _subleaf: int) -> Answer:
    """The paravirtual interface that kernels know best (Linux, Documentation/virt/kvm/x86/cpuid.rst). They look for it
    in steps of 100H; at 40000000H programs ask what they really run on."""
    b, c, d = _words(KVM_SIGNATURE)
    return 0x40000101, b, c, d


def _kvm_features(_model: CpuModel, _subleaf: int) -> Answer:
    return KVM_FEATURE_STEAL_TIME, 0, 0, 0


def _extended_limit(model: CpuModel, _subleaf: int) -> Answer:
    return (0x80000008 if model.long_mode else 0x80000004), 0, 0, 0


def _extended(model: CpuModel, _subleaf: int) -> Answer:
    return 0, 0, int(model.extended_ecx), int(model.extended_edx)


def _brand(part: int) -> Callable[[CpuModel, int], Answer]:
    def answer(model: CpuModel, _subleaf: int) -> Answer:
        text = f"emuvisor {model.name}".encode().ljust(48, b"\0")
        a, b, c, d = _words(text[16 * part : 16 * part + 16])
        return a, b, c, d

    return answer


def _power(_model: CpuModel, _subleaf: int) -> Answer:
    return 0, 0, 0, INVARIANT_TSC


def _addresses(_model: CpuModel, _subleaf: int) -> Answer:
    return ADDRESS_BITS, 0, 0, 0


_LEAVES: dict[int, Callable[[CpuModel, int], Answer]] = {
    0x00000000: _vendor,
    0x00000001: _features,
    0x00000006: _thermal_and_power,
    0x00000007: _structured,
    0x00000015: _crystal,
    0x00000016: _frequency,
    0x40000000: _hypervisor,
    0x40000100: _kvm,
    0x40000101: _kvm_features,
    0x80000000: _extended_limit,
    0x80000001: _extended,
    0x80000002: _brand(0),
    0x80000003: _brand(1),
    0x80000004: _brand(2),
    0x80000007: _power,
    0x80000008: _addresses,
}

DEFAULT_MODEL = CpuModel(
    name="emu64",
    description="64-bit, SSE4.2, AES, BMI; an in-order core, so that no kernel guards against speculation",
    engine=_ENGINE_HASWELL,
    signature=_signature(6, 0x36, 1),
    edx=_BASE_EDX | Leaf1Edx.SSE2 | Leaf1Edx.CLFLUSH | Leaf1Edx.MTRR,
    ecx=_V2_ECX,
    ebx7=_HASWELL_EBX,
    extended_edx=_LONG_EDX,
    extended_ecx=_LONG_ECX,
)
CPU_MODELS = {
    model.name: model
    for model in (
        DEFAULT_MODEL,
        CpuModel(
            name="haswell",
            description="64-bit, as emu64 but called a Haswell: kernels turn their mitigations on",
            engine=_ENGINE_HASWELL,
            signature=_signature(6, 0x3C, 4),
            edx=DEFAULT_MODEL.edx,
            ecx=_V2_ECX,
            ebx7=_HASWELL_EBX,
            extended_edx=_LONG_EDX,
            extended_ecx=_LONG_ECX,
        ),
        CpuModel(
            name="broadwell",
            description="64-bit, as haswell with SMAP and ADX",
            engine=_ENGINE_BROADWELL,
            signature=_signature(6, 0x3D, 4),
            edx=DEFAULT_MODEL.edx,
            ecx=_V2_ECX,
            ebx7=_HASWELL_EBX | Leaf7Ebx.SMAP | Leaf7Ebx.ADX,
            extended_edx=_LONG_EDX,
            extended_ecx=_LONG_ECX,
        ),
        CpuModel(
            name="pentium3",
            description="32-bit, SSE",
            engine=_ENGINE_PENTIUM3,
            signature=_signature(6, 7, 3),
            edx=_BASE_EDX,
            ecx=Leaf1Ecx.HYPERVISOR,
            ebx7=Leaf7Ebx(0),
            extended_edx=ExtendedEdx(0),
            extended_ecx=ExtendedEcx(0),
        ),
    )
}


def cpu_model(name: str) -> CpuModel:
    """The model called `name`. Raises ConfigError listing the models."""
    try:
        return CPU_MODELS[name]
    except KeyError:
        raise ConfigError(f"no CPU model {name!r}; there are {', '.join(CPU_MODELS)}") from None
