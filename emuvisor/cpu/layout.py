"""Between `CpuState` and the bytes that Unicorn keeps a processor in.

The offsets are those of `core/env.h`, which says what each field is; the C core verifies them against the
engine at start.
"""

import struct
from typing import Final

from emuvisor.cpu.registers import (
    CR0_EM,
    CR0_MP,
    CR0_PE,
    CR0_TS,
    CR4_OSFXSR,
    CR4_SMAP,
    FLAG_DF,
    FLAG_FIXED,
    FLAGS_ARITHMETIC,
    SEG_BIG,
    SEG_LONG,
    in_long_mode,
    in_vm86,
)
from emuvisor.cpu.state import CpuState, DescriptorTable, Fpu, Mtrrs, Segment
from emuvisor.errors import UsageError

__all__ = ["CONTEXT_SIZE", "hidden_flags", "pack", "unpack"]

CONTEXT_SIZE: Final = 5568
"""Bytes of one packed state."""

GENERAL_REGISTERS: Final = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
SEGMENT_REGISTERS: Final = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")

_SEGMENT: Final = struct.Struct("<I4xQII")
_FLAGS: Final = struct.Struct("<QQQQIi")
"""eflags, cc_dst, cc_src, cc_src2, cc_op, df"""
_CC_SRC_HOLDS_FLAGS: Final = 1
_ST: Final = struct.Struct("<QH")

_AT_FLAGS: Final = 136
_AT_HFLAGS: Final = 176
_AT_HFLAGS2: Final = 180
_AT_SEGMENTS: Final = 184
_AT_GDTR: Final = 376
_AT_IDTR: Final = 400
_AT_A20_MASK: Final = 496
_AT_FPSTT: Final = 604
_AT_FPUS: Final = 608
_AT_FPTAGS: Final = 612
_AT_FPREGS: Final = 624
_AT_XMM: Final = 824
_XMM_STRIDE: Final = 64
_AT_MTRRS: Final = 4928
_MTRRS: Final = struct.Struct("<11QQ16Q")
_AT_OLD_EXCEPTION: Final = 5496
_NO_EXCEPTION: Final = -1
_A20_BIT: Final = 1 << 20
_FSW_TOP: Final = 7 << 11
_FSW_TOP_SHIFT: Final = 11

_SCALARS: Final = {
    **{name: ("<Q", 8 * i) for i, name in enumerate(GENERAL_REGISTERS)},
    "rip": ("<Q", 128),
    "cr0": ("<Q", 424),
    "cr2": ("<Q", 440),
    "cr3": ("<Q", 448),
    "cr4": ("<Q", 456),
    "efer": ("<Q", 592),
    "sysenter_cs": ("<I", 4800),
    "sysenter_esp": ("<Q", 4808),
    "sysenter_eip": ("<Q", 4816),
    "star": ("<Q", 4824),
    "lstar": ("<Q", 4840),
    "cstar": ("<Q", 4848),
    "fmask": ("<Q", 4856),
    "kernel_gs_base": ("<Q", 4864),
    "tsc_adjust": ("<Q", 4880),
    "tsc_aux": ("<Q", 4896),
    "misc_enable": ("<Q", 4920),
    "pat": ("<Q", 5280),
    "steal_time": ("<Q", 5328),
    "dr0": ("<Q", 5400),
    "dr1": ("<Q", 5408),
    "dr2": ("<Q", 5416),
    "dr3": ("<Q", 5424),
    "dr6": ("<Q", 5448),
    "dr7": ("<Q", 5456),
}
"""Attribute of CpuState: struct format, offset."""

_FPU_SCALARS: Final = {
    "fcw": ("<H", 610),
    "fop": ("<H", 752),
    "fcs": ("<H", 754),
    "fds": ("<H", 756),
    "fip": ("<Q", 760),
    "fdp": ("<Q", 768),
    "mxcsr": ("<I", 816),
}

# hflags, by Unicorn's names
_HF_INHIBIT_IRQ: Final = 1 << 3
_HF_CS32: Final = 1 << 4
_HF_SS32: Final = 1 << 5
_HF_ADDSEG: Final = 1 << 6
_HF_PE: Final = 1 << 7
_HF_MP: Final = 1 << 9
_HF_EM: Final = 1 << 10
_HF_TS: Final = 1 << 11
_HF_LMA: Final = 1 << 14
_HF_CS64: Final = 1 << 15
_HF_OSFXSR: Final = 1 << 22
_HF_SMAP: Final = 1 << 23
_HF_FROM_RFLAGS: Final = 1 << 8 | 3 << 12 | 1 << 16 | 1 << 17 | 1 << 18
"""TF, IOPL, RF, VM, AC: 0 here, because Unicorn ORs them in from RFLAGS at every block."""
_HF_KNOWN: Final = (
    0xFF | _HF_MP | _HF_EM | _HF_TS | _HF_LMA | _HF_CS64 | _HF_OSFXSR | _HF_SMAP | _HF_FROM_RFLAGS
)

