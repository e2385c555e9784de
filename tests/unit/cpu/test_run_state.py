"""The architectural state goes into a vCPU, through an engine, and comes back."""

import pytest
from cpu_guest import identity_map, long, protected, tables
from hypothesis import given, settings
from hypothesis import strategies as st
from run_rig import CODE, Rig, asm, real

from emuvisor.cpu.exits import ExitReason
from emuvisor.cpu.registers import FLAGS_IMPLEMENTED
from emuvisor.cpu.state import CpuState, DescriptorTable, Fpu, Segment

quad = st.integers(0, (1 << 64) - 1)
FLAG_VM, FLAG_TF = 1 << 17, 1 << 8
GENERAL = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{i}" for i in range(8, 16))]
MSRS = ["star", "lstar", "cstar", "fmask", "kernel_gs_base", "sysenter_esp", "sysenter_eip", "pat", "tsc_aux"]


def segment(flags):
    return st.builds(
        Segment,
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.just(flags),
    )


@st.composite
def states(draw):
    """Valid states of real, protected and long mode, with everything else at random."""
    state = draw(st.sampled_from([real, protected, long, lambda: long(3), lambda: protected(3)]))()
    for name in GENERAL + MSRS + ["rip", "cr2", "dr0", "dr1", "dr2", "dr3"]:
        setattr(state, name, draw(quad))
    state.rflags = draw(st.integers(0, 0x3FFFFF)) & FLAGS_IMPLEMENTED & ~FLAG_VM | 2
    for name in ("ds", "es", "fs", "gs"):
        setattr(state, name, draw(segment(getattr(state, name).flags)))
    state.gdtr, state.idtr = (
        draw(st.builds(DescriptorTable, quad, st.integers(0, 0xFFFF))) for _ in range(2)
    )
    state.sysenter_cs = draw(st.integers(0, 0xFFFF))
    state.dr6 = 0xFFFF0FF0 | draw(st.integers(0, 15))
    state.dr7 = 0x400 | draw(st.integers(0, 0xFF))
    state.a20 = draw(st.booleans())
    state.interrupt_shadow = draw(st.booleans())
    state.fpu = draw(
        st.builds(
            Fpu,
            fcw=st.integers(0, 3).map(lambda rc: 0x37F | rc << 10),
            fsw=st.integers(0, 0xFFFF),
            ftw=st.integers(0, 0xFF),
            st=st.lists(st.integers(0, (1 << 80) - 1), min_size=8, max_size=8),
            mxcsr=st.integers(0, 3).map(lambda rc: 0x1F80 | rc << 13),
            xmm=st.lists(st.integers(0, (1 << 128) - 1), min_size=16, max_size=16),
        )
    )
    return state


@pytest.fixture(scope="module")
def guest():
    return Rig(pcpus=2).guest(real(), asm("a: jmp a", 16))


@settings(max_examples=100, deadline=None)
@given(state=states())
def test_a_state_comes_back(guest, state):
    guest.vcpu.state = state
    assert guest.vcpu.state.differences(state) == {}


@settings(max_examples=100, deadline=None)
@given(state=states())
def test_a_state_comes_back_from_the_engine(guest, state):
    """Loaded by both pCPUs in turn, with debug registers armed, and not run."""
    guest.vcpu.state = state
    for pcpu in (0, 1, 0):
        assert guest.run(0, pcpu).reason is ExitReason.BUDGET
        assert guest.vcpu.state.differences(state) == {}


def test_a_new_vcpu_is_as_after_reset():
    guest = Rig().empty()
    assert guest.vcpu.state.differences(CpuState()) == {}
    assert (guest.vcpu.work, guest.vcpu.idle_ns, guest.vcpu.halted) == (0, 0, False)


def test_the_reset_vector_is_fetched_below_4_gib():
    guest = Rig().empty()
    guest.memory.add_rom(0xFFFFF000, bytes(0xFF0) + asm("mov ax, 0x77; hlt", 16).ljust(16, b"\0"))
    assert guest.run_to_halt().rax == 0x77


def test_a_state_of_another_size_is_refused(guest):
    with pytest.raises(ValueError, match=r"^a vCPU state has 5568 bytes, not 3$"):
        guest.vcpu.restore(b"abc")


def test_the_digest_tells_states_apart(guest):
    guest.vcpu.state = real()
    before = guest.vcpu.digest()
    guest.vcpu.state = real(r15=1)
    assert guest.vcpu.digest() != before
    guest.vcpu.state = real()
    assert guest.vcpu.digest() == before
    guest.vcpu.work += 1
    assert guest.vcpu.digest() != before


@pytest.mark.parametrize(
    ("make", "bits", "source"),
    [
        (real, 16, "mov eax, cr0; or al, 1; mov cr0, eax; and al, 0xfe; mov cr0, eax; mov bx, 5; hlt"),
        (protected, 32, "mov ax, 0x10; mov ds, ax; pushfd; popfd; mov bx, 5; hlt"),
        (long, 64, "mov rax, cr4; mov cr4, rax; mov rax, cr3; mov cr3, rax; mov bx, 5; hlt"),
    ],
)
def test_a_state_saved_after_any_block_continues_elsewhere(make, bits, source):
    """Run on one vCPU; after every block carry on with a new vCPU that was given the state."""
    rig = Rig(pcpus=2)
    data = identity_map(tables())
    whole = rig.guest(make(), asm(source, bits), data)
    final = whole.run_to_halt()
    guest = rig.guest(make(), asm(source, bits), data)
    for turn in range(100):
        if guest.run(1, turn % 2).reason is ExitReason.HALT:
            break
        other = rig.empty()
        other.memory.write(0, guest.memory.read(0, 0x10000))
        other.vcpu.state = guest.vcpu.state
        other.vcpu.halted = guest.vcpu.halted  # a run can end with its budget and HLT at once
        guest.memory.close()
        guest = other
    assert guest.vcpu.state.differences(final) == {}
    assert final.rip == CODE + len(asm(source, bits))
