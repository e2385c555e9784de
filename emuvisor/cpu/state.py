"""The architectural state of one x86 processor as one typed object."""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from emuvisor.cpu.reference.faults import Event
from emuvisor.cpu.registers import CR0_CD, CR0_NW

__all__ = ["CpuState", "DescriptorTable", "Fpu", "Mtrrs", "Segment"]

_KEPT_BY_INIT: Final = (
    *("fpu", "star", "lstar", "cstar", "fmask", "kernel_gs_base"),
    *(
        "sysenter_cs",
        "sysenter_esp",
        "sysenter_eip",
        "pat",
        "tsc_adjust",
        "tsc_aux",
        "misc_enable",
        "mtrrs",
        "a20",
    ),
)
"""What INIT leaves alone besides CR0.CD and CR0.NW (Intel SDM vol. 3, table 10-1); A20 is the chipset's."""


@dataclass(slots=True)
class Segment:
    """A segment register with its hidden descriptor cache.

    `flags` are bits 8 to 23 of the descriptor's high doubleword, in place: type (11:8), S (12), DPL (14:13),
    P (15), AVL (20), L (21), D/B (22), G (23). `limit` is in bytes, with the granularity applied.
    """

    selector: int = 0
    base: int = 0
    limit: int = 0
    flags: int = 0


@dataclass(slots=True)
class DescriptorTable:
    """GDTR or IDTR."""

    base: int = 0
    limit: int = 0


@dataclass(slots=True)
class Fpu:
    """x87, MMX and SSE. `st` are the eight physical registers (not stack-relative), 80 bits each."""

    fcw: int = 0x37F
    fsw: int = 0
    ftw: int = 0xFF
    """Abridged tag byte as FXSAVE stores it: bit i is 1 where physical register i is in use."""
    st: list[int] = field(default_factory=lambda: [0] * 8)
    mxcsr: int = 0x1F80
    xmm: list[int] = field(default_factory=lambda: [0] * 16)
    fop: int = 0
    """Opcode of the last x87 instruction that was no control instruction, as far as the engine notes it; then where it
    was and where its operand in memory was, with their selectors (Intel SDM vol. 1, 8.1.8)."""
    fip: int = 0
    fcs: int = 0
    fdp: int = 0
    fds: int = 0


@dataclass(slots=True)
class Mtrrs:
    """Memory type range registers (Intel SDM vol. 3, 12.11): as written; nothing here has a cache to obey them.

    `fixed` are the eleven fixed ranges by ascending address, `variable` eight pairs of base and mask.
    """

    fixed: list[int] = field(default_factory=lambda: [0] * 11)
    default_type: int = 0
    variable: list[int] = field(default_factory=lambda: [0] * 16)