_HF2_NMI: Final = 1 << 2
"""hflags2: NMIs are blocked."""


def hidden_flags(state: CpuState) -> int:
    """Unicorn's `hflags`: what translated code depends on, computed from the visible state.

    In 64-bit code CS32 and SS32 are set and ADDSEG is clear; in real mode, VM86 and 16-bit code ADDSEG is
    set; elsewhere it tells that DS, ES or SS has a base.
    """
    conditions = (
        (_HF_INHIBIT_IRQ, state.interrupt_shadow),
        (_HF_PE, state.cr0 & CR0_PE),
        (_HF_MP, state.cr0 & CR0_MP),
        (_HF_EM, state.cr0 & CR0_EM),
        (_HF_TS, state.cr0 & CR0_TS),
        (_HF_OSFXSR, state.cr4 & CR4_OSFXSR),
        (_HF_SMAP, state.cr4 & CR4_SMAP),
        (_HF_LMA, in_long_mode(state.efer)),
    )
    hflags = state.cpl | sum(bit for bit, condition in conditions if condition)
    if in_long_mode(state.efer) and state.cs.flags & SEG_LONG:
        return hflags | _HF_CS64 | _HF_CS32 | _HF_SS32
    code32 = bool(state.cs.flags & SEG_BIG)
    based = state.ds.base or state.es.base or state.ss.base
    if not state.cr0 & CR0_PE or in_vm86(state.cr0, state.rflags) or not code32 or based:
        hflags |= _HF_ADDSEG
    if code32:
        hflags |= _HF_CS32
    if state.ss.flags & SEG_BIG:
        hflags |= _HF_SS32
    return hflags


def pack(state: CpuState, into: bytearray | None = None) -> bytearray:
    """The state as Unicorn keeps it, `CONTEXT_SIZE` bytes.

    `into` is a packed state to overwrite: what `CpuState` does not know of (rounding modes derived from FCW
    and MXCSR, wider vector registers) stays. Raises UsageError when it has another size.
    """
    env = bytearray(CONTEXT_SIZE) if into is None else into
    _check_size(env)
    for name, (form, at) in _SCALARS.items():
        struct.pack_into(form, env, at, getattr(state, name))
    flags = state.rflags
    struct.pack_into(
        _FLAGS.format,
        env,
        _AT_FLAGS,
        flags & ~(FLAGS_ARITHMETIC | FLAG_DF) | FLAG_FIXED,
        0,
        flags & FLAGS_ARITHMETIC,
        0,
        _CC_SRC_HOLDS_FLAGS,
        -1 if flags & FLAG_DF else 1,
    )
    (other,) = struct.unpack_from("<I", env, _AT_HFLAGS)
    struct.pack_into("<I", env, _AT_HFLAGS, other & ~_HF_KNOWN | hidden_flags(state))
    (other,) = struct.unpack_from("<I", env, _AT_HFLAGS2)
    struct.pack_into("<I", env, _AT_HFLAGS2, other & ~_HF2_NMI | (_HF2_NMI if state.nmi_blocked else 0))
    for i, name in enumerate(SEGMENT_REGISTERS):
        segment: Segment = getattr(state, name)
        at = _AT_SEGMENTS + i * _SEGMENT.size
        _SEGMENT.pack_into(env, at, segment.selector, segment.base, segment.limit, segment.flags)
    _SEGMENT.pack_into(env, _AT_GDTR, 0, state.gdtr.base, state.gdtr.limit, 0)
    _SEGMENT.pack_into(env, _AT_IDTR, 0, state.idtr.base, state.idtr.limit, 0)
    struct.pack_into("<i", env, _AT_A20_MASK, -1 if state.a20 else ~_A20_BIT)
    struct.pack_into("<i", env, _AT_OLD_EXCEPTION, _NO_EXCEPTION)
    mtrrs = state.mtrrs
    _MTRRS.pack_into(env, _AT_MTRRS, *mtrrs.fixed, mtrrs.default_type, *mtrrs.variable)
    _pack_fpu(state.fpu, env)
    return env