@dataclass(slots=True)
class CpuState:
    """Everything that the guest can see of its processor. A new one is as after reset."""

    rax: int = 0
    rcx: int = 0
    rdx: int = 0
    rbx: int = 0
    rsp: int = 0
    rbp: int = 0
    rsi: int = 0
    rdi: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0
    rip: int = 0xFFF0
    rflags: int = 0x2
    es: Segment = field(default_factory=lambda: Segment(0, 0, 0xFFFF, 0x9300))
    cs: Segment = field(default_factory=lambda: Segment(0xF000, 0xFFFF0000, 0xFFFF, 0x9B00))
    ss: Segment = field(default_factory=lambda: Segment(0, 0, 0xFFFF, 0x9300))
    ds: Segment = field(default_factory=lambda: Segment(0, 0, 0xFFFF, 0x9300))
    fs: Segment = field(default_factory=lambda: Segment(0, 0, 0xFFFF, 0x9300))
    gs: Segment = field(default_factory=lambda: Segment(0, 0, 0xFFFF, 0x9300))
    ldtr: Segment = field(default_factory=lambda: Segment(0, 0, 0xFFFF, 0x8200))
    tr: Segment = field(default_factory=lambda: Segment(0, 0, 0xFFFF, 0x8B00))
    gdtr: DescriptorTable = field(default_factory=lambda: DescriptorTable(0, 0xFFFF))
    idtr: DescriptorTable = field(default_factory=lambda: DescriptorTable(0, 0x3FF))
    cr0: int = 0x60000010
    cr2: int = 0
    cr3: int = 0
    cr4: int = 0
    dr0: int = 0
    dr1: int = 0
    dr2: int = 0
    dr3: int = 0
    dr6: int = 0xFFFF0FF0
    dr7: int = 0x400
    efer: int = 0
    star: int = 0
    lstar: int = 0
    cstar: int = 0
    fmask: int = 0
    kernel_gs_base: int = 0
    sysenter_cs: int = 0
    sysenter_esp: int = 0
    sysenter_eip: int = 0
    pat: int = 0x0007040600070406
    tsc_adjust: int = 0
    """IA32_TSC_ADJUST: what the guest's writes have added to the time stamp counter, modulo 2^64."""
    tsc_aux: int = 0
    misc_enable: int = 0
    """IA32_MISC_ENABLE. Bit 0, fast strings, is off: REP MOVS runs an iteration at a time here, and kernels that see
    the bit off copy with plain loops, which are several times faster."""
    mtrrs: Mtrrs = field(default_factory=Mtrrs)
    steal_time: int = 0
    """MSR_KVM_STEAL_TIME: bit 0 is set where the guest has a record of stolen time, at the address in the others."""
    a20: bool = True
    """The A20 gate: False forces bit 20 of every guest physical address to 0."""
    interrupt_shadow: bool = False
    """The instruction before was STI, MOV SS or POP SS: no interrupt before the next one."""
    halted: bool = False
    """It executed HLT and waits for an interrupt."""
    nmi_pending: bool = False
    """An NMI has come and waits to be delivered."""
    nmi_blocked: bool = False
    """An NMI was delivered and no IRET has followed yet: the next one waits."""
    event: Event | None = None
    """It was about to be delivered when the host had no frame for it: delivery is tried again first of all."""
    fpu: Fpu = field(default_factory=Fpu)

    @property
    def cpl(self) -> int:
        """Current privilege level: SS.DPL in protected mode, 3 in virtual-8086 mode, 0 in real mode."""
        if not self.cr0 & 1:
            return 0
        return 3 if self.rflags & (1 << 17) else self.ss.flags >> 13 & 3

    def after_init(self, signature: int) -> "CpuState":
        """The state after INIT; `signature` is the processor's, from CPUID.01H:EAX, which it leaves in EDX."""
        state = CpuState(rdx=signature, idtr=DescriptorTable(0, 0xFFFF))
        cache_control = CR0_CD | CR0_NW
        state.cr0 = state.cr0 & ~cache_control | self.cr0 & cache_control
        return replace(state, **{name: getattr(self, name) for name in _KEPT_BY_INIT})

    def differences(self, other: "CpuState") -> dict[str, tuple[Any, Any]]:
        """Each field whose value differs, with both values."""
        return {
            f.name: (getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)
            if getattr(self, f.name) != getattr(other, f.name)
        }

    def __str__(self) -> str:
        names = [f.name for f in fields(self)][:18]
        rows = [
            "  ".join(f"{n:>6}={getattr(self, n):016x}" for n in names[i : i + 4]) for i in range(0, 18, 4)
        ]
        for name in ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"):
            s = getattr(self, name)
            rows.append(
                f"{name:>6}={s.selector:04x} base={s.base:016x} limit={s.limit:08x} flags={s.flags:06x}"
            )
        rows.append(
            f"  gdtr={self.gdtr.base:016x}/{self.gdtr.limit:04x}  idtr={self.idtr.base:016x}/{self.idtr.limit:04x}"
        )
        rows.append(f"   cr0={self.cr0:08x} cr2={self.cr2:016x} cr3={self.cr3:016x} cr4={self.cr4:08x}")
        rows.append(f"  efer={self.efer:x} cpl={self.cpl} a20={int(self.a20)}")
        return "\n".join(rows)