def _pack_fpu(fpu: Fpu, env: bytearray) -> None:
    for name, (form, at) in _FPU_SCALARS.items():
        struct.pack_into(form, env, at, getattr(fpu, name))
    struct.pack_into("<I", env, _AT_FPSTT, fpu.fsw >> _FSW_TOP_SHIFT & 7)
    struct.pack_into("<H", env, _AT_FPUS, fpu.fsw & ~_FSW_TOP)
    for i in range(8):
        env[_AT_FPTAGS + i] = not fpu.ftw >> i & 1
        _ST.pack_into(env, _AT_FPREGS + 16 * i, fpu.st[i] & (1 << 64) - 1, fpu.st[i] >> 64)
    for i, value in enumerate(fpu.xmm):
        at = _AT_XMM + _XMM_STRIDE * i
        env[at : at + 16] = value.to_bytes(16, "little")


def unpack(env: bytes | bytearray | memoryview) -> CpuState:
    """The state that `pack` made of it or that the engine left; what waits beside it (`halted`, `nmi_pending`,
    `event`) is the vCPU's to add.

    Raises UsageError for another size, and when the engine has left RFLAGS in the lazy form that only Unicorn
    can evaluate.
    """
    _check_size(env)
    eflags, _, cc_src, _, cc_op, df = _FLAGS.unpack_from(env, _AT_FLAGS)
    if cc_op != _CC_SRC_HOLDS_FLAGS:
        raise UsageError(f"packed CPU state: its flags are not evaluated (cc_op is {cc_op}, not 1)")
    (hflags,) = struct.unpack_from("<I", env, _AT_HFLAGS)
    state = CpuState(
        rflags=eflags | cc_src & FLAGS_ARITHMETIC | (FLAG_DF if df < 0 else 0) | FLAG_FIXED,
        interrupt_shadow=bool(hflags & _HF_INHIBIT_IRQ),
        nmi_blocked=bool(struct.unpack_from("<I", env, _AT_HFLAGS2)[0] & _HF2_NMI),
        mtrrs=_unpack_mtrrs(env),
        a20=struct.unpack_from("<i", env, _AT_A20_MASK)[0] == -1,
        gdtr=_unpack_table(env, _AT_GDTR),
        idtr=_unpack_table(env, _AT_IDTR),
        fpu=_unpack_fpu(env),
    )
    for name, (form, at) in _SCALARS.items():
        setattr(state, name, struct.unpack_from(form, env, at)[0])
    for i, name in enumerate(SEGMENT_REGISTERS):
        setattr(state, name, Segment(*_SEGMENT.unpack_from(env, _AT_SEGMENTS + i * _SEGMENT.size)))
    return state


def _unpack_table(env: bytes | bytearray | memoryview, at: int) -> DescriptorTable:
    _, base, limit, _ = _SEGMENT.unpack_from(env, at)
    return DescriptorTable(base, limit)


def _unpack_mtrrs(env: bytes | bytearray | memoryview) -> Mtrrs:
    values = list(_MTRRS.unpack_from(env, _AT_MTRRS))
    return Mtrrs(fixed=values[:11], default_type=values[11], variable=values[12:])


def _unpack_fpu(env: bytes | bytearray | memoryview) -> Fpu:
    scalars = {name: struct.unpack_from(form, env, at)[0] for name, (form, at) in _FPU_SCALARS.items()}
    (top,) = struct.unpack_from("<I", env, _AT_FPSTT)
    (fpus,) = struct.unpack_from("<H", env, _AT_FPUS)
    registers = [_ST.unpack_from(env, _AT_FPREGS + 16 * i) for i in range(8)]
    vectors = (bytes(env[at : at + 16]) for at in range(_AT_XMM, _AT_XMM + 16 * _XMM_STRIDE, _XMM_STRIDE))
    return Fpu(
        fsw=fpus & ~_FSW_TOP | (top & 7) << _FSW_TOP_SHIFT,
        ftw=sum(1 << i for i in range(8) if not env[_AT_FPTAGS + i]),
        st=[mantissa | exponent << 64 for mantissa, exponent in registers],
        xmm=[int.from_bytes(vector, "little") for vector in vectors],
        **scalars,
    )


def _check_size(env: bytes | bytearray | memoryview) -> None:
    if len(env) != CONTEXT_SIZE:
        raise UsageError(f"packed CPU state: {len(env)} bytes, it must have {CONTEXT_SIZE}")
